from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from aerogel.core.documents import digest_tensors, read_json, read_object, read_tensors
from aerogel.errors import IntegrityError


def test_json_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": [1, 2.5, null]}')
    assert read_json(tmp_path / "a.json") == {"a": [1, 2.5, None]}
    assert read_object(tmp_path / "a.json") == {"a": [1, 2.5, None]}


@pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', "[" * 1000 + "]" * 1000, '{"a": NaN}', "", "\ud800"])
def test_other_text_is_refused_by_the_file_s_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(IntegrityError, match=r"a\.json"):
        read_json(tmp_path / "a.json")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('"long text"')
    with pytest.raises(IntegrityError, match="more than 5 bytes"):
        read_json(tmp_path / "a.json", most_bytes=5)


def test_an_object_is_not_a_list(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(IntegrityError, match=r"object.*a\.json.*\[1\]"):
        read_object(tmp_path / "a.json")


def test_links_and_pipes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("1")
    (tmp_path / "link.json").symlink_to(tmp_path / "a.json")
    os.mkfifo(tmp_path / "pipe.json")
    for name in ("link.json", "pipe.json", "none.json"):
        with pytest.raises(IntegrityError):
            read_json(tmp_path / name)
        with pytest.raises(IntegrityError):
            read_tensors(tmp_path / name)


def test_tensors_come_with_their_texts(tmp_path: Path) -> None:
    save_file({"a": torch.arange(3.0)}, tmp_path / "a.safetensors", {"key": "text"})
    tensors, facts = read_tensors(tmp_path / "a.safetensors")
    assert torch.equal(tensors["a"], torch.arange(3.0))
    assert facts == {"key": "text"}


def test_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(IntegrityError, match=r"a\.safetensors"):
        read_tensors(tmp_path / "a.safetensors")


def test_a_check_sum_depends_on_all_of_the_tensors() -> None:
    one = {"a": torch.zeros(2, 3), "b": torch.tensor(1, dtype=torch.int64)}
    found = digest_tensors(one)
    assert found == digest_tensors({"b": torch.tensor(1, dtype=torch.int64), "a": torch.zeros(2, 3)})
    changes = (
        {"a": torch.zeros(3, 2)},
        {"a": torch.zeros(2, 3, dtype=torch.bfloat16)},
        {"c": torch.zeros(1)},
        {"b": torch.tensor(2)},
    )
    for other in changes:
        assert digest_tensors({**one, **other}) != found

from __future__ import annotations

import pytest

from aerogel.errors import ConfigError, DataError
from aerogel.zoo.request import Request, list_matches, match_split, require_split


def test_reports_all_arguments_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Request(split="tets", size=4, channels=2)  # type: ignore[arg-type]
    for words in ("'tets' (did you mean 'test'?)", "size 4", "channels 2"):
        assert words in str(caught.value)


def test_takes_the_least_size() -> None:
    assert Request(size=8).size == 8


@pytest.mark.parametrize(
    ("available", "found"),
    [({"train", "test", "val"}, "test"), ({"train", "val"}, "val"), ({"valid", "validation"}, "validation")],
)
def test_aliases_in_order(available: set[str], found: str) -> None:
    assert match_split("test", available) == found


def test_lists_what_has_a_name() -> None:
    assert list_matches(["training", "extra"]) == ("train",)
    assert list_matches(["val", "train"]) == ("train", "test")
    assert list_matches([]) == ()


def test_says_which_split_serves(capsys: pytest.CaptureFixture[str]) -> None:
    assert require_split("test", ["train", "val"], "here") == "val"
    assert "'val' serves as 'test'" in capsys.readouterr().err
    assert require_split("train", ["train", "val"], "here") == "train"
    assert capsys.readouterr().err == ""


def test_refuses_an_absent_split() -> None:
    with pytest.raises(DataError, match="the splits train"):
        require_split("test", ["train"], "here")

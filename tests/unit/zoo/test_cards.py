"""What ships is what its card says, and nothing else is opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from aerogel.core.files import sha256_file
from aerogel.errors import IntegrityError, MismatchError, UnknownNameError
from aerogel.zoo import cards
from aerogel.zoo.cards import CARDS, Card, open_weights

WEIGHTS = cards.files("aerogel.zoo") / "weights"
LARGEST = {"backbone": 1_000_000, "pipeline": 8_000_000, "segmenter": 14_000_000}
BACKBONE = "aerogel/shapes-resnet8"


@pytest.mark.parametrize("name", CARDS.names())
def test_every_card_is_complete_and_true(name: str) -> None:
    card = CARDS.get(name)
    with open_weights(name, card.kind) as path:
        assert card.sha256 == sha256_file(path)
        whole = {"pipeline": path.parents[1], "segmenter": path.parent}
        parts = whole[card.kind].rglob("*") if card.kind in whole else [path]
        assert sum(part.stat().st_size for part in parts if part.is_file()) <= LARGEST[card.kind]
    assert card.licence == "Apache-2.0"
    assert card.data
    assert card.command.startswith("python recipes/zoo/")
    assert card.figures


def test_a_mistyped_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=BACKBONE), open_weights("aerogel/shapes-resnet9", "backbone"):
        pass


def test_a_model_of_another_kind_is_refused() -> None:
    with (
        pytest.raises(MismatchError, match=r"name of a pipeline; got .*resnet8, a backbone"),
        open_weights(BACKBONE, "pipeline"),
    ):
        pass


def make_card(file: str, sha256: str) -> Card:
    return Card("pipeline", file, sha256, "Apache-2.0", "none", "python recipes/zoo/x.py", {})


@pytest.mark.parametrize("file", ["a.safetensors", "a/b.safetensors", "a/b/c.safetensors"])
def test_weights_lie_in_the_folder_or_below_it(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights" / file
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    monkeypatch.setattr(cards, "files", lambda _: tmp_path)
    monkeypatch.setitem(CARDS._items, "aerogel/own", make_card(file, sha256_file(path)))
    with open_weights("aerogel/own", "pipeline") as found:
        assert found == path
    path.write_bytes(b"other weights")
    with (
        pytest.raises(IntegrityError, match=f"{file} with SHA-256 .*; got "),
        open_weights("aerogel/own", "pipeline"),
    ):
        pass

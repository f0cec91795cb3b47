"""Hostile condensed sets that hold stored residuals beside their label generator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from aerogel.condense.condensed import load_condensed
from tests.hostile.judge import Subject, judge, offer
from tests.hostile.mutate import (
    Mutation,
    cuts,
    exchanged,
    flips,
    hostile_safetensors,
    misplaced,
    mutation,
    signed,
)
from tests.hostile.test_adapters import rewrite
from tests.hostile.test_condensed import drop, set_fact, set_inner

if TYPE_CHECKING:
    from aerogel.condense.api import Condensed

STORE, BOOK = "labels/residual/store-00000.safetensors", "labels/residual/codebook.safetensors"


def load(folder: Path) -> Any:
    """Return what a set with residuals gives beyond one without: the residuals, and corrected labels."""
    data = load_condensed(folder)
    rows = [data.residual.rows(epoch, np.arange(len(data))) for epoch in range(data.view_epochs or 0)]  # type: ignore[union-attr]
    assert bool(data.labels(data.images[:4].float() / 255.0, range(4)).isfinite().all())
    return [data.view_epochs, rows, data.images]


@pytest.fixture(scope="session")
def corrected(corrected_condensed: Condensed, condensed: Condensed) -> Subject:
    return Subject(corrected_condensed.data.folder, condensed.data.folder, load)


def facts(name: str, **values: Any) -> Mutation:
    """Change what the shard says of itself."""

    def act(folder: Path, other: Path) -> None:
        rewrite(folder / STORE, "store", lambda found: found.update(values))

    return mutation(f"facts-{name}", Path(STORE).name, act)


def fill(file: str, value: float) -> Mutation:
    """Put one number everywhere, and drop the file's own account of itself."""

    def act(folder: Path, other: Path) -> None:
        tensors = load_file(folder / file)
        save_file({key: torch.full_like(each, value) for key, each in tensors.items()}, folder / file)

    return mutation(f"{Path(file).name}-{value:g}", Path(file).name, act)


def remove(folder: Path, other: Path) -> None:
    for file in (STORE, BOOK):
        (folder / file).unlink()


CORPUS = [
    *(each for file in (STORE, BOOK) for each in (*cuts(file), *flips(file), *misplaced(file))),
    exchanged(STORE, BOOK),
    *signed(
        [
            *(each for file in (STORE, BOOK) for each in cuts(file)),
            *(each for file in (STORE, BOOK) for each in flips(file, (0, 1, 5, 7, 8, 9, 12))),
            *(each for file in (STORE, BOOK) for each in misplaced(file)[:2]),
            *hostile_safetensors(STORE),
            *hostile_safetensors(BOOK),
            exchanged(STORE, BOOK),
            mutation("no-residual", ("residual",), remove),
            facts("classes", classes=10**9),
            facts("images", images=5),
            facts("epoch", first_epoch=1),
            facts("codec", codec="stored-fp16"),
            facts("codec-path", codec="../../x"),
            fill(STORE, 255),
            fill(BOOK, float("nan")),
            drop("residual"),
            set_fact("residual", None),
            set_fact("residual", []),
            set_inner("residual", "codec", "stored-vq8"),
            set_inner("residual", "codec", "stored-pruned2+vq4"),
            set_inner("residual", "codec", "x" * 10**6),
            set_inner("residual", "codec", ["stored-vq4"]),
            set_inner("residual", "epochs", 0),
            set_inner("residual", "epochs", 3),
            set_inner("residual", "epochs", 2.0),
            set_inner("residual", "epochs", 2**70),
            set_inner("residual", "epochs", True),
        ]
    ),
]


@pytest.mark.parametrize("change", offer(CORPUS))
def test_a_mutated_set_with_residuals_is_refused_or_is_the_same(
    change: Mutation, corrected: Subject, tmp_path: Path
) -> None:
    judge(corrected, change, tmp_path)

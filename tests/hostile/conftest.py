"""Archives of every kind, two of each, made once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from aerogel.condense.api import Condensed
    from aerogel.slim.api import Slimmed

# Imports wait until a fixture is used: pytest reads this file before the environment of the tests is set.


@pytest.fixture(scope="session")
def condensed(tmp_path_factory: pytest.TempPathFactory) -> Condensed:
    """Return a finished run of condense with every kind of labels."""
    from tests.unit.condense import tiny

    data = tiny.sources()
    return _condense(tmp_path_factory.mktemp("condensed") / "run", data)


@pytest.fixture(scope="session")
def other_condensed(tmp_path_factory: pytest.TempPathFactory) -> Condensed:
    """Return a run on other images: of other classes, with three channels."""
    from tests.unit.condense import tiny

    data = tiny.sources(channels=3, names=("arc", "bar", "dot", "ring"))
    return _condense(tmp_path_factory.mktemp("other-condensed") / "run", data)


@pytest.fixture(scope="session")
def coded_condensed(tmp_path_factory: pytest.TempPathFactory) -> Condensed:
    """Return a run whose label generator is stored as codes of a byte."""
    from tests.unit.condense import tiny

    place = tmp_path_factory.mktemp("coded-condensed")
    return _condense(place / "run", tiny.sources(), labels=("generator",), dtype="int8")


@pytest.fixture(scope="session")
def corrected_condensed(tmp_path_factory: pytest.TempPathFactory) -> Condensed:
    """Return a run whose set holds residuals of its labels, in a codebook's numbers."""
    from tests.unit.condense import tiny

    place = tmp_path_factory.mktemp("corrected-condensed")
    residual = {"residual": "stored-vq4", "residual_epochs": 2}
    return _condense(place / "run", tiny.sources(), labels=("generator",), **residual)


def _condense(
    out: Path,
    data: Any,
    labels: tuple[str, ...] = ("generator", "stored-fp16", "one-per-image", "hard"),
    **projector: Any,
) -> Condensed:
    from aerogel.condense.api import condense
    from tests.unit.condense import tiny

    settings = tiny.config(
        projector={"fit": {"epochs": 8, "batch_size": 16, "lr": 0.02}, **projector},
        student={"labels": list(labels)},
    )
    return condense(data.train, test=data.test, config=settings, out=out)


@pytest.fixture(scope="session")
def slimmed(tmp_path_factory: pytest.TempPathFactory) -> Slimmed:
    """Return a finished slimming in the layout "flex"."""
    return _slim(tmp_path_factory.mktemp("slimmed"), layout="flex")


@pytest.fixture(scope="session")
def other_slimmed(tmp_path_factory: pytest.TempPathFactory) -> Slimmed:
    """Return a finished slimming in the layout "stock"."""
    return _slim(tmp_path_factory.mktemp("other-slimmed"), layout="stock", ratio=0.25)


def _slim(folder: Path, **settings: Any) -> Slimmed:
    from tests.unit.slim.runs import run, write_photos

    return run(write_photos(folder / "photos", 4), folder / "run", held_out=1, **settings)

"""Two processes slim a model as one does: one leads, the aligning is shared, both get the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from aerogel.core.manifests import read_manifest
from aerogel.core.stages import CHECKPOINT_NAME
from aerogel.errors import RankError
from aerogel.slim import Pipeline, SlimConfig, slim
from aerogel.slim.run_folder import RESULT
from tests.dist.group import run_group
from tests.dist.test_alignment import join
from tests.unit.slim.stand_ins import tiny_sam
from tests.unit.slim.tiny import pixels

SETTINGS: dict[str, Any] = {
    "ratio": 0.5,
    "held_out": 1,
    "score": {"photos": 2},
    "align": {"epochs": 2, "batch_size": 2, "accumulate": 1},
    "masks": {"epochs": 1, "points": 2, "several": 0.5},
}


def run(out: Path) -> Any:
    result = slim(tiny_sam(3), "aerogel/samples", out=out, **SETTINGS)
    images = pixels(torch.float32)
    with torch.no_grad():
        return result.model.get_image_embeddings(images).numpy()


def read_losses(out: Path) -> list[dict[str, float]]:
    stages = ("bottleneck-aligning", "embedding-aligning", "masks-aligning")
    return [epoch for stage in stages for epoch in read_manifest(out / stage).facts["losses"]]


def on_rank(out: Path) -> Any:
    join()
    found = run(out)
    assert (run(out) == found).all()
    return found


def fail_on_rank(out: Path) -> str:
    join()
    out.mkdir(exist_ok=True)
    (out / "embedding-plan").mkdir(exist_ok=True)
    (out / "embedding-plan" / "mine.txt").write_text("x", encoding="utf-8")
    try:
        run(out)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def test_two_processes_equal_one(tmp_path: Path) -> None:
    wanted = run(tmp_path / "alone")
    for found in run_group(2, on_rank, tmp_path / "together"):
        # Sums of float32 in another order; weights that change nothing, such as biases of keys, may differ more.
        assert abs(found - wanted).max() < 1e-4 * wanted.std()
    losses = [read_losses(tmp_path / name) for name in ("together", "alone")]
    assert losses[0] == [pytest.approx(each, rel=1e-5) for each in losses[1]]
    assert (tmp_path / "together" / RESULT).is_file()
    assert not list((tmp_path / "together").glob(f"*/{CHECKPOINT_NAME}"))


def test_a_failure_of_the_first_ends_the_others(tmp_path: Path) -> None:
    first, second = run_group(2, fail_on_rank, tmp_path / "out")
    assert first.startswith("FolderExistsError")
    assert second.startswith(RankError.__name__) and "FolderExistsError" in second


def test_one_process_leads(tmp_path: Path) -> None:
    from aerogel.slim.api import gather_config, open_sources

    config = gather_config(None, tiny_sam(3), "aerogel/samples", ratio=None, settings=SETTINGS)
    assert isinstance(config, SlimConfig)
    sources = open_sources(config, tiny_sam(3), "aerogel/samples")
    assert Pipeline(config, sources, tmp_path).leads


@pytest.mark.parametrize("word", ["x", ("done", "")])
def test_one_process_hears_itself(word: Any) -> None:
    from aerogel.core.crew import Crew

    assert Crew().tell(word) == word

"""Students of classes that arrive in groups see those classes and no others."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from aerogel.condense import run_continual
from aerogel.condense.account import describe, open_run
from aerogel.condense.api import Condensed
from aerogel.condense.comparison import Comparison
from aerogel.condense.config import ViewConfig
from aerogel.condense.continual import Continual, SeenLabels, keep_classes, keep_tested
from aerogel.condense.curriculum import Curriculum, arrange_classes
from aerogel.condense.labels import Batch, HardLabels, make_batch
from aerogel.condense.pipeline import Pipeline
from aerogel.condense.student import TrainingSet
from aerogel.condense.views import Views
from aerogel.core.folders import read_manifest
from aerogel.errors import ConfigError, DataError, FolderConflictError
from aerogel.report import render_report
from tests.unit.condense import tiny

IMAGES = tiny.draw(4)
DATA = TrainingSet(
    IMAGES.images, IMAGES.labels, Views(ViewConfig(cutmix=1.0), 7, len(IMAGES)), tiny.NAMES, (0.2,), (0.3,)
)


@pytest.fixture(scope="module")
def learnt(finished: Condensed, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Curriculum]:
    """Return a copy of a finished run that was learnt in three steps, and what came out."""
    folder = Path(shutil.copytree(finished.folder, tmp_path_factory.mktemp("continual") / "run"))
    found = tiny.sources()
    return folder, run_continual(folder, steps=3, data=found.train, test=found.test)


def test_a_subset_has_its_own_labels_and_partners() -> None:
    kept = keep_classes(DATA, (2, 0))
    assert kept.class_names == ("ring", "bar")
    assert kept.labels.tolist() == [1] * 4 + [0] * 4
    assert torch.equal(kept.images, torch.cat([DATA.images[:4], DATA.images[8:]]))
    batch = make_batch(kept.images, kept.labels, kept.views, 3, np.arange(8), "cpu")
    assert int(batch.partner_labels.max()) <= 1 and int(batch.parameters.partners.max()) < 8
    assert (kept.views.config, kept.views.seed) == (DATA.views.config, DATA.views.seed)


def test_test_images_are_labelled_alike() -> None:
    test = keep_tested(tiny.draw(2, seed=5), (2, 0))
    assert test.class_names == ("ring", "bar")
    assert test.labels.tolist() == [1, 1, 0, 0]
    assert test.ids == ("5:0", "5:1", "5:4", "5:5")


def test_labels_are_cut_to_the_classes_seen() -> None:
    class Numbers:
        name = "numbers"

        def logits(self, batch: Batch) -> Tensor | None:
            return torch.tensor([[0.0, 1.0, 2.0]]).expand(len(batch.labels), 3)

    kept = keep_classes(DATA, (2, 0))
    batch = make_batch(kept.images, kept.labels, kept.views, 0, np.arange(2), "cpu")
    cut = SeenLabels(Numbers(), (2, 0))
    assert cut.name == "numbers"
    found = cut.logits(batch)
    assert found is not None and found.tolist() == [[2.0, 0.0]] * 2
    assert SeenLabels(HardLabels(), (2, 0)).logits(batch) is None


def test_every_step_is_a_student_of_its_own(learnt: tuple[Path, Curriculum]) -> None:
    folder, found = learnt
    assert found.classes == (1, 2, 3)
    assert [(lane.labels, lane.images) for lane in found.lanes] == [
        ("generator", "chosen"),
        ("hard", "chosen"),
    ]
    assert all(lane.accuracies[0].value == 100.0 for lane in found.lanes), "one class is no question"
    groups = arrange_classes(3, 3, 0)
    for step in range(3):
        config = read_manifest(folder / "continual" / "3" / f"hard-chosen-0-{step}").config
        assert config["classes"] == [label for group in groups[: step + 1] for label in group]
    assert read_manifest(folder / "continual" / "3" / "hard-chosen-0-2").facts["accuracy"]["samples"] == 24


def test_again_trains_nothing_and_the_report_shows_it(
    learnt: tuple[Path, Curriculum], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, found = learnt
    monkeypatch.delattr("aerogel.condense.continual.train_student")
    data = tiny.sources()
    assert run_continual(folder, steps=3, data=data.train, test=data.test) == found
    run = open_run(folder)
    assert run.curricula == (found,)
    report = describe(run)
    assert "Learning classes step by step" in [section.title for section in report.sections]
    assert "Classes arriving in 3 steps" in render_report(report)
    assert all("students" not in each.note for each in report.receipt.paid if each.label != "the comparison")


def test_random_images_learn_beside_where_the_run_has_them(finished: Condensed, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished.folder, tmp_path / "run"))
    config = tiny.config(student={"random_baseline": True, "seeds": [0, 1]})
    pipeline = Pipeline(config, tiny.sources(), folder)
    found = Continual(Comparison(pipeline), 2).run(["hard"])
    assert [(lane.labels, lane.images) for lane in found.lanes] == [("hard", "chosen"), ("hard", "random")]
    assert found.classes == (2, 3)
    assert all(each.samples == 2 and each.spread is not None for each in found.lanes[1].accuracies)


def test_mistakes_are_found_before_any_work(
    finished: Condensed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("aerogel.condense.continual.train_student")
    with pytest.raises(ConfigError, match="from 2 to 3 steps"):
        run_continual(finished.folder, steps=4)
    with pytest.raises(ConfigError, match="labels among generator, teacher, hard"):
        run_continual(finished.folder, steps=2, labels=["stored-fp16"])  # type: ignore[list-item]
    with pytest.raises(DataError, match="finished run"):
        run_continual(tmp_path)
    other = tiny.draw(24, seed=9)
    with pytest.raises(FolderConflictError):
        run_continual(finished.folder, steps=2, data=other, test=tiny.draw(8, seed=2))

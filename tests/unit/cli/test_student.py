"""The student's settings and where its labels come from."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from aerogel.cli.student import gather_student, open_labels, student_command
from aerogel.condense.config import StudentConfig
from aerogel.condense.labels import HardLabels
from aerogel.errors import ConfigError


def test_flags_and_sets_make_the_config() -> None:
    assert gather_student((), None) == StudentConfig()
    config = gather_student(("width=16", "fit.lr=5e-3", "fit.epochs=9"), 4)
    assert (config.width, config.fit.lr, config.fit.epochs) == (16, 5e-3, 4)
    assert config.rates == (5e-3,), "the one rate that is trained with"


def test_mistakes_come_together() -> None:
    with pytest.raises(ConfigError, match="2 mistakes"):
        gather_student(("widht=3", "depth=0"), None)


@pytest.mark.parametrize(("labels", "teacher"), [("teacher", None), ("generator", Path("t"))])
def test_a_teacher_belongs_to_its_labels(labels: str, teacher: Path | None) -> None:
    with pytest.raises(ConfigError, match="--labels teacher together with --teacher"):
        student_command(Path("set"), out=Path("out"), labels=labels, teacher=teacher)  # type: ignore[arg-type]


def test_hard_labels_need_nothing_but_the_set() -> None:
    data = SimpleNamespace(manifest=SimpleNamespace(digest="abc"))
    source, inputs = open_labels(data, "hard", None, "cpu")
    assert isinstance(source, HardLabels)
    assert inputs == {"archive": "abc"}

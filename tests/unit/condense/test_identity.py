"""A stage of an earlier release stays the stage of settings that say nothing new."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from aerogel.condense.config import CondenseConfig, FitConfig, StudentConfig
from aerogel.condense.identity import identify, later
from aerogel.core.config import config, from_dict, to_dict


@config("tests.inner")
@dataclass(frozen=True)
class Inner:
    width: int = 1
    pace: float = later(0.5)


@config("tests.outer")
@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    names: tuple[str, ...] = later(())


def test_later_fields_count_where_they_are_used() -> None:
    inner = {"type": "tests.inner", "version": 1, "width": 1}
    outer = {"type": "tests.outer", "version": 1}
    assert identify(Outer()) == {**outer, "inner": inner}
    changed = Outer(Inner(pace=0.7), ("a",))
    assert identify(changed) == {**outer, "inner": {**inner, "pace": 0.7}, "names": ["a"]}
    assert to_dict(Outer())["names"] == [] and to_dict(Outer())["inner"]["pace"] == 0.5
    assert from_dict(Outer, identify(Outer())) == Outer()


def test_the_identity_of_the_first_release_is_kept() -> None:
    student = StudentConfig(width=8, seeds=(0, 1), fit=FitConfig(epochs=3))
    fit = {
        "type": "condense.fit",
        "version": 1,
        "epochs": 3,
        "batch_size": 128,
        "lr": 2e-3,
        "weight_decay": 0.01,
        "warmup": 0.05,
        "clip": 1.0,
        "dtype": "auto",
        "compile": False,
    }
    first = {
        "type": "condense.student",
        "version": 1,
        "network": "convnet",
        "width": 8,
        "depth": 3,
        "ce_weight": 0.1,
        "labels": ["generator", "stored-fp16", "one-per-image", "hard"],
        "random_baseline": True,
        "seeds": [0, 1],
        "lrs": [],
        "fit": fit,
    }
    assert identify(student) == first
    assert identify(replace(student, loss="kl")) == {**first, "loss": "kl"}
    assert identify(CondenseConfig(student=student))["student"] == first

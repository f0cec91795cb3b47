"""The settings: defaults that hold, mistakes that are all found, files that give back what was written."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aerogel.condense.config import (
    ADAPTER_CODECS,
    FLOAT_CODECS,
    LABEL_KINDS,
    AdapterCodec,
    CondenseConfig,
    FitConfig,
    NetworkName,
    ProjectorConfig,
    RefineConfig,
    SelectionConfig,
    StudentConfig,
    TeacherConfig,
    ViewConfig,
)
from aerogel.condense.networks import NETWORKS
from aerogel.core.config import from_dict, load_config, save_config, to_dict, validate
from aerogel.errors import ConfigError

STAGES = [
    ViewConfig,
    FitConfig,
    TeacherConfig,
    SelectionConfig,
    ProjectorConfig,
    StudentConfig,
    RefineConfig,
    CondenseConfig,
]
UNLIKE_THE_DEFAULTS = CondenseConfig(
    dataset="pets/",
    ipc=3,
    size=16,
    channels=1,
    seed=9,
    device="cpu",
    skip_bad=True,
    views=ViewConfig(crop_scale=(0.2, 0.9), flip=0.0, open_tiles=False),
    teacher=TeacherConfig(network="resnet18", width=64, path="there", snapshots=2, fit=FitConfig(epochs=4)),
    selection=SelectionConfig(tiles=2, order="random"),
    projector=ProjectorConfig(
        head_rank="full", weak_teachers=(1, 2), templates=("a {}", "the {}"), dtype="float32", budget=9000
    ),
    student=StudentConfig(
        labels=("hard",),
        seeds=(1, 2),
        lrs=(1e-3, 1e-2),
        random_baseline=False,
        loss="cosine",
        temperature=2.0,
        ema=0.99,
        networks=("vit-t", "resnet50"),
        network_widths=(None, 8),
    ),
    refine=RefineConfig(steps=3),
)


def test_codecs_are_the_literal_and_unknown_ones_are_refused() -> None:
    assert get_args(AdapterCodec) == ADAPTER_CODECS
    assert FLOAT_CODECS == ("float32", "float16")
    assert from_dict(ProjectorConfig, {"dtype": "int4", "budget": 5000}).budget == 5000
    with pytest.raises(ConfigError, match="dtype"):
        from_dict(ProjectorConfig, {"dtype": "int2"})


def test_every_kind_of_labels_is_a_setting() -> None:
    assert set(StudentConfig().labels) <= set(LABEL_KINDS)
    assert StudentConfig(labels=(*LABEL_KINDS, "stored-int8", "stored-pruned10+top3")).check() == []


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("harrd", "did you mean 'hard'"),
        ("one_per_image", "did you mean 'one-per-image'"),
        ("fp16", "did you mean 'stored-fp16'"),
        ("int8", "did you mean 'stored-int8'"),
        ("stored-itn8", "did you mean 'stored-int8'"),
        ("stored-int8+pruned10", "did you mean 'stored-pruned10+int8'"),
        ("stored-vq100000", "numbers from 2 to 32,768"),
    ],
)
def test_unknown_labels_name_the_nearest(kind: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"student.*labels.*{re.escape(message)}"):
        from_dict(CondenseConfig, {"student": {"labels": [kind]}})


def test_network_names_are_the_registry() -> None:
    assert set(get_args(NetworkName)) == set(NETWORKS.names())


@pytest.mark.parametrize("stage", STAGES)
def test_defaults_are_valid(stage: type[Any]) -> None:
    assert stage().check() == []
    assert validate(stage()) == stage()
    assert from_dict(stage, {}) == stage()


@pytest.mark.parametrize("suffix", ["yaml", "json"])
@pytest.mark.parametrize("config", [CondenseConfig(), UNLIKE_THE_DEFAULTS], ids=["defaults", "others"])
def test_files_give_back_what_was_written(tmp_path: Path, suffix: str, config: CondenseConfig) -> None:
    path = tmp_path / f"recipe.{suffix}"
    save_config(config, path)
    assert load_config(CondenseConfig, path) == config
    assert from_dict(CondenseConfig, to_dict(config)) == config


@given(
    st.builds(
        FitConfig,
        epochs=st.integers(1, 1000),
        batch_size=st.integers(1, 1000),
        lr=st.floats(1e-8, 10.0),
        weight_decay=st.floats(0.0, 1.0),
        warmup=st.floats(0.0, 1.0),
        clip=st.floats(1e-3, 1e3),
    )
)
def test_valid_settings_pass(fit: FitConfig) -> None:
    assert fit.check() == []
    assert from_dict(FitConfig, to_dict(fit)) == fit


WRONG: list[tuple[Any, str]] = [
    (ViewConfig(flip=1.5), "flip: expected a share between 0 and 1; got 1.5"),
    (ViewConfig(cutmix=-0.1), "cutmix: expected a share between 0 and 1; got -0.1"),
    (ViewConfig(crop_scale=(0.0, 1.0)), "crop_scale: expected 0 < low <= high <= 1; got [0.0, 1.0]"),
    (ViewConfig(crop_scale=(0.9, 0.5)), "crop_scale: expected 0 < low <= high <= 1; got [0.9, 0.5]"),
    (ViewConfig(crop_scale=(0.5, 1.1)), "crop_scale: expected 0 < low <= high <= 1; got [0.5, 1.1]"),
    (ViewConfig(crop_ratio=(2.0, 1.0)), "crop_ratio: expected 0 < low <= high; got [2.0, 1.0]"),
    (ViewConfig(crop_ratio=(0.0, 1.0)), "crop_ratio: expected 0 < low <= high; got [0.0, 1.0]"),
    (FitConfig(epochs=0), "epochs: expected a number above 0; got 0"),
    (FitConfig(batch_size=-1), "batch_size: expected a number above 0; got -1"),
    (FitConfig(lr=0.0), "lr: expected a number above 0; got 0.0"),
    (FitConfig(lr=math.nan), "lr: expected a number above 0; got nan"),
    (FitConfig(clip=0.0), "clip: expected a number above 0; got 0.0"),
    (FitConfig(warmup=2.0), "warmup: expected a share between 0 and 1; got 2.0"),
    (FitConfig(weight_decay=-1.0), "weight_decay: expected 0 or more; got -1.0"),
    (TeacherConfig(width=0), "width: expected a number above 0; got 0"),
    (TeacherConfig(depth=0), "depth: expected a number above 0; got 0"),
    (TeacherConfig(snapshots=0), "snapshots: expected a number above 0; got 0"),
    (
        TeacherConfig(snapshots=3, fit=FitConfig(epochs=2)),
        "snapshots: expected at most one per epoch (2); got 3",
    ),
    (TeacherConfig(held_out=0.0), "held_out: expected a share above 0 and below 0.5; got 0.0"),
    (TeacherConfig(held_out=0.5), "held_out: expected a share above 0 and below 0.5; got 0.5"),
    (TeacherConfig(label_smoothing=1.2), "label_smoothing: expected a share between 0 and 1; got 1.2"),
    (SelectionConfig(crops=0), "crops: expected a number above 0; got 0"),
    (SelectionConfig(candidates=-1), "candidates: expected 0 (all) or more; got -1"),
    (SelectionConfig(tiles=0), "tiles: expected 1 or more; got 0"),
    (SelectionConfig(crop_scale=(0.5, 2.0)), "crop_scale: expected 0 < low <= high <= 1; got [0.5, 2.0]"),
    (ProjectorConfig(rank=0), "rank: expected a number above 0; got 0"),
    (ProjectorConfig(weak_teachers=0), "weak_teachers: expected a number above 0; got 0"),
    (
        ProjectorConfig(weak_teachers=(0, 2)),
        "weak_teachers: expected numbers of snapshots from 1, each once; got [0, 2]",
    ),
    (
        ProjectorConfig(weak_teachers=(2, 2)),
        "weak_teachers: expected numbers of snapshots from 1, each once; got [2, 2]",
    ),
    (
        ProjectorConfig(weak_teachers=()),
        "weak_teachers: expected numbers of snapshots from 1, each once; got []",
    ),
    (
        CondenseConfig(projector=ProjectorConfig(weak_teachers=(1, 4))),
        "projector.weak_teachers: expected at most teacher.snapshots (3); got [1, 4]",
    ),
    (ProjectorConfig(head_rank=0), 'head_rank: expected 1 or more, "auto" or "full"; got 0'),
    (ProjectorConfig(budget=0), "budget: expected a number above 0; got 0"),
    (ProjectorConfig(ce_weight=-0.1), "ce_weight: expected 0 or more; got -0.1"),
    (
        ProjectorConfig(templates=("a photo",)),
        "templates: expected one \"{}\" for the class name; got 'a photo'",
    ),
    (ProjectorConfig(templates=("{} {}",)), "templates: expected one \"{}\" for the class name; got '{} {}'"),
    (StudentConfig(seeds=()), "seeds: expected at least one; got none"),
    (StudentConfig(seeds=(1, 1)), "seeds: expected each value once; got [1, 1]"),
    (StudentConfig(labels=("hard", "hard")), "labels: expected each value once; got ['hard', 'hard']"),
    (
        StudentConfig(lrs=(0.1, -0.1)),
        "lrs: expected learning rates above 0; got [0.1, -0.1]",
    ),
    (StudentConfig(ce_weight=-1.0), "ce_weight: expected 0 or more; got -1.0"),
    (StudentConfig(temperature=0.0), "temperature: expected a number above 0; got 0.0"),
    (StudentConfig(ema=1.0), "ema: expected 0 (off) or a decay below 1; got 1.0"),
    (StudentConfig(networks=("convnet",)), "networks: expected others than network; got convnet"),
    (
        StudentConfig(networks=("vit-t", "vit-t")),
        "networks: expected each value once; got ['vit-t', 'vit-t']",
    ),
    (
        StudentConfig(networks=("vit-t",), network_widths=(3, 6)),
        "network_widths: expected one for each of networks (1), or none; got 2",
    ),
    (
        StudentConfig(networks=("resnet18",), network_widths=(0,)),
        "network_widths: expected numbers above 0; got [0]",
    ),
    (
        StudentConfig(networks=("resnet18", "swin-t"), network_widths=(4, 4)),
        "network_widths: expected a multiple of 3 for swin-t; got 4",
    ),
    (
        StudentConfig(plain_views=True, labels=("hard",)),
        "plain_views: expected random_baseline and stored-fp16 among labels beside it; got True and ['hard']",
    ),
    (StudentConfig(network="vit-t", width=64), "width: expected a multiple of 3 for vit-t; got 64"),
    (TeacherConfig(network="swin-t", width=32), "width: expected a multiple of 3 for swin-t; got 32"),
    (RefineConfig(lr=0.0), "lr: expected a number above 0; got 0.0"),
    (RefineConfig(steps=-1), "steps: expected 0 (none) or more; got -1"),
    (
        CondenseConfig(refine=RefineConfig(steps=5), selection=SelectionConfig(tiles=1)),
        "refine.steps: expected 0 where selection.tiles is 1, for nothing is shrunk",
    ),
    (CondenseConfig(ipc=0), "ipc: expected a number above 0; got 0"),
    (CondenseConfig(size=7), "size: expected 8 pixels or more; got 7"),
    (
        CondenseConfig(projector=ProjectorConfig(weak_teachers=4)),
        "projector.weak_teachers: expected at most teacher.snapshots (3); got 4",
    ),
]


@pytest.mark.parametrize(("config", "mistake"), WRONG, ids=[mistake[:40] for _, mistake in WRONG])
def test_each_mistake_is_named_alone(config: Any, mistake: str) -> None:
    assert config.check() == [mistake]
    with pytest.raises(ConfigError, match=mistake.split(":", maxsplit=1)[0].replace(".", r"\.")):
        validate(config)


def test_all_mistakes_of_a_recipe_are_told_at_once() -> None:
    recipe = {
        "ipc": 0,
        "iqc": 3,
        "channels": 2,
        "views": {"flip": 2.0},
        "teacher": {"network": "resnet19", "fit": {"epochs": 0, "lr": "fast"}},
        "student": {"labels": ["generatr"], "seeds": []},
    }
    with pytest.raises(ConfigError) as found:
        from_dict(CondenseConfig, recipe)
    text = str(found.value)
    for part in ("iqc", "ipc", "channels", "resnet18", "lr", "generator"):
        assert part in text
    fixed: dict[str, Any] = {
        **recipe,
        "channels": 1,
        "teacher": {"fit": {"epochs": 0}},
        "student": {"seeds": []},
    }
    del fixed["iqc"]
    with pytest.raises(ConfigError) as found:
        from_dict(CondenseConfig, fixed)
    text = str(found.value)
    for part in ("ipc: expected", "views: flip", "teacher.fit: epochs", "student: seeds"):
        assert part in text


def test_settings_are_frozen() -> None:
    with pytest.raises(AttributeError):
        CondenseConfig().ipc = 3  # type: ignore[misc]
    assert replace(CondenseConfig(), ipc=3).ipc == 3

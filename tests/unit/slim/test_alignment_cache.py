"""What teachers make of photos is computed once, in one aligning and in several that share a folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from aerogel.slim.alignment import estimate_bytes
from tests.unit.slim.lessons import CONFIG, losses, make, run


def test_cached_embeddings_change_nothing_but_their_rounding(tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=2)
    first = losses(run(make("output"), tmp_path / "a", config, cache=tmp_path / "cache"))
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 5
    student, lesson = make("output")
    calls: list[int] = []
    lesson.teacher.vision_encoder.register_forward_hook(lambda *args: calls.append(1))
    second = losses(run((student, lesson), tmp_path / "b", config, cache=tmp_path / "cache"))
    assert first == second and not calls
    bare = losses(run((make("output")), tmp_path / "c", replace(config, cache_bytes=0)))
    assert not list((tmp_path / "c").rglob("teacher/*"))
    for step in first:
        assert first[step][0] == pytest.approx(bare[step][0], rel=1e-3)
        assert first[step][0] != bare[step][0]


def test_parts_of_photos_are_not_cached(tmp_path: Path) -> None:
    run(make("output"), tmp_path, replace(CONFIG, augment="crop"))
    assert not (tmp_path / "checkpoint/teacher").exists()


@pytest.mark.parametrize("augment", ["flip", "crop", "mosaic"])
def test_runs_that_share_a_cache_ask_the_teacher_once(augment: str, tmp_path: Path) -> None:
    config, cache = replace(CONFIG, epochs=2, augment=augment), tmp_path / "cache"
    first = losses(run(make("output"), tmp_path / "a", config, cache=cache))
    student, lesson = make("output")
    calls: list[int] = []
    lesson.teacher.vision_encoder.register_forward_hook(lambda *args: calls.append(1))
    assert losses(run((student, lesson), tmp_path / "b", config, cache=cache)) == first
    assert not calls


def test_parts_that_are_shown_again_are_cached(tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=4, augment="crop", views=2)
    student, lesson = make("output")
    calls: list[int] = []
    lesson.teacher.vision_encoder.register_forward_hook(lambda *args: calls.append(1))
    cached = losses(run((student, lesson), tmp_path / "cached", config))
    assert len(calls) == len(list((tmp_path / "cached/checkpoint/teacher").rglob("*.safetensors"))) == 10
    bare = losses(run(make("output"), tmp_path / "bare", replace(config, cache_bytes=0)))
    for step in cached:
        assert cached[step][0] == pytest.approx(bare[step][0], rel=1e-3)


def test_the_disk_that_is_needed_is_known_before(tmp_path: Path) -> None:
    student, lesson = make("output")
    config = replace(CONFIG, ema=0.5)
    wanted = estimate_bytes(student, lesson, 5, config)
    run((student, lesson), tmp_path, config)
    cached = sum(path.stat().st_size for path in (tmp_path / "checkpoint/teacher").rglob("*.safetensors"))
    written = (tmp_path / "checkpoint/align.safetensors").stat().st_size
    assert 0 < cached < cached + 2 * written <= wanted
    # A model this small is mostly names.
    assert wanted < 3 * (cached + 2 * written)

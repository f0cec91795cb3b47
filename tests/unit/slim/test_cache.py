"""The cache computes each photo once, mends what is damaged, and never changes a result."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from aerogel.errors import StorageFullError
from aerogel.slim import cache
from aerogel.slim.cache import TeacherCache, measure_item, plan_cache

SHAPES = {"embedding": (3, 4, 4), "details": (2, 8, 8)}
IMAGE = np.arange(5 * 6 * 3, dtype=np.uint8).reshape(5, 6, 3)


class Teacher:
    """Counts how often it is asked."""

    def __init__(self, factor: float = 1.0) -> None:
        self.calls = 0
        self._factor = factor

    def __call__(self) -> dict[str, Tensor]:
        self.calls += 1
        return {
            name: torch.linspace(-1, 1, int(np.prod(shape))).reshape(shape) * self._factor
            for name, shape in SHAPES.items()
        }


def plan(folder: Path, photos: int = 3, budget: int = 1 << 20, teacher: str = "t") -> TeacherCache:
    return plan_cache(folder, teacher, SHAPES, photos, budget)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_photo_is_computed_once(tmp_path: Path) -> None:
    teacher = Teacher()
    first = plan(tmp_path).fetch(0, "a", IMAGE, teacher)
    second = plan(tmp_path).fetch(0, "a", IMAGE, teacher)
    assert teacher.calls == 1
    for name, exact in Teacher()().items():
        assert torch.equal(first[name], exact.half()) and torch.equal(second[name], first[name])


@pytest.mark.parametrize("way", ["spare", "write"])
def test_a_full_disk_leaves_features_as_they_would_be(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise StorageFullError("full")

    spare = shutil.disk_usage(tmp_path).total if way == "spare" else 0
    full = plan_cache(tmp_path / "new", "t", SHAPES, 3, 1 << 20, spare_bytes=spare)
    if way == "write":
        monkeypatch.setattr(cache, "write_bytes_atomic", refuse)
    teacher = Teacher()
    found = [full.fetch(0, "a", IMAGE, teacher) for _ in range(2)]
    assert teacher.calls == 2 and not (tmp_path / "new").exists()
    monkeypatch.undo()
    stored = plan(tmp_path).fetch(0, "a", IMAGE, teacher)
    for name, each in stored.items():
        assert torch.equal(found[0][name], each) and torch.equal(found[1][name], each)


def test_photos_beyond_the_budget_are_computed_each_time(tmp_path: Path) -> None:
    each = measure_item(SHAPES)
    small = plan(tmp_path, photos=5, budget=2 * each + each // 2)
    assert small.count == 2 and small.need_bytes == 2 * each
    teacher = Teacher()
    for _ in range(2):
        for index in (4, 0, 2, 1, 3):
            found = small.fetch(index, str(index), IMAGE, teacher)
            assert (found["embedding"].dtype == torch.float16) == (index < 2)
    assert teacher.calls == 2 + 2 * 3
    assert sum(path.stat().st_size for path in files(tmp_path)) == small.need_bytes
    assert plan(tmp_path, budget=0).count == 0
    assert plan(tmp_path, photos=1).count == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[:-1],
        lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]),
        lambda raw: b"",
        lambda raw: b"no safetensors at all",
        lambda raw: raw.replace(b'"F16"', b'"I16"'),
    ],
)
def test_a_damaged_file_is_written_anew(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    teacher = Teacher()
    wanted = plan(tmp_path).fetch(0, "a", IMAGE, teacher)
    (path,) = files(tmp_path)
    sound = path.read_bytes()
    path.write_bytes(damage(sound))
    found = plan(tmp_path).fetch(0, "a", IMAGE, teacher)
    assert teacher.calls == 2 and path.read_bytes() == sound
    assert all(torch.equal(found[name], wanted[name]) for name in SHAPES)


def test_a_file_under_another_name_is_not_taken_for_it(tmp_path: Path) -> None:
    teacher = Teacher()
    plan(tmp_path).fetch(0, "a", IMAGE, teacher)
    (first,) = files(tmp_path)
    plan(tmp_path).fetch(1, "b", IMAGE, teacher)
    (second,) = set(files(tmp_path)) - {first}
    second.write_bytes(first.read_bytes())
    plan(tmp_path).fetch(1, "b", IMAGE, teacher)
    assert teacher.calls == 3


def test_teachers_photos_and_sizes_are_kept_apart(tmp_path: Path) -> None:
    teacher = Teacher()
    plan(tmp_path).fetch(0, "a", IMAGE, teacher)
    plan(tmp_path, teacher="u").fetch(0, "a", IMAGE, teacher)
    plan(tmp_path).fetch(0, "b", IMAGE, teacher)
    plan(tmp_path).fetch(0, "a", IMAGE.reshape(6, 5, 3), teacher)
    changed = IMAGE.copy()
    changed[0, 0, 0] += 1
    plan(tmp_path).fetch(0, "a", changed, teacher)
    assert teacher.calls == 5 == len(files(tmp_path))
    # Where in the list a photo stands does not matter.
    plan(tmp_path).fetch(2, "a", IMAGE, teacher)
    assert teacher.calls == 5


def test_numbers_too_large_are_passed_on(tmp_path: Path) -> None:
    teacher = Teacher(1e6)
    for _ in range(2):
        found = plan(tmp_path).fetch(0, "a", IMAGE, teacher)
        assert torch.equal(found["embedding"], teacher()["embedding"])
    assert files(tmp_path) == []


def test_any_type_is_stored(tmp_path: Path) -> None:
    exact = {name: tensor.bfloat16() for name, tensor in Teacher()().items()}
    found = plan(tmp_path).fetch(0, "a", IMAGE, lambda: exact)
    assert all(torch.equal(found[name], exact[name].half()) for name in SHAPES)

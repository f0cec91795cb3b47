"""Hostile results of stages: classes that arrive in groups, chosen and updated images, sets from the hub."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aerogel.condense.condensed import load_condensed
from aerogel.condense.curriculum import Curriculum, Lane, read_curricula, write_curriculum
from aerogel.condense.refine import load_refined
from aerogel.condense.selection import load_selection
from aerogel.core.folders import verify_folder
from aerogel.measure import Measurement
from tests.hostile.judge import Subject, judge, offer
from tests.hostile.manifests import hostile_manifests
from tests.hostile.mutate import (
    Mutation,
    cuts,
    edited,
    flips,
    hostile_json,
    hostile_safetensors,
    misplaced,
    signed,
    swapped,
)

if TYPE_CHECKING:
    from aerogel.condense.api import Condensed


@pytest.fixture(scope="session")
def courses(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    place = tmp_path_factory.mktemp("courses")
    for value, name in ((0.5, "one"), (0.6, "other")):
        steps = (Measurement("accuracy", value, "%"), Measurement("accuracy", value / 2, "%"))
        write_curriculum(place / name, Curriculum((2, 3), (Lane("hard", "chosen", steps),)))
    return Subject(place / "one", place / "other", read_curricula)


STEPS = "continual/2.json"


def course(name: str, **values: Any) -> Mutation:
    return edited(f"course-{name}", STEPS, lambda data: data.update(values))


def lane(name: str, **values: Any) -> Mutation:
    return edited(f"lane-{name}", STEPS, lambda data: data["lanes"][0].update(values))


COURSES = [
    *cuts(STEPS),
    *misplaced(STEPS)[3:],
    *hostile_json(STEPS),
    course("classes-text", classes="23"),
    course("classes-falling", classes=[3, 2]),
    course("classes-float", classes=[2.5, 3.0]),
    course("classes-none", classes=[]),
    course("classes-more", classes=list(range(1, 10**5))),
    course("lanes-none", lanes=None),
    course("lanes-text", lanes=["abc"]),
    lane("labels", labels=5),
    lane("images", images=None),
    lane("fewer", accuracies=[]),
    lane("numbers", accuracies=[0.5, 0.6]),
    lane("text", accuracies=[{"name": "accuracy", "value": "high", "unit": "%"}] * 2),
    lane("huge", accuracies=[{"name": "accuracy", "value": 10**400, "unit": "%"}] * 2),
]


@pytest.mark.parametrize("change", offer(COURSES))
def test_mutated_results_of_steps_are_refused_or_are_the_same(
    change: Mutation, courses: Subject, tmp_path: Path
) -> None:
    judge(courses, change, tmp_path)


IMAGES, ORIGINS = "images.safetensors", "provenance.json"


def load_chosen(folder: Path) -> Any:
    """Return a selection, and what reading it as updated images gives."""
    chosen = load_selection(folder, 1)
    found = load_refined(folder, chosen)
    return [found.images, found.labels, [[patch.to_dict() for patch in row] for row in found.patches]]


@pytest.fixture(scope="session")
def selections(condensed: Condensed, other_condensed: Condensed) -> Subject:
    return Subject(condensed.folder / "selection", other_condensed.folder / "selection", load_chosen)


def origin(name: str, **values: Any) -> Mutation:
    return edited(f"origin-{name}", ORIGINS, lambda data: data[0][0].update(values), (ORIGINS, "selection"))


SELECTIONS = [
    *cuts(IMAGES),
    *flips(IMAGES, (0, 1, 5, 7, 8, 9)),
    *misplaced(IMAGES),
    *hostile_safetensors(IMAGES),
    *cuts(ORIGINS, (0.0, 0.5)),
    *misplaced(ORIGINS),
    *hostile_json(ORIGINS)[:2],
    *hostile_json(ORIGINS)[9:],
    origin("box", box=[1, 2]),
    origin("box-text", box="abcd"),
    origin("box-huge", box=[10**400, 1, 1, 1]),
    origin("loss", loss="low"),
    edited("fewer", ORIGINS, lambda data: data[1:]),
    edited("rows", ORIGINS, lambda data: [5, *data[1:]]),
]


@pytest.mark.parametrize("change", offer(SELECTIONS))
def test_mutated_selections_are_refused_or_are_the_same(
    change: Mutation, selections: Subject, tmp_path: Path
) -> None:
    judge(selections, change, tmp_path)


def load_fetched(folder: Path) -> Any:
    """Return a set that a hub gives, whose snapshot is ``folder``; the copy lies in the cache."""
    cache = folder.parent.parent / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AEROGEL_CACHE", str(cache))
        patch.setattr("huggingface_hub.snapshot_download", lambda **_: str(folder))
        try:
            data = load_condensed("anna/tiny-set")
            return [data.images, data.class_labels, data.source_ids, data.manifest.facts]
        except Exception:
            for kept in cache.rglob("manifest.json"):
                verify_folder(kept.parent)  # what is kept is as its manifest says
            raise
        finally:
            shutil.rmtree(cache, ignore_errors=True)


@pytest.fixture(scope="session")
def fetched(condensed: Condensed, other_condensed: Condensed) -> Subject:
    return Subject(condensed.data.folder, other_condensed.data.folder, load_fetched)


PIXELS, WEIGHTS = "data/train-00000-of-00001.parquet", "labels/adapter_model.safetensors"
FETCHED = [
    *(each for file in (PIXELS, WEIGHTS) for each in (*cuts(file), *flips(file))),
    *(each for file in (PIXELS, WEIGHTS, "manifest.json") for each in misplaced(file)),
    swapped(PIXELS),
    *signed([*cuts(PIXELS, (0.5,)), swapped(PIXELS)]),
    *hostile_manifests("condensed-set")[::3],
]
FETCHED = [replace(each, about=(*each.about, "anna--tiny-set")) for each in FETCHED]


@pytest.mark.parametrize("change", offer(FETCHED))
def test_a_mutated_set_of_a_hub_is_refused_or_is_the_same(
    change: Mutation, fetched: Subject, tmp_path: Path
) -> None:
    judge(fetched, change, tmp_path)

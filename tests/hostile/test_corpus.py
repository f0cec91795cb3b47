"""The corpus itself: large enough, half of it signed, the same in every run, and its judge strict."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aerogel.core.folders import seal_folder, verify_folder
from aerogel.errors import IntegrityError
from tests.hostile import (
    test_condensed,
    test_folders,
    test_models,
    test_residuals,
    test_runs,
    test_stored_networks,
    test_tables,
)
from tests.hostile.judge import EVERY, Subject, judge, listing
from tests.hostile.mutate import Mutation, mutation, sign

BY_LOADER: dict[str, list[Mutation]] = {
    "condensed sets": test_condensed.CORPUS,
    "sets with residuals": test_residuals.CORPUS,
    "teachers": test_stored_networks.TEACHER,
    "students": test_stored_networks.STUDENT,
    "classifiers of transformers": test_stored_networks.CLASSIFIER,
    "runs of condense": test_runs.RUN,
    "runs of slim": test_runs.SLIMMING,
    "stored labels": [*test_runs.STORES, *test_runs.SINGLES],
    "checkpoints": [*test_runs.CHECKPOINTS, *test_runs.ALIGNED, *test_folders.STAGES],
    "folders": test_folders.PLAIN,
    "flexible segmenters": test_models.FLEX,
    "stock segmenters": test_models.STOCK,
    "mobile segmenters": test_models.MOBILE,
    "plans": test_models.PLANS,
    "pipelines": test_models.PIPELINES,
    "tables": [*test_tables.SHARED, *test_tables.LABELS],
}
# These have no manifest, or go through it before: only here can a hash stand in the way.
SEALED = (
    "condensed sets",
    "sets with residuals",
    "teachers",
    "runs of condense",
    "runs of slim",
    "folders",
    "flexible segmenters",
    "stock segmenters",
)


def test_the_corpus_is_as_large_as_it_is_said_to_be() -> None:
    assert sum(map(len, BY_LOADER.values())) >= 1000
    # And so is what every run of the tests takes of it.
    assert sum(-(-len(corpus) // EVERY) for corpus in BY_LOADER.values()) >= 200
    assert len(test_condensed.CORPUS) >= 200
    for loader, corpus in BY_LOADER.items():
        names = [each.name for each in corpus]
        assert len(set(names)) == len(names) >= 20, loader


def test_half_of_what_a_manifest_guards_is_signed_anew() -> None:
    guarded = [each for loader in SEALED for each in BY_LOADER[loader]]
    assert sum(each.signed for each in guarded) >= len(guarded) / 2
    assert sum(each.signed for each in test_condensed.CORPUS) >= len(test_condensed.CORPUS) / 2


def seal(folder: Path, text: str = "content") -> Path:
    folder.mkdir(parents=True)
    (folder / "file.txt").write_text(text)
    (folder / "other.json").write_text(json.dumps({"a": 1}))
    seal_folder(folder, kind="test", config={}, facts={})
    return folder


def test_a_mutation_is_the_same_every_time(tmp_path: Path) -> None:
    from tests.hostile.mutate import cuts, flips, signed

    for number, change in enumerate([*cuts("file.txt"), *signed(flips("file.txt", (0, 0.5, -1)))]):
        found = []
        for turn in range(2):
            folder = seal(tmp_path / f"{number}-{turn}")
            change.act(folder, folder)
            found.append(listing(folder))
        assert found[0] == found[1]


def test_what_is_signed_anew_passes_the_manifest(tmp_path: Path) -> None:
    folder = seal(tmp_path / "set")
    (folder / "file.txt").write_text("other")
    with pytest.raises(IntegrityError):
        verify_folder(folder)
    sign(folder)
    assert verify_folder(folder).files["file.txt"].bytes == 5


def test_the_judge_finds_each_kind_of_fault(tmp_path: Path) -> None:
    one, other = seal(tmp_path / "one"), seal(tmp_path / "other", "else")
    change = mutation(
        "change", "file.txt", lambda folder, other: (folder / "file.txt").write_text("x") and None
    )

    def loads(load: object, number: int) -> str:
        place = tmp_path / str(number)
        place.mkdir()
        return judge(Subject(one, other, load), change, place)  # type: ignore[arg-type]

    def crash(folder: Path) -> str:
        if folder != one:
            raise KeyError("file.txt")
        return "one"

    def write(folder: Path) -> str:
        if folder != one:
            (folder / "trapped").touch()
        return "one"

    def hoard(folder: Path) -> str:
        return str(len(b"x" * (300 * 2**20 if folder != one else 1)))

    def refuse(folder: Path) -> str:
        if folder != one:
            raise IntegrityError("no")
        return "one"

    assert loads(lambda folder: verify_folder(folder).kind, 0) == "refused"
    assert loads(lambda folder: "one", 1) == "loaded"
    with pytest.raises(KeyError):
        loads(crash, 2)
    for number, (load, fault) in enumerate(
        [
            (lambda folder: (folder / "file.txt").read_text(), "something else"),
            (write, "wrote files"),
            (hoard, "bytes"),
            (refuse, "none of"),
        ],
        start=3,
    ):
        with pytest.raises(AssertionError, match=fault):
            loads(load, number)

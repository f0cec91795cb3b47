"""Hostile folders of runs, and the stored labels, checkpoints and records that runs go on from."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from aerogel.condense.account import open_run
from aerogel.condense.codecs.shards import stored_epochs
from aerogel.condense.config import FitConfig
from aerogel.condense.fit import fit
from aerogel.condense.labels import OnePerImage, StoredLabels
from aerogel.slim.account import open_run as open_slimming
from aerogel.slim.checkpoint import Ledger, load_checkpoint, save_checkpoint
from tests.hostile.judge import Subject, judge, offer
from tests.hostile.mutate import (
    Mutation,
    cuts,
    edited,
    flips,
    hostile_json,
    hostile_safetensors,
    inside,
    misplaced,
    mutation,
    signed,
    swapped,
    written,
)

if TYPE_CHECKING:
    from aerogel.condense.api import Condensed
    from aerogel.slim.api import Slimmed

RESULT, TIMINGS, RECIPE = "result.json", "timings.json", "recipe.yaml"


def rows(name: str, **values: Any) -> Mutation:
    return edited(f"rows-{name}", RESULT, lambda data: data["rows"][0].update(values))


BOMB = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n".encode()
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
RECIPES = [
    written("tag", RECIPE, b'!!python/object/apply:os.system ["touch trapped"]\n'),
    written("tag-name", RECIPE, b"device: !!python/name:os.system\n"),
    written("tag-object", RECIPE, b"device: !!python/object/new:os._wrap_close {}\n"),
    written("bomb", RECIPE, BOMB),
    written("bomb-field", RECIPE, BOMB + b"seed: *i\n"),
    written("circle", RECIPE, b"device: &x [*x]\n"),
    written("circle-map", RECIPE, b"views: &x {views: *x}\n"),
    written("deep", RECIPE, b"device: " + b"[" * 2_000),
    written("twice", RECIPE, b"seed: 1\nseed: 2\n"),
    written("unknown", RECIPE, b"evil: 1\n"),
    written("huge", RECIPE, b"seed: " + b"9" * 5_000 + b"\n"),
    written("infinite", RECIPE, b"seed: .inf\n"),
    written("not-utf8", RECIPE, b"device: \xff\xfe\n"),
    written("nul", RECIPE, b"device: a\0b\n"),
    written("list", RECIPE, b"- 1\n- 2\n"),
    written("documents", RECIPE, b"seed: 1\n---\nseed: 2\n"),
    written("oversized", RECIPE, b"#" * (2**20 + 1)),
    written("pickle", RECIPE, b"cos\nsystem\n(S'touch trapped'\ntR."),
    written("merge", RECIPE, b"<<: {evil: 1}\n"),
    written("date", RECIPE, b"device: 2020-01-01\n"),
    written("set", RECIPE, b"device: !!set {a, b}\n"),
    written("binary", RECIPE, b"device: !!binary aGVsbG8=\n"),
]


def load_run(folder: Path) -> Any:
    run = open_run(folder)
    data = run.data
    return [run.config, run.rows, dict(run.timings), data.images, data.class_labels, data.manifest.facts]


@pytest.fixture(scope="session")
def runs(condensed: Condensed, other_condensed: Condensed) -> Subject:
    return Subject(condensed.folder, other_condensed.folder, load_run)


RUN = [
    *(each for file in (RESULT, TIMINGS, RECIPE) for each in misplaced(file) if "linked" not in each.name),
    *cuts(RESULT, (0.0, 0.5)),
    *cuts(TIMINGS, (0.0, 0.5)),
    *hostile_json(RESULT),
    *(each for each in hostile_json(TIMINGS) if "object" not in each.name or "deep" in each.name),
    *RECIPES,
    edited("rows-none", RESULT, lambda data: data.update(rows=None)),
    edited("rows-text", RESULT, lambda data: data.update(rows="abc")),
    edited("rows-numbers", RESULT, lambda data: data.update(rows=[1, 2])),
    rows("evil", evil=1),
    rows("labels", labels=1),
    rows("bytes", label_bytes=-1),
    rows("bytes-float", label_bytes=1.5),
    rows("rate", rate="fast"),
    rows("network", network=["convnet"]),
    rows("views", views=None),
    rows("values", values=["high"]),
    rows("values-number", values=5),
    rows("values-true", values=[True]),
    rows("accuracy", accuracy=0.5),
    rows("accuracy-text", accuracy={"name": "accuracy", "value": "high", "unit": "%"}),
    edited("seconds-text", TIMINGS, lambda data: data.update(teacher="long")),
    edited("seconds-list", TIMINGS, lambda data: data.update(teacher=[1])),
    edited("digits", TIMINGS, lambda data: data.update(teacher=10**400)),
    *inside("archive", signed(cuts("data/train-00000-of-00001.parquet"))),
    *inside("archive", misplaced("labels/adapter_model.safetensors")[:1]),
]


@pytest.mark.parametrize("change", offer(RUN))
def test_a_mutated_run_is_refused_or_is_the_same(change: Mutation, runs: Subject, tmp_path: Path) -> None:
    judge(runs, change, tmp_path)
    assert not (Path.cwd() / "trapped").exists()


def load_slimming(folder: Path) -> Any:
    run = open_slimming(folder)
    return [run.config, run.model.facts, run.exhibits.facts, dict(run.timings), run.plan]


@pytest.fixture(scope="session")
def slimmings(slimmed: Slimmed, other_slimmed: Slimmed) -> Subject:
    return Subject(slimmed.folder, other_slimmed.folder, load_slimming)


SLIMMING = [
    *(each for file in (RESULT, TIMINGS, RECIPE) for each in misplaced(file)[:1]),
    *cuts(TIMINGS, (0.0, 0.5)),
    *(each for each in hostile_json(TIMINGS) if "object" not in each.name or "deep" in each.name),
    *RECIPES,
    *inside("model", [*flips("plan.json", (0, 0.5, -3)), *misplaced("plan.json"), swapped("plan.json")]),
    *inside("model", [*flips("model.safetensors", (0, 0.5, -1)), *cuts("model.safetensors", (0.5,))]),
    *inside("model", signed([*cuts("plan.json", (0.0, 0.5)), *hostile_json("plan.json")])),
    *inside("exhibits", misplaced("manifest.json")[:3]),
]


@pytest.mark.parametrize("change", offer(SLIMMING))
def test_a_mutated_slimming_is_refused_or_is_the_same(
    change: Mutation, slimmings: Subject, tmp_path: Path
) -> None:
    judge(slimmings, change, tmp_path)
    assert not (Path.cwd() / "trapped").exists()


STORE = "store-00000.safetensors"


def load_store(folder: Path) -> Any:
    shape = (6, 3)
    store = StoredLabels(folder, "stored", shape)
    samples = np.arange(shape[0])
    labels = [store._store.rows(epoch, samples) for epoch in range(store.epochs)]
    return [store.epochs, stored_epochs(folder), labels]


@pytest.fixture(scope="session")
def stores(condensed: Condensed, other_condensed: Condensed) -> Subject:
    return Subject(
        condensed.folder / "labels" / "stored-fp16",
        other_condensed.folder / "labels" / "stored-fp16",
        load_store,
    )


STORES = [
    *cuts(STORE),
    *flips(STORE, (0, 1, 5, 7, 8, 9)),
    *misplaced(STORE),
    swapped(STORE),
    *hostile_safetensors(STORE),
    mutation(
        "gap",
        "store-00007",
        lambda folder, other: shutil.copyfile(folder / STORE, folder / "store-00007.safetensors") and None,
    ),
]


@pytest.mark.parametrize("change", offer(STORES))
def test_mutated_labels_are_refused_or_are_the_same(
    change: Mutation, stores: Subject, tmp_path: Path
) -> None:
    judge(stores, change, tmp_path)


ONE = "one-per-image.safetensors"


@pytest.fixture(scope="session")
def singles(condensed: Condensed, other_condensed: Condensed) -> Subject:
    return Subject(
        condensed.folder / "labels" / "small",
        other_condensed.folder / "labels" / "small",
        lambda folder: OnePerImage(folder / ONE, (6, 3))._labels,
    )


SINGLES = [*cuts(ONE), *flips(ONE, (0, 1, 7, 8, 9)), *misplaced(ONE), swapped(ONE), *hostile_safetensors(ONE)]


@pytest.mark.parametrize("change", offer(SINGLES))
def test_mutated_labels_per_image_are_refused_or_are_the_same(
    change: Mutation, singles: Subject, tmp_path: Path
) -> None:
    judge(singles, change, tmp_path)


FIT = "fit.safetensors"


def go_on(folder: Path, epochs: int = 3) -> Any:
    """Go on from a checkpoint for an epoch, in a copy, as the run goes on writing."""
    module = torch.nn.Linear(4, 2)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(0.1)
    inputs = torch.arange(32, dtype=torch.float32).reshape(8, 4)
    run = fit(
        module,
        lambda epoch, samples: module(inputs[torch.from_numpy(samples)]).square().mean(),
        config=FitConfig(epochs=epochs, batch_size=4, lr=0.01),
        population=8,
        seed=0,
        device="cpu",
        checkpoint=folder,
    )
    losses = [state.loss for state in run]
    return [losses, module.state_dict()]


def load_fit(folder: Path) -> Any:
    work = folder.parent.parent / "work"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(folder, work, symlinks=True)
    return go_on(work)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    place = tmp_path_factory.mktemp("checkpoints")
    go_on(place / "box" / "one", 2)
    go_on(place / "box" / "other", 1)
    return Subject(place / "box" / "one", place / "box" / "other", load_fit)


def metadata(file: str, name: str, text: str) -> Mutation:
    """Write other texts beside the tensors of a file."""
    import json
    import struct

    def content(folder: Path) -> bytes:
        raw = (folder / file).read_bytes()
        (length,) = struct.unpack("<Q", raw[:8])
        data = json.loads(raw[8 : 8 + length])
        data["__metadata__"] = dict.fromkeys(data["__metadata__"], text)
        head = json.dumps(data).encode()
        return struct.pack("<Q", len(head)) + head + raw[8 + length :]

    return written(f"metadata-{name}", file, content)


TEXTS = {
    "empty": "",
    "null": "null",
    "list": "[]",
    "object": "{}",
    "deep": "[" * 100_000,
    "losses-text": '{"losses": "abc"}',
    "losses-null": '{"losses": [null]}',
    "losses-nan": '{"losses": [NaN]}',
    "identity": '{"identity": 5, "ledger": {}}',
    "ledger": '{"identity": {}, "ledger": {"evil": 1}}',
    "ledger-list": '{"identity": {}, "ledger": [1]}',
    "ledger-text": '{"identity": {}, "ledger": {"step": "one"}}',
    "ledger-epochs": '{"identity": {}, "ledger": {"epochs": [1, 2]}}',
    "ledger-check": '{"identity": {}, "ledger": {}, "check": "00000000"}',
}

CHECKPOINTS = [
    *cuts(FIT),
    *flips(FIT, (0, 1, 7, 8, 9, 0.9, -1)),
    *(each for each in misplaced(FIT) if each.name.endswith(("folder", "linked"))),
    *hostile_safetensors(FIT),
    *(metadata(FIT, name, text) for name, text in TEXTS.items()),
]


@pytest.mark.parametrize("change", offer(CHECKPOINTS))
def test_a_mutated_checkpoint_is_refused_or_goes_on_the_same(
    change: Mutation, checkpoints: Subject, tmp_path: Path
) -> None:
    judge(checkpoints, change, tmp_path)


ALIGN = "align.safetensors"


def load_align(folder: Path) -> Any:
    found = load_checkpoint(folder, {"seed": 1})
    assert found is not None
    return [vars(found[0]), found[1]]


@pytest.fixture(scope="session")
def aligned(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    place = tmp_path_factory.mktemp("aligned")
    for number, name in enumerate(("one", "other")):
        tensors = {"module.weight": torch.full((3, 4), number + 0.5), "optimiser.0.step": torch.tensor(2.0)}
        (place / name).mkdir()
        save_checkpoint(place / name, {"seed": 1 + number}, Ledger(2, 0, {}, [{"loss": 0.5}]), tensors)
    return Subject(place / "one", place / "other", load_align)


ALIGNED = [
    *cuts(ALIGN),
    *flips(ALIGN, (0, 1, 7, 8, 9, 0.95, -1)),
    *(each for each in misplaced(ALIGN) if each.name.endswith(("folder", "linked"))),
    swapped(ALIGN),
    *(each for each in hostile_safetensors(ALIGN) if "metadata" not in each.name),
    *(metadata(ALIGN, name, text) for name, text in TEXTS.items()),
]


@pytest.mark.parametrize("change", offer(ALIGNED))
def test_a_mutated_state_of_aligning_is_refused_or_is_the_same(
    change: Mutation, aligned: Subject, tmp_path: Path
) -> None:
    judge(aligned, change, tmp_path)

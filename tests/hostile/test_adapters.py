"""Hostile condensed sets whose label generator is stored as codes, and stored labels by a codec."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from aerogel.condense.codecs.codebooks import fit_codebooks
from aerogel.condense.codecs.encodings import build_encoding
from aerogel.condense.codecs.naming import parse_codec
from aerogel.condense.codecs.shards import read_codebooks, stored_epochs, write_codebooks, write_shards
from aerogel.condense.labels import StoredLabels
from tests.hostile.judge import Subject, judge, offer
from tests.hostile.mutate import (
    Mutation,
    added,
    cuts,
    exchanged,
    flips,
    hostile_json,
    hostile_safetensors,
    misplaced,
    mutation,
    signed,
)
from tests.hostile.test_condensed import ADAPTERS, CONFIG, load

if TYPE_CHECKING:
    from aerogel.condense.api import Condensed

CODES = "labels/adapter_codes.safetensors"
FLOATS = "labels/adapter_model.safetensors"


@pytest.fixture(scope="session")
def coded(coded_condensed: Condensed, condensed: Condensed) -> Subject:
    return Subject(coded_condensed.data.folder, condensed.data.folder, load)


def parts(name: str, change: Any) -> Mutation:
    """Change the tensors of the codes, and keep the header."""

    def act(folder: Path, other: Path) -> None:
        with safe_open(folder / CODES, framework="pt") as stored:
            header = stored.metadata()
        tensors = load_file(folder / CODES)
        change(tensors)
        save_file(tensors, folder / CODES, header)

    return mutation(f"codes-{name}", Path(CODES).name, act)


def header(name: str, change: Any) -> Mutation:
    """Change what the header of the codes says."""

    def act(folder: Path, other: Path) -> None:
        rewrite(folder / CODES, "aerogel", change)

    return mutation(f"header-{name}", Path(CODES).name, act)


def rewrite(path: Path, key: str, change: Any) -> None:
    """Change the JSON text under a key beside the tensors of a file; a change may give a text instead."""
    with safe_open(path, framework="pt") as stored:
        found = json.loads(stored.metadata()[key])
    changed = change(found)
    save_file(load_file(path), path, {key: changed if isinstance(changed, str) else json.dumps(found)})


def fill(part: str, value: float) -> Any:
    return lambda tensors: tensors[part].view(-1)[:1].fill_(value)


def both(folder: Path, other: Path) -> None:
    (folder / FLOATS).write_bytes((other / FLOATS).read_bytes())


def floats(folder: Path, other: Path) -> None:
    """Put a float file of another set in the place of the codes."""
    both(folder, other)
    (folder / CODES).unlink()


CORPUS = [
    *(each for each in (*cuts(CODES), *flips(CODES), *misplaced(CODES))),
    added(FLOATS),
    *signed(
        [
            *cuts(CODES),
            *flips(CODES, (0, 1, 5, 7, 8, 9, 12, 40)),
            *misplaced(CODES)[:2],
            exchanged(CONFIG, CODES),
            *hostile_safetensors(CODES),
            *hostile_json(CONFIG)[::4],
            *ADAPTERS[::2],
            mutation("both-forms", ("one file of weights",), both),
            mutation("other-form", ("adapter", "logits"), floats),
            parts("scale-nan", fill("scales", float("nan"))),
            parts("scale-negative", fill("scales", -1.0)),
            parts("scale-large", fill("scales", 60000.0)),
            parts("code-128", fill("int8", -128)),
            parts("no-scales", lambda tensors: tensors.pop("scales")),
            parts("more-scales", lambda tensors: tensors.update(scales=torch.ones(10**6).half())),
            parts("more-codes", lambda tensors: tensors.update(int8=torch.ones(10**7, dtype=torch.int8))),
            parts("another", lambda tensors: tensors.update(int4=torch.zeros(4, dtype=torch.uint8))),
            parts("two-axes", lambda tensors: tensors.update(int8=tensors["int8"][None])),
            parts("as-floats", lambda tensors: tensors.update(int8=tensors["int8"].float())),
            header("codec", lambda facts: facts.update(codec="int4")),
            header("codec-list", lambda facts: facts.update(codec=["int8"])),
            header("codec-float", lambda facts: facts.update(codec="float16")),
            header("version", lambda facts: facts.update(version=10**9)),
            header("format", lambda facts: facts.pop("format")),
            header("tensors", lambda facts: facts.update(tensors="0" * 64)),
            header("list", lambda facts: "[]"),
            header("null", lambda facts: "null"),
            header("deep", lambda facts: "[" * 100_000),
            header("digits", lambda facts: "9" * 10_000),
            header("long", lambda facts: json.dumps({"codec": "x" * 10**6})),
        ]
    ),
]


@pytest.mark.parametrize("change", offer(CORPUS))
def test_a_mutated_set_with_codes_is_refused_or_is_the_same(
    change: Mutation, coded: Subject, tmp_path: Path
) -> None:
    judge(coded, change, tmp_path)


STORE, BOOK = "store-00000.safetensors", "codebook.safetensors"
EPOCHS, IMAGES, CLASSES = 2, 6, 3
CODECS = ("stored-pq2x4", "stored-top2+int8", "stored-gauss9")


def load_store(folder: Path) -> Any:
    """Return all labels of a store, whose name says its codec."""
    codec = next(each for each in CODECS if (folder / f"{each}.txt").exists())
    store = StoredLabels(folder, "stored", (IMAGES, CLASSES), codec=codec, epochs=EPOCHS)
    labels = [store._store.rows(epoch, np.arange(IMAGES)) for epoch in range(store.epochs)]
    return [store.epochs, stored_epochs(folder), labels]


def write_store(folder: Path, name: str, seed: int) -> Path:
    folder.mkdir()
    codec = parse_codec(name)
    (folder / f"{name}.txt").touch()
    table = torch.randn(EPOCHS * IMAGES, CLASSES, generator=torch.Generator().manual_seed(seed))
    if codec.has_codebook:
        write_codebooks(folder, fit_codebooks(codec, table, seed), codec)
    encoding = build_encoding(codec, CLASSES, read_codebooks(folder, codec, CLASSES))
    block = {key: value.unflatten(0, (EPOCHS, IMAGES)) for key, value in encoding.encode(table).items()}
    write_shards(folder, block, codec=codec, classes=CLASSES, first_epoch=0)
    return folder


@pytest.fixture(scope="session", params=CODECS)
def stores(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    place = tmp_path_factory.mktemp("stores")
    one, other = (write_store(place / name, request.param, seed) for seed, name in enumerate(("one", "two")))
    return Subject(one, other, load_store)


def facts(name: str, **values: Any) -> Mutation:
    """Change what a shard says of itself."""

    def act(folder: Path, other: Path) -> None:
        rewrite(folder / STORE, "store", lambda found: found.update(values))

    return mutation(f"facts-{name}", STORE, act)


def numbers(name: str, change: Any) -> Mutation:
    """Change the tensors of a shard."""

    def act(folder: Path, other: Path) -> None:
        with safe_open(folder / STORE, framework="pt") as stored:
            header = stored.metadata()
        tensors = load_file(folder / STORE)
        save_file({key: change(value).contiguous() for key, value in tensors.items()}, folder / STORE, header)

    return mutation(f"numbers-{name}", STORE, act)


STORES = [
    *cuts(STORE),
    *flips(STORE, (0, 1, 5, 7, 8, 9)),
    *misplaced(STORE),
    *hostile_safetensors(STORE),
    facts("classes", classes=10**9),
    facts("classes-none", classes=0),
    facts("classes-text", classes="3"),
    facts("images", images=10**9),
    facts("images-true", images=True),
    facts("epoch", first_epoch=1),
    facts("epoch-huge", first_epoch=2**40),
    facts("sample", first_sample=1),
    facts("codec", codec="stored-vq32768"),
    facts("codec-other", codec="stored-fp16"),
    facts("codec-path", codec="../../x"),
    facts("codec-list", codec=["stored-fp16"]),
    facts("codec-long", codec="stored-" + "x" * 10**6),
    numbers("all-ones", lambda value: (value.view(torch.uint8) * 0 + 255).view(value.dtype)),
    numbers("fewer", lambda value: value[:1]),
    numbers("more", lambda value: value.repeat(9, *[1] * (value.ndim - 1))),
    numbers("wide", lambda value: value.to(torch.int64)),
    numbers("flat", lambda value: value.flatten()),
]


@pytest.mark.parametrize("change", offer(STORES))
def test_mutated_labels_of_a_codec_are_refused_or_are_the_same(
    change: Mutation, stores: Subject, tmp_path: Path
) -> None:
    judge(stores, change, tmp_path)


@pytest.fixture(scope="session", params=[name for name in CODECS if parse_codec(name).has_codebook])
def books(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    place = tmp_path_factory.mktemp("books")
    one, other = (write_store(place / name, request.param, seed) for seed, name in enumerate(("one", "two")))
    return Subject(one, other, load_store)


BOOKS = [
    *cuts(BOOK),
    *misplaced(BOOK),
    *hostile_safetensors(BOOK),
    exchanged(STORE, BOOK),
    mutation(
        f"{BOOK}-nan",
        BOOK,
        lambda folder, other: save_file(
            {key: value * float("nan") for key, value in load_file(folder / BOOK).items()}, folder / BOOK
        ),
    ),
]


@pytest.mark.parametrize("change", offer(BOOKS))
def test_a_mutated_codebook_is_refused_or_is_the_same(
    change: Mutation, books: Subject, tmp_path: Path
) -> None:
    judge(books, change, tmp_path)

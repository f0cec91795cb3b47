"""Stores weigh what the formula says, are continued to the same bytes, and are refused when damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from aerogel.condense.codecs import codebooks, shards
from aerogel.condense.codecs.encodings import build_encoding, view_bytes
from aerogel.condense.codecs.naming import parse_codec
from aerogel.condense.codecs.shards import (
    CODEBOOK,
    Store,
    epochs_per_shard,
    open_store,
    read_codebooks,
    store_bytes,
    stored_epochs,
    write_codebooks,
    write_shards,
)
from aerogel.condense.config import ViewConfig
from aerogel.condense.labels import Batch, StoredLabels
from aerogel.condense.storing import store_labels
from aerogel.condense.views import Views
from aerogel.errors import IntegrityError, MismatchError

EPOCHS, IMAGES, CLASSES = 5, 11, 6
CODECS = (
    "stored-fp32",
    "stored-fp16",
    "stored-int8",
    "stored-top2",
    "stored-top3+int8",
    "stored-vq8",
    "stored-pq2x4",
    "stored-gauss9",
)
CONTAINER_BYTES = 400  # of one safetensors file around its tensors, three at most
TABLE = torch.randn(EPOCHS, IMAGES, CLASSES, generator=torch.Generator().manual_seed(0)) * 3
VIEWS = Views(ViewConfig(), 3, IMAGES)


class Table:
    """Give each view its row of the table; die after some batches."""

    name = "table"

    def __init__(self, left: int = 10**6) -> None:
        self.left = left

    def logits(self, batch: Batch) -> Tensor | None:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return TABLE[batch.epoch, torch.from_numpy(batch.parameters.samples)]


def batch_of(samples: np.ndarray, epoch: int) -> Batch:
    nothing = torch.zeros(len(samples))
    found = VIEWS.parameters(epoch, samples, size=8)
    return Batch(nothing, found, epoch, nothing, nothing, nothing)


def run_of_batches(first: int = 0, size: int = 4) -> Iterator[Batch]:
    for epoch in range(first, EPOCHS):
        order = np.random.default_rng(epoch + 100 * size).permutation(IMAGES)
        for start in range(0, IMAGES, size):
            yield batch_of(order[start : start + size], epoch)


def store(folder: Path, codec: str, *, left: int = 10**6, size: int = 4, epochs: int = EPOCHS) -> Path:
    folder.mkdir(exist_ok=True)
    batches = run_of_batches(stored_epochs(folder), size)
    sizes = {"epochs": epochs, "images": IMAGES, "classes": CLASSES}
    store_labels(folder, Table(left), batches, codec=codec, seed=7, **sizes)
    return folder


def expected(codec: str, folder: Path) -> Tensor:
    parsed = parse_codec(codec)
    encoding = build_encoding(parsed, CLASSES, read_codebooks(folder, parsed, CLASSES))
    return encoding.decode(encoding.encode(TABLE.flatten(0, 1))).reshape(TABLE.shape)


def require_rows(found: Store, rows: Tensor) -> None:
    for epoch in range(found.epochs):
        samples = np.random.default_rng(epoch).permutation(IMAGES)[:7]
        assert torch.equal(found.rows(epoch, samples), rows[epoch, torch.from_numpy(samples)])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def payload(path: Path) -> int:
    with path.open("rb") as stream:
        header = int.from_bytes(stream.read(8), "little")
        json.loads(stream.read(header))
    return path.stat().st_size - 8 - header


@pytest.fixture(params=["1/4 epoch", "2 epochs", "all"])
def shard(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], int]:
    """Set the size of a shard, so that one holds a part of an epoch, two epochs, or everything."""
    views = {"1/4 epoch": 3, "2 epochs": 2 * IMAGES, "all": 10**6}[request.param]

    def set_size(codec: str) -> int:
        monkeypatch.setattr(shards, "SHARD_BYTES", views * view_bytes(parse_codec(codec), CLASSES))
        return {3: 4 * EPOCHS, 2 * IMAGES: 3, 10**6: 1}[views]

    return set_size


@pytest.mark.parametrize("codec", CODECS)
def test_what_is_stored_is_read_and_weighs_what_the_formula_says(
    tmp_path: Path, codec: str, shard: Callable[[str], int]
) -> None:
    count = shard(codec)
    folder = store(tmp_path, codec)
    found = open_store(folder, codec=parse_codec(codec), epochs=EPOCHS, images=IMAGES, classes=CLASSES)
    assert (found.epochs, found.images, found.classes, found.codec.name) == (EPOCHS, IMAGES, CLASSES, codec)
    require_rows(found, expected(codec, folder))
    paths = sorted(folder.glob("store-*"))
    assert len(paths) == count
    size = EPOCHS * IMAGES * view_bytes(parse_codec(codec), CLASSES)
    assert sum(payload(path) for path in paths) == size
    assert max(payload(path) for path in paths) <= shards.SHARD_BYTES
    books = folder / CODEBOOK
    extra = books.stat().st_size if books.exists() else 0
    assert books.exists() == parse_codec(codec).has_codebook
    rows = {"stored-vq8": 8 * CLASSES, "stored-pq2x4": 2 * 4 * 3, "stored-gauss9": (1 + CLASSES) * CLASSES}
    assert 0 <= extra - 2 * rows.get(codec, 0) <= CONTAINER_BYTES
    assert store_bytes(folder) == sum(path.stat().st_size for path in folder.iterdir())
    assert size + extra < store_bytes(folder) <= size + extra + CONTAINER_BYTES * len(paths)


@pytest.mark.parametrize("codec", CODECS)
def test_what_is_stored_does_not_depend_on_batches(tmp_path: Path, codec: str) -> None:
    assert contents(store(tmp_path / "a", codec)) == contents(store(tmp_path / "b", codec, size=3))


@pytest.mark.parametrize("stop", [2, 5, 14])
@pytest.mark.parametrize("codec", CODECS)
def test_a_killed_store_is_continued_to_the_same_bytes(
    tmp_path: Path, codec: str, stop: int, shard: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codebooks, "_SAMPLE", 2 * IMAGES - 3)
    monkeypatch.setattr(codebooks, "_PER_ROW", 1)
    shard(codec)
    straight = contents(store(tmp_path / "straight", codec))
    with pytest.raises(KeyboardInterrupt):
        store(tmp_path / "killed", codec, left=stop)
    before = contents(tmp_path / "killed")
    assert before.items() <= straight.items()
    assert contents(store(tmp_path / "killed", codec)) == straight


@pytest.mark.parametrize("lost", ["store-00001-00003.safetensors", "store-00001-00002.safetensors"])
def test_a_kill_between_the_shards_of_an_epoch_repeats_the_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 3 * CLASSES * 2)
    straight = contents(store(tmp_path, "stored-fp16"))
    for path in tmp_path.iterdir():
        if path.name >= lost:
            path.unlink()
    assert stored_epochs(tmp_path) == 1
    with pytest.raises(IntegrityError, match=f"shards of all {IMAGES} samples"):
        open_store(tmp_path)
    assert contents(store(tmp_path, "stored-fp16")) == straight


def test_the_oldest_format_is_written_as_it_was(tmp_path: Path) -> None:
    for codec, dtype in (("stored-fp16", torch.float16), ("stored-fp32", torch.float32)):
        folder = store(tmp_path / codec, codec)
        old = save({"labels": TABLE.to(dtype)}, {"first_epoch": "0"})
        assert contents(folder) == {"store-00000.safetensors": old}


@pytest.mark.parametrize("codec", ["stored-pruned2", "stored-pruned2+int8", "stored-pruned3+vq4"])
def test_a_pruned_store_has_the_same_views_at_any_batch_size(tmp_path: Path, codec: str) -> None:
    kept = parse_codec(codec).kept_epochs(EPOCHS)
    one, other = (store(tmp_path / str(size), codec, size=size, epochs=kept) for size in (3, 5))
    assert contents(one) == contents(other)
    found = open_store(one)
    assert found.epochs == kept < EPOCHS
    require_rows(found, expected(codec, one))
    with pytest.raises(MismatchError, match=f"an epoch below {kept}"):
        found.rows(kept, np.array([0]))


def test_no_file_is_larger_than_128_mib() -> None:
    assert shards.SHARD_BYTES + CONTAINER_BYTES <= 128 * 2**20
    encoding = build_encoding(parse_codec("stored-fp16"), 1000)
    assert epochs_per_shard(encoding, 10_000) == 6
    assert epochs_per_shard(encoding, 1_000_000) == 1


def test_codebooks_are_kept_once_they_are_there(tmp_path: Path) -> None:
    tmp_path.joinpath("x").mkdir()
    codec = parse_codec("stored-vq4")
    books = {"book-0": TABLE[0, :3].half()}
    write_codebooks(tmp_path / "x", books, codec)
    store(tmp_path / "x", "stored-vq4")
    assert torch.equal(read_codebooks(tmp_path / "x", codec, CLASSES)["book-0"], books["book-0"])


def test_refuses_samples_that_are_not_stored(tmp_path: Path) -> None:
    found = open_store(store(tmp_path, "stored-top2"))
    with pytest.raises(MismatchError, match=f"samples below {IMAGES}"):
        found.rows(0, np.array([0, IMAGES]))


def test_refuses_the_store_of_another_codec_or_other_classes(tmp_path: Path) -> None:
    store(tmp_path, "stored-int8")
    with pytest.raises(MismatchError, match="as stored-top2 in"):
        StoredLabels(tmp_path, "labels", codec="stored-top2")
    with pytest.raises(MismatchError, match="7 classes as stored-int8"):
        open_store(tmp_path, classes=7)
    with pytest.raises(MismatchError, match="shards of stored-top2"):
        stored_epochs(tmp_path, parse_codec("stored-top2"))
    for sizes in ({"epochs": EPOCHS + 1}, {"images": IMAGES - 1}):
        with pytest.raises(IntegrityError, match=rf"got {EPOCHS} epochs of {IMAGES}"):
            open_store(tmp_path, **sizes)


# --- damage -------------------------------------------------------------------------------------------------


def rewrite(path: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]], **facts: object) -> None:
    with path.open("rb") as stream:
        metadata = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))["__metadata__"]
    coded = "store" in metadata
    known = {**(json.loads(metadata["store"]) if coded else metadata), **facts}
    known = {name: value for name, value in known.items() if value is not None}
    changed = {name: value.clone().contiguous() for name, value in change(load_file(path)).items()}
    save_file(changed, path, {"store": json.dumps(known)} if coded else known)


def put(name: str, value: float) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    def change(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        tensors[name] = tensors[name].clone()
        tensors[name][0, 3] = value
        return tensors

    return change


Change = Callable[[dict[str, Tensor]], dict[str, Tensor]]
SAME: Change = lambda tensors: tensors  # noqa: E731
DAMAGES: dict[str, tuple[str, Change, dict[str, object]]] = {
    "another type": ("stored-top2", lambda t: {**t, "classes": t["classes"].int()}, {}),
    "another shape": ("stored-int8", lambda t: {**t, "codes": t["codes"][..., :-1]}, {}),
    "fewer samples in one tensor": ("stored-int8", lambda t: {**t, "steps": t["steps"][:, :-1]}, {}),
    "fewer samples": ("stored-int8", lambda t: {name: value[:, :-1] for name, value in t.items()}, {}),
    "fewer epochs": ("stored-int8", lambda t: {name: value[:1] for name, value in t.items()}, {}),
    "no epochs": ("stored-fp16", lambda t: {name: value[:0] for name, value in t.items()}, {}),
    "a flat tensor": ("stored-fp16", lambda t: {"labels": t["labels"].flatten()}, {}),
    "a missing tensor": ("stored-int8", lambda t: {"codes": t["codes"]}, {}),
    "one tensor too many": ("stored-fp16", lambda t: {**t, "more": t["labels"]}, {}),
    "a class that is none": ("stored-top2", put("classes", CLASSES), {}),
    "a class twice": ("stored-top2", put("classes", 1), {}),
    "an index that is none": ("stored-vq8", put("indices", 8), {}),
    "no number": ("stored-fp16", put("labels", float("nan")), {}),
    "integers": ("stored-fp16", lambda t: {"labels": t["labels"].int()}, {}),
    "another codec's name": ("stored-int8", SAME, {"codec": "stored-top2"}),
    "no codec's name": ("stored-int8", SAME, {"codec": "zip"}),
    "no name": ("stored-int8", SAME, {"codec": None}),
    "no classes": ("stored-int8", SAME, {"classes": 0}),
    "other classes": ("stored-top2", SAME, {"classes": 2}),
    "classes in words": ("stored-int8", SAME, {"classes": "six"}),
    "half a class": ("stored-int8", SAME, {"classes": 5.5}),
    "no place": ("stored-int8", SAME, {"first_epoch": None}),
    "another sample": ("stored-int8", SAME, {"first_sample": 1}),
    "more images": ("stored-int8", SAME, {"images": 12}),
    "no place of plain ones": ("stored-fp16", SAME, {"first_epoch": None}),
    "a place in words": ("stored-fp16", SAME, {"first_epoch": "two"}),
    "a negative place": ("stored-fp16", SAME, {"first_epoch": "-2"}),
    "another place": ("stored-fp16", SAME, {"first_epoch": "3"}),
}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return stores of three shards each, which nobody changes."""
    root = tmp_path_factory.mktemp("stores")
    with pytest.MonkeyPatch.context() as patch:
        for codec in ("stored-fp16", "stored-int8", "stored-top2", "stored-vq8"):
            patch.setattr(shards, "SHARD_BYTES", 2 * IMAGES * view_bytes(parse_codec(codec), CLASSES))
            store(root / codec, codec)
    return root


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_shard_is_refused_when_it_is_opened(stores: Path, tmp_path: Path, damage: str) -> None:
    codec, change, facts = DAMAGES[damage]
    folder = Path(shutil.copytree(stores / codec, tmp_path / "store"))
    open_store(folder, epochs=EPOCHS)
    rewrite(folder / "store-00002.safetensors", change, **facts)
    with pytest.raises(IntegrityError, match="store"):
        open_store(folder, epochs=EPOCHS)


@pytest.mark.parametrize("codec", ["stored-fp16", "stored-int8", "stored-top2", "stored-vq8"])
def test_a_cut_or_missing_file_is_refused(stores: Path, tmp_path: Path, codec: str) -> None:
    for path in sorted((stores / codec).iterdir()):
        whole = path.read_bytes()
        for number, size in enumerate((0, 4, 60, len(whole) // 2, len(whole) - 1)):
            folder = Path(shutil.copytree(stores / codec, tmp_path / f"{path.stem}-{number}"))
            (folder / path.name).write_bytes(whole[:size])
            with pytest.raises(IntegrityError):
                open_store(folder, epochs=EPOCHS)
        folder = Path(shutil.copytree(stores / codec, tmp_path / f"{path.stem}-gone"))
        (folder / path.name).unlink()
        with pytest.raises(IntegrityError):
            open_store(folder, epochs=EPOCHS)
        folder.joinpath(path.name).symlink_to(path)
        with pytest.raises(IntegrityError):
            open_store(folder, epochs=EPOCHS)


def test_a_gap_is_not_continued(stores: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(stores / "stored-int8", tmp_path / "store"))
    (folder / "store-00002.safetensors").unlink()
    with pytest.raises(IntegrityError, match=r"labels from epoch 2, sample 0, .* got from epoch 4"):
        store(folder, "stored-int8")


FACTS = {"store": '{"codec":"stored-vq8"}'}


@pytest.mark.parametrize(
    "books",
    [
        {},
        {"book-1": TABLE[0, :3].half()},
        {"book-0": TABLE[0, :3]},
        {"book-0": TABLE[0, :3, 1:].half()},
        {"book-0": TABLE[0, :9].half()},
        {"book-0": TABLE[0, :0].half()},
        {"book-0": TABLE[0, :3].half() * torch.inf},
        {"book-0": TABLE[0, 0].half()},
    ],
)
def test_a_damaged_codebook_is_refused(stores: Path, tmp_path: Path, books: dict[str, Tensor]) -> None:
    folder = Path(shutil.copytree(stores / "stored-vq8", tmp_path / "store"))
    save_file({name: book.contiguous() for name, book in books.items()}, folder / CODEBOOK, FACTS)
    with pytest.raises(IntegrityError, match="codebook"):
        open_store(folder)


def test_shards_without_their_codebook_are_not_continued(stores: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(stores / "stored-vq8", tmp_path / "store"))
    (folder / CODEBOOK).unlink()
    (folder / "store-00004.safetensors").unlink()
    with pytest.raises(IntegrityError, match="codebook"):
        store(folder, "stored-vq8")


def test_blocks_are_written_in_the_order_of_epochs_whatever_their_names(tmp_path: Path) -> None:
    codec = parse_codec("stored-fp16")
    for first in (0, 99_998, 99_999):
        epochs = 99_998 if first == 0 else 1
        block = {"labels": torch.zeros(epochs, 1, 2, dtype=torch.float16)}
        write_shards(tmp_path, block, codec=codec, classes=2, first_epoch=first)
    write_shards(
        tmp_path, {"labels": torch.ones(1, 1, 2).half()}, codec=codec, classes=2, first_epoch=100_000
    )
    assert open_store(tmp_path).rows(100_000, np.array([0])).tolist() == [[1.0, 1.0]]
    assert stored_epochs(tmp_path) == 100_001

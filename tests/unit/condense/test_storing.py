"""Stored labels are those of the source, and weigh what the formula says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from aerogel.condense.codecs import shards as shards_module
from aerogel.condense.codecs.shards import stored_epochs
from aerogel.condense.labels import Batch, HardLabels, LabelSource, NetworkLabels, StoredLabels
from aerogel.condense.storing import save_hard, save_one_per_image, store_labels
from aerogel.core.crew import Crew
from aerogel.errors import IntegrityError, MismatchError
from tests.unit.condense.shown import (
    CLASSES,
    EPOCHS,
    IMAGES,
    PIXELS,
    batch_of,
    run_of_batches,
    teacher,
)

CONTAINER_BYTES = 160  # of one safetensors file around its one tensor


def store(folder: Path, codec: str = "stored-fp32", source: LabelSource | None = None) -> StoredLabels:
    folder.mkdir(exist_ok=True)
    store_labels(
        folder,
        source or NetworkLabels("teacher", teacher()),
        run_of_batches(first=stored_epochs(folder)),
        epochs=EPOCHS,
        images=IMAGES,
        classes=CLASSES,
        codec=codec,
    )
    return StoredLabels(folder, "stored")


def payload(path: Path) -> int:
    """Return the bytes of a safetensors file that are tensor data, not the header or its length."""
    with path.open("rb") as stream:
        header = int.from_bytes(stream.read(8), "little")
        assert "labels" in json.loads(stream.read(header))
    return path.stat().st_size - 8 - header


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 0.0), (torch.float16, 2e-3)])
def test_one_per_image_stores_the_labels_of_the_plain_images(
    tmp_path: Path, dtype: torch.dtype, tolerance: float
) -> None:
    path = tmp_path / "labels.safetensors"
    network = teacher()
    save_one_per_image(path, network, PIXELS, dtype)
    found = load_file(path)["labels"]
    expected = network(PIXELS.float() / 255.0).detach()
    assert found.dtype == dtype
    assert float((found.float() - expected).abs().max()) <= tolerance
    size = IMAGES * CLASSES * torch.finfo(dtype).bits // 8
    assert payload(path) == size
    assert path.stat().st_size <= size + CONTAINER_BYTES


@pytest.mark.parametrize(("classes", "width"), [(256, 1), (257, 4)])
def test_hard_labels_take_the_smallest_type(tmp_path: Path, classes: int, width: int) -> None:
    labels = torch.arange(classes)
    save_hard(tmp_path / "hard.safetensors", labels)
    assert load_file(tmp_path / "hard.safetensors")["labels"].tolist() == labels.tolist()
    assert payload(tmp_path / "hard.safetensors") == classes * width


@pytest.mark.parametrize("name", ["convnet", "resnet18"])
@pytest.mark.parametrize("per_shard", [1, 2, 100])
def test_stored_float32_labels_are_the_online_ones_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, per_shard: int, name: str
) -> None:
    monkeypatch.setattr(shards_module, "SHARD_BYTES", per_shard * IMAGES * CLASSES * 4)
    online = NetworkLabels("teacher", teacher(name))
    stored = store(tmp_path, source=online)
    assert stored.epochs == EPOCHS
    for batch in run_of_batches():
        theirs, ours = online.logits(batch), stored.logits(batch)
        assert theirs is not None
        assert ours is not None
        assert ours.numpy().tobytes() == theirs.numpy().tobytes()


def test_stored_float16_labels_are_rounded_once(tmp_path: Path) -> None:
    online = NetworkLabels("teacher", teacher())
    stored = store(tmp_path, "stored-fp16")
    for batch in run_of_batches():
        theirs, ours = online.logits(batch), stored.logits(batch)
        assert theirs is not None
        assert ours is not None
        assert ours.dtype == torch.float32
        assert torch.equal(ours, theirs.half().float())
        assert bool(((ours - theirs).abs() <= theirs.abs() * 2.0**-11 + 2.0**-24).all())


@pytest.mark.parametrize(("codec", "width"), [("stored-fp32", 4), ("stored-fp16", 2)])
@pytest.mark.parametrize("per_shard", [1, 2, 100])
def test_stored_labels_weigh_epochs_times_images_times_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str, width: int, per_shard: int
) -> None:
    monkeypatch.setattr(shards_module, "SHARD_BYTES", per_shard * IMAGES * CLASSES * width)
    store(tmp_path, codec)
    shards = sorted(tmp_path.iterdir())
    assert len(shards) == -(-EPOCHS // per_shard)
    assert all(path.name.startswith("store-") and path.suffix == ".safetensors" for path in shards)
    size = EPOCHS * IMAGES * CLASSES * width
    assert sum(payload(path) for path in shards) == size
    assert max(payload(path) for path in shards) <= per_shard * IMAGES * CLASSES * width
    overhead = sum(path.stat().st_size for path in shards) - size
    assert 0 < overhead <= CONTAINER_BYTES * len(shards)


@pytest.mark.parametrize("stop", [0, 1, 5, 8, 14])
def test_a_killed_store_is_continued_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    monkeypatch.setattr(shards_module, "SHARD_BYTES", 2 * IMAGES * CLASSES * 4)
    store(tmp_path / "straight")

    class Killed(Exception):
        pass

    class Dying:
        """Labels until the process ends after some batches."""

        name = "teacher"
        left = stop

        def logits(self, batch: Batch) -> Tensor | None:
            if self.left == 0:
                raise Killed
            self.left -= 1
            return NetworkLabels("teacher", teacher()).logits(batch)

    with pytest.raises(Killed):
        store(tmp_path / "killed", source=Dying())
    assert stored_epochs(tmp_path / "killed") == stop // 3 // 2 * 2  # 3 batches an epoch, 2 epochs a shard
    store(tmp_path / "killed")
    assert contents(tmp_path / "killed") == contents(tmp_path / "straight")
    assert stored_epochs(tmp_path / "killed") == EPOCHS


def test_a_finished_store_asks_for_nothing(tmp_path: Path) -> None:
    store(tmp_path)
    before = contents(tmp_path)
    store(tmp_path, source=HardLabels())
    assert contents(tmp_path) == before


@pytest.mark.parametrize(("first", "given"), [(0, "one of epoch 0"), (4, "one of epoch 4"), (5, "too few")])
def test_refuses_batches_of_other_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int, given: str
) -> None:
    monkeypatch.setattr(shards_module, "SHARD_BYTES", 2 * IMAGES * CLASSES * 4)
    online = NetworkLabels("teacher", teacher())
    sizes = {"images": IMAGES, "classes": CLASSES, "codec": "stored-fp32"}
    store_labels(tmp_path, online, run_of_batches(), epochs=2, **sizes)  # type: ignore[arg-type]
    before = contents(tmp_path)
    with pytest.raises(MismatchError, match=f"epochs 2 to 4 in order; got {given}"):
        store_labels(tmp_path, online, run_of_batches(first=first), epochs=EPOCHS, **sizes)  # type: ignore[arg-type]
    assert contents(tmp_path) == before


def test_refuses_to_store_hard_labels(tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="a source of soft labels; got hard"):
        store(tmp_path, source=HardLabels())


def test_refuses_epochs_that_are_not_stored(tmp_path: Path) -> None:
    stored = store(tmp_path)
    with pytest.raises(MismatchError, match=f"an epoch below {EPOCHS}, .*got epoch {EPOCHS};"):
        stored.logits(batch_of([0], EPOCHS))


def test_refuses_a_folder_without_labels(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=r"store-\*\.safetensors"):
        StoredLabels(tmp_path, "stored")


class Second(Crew):
    """The second of two processes; the first has stored nothing and adds ``others`` to what it is given."""

    def tell(self, word: Any) -> Any:
        """Return what both know."""
        return word

    def add(self, values: Tensor) -> Tensor:
        """Return a sum that is full where counts are added up, as if the first process gave the rest."""
        return values + 1 if values.dtype == torch.int32 else values


def test_processes_store_labels_of_turns_and_the_first_writes(tmp_path: Path) -> None:
    online = NetworkLabels("teacher", teacher())
    sizes = {"images": IMAGES, "classes": CLASSES, "codec": "stored-fp32"}
    own = iter(list(run_of_batches())[1::2])
    store_labels(tmp_path, online, own, epochs=EPOCHS, crew=Second(2, 1), **sizes)  # type: ignore[arg-type]
    assert contents(tmp_path) == {}
    own = iter(list(run_of_batches())[1::2])
    with pytest.raises(MismatchError, match="too few"):
        store_labels(tmp_path, online, own, epochs=EPOCHS, **sizes)  # type: ignore[arg-type]

"""A set on disk is the set in memory, decoded once, and never held whole."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from aerogel.core.manifests import read_manifest
from aerogel.errors import DataError, FolderConflictError, IntegrityError, StorageFullError
from aerogel.zoo import load_images, load_splits, mapped, open_images
from aerogel.zoo.imageset import ImageSet
from aerogel.zoo.mapped import MappedRows, needed_bytes
from aerogel.zoo.request import Request
from tests.unit.zoo.test_shards import png, write_shards, write_tar


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AEROGEL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "images"


def same(one: ImageSet, other: ImageSet) -> bool:
    return one.fingerprint() == other.fingerprint() and one.ids == other.ids


def test_a_mapped_set_is_the_set_in_memory(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards")
    found, plain = open_images(shards, size=8), load_images(shards, size=8, channels=3)
    assert isinstance(found.images, MappedRows)
    assert same(found, plain)
    assert found.statistics() == plain.statistics()
    for one, other in zip(found.split(0.4, 0), plain.split(0.4, 0), strict=True):
        assert isinstance(one.images, MappedRows) and same(one, other)
    index = torch.tensor([4, 0, 4])
    assert torch.equal(found.images[index], plain.images[index])
    assert torch.equal(torch.stack(list(found.images)), plain.images)
    assert torch.equal(torch.cat(list(found.images.split(4))), plain.images)


def test_every_source_with_a_size_goes_to_disk_above_the_limit(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for index in range(3):
            (folder / name / f"{index}.png").write_bytes(png(index))
    need = needed_bytes(Request(size=8), 6)
    assert need == 6 * 3 * 64 and needed_bytes(Request(), 6) == 0
    small = load_images(folder, size=8, memory_bytes=need)
    large = load_images(folder, size=8, channels=3, memory_bytes=need - 1)
    assert torch.is_tensor(small.images) and isinstance(large.images, MappedRows)
    train, test = load_splits(folder, size=8, channels=1, memory_bytes=0)
    assert isinstance(train.images, MappedRows) and isinstance(test.images, MappedRows)


def test_a_finished_set_is_used_again_and_held_to_its_hash(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = write_shards(tmp_path / "shards")
    first = open_images(shards, size=8)
    (folder,) = cache.iterdir()
    assert (folder / "pixels.u8").stat().st_size == 6 * 3 * 64
    assert read_manifest(folder).facts["images"] == 6

    def unexpected(*_: object, **__: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(mapped, "decode_picture", unexpected)
    assert same(open_images(shards, size=8), first)
    raw = bytearray((folder / "pixels.u8").read_bytes())
    raw[5] ^= 1
    (folder / "pixels.u8").write_bytes(raw)
    with pytest.raises(IntegrityError, match=r"pixels\.u8"):
        open_images(shards, size=8)


def test_a_changed_source_is_decoded_anew(tmp_path: Path, cache: Path) -> None:
    shards = write_shards(tmp_path / "shards")
    open_images(shards, size=8)
    write_tar(shards / "train-0002.tar", {"z.png": png(77), "z.cls": b"1"})
    assert open_images(shards, size=8).images[6].max() == 77
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("stop", [1, 2, 3, 5])
def test_a_killed_decoding_goes_on(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    shards = write_shards(tmp_path / "shards")
    monkeypatch.setattr(mapped, "_SAVE_EVERY", 2)
    real, calls = mapped.decode_picture, []

    def decode(*args: Any, **options: Any) -> Any:
        calls.append(args)
        if len(calls) == stop + 1:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(mapped, "decode_picture", decode)
    with pytest.raises(KeyboardInterrupt):
        open_images(shards, size=8)
    found = open_images(shards, size=8)
    assert len(calls) == stop + 1 + 6 - stop // 2 * 2, "what was saved is not decoded again"
    assert same(found, load_images(shards, size=8, channels=3))
    (folder,) = (each for each in cache.iterdir() if each.is_dir())
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "pixels.u8", "rows.jsonl"]


def test_bad_pictures_refuse_or_are_left_out(tmp_path: Path, cache: Path) -> None:
    shards = write_shards(tmp_path / "shards")
    write_tar(shards / "train-0002.tar", {"z.png": b"none", "z.cls": b"1", "y.png": png(5), "y.cls": b"0"})
    with pytest.raises(DataError, match=r"train-0002\.tar:z: not an image"):
        open_images(shards, size=8)
    assert not list(cache.rglob("pixels.u8")), "a refused source leaves no gigabytes"
    found = open_images(shards, size=8, skip_bad=True)
    assert len(found) == 7 and found.images[6].max() == 5
    assert same(found, load_images(shards, size=8, channels=3, skip_bad=True))


def test_a_full_disk_is_said_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = write_shards(tmp_path / "shards")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=10))
    with pytest.raises(StorageFullError):
        open_images(shards, size=8)


def test_another_process_that_decodes_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = write_shards(tmp_path / "shards")
    real, tries = mapped.run_stage, []

    def run_stage(*args: Any, **options: Any) -> Any:
        tries.append(options["need_bytes"])
        if len(tries) < 3:
            raise FolderConflictError("another run is working there")
        return real(*args, **options)

    monkeypatch.setattr(mapped, "run_stage", run_stage)
    monkeypatch.setattr(mapped, "_WAIT_S", 0.0)
    assert len(open_images(shards, size=8)) == 6
    assert tries == [6 * 3 * 64] * 3


MEASURE = """
import sys, threading, time
from pathlib import Path

import torch

from aerogel.zoo import open_images

def anonymous_bytes():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024

def watch():
    while True:
        peaks.append(anonymous_bytes())
        time.sleep(0.002)

open_images(sys.argv[2], size=256).fingerprint()  # whatever is imported for it
before, peaks = anonymous_bytes(), []
threading.Thread(target=watch, daemon=True).start()
found = open_images(sys.argv[1], size=256)
kept, held = found.split(0.1, 0)
kept.fingerprint()
kept.images[torch.arange(16)]
print(len(found), found.images.shape.numel(), max(peaks) - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's count of memory")
def test_memory_stays_far_below_the_set(tmp_path: Path) -> None:
    files: dict[str, bytes] = {}
    for index in range(3000):
        files |= {f"{index:04d}.png": png(index % 256), f"{index:04d}.cls": str(index % 2).encode()}
    write_tar(tmp_path / "train.tar", files)
    write_tar(tmp_path / "few.tar", dict(list(files.items())[:4]))
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "train.tar"), str(tmp_path / "few.tar")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    count, pixels, grown = map(int, done.stdout.split())
    assert (count, pixels) == (3000, 3000 * 3 * 256 * 256)
    print(f"{grown:,} bytes for a set of {pixels:,}")
    assert grown < pixels / 3, f"{grown:,} bytes for a set of {pixels:,}"

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aerogel.errors import DataError
from aerogel.measure.storage import measure_storage, size_bytes


def test_a_file_weighs_its_length(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(b"x" * 7812)
    assert size_bytes(file) == size_bytes(str(file)) == 7812
    assert measure_storage(file).text == "7.8 kB"
    assert measure_storage(file, "labels").name == "labels"


def test_a_folder_weighs_its_files_at_every_depth(tmp_path: Path) -> None:
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / "a").write_bytes(b"12")
    (tmp_path / "b" / ".hidden").write_bytes(b"345")
    (tmp_path / "b" / "c" / "d").write_bytes(b"6789")
    assert size_bytes(tmp_path) == 9
    assert size_bytes(tmp_path / "b" / "c") == 4


def test_an_empty_folder_weighs_nothing(tmp_path: Path) -> None:
    assert size_bytes(tmp_path) == 0


def test_links_weigh_what_they_reach_and_nothing_counts_twice(tmp_path: Path) -> None:
    store, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    store.mkdir()
    snapshot.mkdir()
    (store / "blob").write_bytes(b"x" * 50)
    (snapshot / "model.safetensors").symlink_to(store / "blob")
    assert size_bytes(snapshot) == 50
    os.link(store / "blob", store / "same")
    assert size_bytes(tmp_path) == 50


def test_linked_folders_are_not_entered(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"123")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert size_bytes(tmp_path) == 3


def test_what_cannot_be_weighed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing"):
        size_bytes(tmp_path / "missing")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="neither"):
        size_bytes(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match="dangling"):
        size_bytes(tmp_path)

"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from aerogel.core import files
from aerogel.errors import DataError, FolderExistsError, IntegrityError, StorageFullError


def test_bytes_and_text_arrive_and_replace_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "file.txt"
    files.write_bytes_atomic(path, b"one")
    assert path.read_bytes() == b"one"
    files.write_text_atomic(path, "zwölf\n")
    assert path.read_bytes() == "zwölf\n".encode()
    assert os.listdir(path.parent) == ["file.txt"]


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(data[:3])))
    files.write_bytes_atomic(tmp_path / "file", b"0123456789")
    assert (tmp_path / "file").read_bytes() == b"0123456789"


@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    path = tmp_path / "file"
    path.write_text("before")

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(StorageFullError, match=r"room to write .*file; got a full disk .* bytes free"):
            files.write_bytes_atomic(path, b"after")
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["file"]


def test_other_failures_keep_their_own_error_and_clean_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> Any:
        raise OSError(errno.EIO, "broken disk")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="broken disk") as caught:
            files.write_bytes_atomic(tmp_path / "file", b"x")
    assert not isinstance(caught.value, StorageFullError)
    assert os.listdir(tmp_path) == []


def test_a_folder_or_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FolderExistsError):
        files.write_text_atomic(tmp_path, "x")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError, match="folders on the way"):
        files.write_text_atomic(tmp_path / "file" / "below", "x")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("text", ["I/O error: No space left on device (os error 28)", "Disk quota exceeded"])
def test_a_librarys_own_words_for_a_full_disk_are_understood(text: str) -> None:
    with pytest.raises(StorageFullError) as caught, files.storage_errors("out"):
        raise RuntimeError(text)
    assert isinstance(caught.value.__cause__, RuntimeError)
    with pytest.raises(RuntimeError, match="another"), files.storage_errors("out"):
        raise RuntimeError("another")


def test_room_is_asked_for_before_it_is_needed(tmp_path: Path) -> None:
    files.require_space(tmp_path / "not" / "there", 1)
    with pytest.raises(StorageFullError, match="1,000,000,000,000,000,000 free bytes"):
        files.require_space(tmp_path, 10**18)


def test_a_hash_is_of_the_content(tmp_path: Path) -> None:
    data = os.urandom(3 * 2**20 + 1)
    (tmp_path / "file").write_bytes(data)
    assert files.sha256_file(tmp_path / "file") == hashlib.sha256(data).hexdigest()


def test_links_pipes_folders_and_nothing_are_not_hashed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", ".", "missing", "nul\0byte"):
        with pytest.raises(IntegrityError):
            files.sha256_file(tmp_path / name)


def test_files_are_listed_with_their_sizes_and_links_refused(tmp_path: Path) -> None:
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / "b" / "c" / "d").write_text("four")
    (tmp_path / "a").write_text("")
    assert files.list_files(tmp_path) == {"a": 0, "b/c/d": 4}
    (tmp_path / "b" / "up").symlink_to("..")
    with pytest.raises(IntegrityError, match="a link at 'b/up'"):
        files.list_files(tmp_path)


def test_only_temporary_files_are_swept(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / f"{files.TEMPORARY_PREFIX}1").write_text("x")
    (tmp_path / "a" / "mine.tmp").write_text("x")
    files.sweep_temporaries(tmp_path)
    assert files.list_files(tmp_path) == {"a/mine.tmp": 1}


def test_what_killed_writers_left_is_removed_by_the_next_in_the_folder(tmp_path: Path) -> None:
    code = "import os, sys; from aerogel.core import files; print(files._own_prefix(os.getpid()))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    orphan = ended.stdout.strip()
    machine = orphan.split("-")[-3]
    alive = files._own_prefix(os.getpid())
    elsewhere = orphan.replace(machine, "0" * 8)
    for name in (orphan, alive, elsewhere, files.TEMPORARY_PREFIX):
        (tmp_path / f"{name}12ab").write_text("half")
    files.write_text_atomic(tmp_path / "whole", "text")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {f"{name}12ab" for name in (alive, elsewhere, files.TEMPORARY_PREFIX)} | {"whole"}


TINY_DISK = """
    import os, sys
    from pathlib import Path
    from aerogel.core.folders import create_folder, write_bytes_atomic
    from aerogel.core.stages import Stage, run_stage
    from aerogel.errors import StorageFullError

    place = Path(sys.argv[1])
    write_bytes_atomic(place / "file", b"before")
    try:
        write_bytes_atomic(place / "file", b"x" * 2**21)
    except StorageFullError as error:
        print("file", error.errno, (place / "file").read_text())
    try:
        with create_folder(place / "out") as folder:
            (folder / "big").write_bytes(b"x" * 2**21)
    except StorageFullError as error:
        print("folder", error.errno, sorted(os.listdir(place)))
    def build(work):
        (work / "big").write_bytes(b"x" * 2**21)
        return {}
    stage = Stage(place / "out", "test", {}, {})
    try:
        run_stage(stage, build)
    except StorageFullError as error:
        print("stage", error.errno, sorted(os.listdir(place)))
    (place / "out.partial" / "big").unlink()
    print(sorted(run_stage(stage, lambda work: {"n": (work / "small").write_text("y")}).files))
"""


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    script = f'mount -t tmpfs -o size=1m tmpfs "{tmp_path}" && exec "{sys.executable}" -c "$0" "{tmp_path}"'
    command = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        script,
        textwrap.dedent(TINY_DISK),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        pytest.skip("this system has no unshare")
    if "unshare:" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"this system allows no disk of one's own: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "file 28 before",
        "folder 28 ['file']",
        "stage 28 ['file', 'out.partial']",
        "['small']",
    ]


def test_a_place_for_a_file_is_refused_before_the_work(tmp_path: Path) -> None:
    files.require_file_place(tmp_path / "new" / "scores.json", overwrite=False)
    assert (tmp_path / "new").is_dir() and not any((tmp_path / "new").iterdir())
    taken = tmp_path / "taken"
    taken.write_text("mine")
    with pytest.raises(FolderExistsError, match=r"nothing at .*taken; got a file; .*--overwrite"):
        files.require_file_place(taken, overwrite=False)
    files.require_file_place(taken, overwrite=True)
    with pytest.raises(FolderExistsError, match="got a folder"):
        files.require_file_place(tmp_path, overwrite=True)
    with pytest.raises(DataError, match="folders on the way"):
        files.require_file_place(taken / "scores.json", overwrite=True)
    assert taken.read_text() == "mine"

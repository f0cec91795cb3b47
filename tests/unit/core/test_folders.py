"""Result folders appear whole or not at all, and prove that they are unchanged."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from aerogel.core import folders
from aerogel.core.files import list_files, sync_folder
from aerogel.core.folders import create_folder, recover_folder, seal_folder, verify_folder
from aerogel.core.locks import hold_lock
from aerogel.core.manifests import MANIFEST_NAME
from aerogel.errors import (
    DataError,
    FolderConflictError,
    FolderExistsError,
    IntegrityError,
    MismatchError,
    StorageFullError,
)


def fill(folder: Path, text: str = "text") -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "file").write_text(text)
    (folder / "top").write_bytes(bytes(range(256)))
    seal_folder(folder, kind="test", config={}, facts={"text": text})


def make(path: Path, text: str = "text", **options: Any) -> Path:
    with create_folder(path, **options) as folder:
        fill(folder, text)
    return path


def text_of(path: Path) -> Any:
    return verify_folder(path, "test").facts["text"]


def test_a_folder_appears_whole_and_alone(tmp_path: Path) -> None:
    with create_folder(tmp_path / "deep" / "out") as folder:
        assert folder.parent == tmp_path / "deep"
        fill(folder)
        assert not (tmp_path / "deep" / "out").exists()
    assert text_of(tmp_path / "deep" / "out") == "text"
    assert os.listdir(tmp_path / "deep") == ["out"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), create_folder(tmp_path / "out") as folder:
        fill(folder)
        raise error
    assert os.listdir(tmp_path) == []


def test_an_error_leaves_what_was_to_be_overwritten(tmp_path: Path) -> None:
    make(tmp_path / "out", "old")
    with pytest.raises(ValueError, match="stop"), create_folder(tmp_path / "out", overwrite=True) as folder:
        fill(folder, "new")
        raise ValueError("stop")
    assert text_of(tmp_path / "out") == "old"
    assert os.listdir(tmp_path) == ["out"]


def test_a_result_is_overwritten_only_when_allowed(tmp_path: Path) -> None:
    make(tmp_path / "out", "old")
    with pytest.raises(FolderExistsError, match="allow overwriting"):
        make(tmp_path / "out", "new")
    assert text_of(tmp_path / "out") == "old"
    make(tmp_path / "out", "new", overwrite=True)
    assert text_of(tmp_path / "out") == "new"
    assert os.listdir(tmp_path) == ["out"]


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert text_of(make(tmp_path / "out")) == "text"


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_the_users_is_never_removed(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_text("mine")
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / MANIFEST_NAME).write_text('{"name": "my web app"}')
    make(tmp_path / "result")
    (tmp_path / "result" / "notes.txt").write_text("mine")
    before = list_files(tmp_path)
    for name in ("file", "photos", "web", "result"):
        with pytest.raises(FolderExistsError, match="what to do"):
            make(tmp_path / name, overwrite=overwrite)
    assert list_files(tmp_path) == before


def test_the_users_files_in_a_result_are_named(tmp_path: Path) -> None:
    make(tmp_path / "out")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(FolderExistsError, match=r"files of yours: notes\.txt"):
        make(tmp_path / "out", overwrite=True)


def test_a_link_is_followed_and_kept(tmp_path: Path) -> None:
    (tmp_path / "big-disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "big-disk" / "out")
    make(tmp_path / "out", "old")
    make(tmp_path / "out", "new", overwrite=True)
    assert (tmp_path / "out").is_symlink()
    assert text_of(tmp_path / "big-disk" / "out") == "new"


def test_a_path_without_a_name_is_refused() -> None:
    with pytest.raises(DataError, match="add a name"), create_folder("/"):
        pass


def test_a_folder_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(FolderExistsError), create_folder(tmp_path / "out") as folder:
        fill(folder)
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine").write_text("mine")
    assert list_files(tmp_path) == {"out/mine": 4}


def test_two_writers_of_one_folder_are_refused(tmp_path: Path) -> None:
    with create_folder(tmp_path / "out") as folder:
        with pytest.raises(FolderConflictError, match="another run"):
            make(tmp_path / "out")
        fill(folder, "first")
    assert text_of(tmp_path / "out") == "first"


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(StorageFullError), create_folder(tmp_path / "out") as folder:
        fill(folder)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(StorageFullError, match="free bytes for"):
        make(tmp_path / "out", need_bytes=10**18)
    assert os.listdir(tmp_path) == []


def test_a_disk_that_fills_up_while_sealing_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(StorageFullError):
            make(tmp_path / "out")
    assert os.listdir(tmp_path) == []


class Crash(BaseException):
    """What stands for a process that stops here."""


@pytest.mark.parametrize("step", range(6))
@pytest.mark.parametrize("after", [False, True])
def test_a_crash_while_swapping_loses_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, after: bool
) -> None:
    make(tmp_path / "out", "old")
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    fill(fresh, "new")
    calls = iter(range(99))

    def crash(function: Any) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            now = next(calls) == step
            if now and not after:
                raise Crash
            result = function(*args, **kwargs)
            if now:
                raise Crash
            return result

        return wrapped

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", crash(os.rename))
        patch.setattr(folders, "sync_folder", crash(sync_folder))
        patch.setattr(shutil, "rmtree", crash(shutil.rmtree))
        try:
            folders.put_in_place(fresh, tmp_path / "out", overwrite=True)
            crashed = False
        except Crash:
            crashed = True
    assert crashed == (next(calls) > step)
    with hold_lock(tmp_path / "out"):
        recover_folder(tmp_path / "out")
    found = text_of(tmp_path / "out")
    assert found in ("old", "new")
    if found == "old":
        assert text_of(fresh) == "new"
    assert sorted(os.listdir(tmp_path)) == (["fresh", "out"] if found == "old" else ["out"])


def test_there_are_six_steps_to_crash_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold the parametrisation above to the steps that exist."""
    make(tmp_path / "out", "old")
    calls: list[str] = []
    for place, name in ((os, "rename"), (folders, "sync_folder"), (shutil, "rmtree")):
        real = getattr(place, name)

        def note(*args: Any, real: Any = real, name: str = name) -> Any:
            calls.append(name)
            return real(*args)

        monkeypatch.setattr(place, name, note)
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    fill(fresh, "new")
    folders.put_in_place(fresh, tmp_path / "out", overwrite=True)
    assert calls == ["rename", "sync_folder", "rename", "sync_folder", "rename", "rmtree"]


OVERWRITER = """
    import sys
    from pathlib import Path
    from aerogel.core.folders import create_folder, seal_folder
    print("ready", flush=True)
    for n in range(10**6):
        with create_folder(sys.argv[1], overwrite=True) as folder:
            for i in range(5):
                (folder / str(i)).write_text(str(n))
            seal_folder(folder, kind="test", config={}, facts={"text": str(n)})
"""


def test_a_kill_while_overwriting_leaves_a_whole_folder(tmp_path: Path) -> None:
    make(tmp_path / "out")
    dice = random.Random(0)
    for _ in range(5):
        command = [sys.executable, "-c", textwrap.dedent(OVERWRITER), str(tmp_path / "out")]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(dice.uniform(0.01, 0.1))
            process.kill()
        with hold_lock(tmp_path / "out"):
            recover_folder(tmp_path / "out")
        text_of(tmp_path / "out")
    make(tmp_path / "out", "last", overwrite=True)
    assert os.listdir(tmp_path) == ["out"]


def test_every_kind_of_damage_is_named(tmp_path: Path) -> None:
    out = make(tmp_path / "out")
    (out / "top").write_bytes(bytes(255))
    (out / "extra").write_text("x")
    (out / "sub" / "file").unlink()
    with pytest.raises(IntegrityError) as caught:
        verify_folder(out)
    for part in (
        "'sub/file' is missing",
        "'extra' is not in the manifest",
        "'top' has 255 bytes instead of 256",
    ):
        assert part in str(caught.value)


def test_a_flipped_bit_is_found_wherever_it_is(tmp_path: Path) -> None:
    out = make(tmp_path / "out")
    for place in (0, 100, 255):
        data = bytearray((out / "top").read_bytes())
        data[place] ^= 1
        (out / "top").write_bytes(data)
        with pytest.raises(IntegrityError, match="'top' has other content"):
            verify_folder(out)
        data[place] ^= 1
        (out / "top").write_bytes(data)
    assert text_of(out) == "text"


@pytest.mark.parametrize("name", ["top", "sub"])
@pytest.mark.parametrize("allow_extra", [False, True])
def test_a_link_with_the_right_content_is_refused(tmp_path: Path, name: str, allow_extra: bool) -> None:
    out = make(tmp_path / "out")
    os.rename(out / name, tmp_path / "moved")
    (out / name).symlink_to(tmp_path / "moved")
    with pytest.raises(IntegrityError):
        verify_folder(out, allow_extra=allow_extra)


def test_extra_files_are_let_be_when_asked(tmp_path: Path) -> None:
    out = make(tmp_path / "out")
    (out / ".gitattributes").write_text("x")
    (out / "link").symlink_to("top")
    assert verify_folder(out, allow_extra=True).kind == "test"
    (out / "top").unlink()
    with pytest.raises(IntegrityError, match="'top' is missing"):
        verify_folder(out, allow_extra=True)


def test_a_card_is_for_people_to_write_in(tmp_path: Path) -> None:
    with create_folder(tmp_path / "out") as fresh:
        (fresh / "README.md").write_text("a card")
        (fresh / "weights").write_text("numbers")
        seal_folder(fresh, kind="test", config={}, facts={})
    (tmp_path / "out" / "README.md").write_text("a better card")
    assert verify_folder(tmp_path / "out").kind == "test"
    (tmp_path / "out" / "README.md").unlink()
    with pytest.raises(IntegrityError, match=r"'README\.md' is missing"):
        verify_folder(tmp_path / "out")


def test_another_kind_is_a_mismatch_and_many_faults_are_counted(tmp_path: Path) -> None:
    out = make(tmp_path / "out")
    with pytest.raises(MismatchError, match=r"kind 'teacher'.*kind 'test'"):
        verify_folder(out, "teacher")
    for i in range(25):
        (out / f"extra{i}").write_text("")
    with pytest.raises(IntegrityError, match="and 5 more"):
        verify_folder(out)


def test_what_cannot_be_sealed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"facts\.loss"):
        seal_folder(tmp_path, kind="test", config={}, facts={"loss": float("nan")})
    (tmp_path / "a\\b").write_text("")
    with pytest.raises(DataError, match="portable file names"):
        seal_folder(tmp_path, kind="test", config={}, facts={})
    (tmp_path / "a\\b").unlink()
    (tmp_path / "link").symlink_to("/etc")
    with pytest.raises(IntegrityError, match="a link"):
        seal_folder(tmp_path, kind="test", config={}, facts={})
    assert not (tmp_path / MANIFEST_NAME).exists()

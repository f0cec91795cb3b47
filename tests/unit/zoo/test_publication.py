"""A folder goes to the hub whole and comes back as it was, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from aerogel.core.folders import create_folder, seal_folder, verify_folder
from aerogel.errors import ConfigError, DataError, IntegrityError, MismatchError
from aerogel.zoo.publication import fetch_folder, publish_folder, require_repo_id
from tests.unit.zoo.fake_hub import FakeHub

KIND = "test-folder"
FILES = {"a.txt": "first", "data/[odd] name*.txt": "second", "README.md": "card"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    monkeypatch.setenv("AEROGEL_CACHE", str(tmp_path / "cache"))
    return FakeHub(tmp_path / "hub", tmp_path / "snapshots").install(monkeypatch)


def make(folder: Path, files: dict[str, str] = FILES, kind: str = KIND) -> Path:
    with create_folder(folder) as fresh:
        for name, text in files.items():
            (fresh / name).parent.mkdir(parents=True, exist_ok=True)
            (fresh / name).write_text(text, encoding="utf-8")
        seal_folder(fresh, kind=kind, config={}, facts={})
    return folder


def test_a_folder_comes_back_as_it_was(hub: FakeHub, tmp_path: Path) -> None:
    sent = make(tmp_path / "sent")
    address = publish_folder(sent, "anna/set", KIND, private=True, token="secret", replaced=("data/*",))
    assert address == "https://hub.test/datasets/anna/set"
    assert hub.asked("login") == [{"token": "secret"}]
    assert hub.asked("create")[0]["private"] is True and hub.asked("create")[0]["repo_type"] == "dataset"
    found = fetch_folder("anna/set", KIND, token="secret")
    assert {path.relative_to(found).as_posix() for path in found.rglob("*") if path.is_file()} == {
        *FILES,
        "manifest.json",
    }
    assert not any(path.is_symlink() for path in found.rglob("*"))
    assert verify_folder(found, KIND).digest == verify_folder(sent, KIND).digest
    first, second = hub.asked("download")
    assert first["allow_patterns"] == ["manifest.json"]
    assert second["revision"] == found.name and "data/[[]odd] name[*].txt" in second["allow_patterns"]
    assert len(second["allow_patterns"]) == len(FILES) + 1


def test_what_was_fetched_is_used_again(hub: FakeHub, tmp_path: Path) -> None:
    publish_folder(make(tmp_path / "sent"), "anna/set", KIND)
    found = fetch_folder("anna/set", KIND)
    hub.offline = True
    assert fetch_folder("anna/set", KIND) == found
    (found / "a.txt").write_text("other", encoding="utf-8")
    with pytest.raises(IntegrityError, match=r"'a.txt'.*delete that folder"):
        fetch_folder("anna/set", KIND)


def test_files_of_an_earlier_set_are_replaced(hub: FakeHub, tmp_path: Path) -> None:
    publish_folder(make(tmp_path / "sent"), "anna/set", KIND)
    again = make(tmp_path / "again", {"data/other.txt": "x"})
    publish_folder(again, "anna/set", KIND, replaced=("data/*",))
    names = {path.name for path in (hub.root / "anna/set/data").iterdir()}
    assert names == {"other.txt"}


def test_a_damaged_folder_is_not_sent(hub: FakeHub, tmp_path: Path) -> None:
    sent = make(tmp_path / "sent")
    (sent / "a.txt").write_text("other", encoding="utf-8")
    with pytest.raises(IntegrityError, match=r"a\.txt"):
        publish_folder(sent, "anna/set", KIND)
    assert hub.calls == []


def test_a_damaged_repository_leaves_nothing(hub: FakeHub, tmp_path: Path) -> None:
    publish_folder(make(tmp_path / "sent"), "anna/set", KIND)
    (hub.root / "anna/set/a.txt").write_text("worse", encoding="utf-8")
    with pytest.raises(IntegrityError, match=r"a\.txt"):
        fetch_folder("anna/set", KIND)
    (hub.root / "anna/set/a.txt").unlink()
    with pytest.raises(DataError, match=r"a\.txt in 'anna/set'"):
        fetch_folder("anna/set", KIND)
    assert not list((tmp_path / "cache" / "hub" / "anna--set").glob("[!.]*"))


def test_what_cannot_be_reached_is_said(hub: FakeHub, tmp_path: Path) -> None:
    sent = make(tmp_path / "sent")
    with pytest.raises(DataError, match="404: no such repository"):
        fetch_folder("anna/none", KIND)
    (hub.root / "anna/plain").mkdir(parents=True)
    with pytest.raises(DataError, match=r"manifest\.json in 'anna/plain'"):
        fetch_folder("anna/plain", KIND)
    publish_folder(make(tmp_path / "other", kind="other"), "anna/other", "other")
    with pytest.raises(MismatchError, match="kind 'other'"):
        fetch_folder("anna/other", KIND)
    with pytest.raises(DataError, match="at most 3 bytes"):
        fetch_folder("anna/other", "other", max_bytes=3)
    hub.offline = True
    with pytest.raises(DataError, match=r"cannot be reached.*HF_HUB_OFFLINE"):
        fetch_folder("anna/unseen", KIND)
    with pytest.raises(DataError, match=r"cannot be reached.*hf auth login"):
        publish_folder(sent, "anna/set", KIND)


@pytest.mark.parametrize("name", ["set", "a/b/c", "anna/..", "an na/x", ""])
def test_names_that_the_hub_does_not_know_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="user/name"):
        require_repo_id(name)

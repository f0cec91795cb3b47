"""A manifest is read exactly or refused, whatever it says."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aerogel.core.folders import seal_folder
from aerogel.core.manifests import MANIFEST_NAME, Manifest, find_name_fault, read_manifest
from aerogel.errors import DataError, IntegrityError

HASH = "0" * 64
SOUND: dict[str, Any] = {
    "format": "aerogel-folder",
    "schema": 1,
    "kind": "test",
    "files": {"a/b.bin": {"bytes": 3, "sha256": HASH}, "c": {"bytes": 4, "sha256": HASH}},
    "versions": {"python": "3"},
    "seed": 7,
    "command": "aerogel",
    "config": {"lr": 0.1},
    "facts": {"n": [1]},
}


def write(folder: Path, data: Any) -> Path:
    (folder / MANIFEST_NAME).write_text(data if isinstance(data, str) else json.dumps(data))
    return folder


def test_a_sound_manifest_is_read_and_written_back(tmp_path: Path) -> None:
    manifest = read_manifest(write(tmp_path, SOUND))
    assert manifest.to_dict() == SOUND
    assert manifest.total_bytes == 7
    assert manifest.files["a/b.bin"].bytes == 3
    assert read_manifest(write(tmp_path, manifest.to_json())) == manifest


def test_a_flipped_bit_anywhere_in_a_manifest_is_refused(tmp_path: Path) -> None:
    whole = read_manifest(write(tmp_path, SOUND)).to_json().encode()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        (tmp_path / MANIFEST_NAME).write_bytes(damaged)
        with pytest.raises(IntegrityError):
            read_manifest(tmp_path)


def test_a_manifest_spelled_in_another_way_is_not_the_sealed_one(tmp_path: Path) -> None:
    sealed = read_manifest(write(tmp_path, SOUND)).to_json()
    with pytest.raises(IntegrityError, match="sealed"):
        read_manifest(write(tmp_path, json.dumps(json.loads(sealed))))


def test_the_digest_covers_everything_but_the_command(tmp_path: Path) -> None:
    digest = read_manifest(write(tmp_path, SOUND)).digest
    assert read_manifest(write(tmp_path, SOUND | {"command": None})).digest == digest
    changes: list[dict[str, Any]] = [
        {"kind": "other"},
        {"files": {}},
        {"versions": {}},
        {"seed": None},
        {"config": {"lr": 0.2}},
        {"facts": {}},
    ]
    digests = {read_manifest(write(tmp_path, SOUND | change)).digest for change in changes}
    assert len(digests | {digest}) == 7


WRONG: list[tuple[str, Any]] = [
    ("format", "other"),
    ("schema", "1"),
    ("schema", True),
    ("schema", 0),
    ("schema", 2),
    ("kind", ""),
    ("kind", None),
    ("seed", 1.5),
    ("seed", True),
    ("command", 3),
    ("files", []),
    ("files", {"x": {"bytes": 3}}),
    ("files", {"x": {"bytes": -1, "sha256": HASH}}),
    ("files", {"x": {"bytes": True, "sha256": HASH}}),
    ("files", {"x": {"bytes": 1.0, "sha256": HASH}}),
    ("files", {"x": {"bytes": 2**63, "sha256": HASH}}),
    ("files", {"x": {"bytes": 1, "sha256": HASH[1:]}}),
    ("files", {"x": {"bytes": 1, "sha256": HASH + "\n"}}),
    ("files", {"x": {"bytes": 1, "sha256": "G" * 64}}),
    ("files", {"x": {"bytes": 1, "sha256": HASH, "more": 1}}),
    ("versions", {"python": 3}),
    ("config", None),
    ("facts", [1]),
    ("unknown", 1),
]


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_wrong_values_are_refused(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(IntegrityError, match=r"expected .*manifest\.json.*; what to do: "):
        read_manifest(write(tmp_path, SOUND | {key: value}))


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="'seed'"):
        read_manifest(write(tmp_path, {key: value for key, value in SOUND.items() if key != "seed"}))


def test_a_newer_schema_asks_for_a_newer_aerogel(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="newer Aerogel"):
        read_manifest(write(tmp_path, SOUND | {"schema": 2, "new": 1}))


NAMES = [
    "",
    "/etc/passwd",
    "../up",
    "a/../../up",
    "a/./b",
    "a//b",
    "a/",
    "..",
    ".",
    "C:/x",
    "a\\b",
    "a\0b",
    "a\nb",
    "\x1b[2J",
    "a" * 256,
    "a/" * 600 + "a",
    MANIFEST_NAME,
    "\u202egnp.exe",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    assert find_name_fault(name) is not None
    with pytest.raises(IntegrityError):
        read_manifest(write(tmp_path, SOUND | {"files": {name: {"bytes": 1, "sha256": HASH}}}))


@given(st.text(max_size=12) | st.text("./\\:a", max_size=12))
def test_a_name_without_fault_stays_below_the_folder(name: str) -> None:
    if find_name_fault(name) is None:
        assert os.path.normpath(os.path.join("/some/folder", name)) == f"/some/folder/{name}"


@pytest.mark.parametrize("name", ["a", "a/b c.png", "...", "ä/ß", "checkpoint.0", "-x"])
def test_plain_names_have_no_fault(name: str) -> None:
    assert find_name_fault(name) is None


@pytest.mark.parametrize("text", ["", "[]", "null", '{"format": NaN}', "[" * 99_999, '{"a":1,"a":2}', "\x00"])
def test_what_is_no_manifest_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(IntegrityError):
        read_manifest(write(tmp_path, text))


def test_a_huge_manifest_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with open(tmp_path / MANIFEST_NAME, "wb") as file:
        file.truncate(2**40)
    with pytest.raises(IntegrityError, match="at most 16,777,216 bytes"):
        read_manifest(tmp_path)


def test_a_manifest_that_is_a_link_or_pipe_is_refused(tmp_path: Path) -> None:
    elsewhere = write(tmp_path, SOUND) / MANIFEST_NAME
    for name in ("link", "pipe"):
        (tmp_path / name).mkdir()
    (tmp_path / "link" / MANIFEST_NAME).symlink_to(elsewhere)
    os.mkfifo(tmp_path / "pipe" / MANIFEST_NAME)
    for name in ("link", "pipe"):
        with pytest.raises(IntegrityError):
            read_manifest(tmp_path / name)


def test_no_folder_and_no_manifest_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a folder at"):
        read_manifest(tmp_path / "missing")
    with pytest.raises(IntegrityError, match="a folder without one"):
        read_manifest(tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=5), v, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@given(key=st.sampled_from(sorted(SOUND)), value=JSON)
def test_any_json_in_any_place_is_read_exactly_or_refused(place: Path, key: str, value: Any) -> None:
    data = SOUND | {key: value}
    try:
        manifest = read_manifest(write(place, data))
    except IntegrityError:
        return
    assert isinstance(manifest, Manifest)
    assert manifest.to_dict() == data
    assert len(manifest.digest) == 64


def test_sealing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    texts = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        for file in ("2", "1") if name == "a" else ("1", "2"):
            (folder / file).write_text(file)
        seal_folder(folder, kind="test", config={"x": 1.0}, facts={"t": (1, 2)}, seed=1)
        texts.append((folder / MANIFEST_NAME).read_bytes())
    assert texts[0] == texts[1]

"""The list of what a result folder holds: sizes, hashes, and how it was made."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aerogel.core.canonical import canonical_json, parse_json, plain_value, show_value
from aerogel.core.files import open_regular
from aerogel.errors import DataError, IntegrityError, compose

__all__ = [
    "MANIFEST_NAME",
    "MANIFEST_SCHEMA",
    "FileEntry",
    "Manifest",
    "find_name_fault",
    "is_sealed",
    "read_manifest",
]

MANIFEST_NAME = "manifest.json"
MANIFEST_SCHEMA = 1
_FORMAT = "aerogel-folder"
_MAX_MANIFEST_BYTES = 16 * 2**20
_MAX_FILE_BYTES = 2**62
_HASH = re.compile(r"[0-9a-f]{64}")
_SEAL = re.compile(rb'\n "seal": "([0-9a-f]{64})"')
_BLANK = "0" * 64
_KEYS = ("format", "schema", "kind", "files", "versions", "seed", "command", "config", "facts")


@dataclass(frozen=True)
class FileEntry:
    """Hold the size of a file in bytes and the SHA-256 of its content in hexadecimal."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Hold what a folder is, what lies in it and how it was made; nothing in it depends on the clock."""

    kind: str
    schema: int
    files: dict[str, FileEntry]
    versions: dict[str, str]
    seed: int | None
    command: str | None
    config: dict[str, Any]
    facts: dict[str, Any]

    @property
    def digest(self) -> str:
        """Hash all of the manifest but the command, which names places and not content."""
        content = self.to_dict()
        del content["command"]
        return hashlib.sha256(canonical_json(content, "manifest").encode("ascii")).hexdigest()

    @property
    def total_bytes(self) -> int:
        """Add up the sizes of the listed files; the manifest itself is not among them."""
        return sum(entry.bytes for entry in self.files.values())

    def to_dict(self) -> dict[str, Any]:
        """Turn the manifest into what JSON can carry."""
        files = {name: {"bytes": entry.bytes, "sha256": entry.sha256} for name, entry in self.files.items()}
        return {
            "format": _FORMAT,
            "schema": self.schema,
            "kind": self.kind,
            "files": files,
            "versions": dict(self.versions),
            "seed": self.seed,
            "command": self.command,
            "config": plain_value(self.config, "config"),
            "facts": plain_value(self.facts, "facts"),
        }

    def to_json(self) -> str:
        """Write the manifest as indented JSON; equal manifests give equal texts.

        The text carries a hash of itself, its ``seal``, so that damage to the manifest shows as well.
        """
        return seal_text(self.to_dict())


def seal_text(content: dict[str, Any]) -> str:
    """Write a dict as indented JSON with a ``seal``: the SHA-256 of that text with zeros for the seal."""
    text = json.dumps(content | {"seal": _BLANK}, sort_keys=True, indent=1, allow_nan=False) + "\n"
    seal = hashlib.sha256(text.encode("ascii")).hexdigest()
    return text.replace(f'\n "seal": "{_BLANK}"', f'\n "seal": "{seal}"')


def read_manifest(folder: str | Path) -> Manifest:
    """Read and check the manifest of a folder; the files it lists are not looked at.

    Raises:
        DataError: there is no folder at the path.
        IntegrityError: the manifest is missing, damaged, too large or of a newer Aerogel.
    """
    path = Path(folder) / MANIFEST_NAME
    if not Path(folder).is_dir():
        raise DataError(compose(f"a folder at {folder}", "none", "check the path"))
    if not os.path.lexists(path):
        raise IntegrityError(
            compose(
                f"{MANIFEST_NAME} in {folder}", "a folder without one", "pass a folder that Aerogel finished"
            )
        )
    with os.fdopen(open_regular(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        raw = file.read(_MAX_MANIFEST_BYTES + 1) if size <= _MAX_MANIFEST_BYTES else b""
    if size > _MAX_MANIFEST_BYTES or len(raw) > _MAX_MANIFEST_BYTES:
        raise _damage(path, f"at most {_MAX_MANIFEST_BYTES:,} bytes", f"{size:,} bytes")
    try:
        data = parse_json(raw)
    except ValueError as error:
        raise _damage(path, "JSON text", str(error)) from error
    seal = data.pop("seal", None) if isinstance(data, dict) else None
    manifest = _manifest(data, path)
    if seal is not None and not _seal_holds(raw):
        raise _damage(path, "the text that was sealed", "another")
    return manifest


def _seal_holds(raw: bytes) -> bool:
    found = _SEAL.search(raw)
    if found is None:
        return False
    blank = raw[: found.start(1)] + _BLANK.encode("ascii") + raw[found.end(1) :]
    return hashlib.sha256(blank).hexdigest().encode("ascii") == found[1]


def is_sealed(folder: Path) -> bool:
    """Tell whether a folder has a manifest of ours, sound or not."""
    path = folder / MANIFEST_NAME
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return f'"{_FORMAT}"'.encode() in file.read(_MAX_MANIFEST_BYTES)


def find_name_fault(name: str) -> str | None:
    """Say what makes a listed file name unsafe to open below a folder, or return None for a safe one."""
    if not name or len(name) > 1024:
        return "is empty or longer than 1024 characters"
    if name == MANIFEST_NAME:
        return "is the manifest's own"
    if "\\" in name or ":" in name or not name.isprintable():
        return "holds a backslash, a colon or an unprintable character"
    if any(part in ("", ".", "..") or len(part.encode("utf-8")) > 255 for part in name.split("/")):
        return "is not a plain path below the folder"
    return None


def _manifest(data: Any, path: Path) -> Manifest:
    if not isinstance(data, dict) or data.get("format") != _FORMAT:
        raise _damage(path, f'a JSON object with "format": "{_FORMAT}"', show_value(data))
    schema = data.get("schema")
    if type(schema) is not int or schema < 1:
        raise _damage(path, "a schema number from 1 up", show_value(schema))
    if schema > MANIFEST_SCHEMA:
        raise IntegrityError(
            compose(
                f"schema {MANIFEST_SCHEMA} or older in {path}", f"schema {schema}", "install a newer Aerogel"
            )
        )
    if set(data) != set(_KEYS):
        odd = sorted(set(data) ^ set(_KEYS))
        raise _damage(path, f"the keys {', '.join(_KEYS)}", f"missing or unknown {show_value(odd)}")
    _check_types(data, path)
    return Manifest(
        kind=data["kind"],
        schema=schema,
        files={name: _entry(name, entry, path) for name, entry in data["files"].items()},
        versions=data["versions"],
        seed=data["seed"],
        command=data["command"],
        config=data["config"],
        facts=data["facts"],
    )


def _check_types(data: dict[str, Any], path: Path) -> None:
    seed, command = data["seed"], data["command"]
    if not isinstance(data["kind"], str) or not data["kind"]:
        raise _damage(path, "a name as kind", show_value(data["kind"]))
    if seed is not None and type(seed) is not int:
        raise _damage(path, "an integer or null as seed", show_value(seed))
    if command is not None and not isinstance(command, str):
        raise _damage(path, "text or null as command", show_value(command))
    for key in ("files", "versions", "config", "facts"):
        if not isinstance(data[key], dict):
            raise _damage(path, f"an object as {key}", show_value(data[key]))
    if not all(isinstance(version, str) for version in data["versions"].values()):
        raise _damage(path, "texts as versions", show_value(data["versions"]))


def _entry(name: str, entry: Any, path: Path) -> FileEntry:
    fault = find_name_fault(name)
    if fault is not None:
        raise _damage(path, "file names below the folder", f"{show_value(name)}, which {fault}")
    if not isinstance(entry, dict) or set(entry) != {"bytes", "sha256"}:
        raise _damage(path, f"bytes and sha256 for {show_value(name)}", show_value(entry))
    size, sha256 = entry["bytes"], entry["sha256"]
    if type(size) is not int or not 0 <= size <= _MAX_FILE_BYTES:
        raise _damage(path, f"a size in bytes for {show_value(name)}", show_value(size))
    if not isinstance(sha256, str) or not _HASH.fullmatch(sha256):
        raise _damage(path, f"64 hexadecimal digits for {show_value(name)}", show_value(sha256))
    return FileEntry(size, sha256)


def _damage(path: Path, expected: str, got: str) -> IntegrityError:
    return IntegrityError(compose(f"{expected} in {path}", got, "make or copy the folder again"))

"""Mutations of stored folders: what accidents and hostile writers do to files, the same in every run."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aerogel.core.manifests import seal_text

MANIFEST = "manifest.json"
DEEP = 100_000

Act = Callable[[Path, Path], None]
Edit = Callable[[Any], Any]


@dataclass(frozen=True)
class Mutation:
    """Change a copy of an archive; ``act`` gets the copy and another sound archive of the same kind.

    ``signed`` says that the manifest was made to fit afterwards. The refusal must say one of the words in
    ``about``. With ``harmless`` the archive must still open; without it, it may, if nothing else was loaded.
    """

    name: str
    act: Act
    about: tuple[str, ...]
    signed: bool = False
    harmless: bool = False


def mutation(name: str, about: str | Sequence[str], act: Act, **flags: bool) -> Mutation:
    """Return a mutation; ``about`` is one word or several."""
    return Mutation(name, act, (about,) if isinstance(about, str) else tuple(about), **flags)


def sign(folder: Path) -> None:
    """Write sizes and hashes anew, so that the manifest fits whatever lies in the folder."""
    path = folder / MANIFEST
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest.pop("seal", None)
    manifest["files"] = {
        file.relative_to(folder).as_posix(): describe(file)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != MANIFEST
    }
    path.write_text(seal_text(manifest), encoding="ascii")


def describe(file: Path) -> dict[str, Any]:
    """Return what a manifest says of a file."""
    content = file.read_bytes()
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def signed(mutations: Iterable[Mutation]) -> list[Mutation]:
    """Return the same mutations with the manifest made to fit afterwards."""

    def resign(act: Act) -> Act:
        def acts(folder: Path, other: Path) -> None:
            act(folder, other)
            sign(folder)

        return acts

    return [replace(m, name=f"{m.name}-signed", act=resign(m.act), signed=True) for m in mutations]


def inside(place: str, mutations: Iterable[Mutation]) -> list[Mutation]:
    """Return mutations of the folder ``place`` within a larger one."""

    def enter(act: Act) -> Act:
        return lambda folder, other: act(folder / place, other / place)

    return [replace(m, name=f"{place}/{m.name}", act=enter(m.act)) for m in mutations]


def cuts(file: str, shares: Sequence[float] = (0.0, 0.25, 0.5, 0.98)) -> list[Mutation]:
    """Keep only the first part of a file."""

    def cut(share: float) -> Act:
        def act(folder: Path, other: Path) -> None:
            content = (folder / file).read_bytes()
            (folder / file).write_bytes(content[: min(int(len(content) * share), len(content) - 1)])

        return act

    return [mutation(f"{file}-cut-{share}", base(file), cut(share)) for share in shares]


def flips(file: str, places: Sequence[float] = (0, 9, 0.3, 0.6, -1)) -> list[Mutation]:
    """Flip one bit: at an offset, counted from the end if below 0, or at a share of the file."""

    def flip(place: float) -> Act:
        def act(folder: Path, other: Path) -> None:
            content = bytearray((folder / file).read_bytes())
            offset = int(len(content) * place) if isinstance(place, float) else place
            content[offset] ^= 1 << random.Random(f"{file}{place}").randrange(8)
            (folder / file).write_bytes(bytes(content))

        return act

    return [mutation(f"{file}-flip-{place}", base(file), flip(place)) for place in places]


def misplaced(file: str) -> list[Mutation]:
    """Remove, rename, empty, link, and put other things in the place of a file."""

    def link(folder: Path, other: Path) -> None:
        outside = folder.parent / "outside"
        outside.mkdir(exist_ok=True)
        shutil.copyfile(folder / file, outside / base(file))
        (folder / file).unlink()
        (folder / file).symlink_to(outside / base(file))

    def into_folder(folder: Path, other: Path) -> None:
        (folder / file).unlink()
        (folder / file).mkdir()

    def into_pipe(folder: Path, other: Path) -> None:
        (folder / file).unlink()
        os.mkfifo(folder / file)

    return [
        mutation(f"{file}-missing", base(file), lambda folder, other: (folder / file).unlink()),
        mutation(
            f"{file}-renamed",
            base(file),
            lambda folder, other: (
                (folder / file).rename((folder / file).with_name(f"x{base(file)}")) and None
            ),
        ),
        mutation(f"{file}-linked", base(file), link),
        mutation(f"{file}-folder", base(file), into_folder),
        mutation(f"{file}-pipe", base(file), into_pipe),
    ]


def swapped(file: str) -> Mutation:
    """Take a file from another archive."""

    def act(folder: Path, other: Path) -> None:
        shutil.copyfile(other / file, folder / file)

    return mutation(f"{file}-swapped", base(file), act)


def exchanged(one: str, two: str) -> Mutation:
    """Give two files each other's names."""

    def act(folder: Path, other: Path) -> None:
        first, second = (folder / one).read_bytes(), (folder / two).read_bytes()
        (folder / one).write_bytes(second)
        (folder / two).write_bytes(first)

    return mutation(f"{one}-for-{base(two)}", (base(one), base(two)), act)


def added(file: str, content: bytes = b"more") -> Mutation:
    """Put a file more into the folder."""

    def act(folder: Path, other: Path) -> None:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(content)

    return mutation(f"{file}-added", base(file), act)


def written(name: str, file: str, content: bytes | Callable[[Path], bytes]) -> Mutation:
    """Replace a file's content; a function is given the folder."""

    def act(folder: Path, other: Path) -> None:
        (folder / file).write_bytes(content(folder) if callable(content) else content)

    return mutation(f"{file}-{name}", base(file), act)


def edited(name: str, file: str, edit: Edit, about: str | Sequence[str] = ()) -> Mutation:
    """Change what a JSON file says; ``edit`` changes it in place, or returns something else to write."""

    def act(folder: Path, other: Path) -> None:
        data = json.loads((folder / file).read_text(encoding="utf-8"))
        changed = edit(data)
        text = json.dumps(data if changed is None else changed)
        (folder / file).write_text(text, encoding="utf-8")

    return mutation(f"{file}-{name}", about or base(file), act)


def hostile_json(file: str) -> list[Mutation]:
    """What a hostile writer puts into any JSON file: the text as such, not what it says."""

    def spoil(change: Callable[[str], str]) -> Callable[[Path], bytes]:
        return lambda folder: change((folder / file).read_text(encoding="utf-8")).encode()

    texts: dict[str, Callable[[Path], bytes] | bytes] = {
        "deep-list": b"[" * DEEP + b"]" * DEEP,
        "deep-object": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
        "deep-field": spoil(lambda text: '{"x":' + "[" * DEEP + "]" * DEEP + "," + text.lstrip()[1:]),
        "repeated-key": spoil(lambda text: text.rstrip()[:-1] + "," + text.strip()[1:]),
        "infinite": spoil(lambda text: '{"x": Infinity,' + text.lstrip()[1:]),
        "not-a-number": spoil(lambda text: '{"x": NaN,' + text.lstrip()[1:]),
        "beyond-float": spoil(lambda text: '{"x": 1e999,' + text.lstrip()[1:]),
        "ten-thousand-digits": spoil(lambda text: '{"x": ' + "9" * 10_000 + "," + text.lstrip()[1:]),
        "lone-surrogate": spoil(lambda text: '{"x": "\\ud800",' + text.lstrip()[1:]),
        "not-utf8": b'{"x": "\xff\xfe"}',
        "list": b"[]",
        "null": b"null",
        "number": b"5",
        "text": b'"text"',
        "empty-object": b"{}",
    }
    return [written(name, file, content) for name, content in texts.items()]


def hostile_safetensors(file: str) -> list[Mutation]:
    """Headers of safetensors that lie about their length, or about the shapes and places of tensors."""

    def header(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], bytes]:
        def content(folder: Path) -> bytes:
            raw = (folder / file).read_bytes()
            (length,) = struct.unpack("<Q", raw[:8])
            data = json.loads(raw[8 : 8 + length])
            change(data)
            text = json.dumps(data).encode()
            return struct.pack("<Q", len(text)) + text + raw[8 + length :]

        return content

    def first(data: dict[str, Any]) -> dict[str, Any]:
        return next(value for key, value in sorted(data.items()) if key != "__metadata__")

    def rename(data: dict[str, Any]) -> None:
        name = next(key for key in sorted(data) if key != "__metadata__")
        data["../../" + name] = data.pop(name)

    def drop_metadata(data: dict[str, Any]) -> None:
        data["__metadata__"] = {"format": "pt"}

    def as_integers(data: dict[str, Any]) -> None:
        for key, value in data.items():
            if key != "__metadata__":
                value["dtype"] = {"F16": "I16", "F32": "I32", "I64": "F64", "U8": "I8"}.get(
                    value["dtype"], "I8"
                )

    changes: dict[str, Callable[[Path], bytes] | bytes] = {
        "header-2-60": lambda folder: struct.pack("<Q", 2**60) + (folder / file).read_bytes()[8:],
        "header-0": lambda folder: struct.pack("<Q", 0) + (folder / file).read_bytes()[8:],
        "overflowing-shape": header(lambda data: first(data).update(shape=[2**40, 2**40])),
        "huge-shape": header(lambda data: first(data).update(shape=[2**31])),
        "negative-shape": header(lambda data: first(data).update(shape=[-1])),
        "overlapping": header(lambda data: first(data).update(data_offsets=[0, 2**50])),
        "unknown-type": header(lambda data: first(data).update(dtype="F1024")),
        "renamed-tensor": header(rename),
        "other-types": header(as_integers),
        "metadata": header(drop_metadata),
        "pickle": boobytrap,
        "zip": b"PK\x03\x04" + b"\0" * 100,
        "empty-header": struct.pack("<Q", 2) + b"{}",
    }
    return [written(name, file, content) for name, content in changes.items()]


def boobytrap(folder: Path) -> bytes:
    """Return a pickle that makes a file called "trapped" beside the folder when it is loaded."""
    return f"cos\nsystem\n(S'touch {folder.parent}/trapped'\ntR.".encode()


def base(file: str) -> str:
    """Return the last part of a name."""
    return file.rpartition("/")[2]

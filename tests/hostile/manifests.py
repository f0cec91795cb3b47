"""Hostile manifests: file names that lead elsewhere, figures that cannot be, text that no writer writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aerogel.core.manifests import seal_text
from tests.hostile.mutate import Mutation, hostile_json, mutation

MANIFEST = "manifest.json"
BAD_NAMES = {
    "up": "../outside.txt",
    "up-inside": "labels/../../outside.txt",
    "absolute": "/etc/passwd",
    "nul": "a\0b",
    "newline": "a\nb",
    "million": "x" * 10**6,
    "long-part": "x" * 300,
    "backslash": "..\\outside.txt",
    "drive": "C:outside.txt",
    "dot": "./README.md",
    "double": "labels//adapter_config.json",
    "empty": "",
    "itself": MANIFEST,
    "right-to-left": "a\u202eb",
}


def rewritten(name: str, change: Callable[[dict[str, Any]], Any]) -> Mutation:
    """Change what a manifest says, and seal it anew."""

    def act(folder: Path, other: Path) -> None:
        data = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        data.pop("seal", None)
        change(data)
        (folder / MANIFEST).write_text(seal_text(data), encoding="ascii")

    return mutation(f"{MANIFEST}-{name}", MANIFEST, act, signed=True)


def listed(name: str, file: str) -> Mutation:
    """List a file of another name: the first one's, which lies there too where that can be."""

    def change(data: dict[str, Any]) -> None:
        data["files"][file] = data["files"][min(data["files"])]

    return rewritten(f"lists-{name}", change)


def entry(name: str, value: Any) -> Mutation:
    """Say something else of the first file."""

    def change(data: dict[str, Any]) -> None:
        first = min(data["files"])
        data["files"][first] = value(data["files"][first])

    return rewritten(f"entry-{name}", change)


def hostile_manifests(kind: str) -> list[Mutation]:
    """Return mutations of the manifest of a folder of that kind, most of them sealed anew."""
    return [
        *(listed(name, file) for name, file in BAD_NAMES.items()),
        *hostile_json(MANIFEST),
        entry("negative", lambda e: {**e, "bytes": -1}),
        entry("oversized", lambda e: {**e, "bytes": 2**63}),
        entry("terabytes", lambda e: {**e, "bytes": 2**42}),
        entry("float", lambda e: {**e, "bytes": float(e["bytes"])}),
        entry("true", lambda e: {**e, "bytes": True}),
        entry("text", lambda e: {**e, "bytes": str(e["bytes"])}),
        entry("short-hash", lambda e: {**e, "sha256": e["sha256"][:-1]}),
        entry("other-hash", lambda e: {**e, "sha256": "0" * 64}),
        entry("capitals", lambda e: {**e, "sha256": e["sha256"].upper()[:-1] + "A"}),
        entry("list", lambda e: [e]),
        entry("more-keys", lambda e: {**e, "link": "/etc/passwd"}),
        rewritten("kind", lambda m: m.update(kind="other")),
        rewritten("kind-list", lambda m: m.update(kind=[kind])),
        rewritten("kind-long", lambda m: m.update(kind="x" * 10**6)),
        rewritten("format", lambda m: m.update(format="pickle")),
        rewritten("schema-newer", lambda m: m.update(schema=2)),
        rewritten("schema-huge", lambda m: m.update(schema=10**4000)),
        rewritten("schema-true", lambda m: m.update(schema=True)),
        rewritten("seed-text", lambda m: m.update(seed="0")),
        rewritten("versions-list", lambda m: m.update(versions=[])),
        rewritten("facts-list", lambda m: m.update(facts=[])),
        rewritten("facts-none", lambda m: m.update(facts={})),
        rewritten("more-keys", lambda m: m.update(post_load="os.system")),
        rewritten("fewer-keys", lambda m: m.pop("config")),
        rewritten("no-files", lambda m: m.update(files={})),
        rewritten("unlisted", lambda m: m["files"].pop(min(m["files"]))),
        mutation(f"{MANIFEST}-oversized", MANIFEST, _oversize),
        mutation(f"{MANIFEST}-missing", MANIFEST, lambda folder, other: (folder / MANIFEST).unlink()),
        mutation(f"{MANIFEST}-cut", MANIFEST, _cut),
        mutation(f"{MANIFEST}-flip", MANIFEST, _flip),
        mutation(f"{MANIFEST}-unsealed", MANIFEST, _unseal),
        mutation(f"{MANIFEST}-linked", MANIFEST, _link),
    ]


def _oversize(folder: Path, other: Path) -> None:
    with (folder / MANIFEST).open("ab") as file:
        file.truncate(20 * 2**20)


def _cut(folder: Path, other: Path) -> None:
    content = (folder / MANIFEST).read_bytes()
    (folder / MANIFEST).write_bytes(content[: len(content) // 2])


def _flip(folder: Path, other: Path) -> None:
    """Change a digit that no other check would notice."""
    text = (folder / MANIFEST).read_text(encoding="ascii")
    place = text.index('"versions"')
    digit = next(i for i in range(place, len(text)) if text[i].isdigit())
    (folder / MANIFEST).write_text(text[:digit] + str((int(text[digit]) + 1) % 10) + text[digit + 1 :])


def _unseal(folder: Path, other: Path) -> None:
    """Leave a seal that is not that of the text."""
    text = (folder / MANIFEST).read_text(encoding="ascii")
    (folder / MANIFEST).write_text(text + " ")


def _link(folder: Path, other: Path) -> None:
    (folder / MANIFEST).rename(folder.parent / "elsewhere.json")
    (folder / MANIFEST).symlink_to(folder.parent / "elsewhere.json")

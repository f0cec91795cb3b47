"""No file names a place on somebody's machine or the host of a package registry."""

from __future__ import annotations

import re

from tests.arch.tree import name_of, project_files

# Put together here, so that this file does not break its own rule.
TOP_FOLDERS = "|".join(["wo" + "rk", "tm" + "p", "ro" + "ot", "fa" + "rm", "ho" + "me", "Us" + "ers"])
PLACE = re.compile(rf"(^|[^A-Za-z0-9_.~*\]/}}])/({TOP_FOLDERS})/")
HOSTS = re.compile(
    "|".join(
        [r"pypi\.o" + "rg", "python" + r"hosted\.", r"debian\.o" + "rg", r"npmjs\.", r"pytorch\.o" + "rg/whl"]
    )
)
BINARY = {".safetensors", ".png", ".jpg", ".parquet", ".gz", ".ico"}


def found(text: str) -> list[str]:
    lines = enumerate(text.splitlines(), start=1)
    return [
        f"line {number}: {line.strip()[:100]}"
        for number, line in lines
        if PLACE.search(line) or HOSTS.search(line)
    ]


def test_no_machine_paths_and_no_registry_hosts() -> None:
    faults = {}
    for path in project_files():
        if path.suffix in BINARY:
            continue
        lines = found(path.read_text(encoding="utf-8", errors="replace"))
        if lines:
            faults[name_of(path)] = lines
    assert faults == {}


def test_places_are_recognised() -> None:
    home, scratch = "ho" + "me", "tm" + "p"
    assert found(f"open('/{home}/ann/photos')")
    assert found(f"cd /{scratch}/x")
    assert found("see https://py" + "pi.org/project/x")
    assert not found("src/work_items/ and https://example.org/home/page and /usr/share/datasets/")

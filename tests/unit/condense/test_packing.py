"""A condensed set says enough of itself to be opened, checked and weighed."""

from __future__ import annotations

from aerogel.condense.api import Condensed
from aerogel.condense.archive import IMAGES
from aerogel.condense.packing import describe_set


def test_the_facts_are_those_of_the_run_and_of_its_files(finished: Condensed) -> None:
    folder = finished.folder / "archive"
    facts = describe_set(finished.pipeline, folder, [[0.5]])
    recorded = finished.data.manifest.facts
    assert facts.pop("probe") == [[0.5]]
    assert facts == {name: recorded[name] for name in facts}
    sizes = {each["name"]: each["bytes"] for each in facts["storage"]}
    assert sizes["images"] == (folder / IMAGES).stat().st_size
    labels = sum(path.stat().st_size for path in (folder / "labels").iterdir())
    assert sizes["label generator (delta)"] == labels
    assert sizes["label generator and backbone"] == labels + facts["backbone"]["bytes"]

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from aerogel.errors import MissingDependencyError
from aerogel.report import (
    Comparison,
    Curve,
    Level,
    Picture,
    Pictures,
    Point,
    Receipt,
    ReceiptLine,
    Report,
    Scatter,
    Section,
    Series,
    TableBlock,
    render_report,
    write_report,
)

HOSTILE = (
    "\"'><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7*7 }}${jndi} $x^2$ &amp; "
    "javascript:\u202e\x00\udc80"
)
PIXELS = np.zeros((4, 4), np.uint8)
VOID = {"meta", "link", "img", "br", "input"}


class Page(HTMLParser):
    """Collect the elements of a page and check that they close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def every(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def spite(text: str) -> Report:
    """Return a report with ``text`` in every place that takes words."""
    picture = Picture(PIXELS, text, text)
    levels = [Level(text, 1.0)]
    return Report(
        title=text,
        lede=text,
        receipt=Receipt([ReceiptLine(text, text, text)], [], [], total=text, number=text),
        sections=[
            Section(
                text,
                text,
                [
                    Pictures([picture], title=text, text=text),
                    Comparison([(picture, picture)], (text, text), title=text, text=text),
                    Curve(
                        text,
                        text,
                        text,
                        [Series(text, [1, 2], [1, 2])],
                        False,
                        False,
                        text,
                        text,
                        levels,
                        text,
                    ),
                    Curve(
                        text,
                        text,
                        text,
                        [Series(text, [1, 2], [1, float("nan")])],
                        levels=[Level(text, float("nan"))],
                    ),
                    Scatter(
                        text,
                        text,
                        text,
                        [Point(text, 1, 1, group=text)],
                        True,
                        False,
                        text,
                        text,
                        levels,
                        text,
                    ),
                    Scatter(text, text, text, [Point(text, 1, 1, group=f"{text}{n}") for n in range(20)]),
                    TableBlock([text, text], [[text, 1]], text, text),
                ],
            )
        ],
        config={text: {text: text, "list": [text]}},
        environment={text: text},
        command=text,
    )


def test_page_is_well_formed_and_needs_nothing_else(sample: Report) -> None:
    page = Page(render_report(sample))
    assert page.open == []
    tags = {tag for tag, _ in page.elements}
    assert tags.isdisjoint({"script", "iframe", "object", "embed", "form", "base", "audio", "video"})
    for _, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "srcset", "data", "poster"):
            assert (attributes.get(name) or "#")[:5].startswith(("#", "data:"))
        assert not any(name.startswith("on") for name in attributes)
    styles = "".join(word for word in page.words if "{" in word)
    assert not re.search(r"@import|url\(|https?:", styles)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.elements:
        assert attributes.get("aria-labelledby") in {None, *ids}


def test_pictures_and_drawings_say_what_they_show(sample: Report) -> None:
    page = Page(render_report(sample))
    assert all(attributes.get("alt") for attributes in page.every("img"))
    drawings = [attributes for attributes in page.every("svg") if attributes.get("aria-hidden") != "true"]
    assert len(drawings) == 4  # two charts for two sizes of page
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in drawings)
    assert {attributes.get("scope") for attributes in page.every("th")} == {"col", "row"}


def test_same_report_gives_the_same_bytes_whatever_the_reader_set(sample: Report, tmp_path: Path) -> None:
    first = write_report(sample, tmp_path / "a.html").read_bytes()
    with matplotlib.rc_context({"axes.facecolor": "red", "font.size": 30, "svg.fonttype": "path"}):
        before = dict(matplotlib.rcParams)
        assert write_report(sample, str(tmp_path / "b.html")).read_bytes() == first
        assert dict(matplotlib.rcParams) == before
    assert not re.search(rb"20\d\d-\d\d-\d\dT", first)


def test_everything_given_is_escaped() -> None:
    text = render_report(spite(HOSTILE))
    page, plain = Page(text), Page(render_report(spite("p" * len(HOSTILE))))
    assert page.open == []
    harmless = {tag for tag, _ in plain.elements}
    assert {tag for tag, _ in page.elements} <= harmless
    assert len(page.every("img")) == len(plain.every("img"))
    assert "<script" not in text.lower()
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert "{{ 7*7 }}" in text
    assert text.encode("utf-8")


def test_empty_parts_leave_no_trace() -> None:
    page = Page(render_report(Report("bare")))
    assert page.open == []
    assert page.every("section") == page.every("nav") == page.every("dl") == []
    text = render_report(Report("t", receipt=Receipt(paid=[ReceiptLine("time", "3 s")])))
    assert text.count("<dt>nothing</dt>") == 2


def test_settings_are_flattened_and_written_for_people() -> None:
    config = {"a": {"b": {"c": 1}}, "empty": {}, "flag": True, "none": None, "many": [1, 2]}
    words = "".join(Page(render_report(Report("t", config=config))).words)
    for name, value in (("a.b.c", "1"), ("empty", "—"), ("flag", "yes"), ("none", "—"), ("many", "1, 2")):
        assert re.search(rf"{re.escape(name)}\s*{value}", words)


def test_columns_of_numbers_are_set_right() -> None:
    table = TableBlock(
        ["name", "size", "note"], [["a", 1, "x"], ["b", None, "2"], ["c", "3 ± 1", "y"]], highlight=[1]
    )
    page = Page(render_report(Report("t", sections=[Section("s", blocks=[table])])))
    assert [attributes.get("class") for attributes in page.every("td")] == ["numeric", None] * 3
    assert [attributes.get("class") for attributes in page.every("tr")] == [None, None, "strong", None]


@pytest.mark.parametrize(
    ("columns", "narrow"), [(1, 1), (3, 3), (7, 4), (8, 4), (9, 3), (10, 5), (12, 4), (20, 5)]
)
def test_rows_of_pictures_break_evenly_on_narrow_screens(columns: int, narrow: int) -> None:
    blocks = [Pictures([("a", PIXELS)], columns=columns)]
    assert f"--columns:{columns};--narrow:{narrow}" in render_report(
        Report("t", sections=[Section("s", blocks=blocks)])
    )


def test_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingDependencyError, match=r"aerogel\[report\]"):
        render_report(Report("t"))


def test_no_part_of_matplotlib_that_holds_state_is_loaded() -> None:
    code = """
import sys
import aerogel.report as r
assert not {"numpy", "matplotlib", "jinja2"} & set(sys.modules)
scatter = r.Scatter("t", "x", "y", [r.Point("a", 1, 1)])
r.render_report(r.Report("t", sections=[r.Section("s", blocks=[scatter])]))
assert not {"matplotlib.pyplot", "torch"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_page_shows_in_a_real_browser(sample: Report, tmp_path: Path, dark: bool) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    page, shot = write_report(sample, tmp_path / "report.html"), tmp_path / "shot.png"
    quiet = ["gpu", "quic", "background-networking", "component-update", "sync"]
    theme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        "--no-first-run",
        *(f"--disable-{name}" for name in quiet),
        *theme,
    ]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,2400", f"--screenshot={shot}"]
    subprocess.run([*command, page.as_uri()], check=True, capture_output=True, timeout=120)
    with Image.open(shot) as picture:
        pixels = np.asarray(picture.convert("L"), dtype=np.float64)
    assert pixels.shape == (2400, 1200)
    page_grey, paper_grey = (float(np.median(part)) for part in (pixels[:, :40], pixels[520:560, 200:1000]))
    assert (page_grey < 40) == dark
    assert paper_grey > page_grey  # the receipt lies on the page
    assert np.ptp(pixels[60:400, 150:900]) > 150  # the title is written

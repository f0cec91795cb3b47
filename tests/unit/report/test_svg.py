from __future__ import annotations

from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure

from aerogel.report.palette import STAND_INS, stand_in
from aerogel.report.svg import Text, inline_svg, plain_settings


def draw(prefix: str = "a-") -> str:
    with matplotlib.rc_context(plain_settings()):
        figure = Figure(figsize=(2, 1), dpi=72)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.plot([0, 1], [0, 1], color=stand_in("s2"), marker="o", gid="line")
        texts = [Text(3, 4, "<b>$x^2$ & \u6c49</b>", "label", "end")]
        return inline_svg(figure, prefix=prefix, alt='a "line" <', texts=texts, tips={"line": "<script>"})


def test_colours_become_variables_and_ids_take_the_prefix() -> None:
    svg = draw()
    assert "var(--s2)" in svg
    assert not any(stand_in in svg for stand_in in STAND_INS)
    root = ElementTree.fromstring(svg)
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert ids
    assert all(name.startswith("a-") for name in ids if name)
    targets = [element.get("href") for element in root.iter("use")]
    assert targets
    assert {target[1:] for target in targets if target} <= set(ids)
    for clip in (element.get("clip-path") for element in root.iter()):
        assert clip is None or clip[len("url(#") : -1] in ids


def test_words_are_escaped_and_never_read_as_mathematics() -> None:
    root = ElementTree.fromstring(draw())
    assert [text.text for text in root.iter("text")] == ["<b>$x^2$ & \u6c49</b>"]
    assert [title.text for title in root.iter("title")] == ["<script>"]
    assert (root.get("role"), root.get("aria-label")) == ("img", 'a "line" <')


def test_drawing_is_the_same_each_time_and_leaves_no_metadata() -> None:
    assert draw() == draw()
    assert draw("a-").replace("a-", "b-") == draw("b-").replace("a-", "b-")
    assert not any(word in draw() for word in ("metadata", "http://", "<style", "Matplotlib", "font"))


def test_settings_are_matplotlibs_own_whatever_the_reader_set() -> None:
    with matplotlib.rc_context({"lines.linewidth": 9.0, "axes.facecolor": "red"}):
        assert plain_settings()["lines.linewidth"] == 1.5
        assert not any(name.startswith("backend") for name in plain_settings())

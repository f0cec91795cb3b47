"""Turn a matplotlib figure into SVG that lives inside a page: no fonts, colours or ids of its own."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from aerogel.report.palette import STAND_INS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOUR = re.compile("|".join(STAND_INS))
_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_LINK = "{http://www.w3.org/1999/xlink}href"


@dataclass(frozen=True)
class Text:
    """Hold a piece of text at (x, y) pixels; ``role`` is its CSS class, ``anchor`` start, middle or end."""

    x: float
    y: float
    content: str
    role: str = "label"
    anchor: str = "start"


def plain_settings() -> dict[Any, Any]:
    """Return matplotlib's own defaults, so that a reader's style file changes no report, with stable ids."""
    import matplotlib

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some defaults are themselves deprecated
        settings = dict(matplotlib.rcParamsDefault)
    for name in [name for name in settings if name.startswith("backend") or name == "interactive"]:
        del settings[name]
    return settings | {"svg.hashsalt": "aerogel", "svg.fonttype": "none", "path.simplify_threshold": 0.2}


def inline_svg(
    figure: Figure,
    *,
    prefix: str,
    alt: str,
    texts: Sequence[Text] = (),
    tips: Mapping[str, str] | None = None,
) -> str:
    """Draw ``figure`` as an ``<svg>`` element; ``prefix`` keeps its ids apart.

    Words are added here and not by matplotlib, which would read ``$`` as mathematics and miss glyphs.
    ``tips`` maps matplotlib's group ids to what a pointer resting there shows.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    root = ElementTree.fromstring(buffer.getvalue())
    tips = tips or {}
    for element in list(root.iter()):
        element.tag = element.tag.rpartition("}")[2]
        for child in list(element):
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                element.remove(child)
        _rename(element, prefix, tips)
    width, height = (value * 72 for value in figure.get_size_inches())
    root.attrib.clear()
    root.attrib.update({"viewBox": f"0 0 {width:g} {height:g}", "role": "img", "aria-label": alt})
    for text in texts:
        place = {"x": f"{text.x:.1f}", "y": f"{text.y:.1f}", "class": text.role, "text-anchor": text.anchor}
        ElementTree.SubElement(root, "text", place).text = text.content
    for element in root.iter():
        if element.tag not in ("text", "title"):
            element.text = None
        element.tail = None
    return ElementTree.tostring(root, encoding="unicode")


def _rename(element: ElementTree.Element, prefix: str, tips: Mapping[str, str]) -> None:
    """Give one element the page's colours and ids that no other figure uses."""
    if _LINK in element.attrib:
        element.set("href", "#" + prefix + element.attrib.pop(_LINK)[1:])
    name = element.attrib.pop("id", "")
    if name and element.tag in ("path", "clipPath"):
        element.set("id", prefix + name)
    if name in tips:
        tip = ElementTree.Element("title")
        tip.text = tips[name]
        element.insert(0, tip)
    for key, value in element.attrib.items():
        value = _REFERENCE.sub(lambda found: f"url(#{prefix}{found[1]})", value)
        if key in ("d", "x", "y", "transform", "style"):
            value = _NUMBER.sub(lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), value)
        if key == "style":
            value = _COLOUR.sub(lambda found: STAND_INS[found[0]], value)
        element.set(key, value)

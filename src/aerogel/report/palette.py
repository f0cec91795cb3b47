"""Name the colours of a report once, for light and for dark, for the page and for the charts.

Series colours were searched so that any two stay apart by at least 24 units of CIE L*a*b*, to the usual eye
and under simulated protanopia, deuteranopia and tritanopia, with a contrast of 3:1 or more to the page.
Charts do not rely on them alone: series also differ by dash and marker, and are named where they end.
"""

from __future__ import annotations

LIGHT = {
    "page": "#f7fafc",
    "paper": "#ffffff",
    "ink": "#1c2733",
    "soft": "#586676",
    "line": "#dbe3ea",
    "accent": "#253ccc",
    "s1": "#253ccc",
    "s2": "#d5751a",
    "s3": "#15724a",
    "s4": "#c76bb4",
    "s5": "#894a08",
    "s6": "#2693f4",
    "s7": "#5c3b62",
}
DARK = {
    "page": "#11161c",
    "paper": "#1a212a",
    "ink": "#e3e9ef",
    "soft": "#9ba8b6",
    "line": "#2d3743",
    "accent": "#7ba9ff",
    "s1": "#4385ff",
    "s2": "#ca7041",
    "s3": "#61d795",
    "s4": "#d0a3f0",
    "s5": "#eebb31",
    "s6": "#cbe4ea",
    "s7": "#7c8496",
}
SERIES = tuple(name for name in LIGHT if name[0] == "s" and name[1:].isdigit())
DASHES: tuple[tuple[float, ...], ...] = ((), (6, 3), (1.5, 2.5), (8, 3, 1.5, 3), (4, 2), (10, 4), (2, 4))
# Matplotlib's marker, and the same shape in a box of 10 for the keys beside the charts.
MARKERS = {
    "o": "M5 1a4 4 0 1 0 .01 0z",
    "s": "M1.5 1.5h7v7h-7z",
    "D": "M5 .5 9.5 5 5 9.5.5 5z",
    "^": "M5 1 9 9H1z",
    "v": "M5 9 9 1H1z",
    "X": "M1 3 3 1l2 2 2-2 2 2-2 2 2 2-2 2-2-2-2 2-2-2 2-2z",
    "P": "M3.5 1h3v2.5h2.5v3H6.5V9h-3V6.5H1v-3h2.5z",
}


def series_role(index: int) -> str:
    """Return the colour role of series ``index``, starting again after the last one."""
    return SERIES[index % len(SERIES)]


def marker_size(name: str, radius: float) -> float:
    """Return the size at which matplotlib's marker ``name`` looks as heavy as a disc of ``radius`` pixels."""
    return 2 * radius * {"s": 0.92, "D": 0.88, "^": 1.15, "v": 1.15, "P": 1.3, "X": 1.25}.get(name, 1.0)


def stand_in(role: str) -> str:
    """Return the colour that matplotlib draws for ``role``, swapped later for the CSS variable so named."""
    return f"#fe01{list(LIGHT).index(role):02x}"


STAND_INS = {stand_in(role): f"var(--{role})" for role in LIGHT}

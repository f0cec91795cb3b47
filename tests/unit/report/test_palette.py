from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest

from aerogel.report.palette import DARK, DASHES, LIGHT, MARKERS, SERIES, STAND_INS, series_role

# Machado, Oliveira and Fernandes 2009, severity 1.0, on linear RGB.
SIGHT = {
    "usual": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.01182, 0.04294, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.3039],
    ],
}


def linear(colour: str) -> npt.NDArray[np.float64]:
    channels = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def lab(rgb: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(rgb, 0, 1) / [0.9505, 1, 1.089]
    root = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])


def contrast(one: str, other: str) -> float:
    low, high = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("sight", list(SIGHT))
def test_series_stay_apart_for_every_sight(theme: dict[str, str], sight: str) -> None:
    seen = [lab(np.asarray(SIGHT[sight]) @ linear(theme[role])) for role in SERIES]
    nearest = min(float(np.linalg.norm(one - other)) for one, other in itertools.combinations(seen, 2))
    assert nearest >= 24


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_words_and_marks_are_seen_on_page_and_paper(theme: dict[str, str]) -> None:
    for ground in (theme["page"], theme["paper"]):
        assert contrast(theme["ink"], ground) >= 7
        assert contrast(theme["soft"], ground) >= 4.5
        assert contrast(theme["accent"], ground) >= 3
    assert min(contrast(theme[role], theme["page"]) for role in SERIES) >= 3


def test_roles_agree_between_themes_and_with_marks() -> None:
    assert list(LIGHT) == list(DARK)
    assert len(SERIES) == len(DASHES) == len(MARKERS) == len(set(DASHES))
    assert series_role(len(SERIES)) == series_role(0) == "s1"
    assert len(STAND_INS) == len(LIGHT)

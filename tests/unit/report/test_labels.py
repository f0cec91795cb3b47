from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aerogel.report.labels import (
    Box,
    Obstacle,
    Place,
    Segment,
    measure_width,
    offer_places,
    place_labels,
    shorten,
    spread_apart,
)

FRAME = Box(0, 0, 600, 400)
spot = st.tuples(st.floats(10, 590), st.floats(10, 390), st.integers(10, 180))


@settings(max_examples=60, deadline=None)
@given(st.lists(spot, max_size=9))
def test_placed_labels_never_touch_each_other_a_marker_or_the_frame(
    spots: list[tuple[float, float, int]],
) -> None:
    offers = [list(offer_places(x, y, width, 16, 5)) for x, y, width in spots]
    markers = [Obstacle(Box(x - 5, y - 5, x + 5, y + 5), index) for index, (x, y, _) in enumerate(spots)]
    placed = place_labels(offers, markers, FRAME)
    if placed is None:
        return
    assert len(placed) == len(spots)
    for place in placed:
        assert place.box.is_inside(FRAME)
        assert not any(place.box.overlaps(marker.box) for marker in markers)
    for index, place in enumerate(placed):
        assert place in offers[index]
        crossing = [other for at, other in enumerate(placed) if at != index and place.leader]
        assert not any(place.leader and place.leader.crosses(other.box) for other in crossing)
    assert not any(one.box.overlaps(other.box) for one, other in itertools.combinations(placed, 2))


def test_lone_label_stands_right_of_its_marker() -> None:
    placed = place_labels(
        [list(offer_places(100, 100, 50, 16, 5))], [Obstacle(Box(95, 95, 105, 105), 0)], FRAME
    )
    assert placed is not None
    assert placed[0] == Place(Box(110, 92, 160, 108), None, "start")


def test_search_goes_back_when_the_first_choice_blocks_another() -> None:
    left, right = Place(Box(0, 0, 50, 16)), Place(Box(60, 0, 110, 16))
    wide = Place(Box(40, 0, 120, 16))
    far = Place(Box(200, 0, 250, 16))
    assert place_labels([[right, left], [left, far], [wide, right]], [], FRAME) == [left, far, right]
    assert place_labels([[left], [left]], [], FRAME) is None
    assert place_labels([], [], FRAME) == []


def test_crowd_without_room_is_given_up_in_bounded_time() -> None:
    offers = [list(offer_places(300, 200, 300, 16, 5)) for _ in range(40)]
    assert place_labels(offers, [], FRAME) is None


@given(st.lists(st.floats(-50, 450), min_size=1, max_size=20))
def test_spreading_keeps_order_and_bounds(wishes: list[float]) -> None:
    placed = spread_apart(wishes, 20, 0, 400)
    assert placed is not None
    ranks = sorted(range(len(wishes)), key=lambda index: (wishes[index], index))
    ordered = [placed[index] for index in ranks]
    assert all(after - before >= 20 - 1e-6 for before, after in itertools.pairwise(ordered))
    assert ordered[0] >= 10 - 1e-6
    assert ordered[-1] <= 390 + 1e-6


def test_spreading_moves_only_what_is_too_close() -> None:
    assert spread_apart([100, 300], 20, 0, 400) == [100, 300]
    assert spread_apart([300, 102, 98], 20, 0, 400) == [300, 110, 90]
    assert spread_apart([1, 2, 3], 20, 0, 50) is None
    assert spread_apart([], 20, 0, 50) == []


def test_width_is_no_less_than_a_wide_font_needs() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    metrics, font = TextToPath(), FontProperties(family="DejaVu Sans", size=100)
    assert matplotlib
    short = {
        character
        for character in map(chr, range(32, 127))
        if metrics.get_text_width_height_descent(character, font, ismath=False)[0]
        > measure_width(character, 100)
    }
    assert short == set()
    assert measure_width("汉字", 10) >= 20


def test_shortening_ends_in_an_ellipsis_and_fits() -> None:
    assert shorten("hard  labels\n", 12, 200) == "hard labels"
    cut = shorten("x" * 300, 12, 100)
    assert cut.endswith("x…")
    assert measure_width(cut, 12) <= 100


def test_segments_cross_boxes_and_each_other() -> None:
    box = Box(10, 10, 20, 20)
    assert Segment(0, 0, 30, 30).crosses(box)
    assert not Segment(0, 0, 5, 5).crosses(box)
    assert not Segment(0, 0, 0, 30).crosses(box)
    assert Segment(0, 0, 10, 10).meets(Segment(0, 10, 10, 0))
    assert not Segment(0, 0, 10, 10).meets(Segment(0, 10, 3, 6))

"""Place labels so that none covers another, a marker or the frame. Pure geometry in pixels, y downwards."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_NARROW = set("ijlI|!.,:;'()[]/\\-\" ftr")
_WIDE = set("mwMW%@—–&")
_TRIES = 5_000
_RINGS = (18.0, 30.0, 44.0, 60.0, 80.0, 104.0, 132.0)
_SPOKES = 16
_ANCHORS = {1: "start", 0: "middle", -1: "end"}


@dataclass(frozen=True)
class Box:
    """Hold a rectangle in pixels; ``top`` is the smaller y."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box, gap: float = 0.0) -> bool:
        """Tell whether the two come closer than ``gap`` pixels."""
        return (
            self.left < other.right + gap
            and other.left < self.right + gap
            and self.top < other.bottom + gap
            and other.top < self.bottom + gap
        )

    def is_inside(self, frame: Box) -> bool:
        """Tell whether all of the box lies in ``frame``."""
        return (
            self.left >= frame.left
            and self.right <= frame.right
            and self.top >= frame.top
            and self.bottom <= frame.bottom
        )

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        """Return the point of the box that is nearest to (x, y)."""
        return min(max(x, self.left), self.right), min(max(y, self.top), self.bottom)


@dataclass(frozen=True)
class Segment:
    """Hold a straight line between two points in pixels."""

    x0: float
    y0: float
    x1: float
    y1: float

    def crosses(self, box: Box) -> bool:
        """Tell whether the line touches the box (Liang–Barsky clipping)."""
        enter, leave = 0.0, 1.0
        dx, dy = self.x1 - self.x0, self.y1 - self.y0
        sides = ((-dx, self.x0 - box.left), (dx, box.right - self.x0))
        for step, room in (*sides, (-dy, self.y0 - box.top), (dy, box.bottom - self.y0)):
            if step == 0:
                if room < 0:
                    return False
                continue
            if step < 0:
                enter = max(enter, room / step)
            else:
                leave = min(leave, room / step)
        return enter <= leave

    def meets(self, other: Segment) -> bool:
        """Tell whether the two lines cross each other."""

        def side(line: Segment, x: float, y: float) -> bool:
            return (line.x1 - line.x0) * (y - line.y0) > (line.y1 - line.y0) * (x - line.x0)

        return side(self, other.x0, other.y0) != side(self, other.x1, other.y1) and (
            side(other, self.x0, self.y0) != side(other, self.x1, self.y1)
        )


@dataclass(frozen=True)
class Place:
    """Offer one place for a label: its box, and a line to what it names if that is not beside it.

    ``anchor`` is the side of the box that the words keep to, since the box is wider than most fonts need.
    """

    box: Box
    leader: Segment | None = None
    anchor: str = "start"

    @property
    def anchor_x(self) -> float:
        """Return the x of the side that the words keep to."""
        sides = {"start": self.box.left, "end": self.box.right}
        return sides.get(self.anchor, (self.box.left + self.box.right) / 2)


@dataclass(frozen=True)
class Obstacle:
    """Keep labels off ``box``, and leaders too if ``solid``, except for the leader of label ``owner``."""

    box: Box
    owner: int = -1
    solid: bool = True


def measure_width(text: str, size: float) -> float:
    """Estimate the width of ``text`` in pixels at font size ``size``, rather too wide than too narrow.

    The reader's fonts are unknown here, so that the estimate follows the widest of the usual ones.
    """
    return size * sum(_measure_character(character) for character in text)


def shorten(text: str, size: float, width: float) -> str:
    """Cut ``text`` to ``width`` pixels at font size ``size``; what was cut ends in an ellipsis."""
    text = " ".join(text.split())
    if measure_width(text, size) <= width:
        return text
    room = width - measure_width("…", size)
    kept = 0
    while kept < len(text) and (room := room - measure_width(text[kept], size)) >= 0:
        kept += 1
    return text[:kept].rstrip() + "…"


def place_labels(
    offers: Sequence[Sequence[Place]], obstacles: Sequence[Obstacle], frame: Box, gap: float = 3.0
) -> list[Place] | None:
    """Choose one of the offered places for each label, the earlier the better, with nothing overlapping.

    Searches depth first, the label with the least choice first. Returns None where no choice was found within
    a fixed number of tries, so that the caller can name things in another way.
    """
    free = [
        [place for place in places if _is_free(place, index, obstacles, frame, gap)]
        for index, places in enumerate(offers)
    ]
    order = sorted(range(len(free)), key=lambda index: (len(free[index]), index))
    cursor, depth, chosen = [0] * len(order), 0, dict[int, Place]()
    for _ in range(_TRIES):
        if depth == len(order):
            return _settle([chosen[index] for index in range(len(free))], free, gap)
        index = order[depth]
        chosen.pop(index, None)
        if cursor[depth] == len(free[index]):
            if depth == 0:
                return None
            cursor[depth], depth = 0, depth - 1
            continue
        place = free[index][cursor[depth]]
        cursor[depth] += 1
        if all(_agree(place, other, gap) for other in chosen.values()):
            chosen[index] = place
            depth += 1
    return None


def offer_places(x: float, y: float, width: float, height: float, radius: float) -> Iterator[Place]:
    """Offer places for a label of a marker at (x, y): beside it first, then around it with a leader."""
    near = radius + 5
    for dx, dy in ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (1, 1), (-1, -1), (-1, 1)):
        reach = near if dx == 0 or dy == 0 else near * 0.5
        yield Place(_put_box(x + dx * reach, y + dy * reach, dx, dy, width, height), None, _ANCHORS[dx])
    for ring in _RINGS:
        for spoke in range(_SPOKES):
            angle = 2 * math.pi * spoke / _SPOKES
            across, down = math.cos(angle), -math.sin(angle)
            edge_x, edge_y = x + across * (near + ring), y + down * (near + ring)
            box = _put_box(edge_x, edge_y, _sign(across), _sign(down), width, height)
            end = edge_x, box.nearest(x, y)[1]
            away = math.dist((x, y), end)
            start = (x + (end[0] - x) * (radius + 1) / away, y + (end[1] - y) * (radius + 1) / away)
            stop = (end[0] + (x - end[0]) * 2 / away, end[1] + (y - end[1]) * 2 / away)
            yield Place(box, Segment(*start, *stop), _ANCHORS[_sign(across)])


def spread_apart(wishes: Sequence[float], height: float, low: float, high: float) -> list[float] | None:
    """Move centres just enough for boxes of ``height`` to stack between ``low`` and ``high``.

    Returns them in the order given, or None where they do not fit.
    """
    if len(wishes) * height > high - low + 1e-9:
        return None
    order = sorted(range(len(wishes)), key=lambda index: (wishes[index], index))
    groups: list[tuple[float, int]] = []  # (wished start of the group's first box, number of boxes)
    for index in order:
        start, count = float(min(max(wishes[index] - height / 2, low), high - height)), 1
        while groups and groups[-1][0] + groups[-1][1] * height > start:
            above, more = groups.pop()
            start = (above * more + (start - more * height) * count) / (more + count)
            count += more
            start = min(max(start, low), high - count * height)
        groups.append((start, count))
    centres = [start + (step + 0.5) * height for start, count in groups for step in range(count)]
    placed = [0.0] * len(wishes)
    for index, centre in zip(order, centres, strict=True):
        placed[index] = centre
    return placed


def _measure_character(character: str) -> float:
    if unicodedata.east_asian_width(character) in "WF":
        return 1.3
    if character in _NARROW:
        return 0.46
    if character in _WIDE or (not character.isascii() and not character.isalpha()):
        return 1.06
    return 0.84 if character.isupper() or not character.isalnum() else 0.68


def _is_free(place: Place, index: int, obstacles: Sequence[Obstacle], frame: Box, gap: float) -> bool:
    if not place.box.is_inside(frame):
        return False
    for obstacle in obstacles:
        if place.box.overlaps(obstacle.box, gap / 2):
            return False
        if place.leader and obstacle.solid and obstacle.owner != index and place.leader.crosses(obstacle.box):
            return False
    return True


def _settle(placed: list[Place], free: Sequence[Sequence[Place]], gap: float) -> list[Place]:
    """Move each label to the earliest of its places that the others leave free, until none moves."""
    moved = True
    while moved:
        moved = False
        for index, places in enumerate(free):
            others = placed[:index] + placed[index + 1 :]
            best = next(place for place in places if all(_agree(place, other, gap) for other in others))
            if best != placed[index]:
                placed[index], moved = best, True
    return placed


def _agree(one: Place, other: Place, gap: float) -> bool:
    if one.box.overlaps(other.box, gap):
        return False
    if one.leader and (one.leader.crosses(other.box) or (other.leader and one.leader.meets(other.leader))):
        return False
    return not (other.leader and other.leader.crosses(one.box))


def _put_box(x: float, y: float, dx: float, dy: float, width: float, height: float) -> Box:
    left = x - width * (1 - dx) / 2
    top = y - height * (1 - dy) / 2
    return Box(left, top, left + width, top + height)


def _sign(value: float) -> int:
    return 0 if abs(value) < 0.3 else (1 if value > 0 else -1)

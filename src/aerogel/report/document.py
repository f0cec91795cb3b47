"""Hold what a report says, apart from how it looks: plain frozen values that know no area."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aerogel.errors import DataError, compose
from aerogel.report.pictures import encode_picture

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_LARGEST = 1e150


@dataclass(frozen=True)
class ReceiptLine:
    """Name one position of a receipt: ``label`` … ``value`` (with its unit), and a smaller note below."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Receipt:
    """List what a result cost, what it saves and what quality it gave up.

    ``total`` is the one sentence to remember; ``number`` identifies the result, as a manifest's digest does.
    """

    paid: Sequence[ReceiptLine] = ()
    saved: Sequence[ReceiptLine] = ()
    lost: Sequence[ReceiptLine] = ()
    total: str = ""
    number: str = ""

    def __post_init__(self) -> None:
        for name in ("paid", "saved", "lost"):
            _put(self, name, tuple(getattr(self, name)))


@dataclass(frozen=True)
class Picture:
    """Hold one picture: PNG, JPEG or WebP bytes, or uint8 pixels [H, W] or [H, W, C], which become PNG bytes.

    ``alt`` is read aloud in place of the picture; without it the caption is.

    Raises:
        DataError: the bytes or the array are no picture.
    """

    image: bytes | npt.NDArray[np.uint8]
    caption: str = ""
    alt: str = ""

    def __post_init__(self) -> None:
        _put(self, "image", encode_picture(self.image))


@dataclass(frozen=True)
class Pictures:
    """Show pictures in rows of ``columns``; ``pixelated`` keeps the edges of enlarged pixels sharp.

    An image may also be given as (caption, bytes or array).
    """

    images: Sequence[Picture | tuple[str, bytes | npt.NDArray[np.uint8]]]
    columns: int = 10
    pixelated: bool = False
    title: str = ""
    text: str = ""

    def __post_init__(self) -> None:
        if self.columns < 1:
            raise DataError(
                compose("one column of pictures or more", str(self.columns), "set columns to 1 or more")
            )
        pictures = (each if isinstance(each, Picture) else Picture(each[1], each[0]) for each in self.images)
        _put(self, "images", tuple(pictures))


@dataclass(frozen=True)
class Comparison:
    """Show pairs of pictures side by side, each pair under the two ``names``."""

    pairs: Sequence[tuple[Picture, Picture]]
    names: tuple[str, str] = ("before", "after")
    pixelated: bool = False
    title: str = ""
    text: str = ""

    def __post_init__(self) -> None:
        _put(self, "pairs", tuple((before, after) for before, after in self.pairs))


@dataclass(frozen=True)
class Series:
    """Hold one line of a curve; ``spread`` is the half-width of the band around ``y``, in its unit.

    Values that cannot be drawn (not finite, or not positive on a logarithmic axis) leave a gap, which the
    report mentions.

    Raises:
        DataError: ``x``, ``y`` and ``spread`` differ in length.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    spread: Sequence[float] | None = None

    def __post_init__(self) -> None:
        for name in ("x", "y", "spread"):
            values = getattr(self, name)
            if values is not None:
                _put(self, name, tuple(float(value) for value in values))
        lengths = {len(values) for values in (self.x, self.y, self.spread) if values is not None}
        if len(lengths) != 1:
            raise DataError(
                compose(
                    f"as many x as y (and spread) in series {self.name!r}",
                    f"{len(self.x)} x, {len(self.y)} y, {len(self.spread or ())} spread",
                    "pass sequences of one length",
                )
            )


@dataclass(frozen=True)
class Level:
    """Draw one value without a position along x as a level line: the teacher's accuracy, or chance."""

    name: str
    y: float


@dataclass(frozen=True)
class Curve:
    """Draw series against a common x: a training curve, say. Unit "B" writes an axis in B, kB, MB."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    log_x: bool = False
    log_y: bool = False
    x_unit: str = ""
    y_unit: str = ""
    levels: Sequence[Level] = ()
    text: str = ""

    def __post_init__(self) -> None:
        _put(self, "series", tuple(self.series))
        _put(self, "levels", tuple(self.levels))


@dataclass(frozen=True)
class Point:
    """Name one point of a scatter; spreads are half-widths of its error bars.

    Points of one ``group`` share colour and marker; ``emphasis`` is for the point that the picture is about.
    """

    name: str
    x: float
    y: float
    spread: float | None = None
    x_spread: float | None = None
    group: str = ""
    emphasis: bool = False


@dataclass(frozen=True)
class Scatter:
    """Draw named points: accuracy against bytes. Unit "B" writes an axis in B, kB, MB.

    Points that cannot be drawn (not finite, or not positive on a logarithmic axis) are named below it.
    """

    title: str
    x_label: str
    y_label: str
    points: Sequence[Point]
    log_x: bool = True
    log_y: bool = False
    x_unit: str = ""
    y_unit: str = ""
    levels: Sequence[Level] = ()
    text: str = ""

    def __post_init__(self) -> None:
        _put(self, "points", tuple(self.points))
        _put(self, "levels", tuple(self.levels))


@dataclass(frozen=True)
class TableBlock:
    """Show a table; columns of numbers are set to the right, rows in ``highlight`` (from 0) stand out.

    Raises:
        DataError: a row is longer or shorter than the header.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str | int | float | None]]
    title: str = ""
    text: str = ""
    highlight: Sequence[int] = ()

    def __post_init__(self) -> None:
        _put(self, "header", tuple(self.header))
        _put(self, "rows", tuple(tuple(row) for row in self.rows))
        _put(self, "highlight", tuple(self.highlight))
        uneven = [number for number, row in enumerate(self.rows) if len(row) != len(self.header)]
        if uneven:
            raise DataError(
                compose(
                    f"{len(self.header)} cells in every row of table {self.title!r}",
                    f"{len(self.rows[uneven[0]])} cells in row {uneven[0]}",
                    "fill missing cells with None",
                )
            )


Block = Pictures | Comparison | Curve | Scatter | TableBlock


@dataclass(frozen=True)
class Section:
    """Group blocks under a title; blank lines in ``text`` separate paragraphs."""

    title: str
    text: str = ""
    blocks: Sequence[Block] = ()

    def __post_init__(self) -> None:
        _put(self, "blocks", tuple(self.blocks))


@dataclass(frozen=True)
class Report:
    """Hold a whole report; ``command`` is the line that makes it again."""

    title: str
    lede: str = ""
    receipt: Receipt = field(default_factory=Receipt)
    sections: Sequence[Section] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    command: str = ""

    def __post_init__(self) -> None:
        _put(self, "sections", tuple(self.sections))


def is_drawable(value: float | None, log: bool = False) -> bool:
    """Tell whether an axis can show ``value``: finite, sums of it do not overflow, positive if ``log``."""
    if value is None or not math.isfinite(value) or abs(value) > _LARGEST:
        return False
    return value > 1 / _LARGEST if log else True


def _put(holder: object, name: str, value: bytes | Iterable[Any]) -> None:
    object.__setattr__(holder, name, value)

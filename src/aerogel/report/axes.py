"""Draw the frame that curves and scatters share: scales, grid and marks, in pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aerogel.report.document import is_drawable
from aerogel.report.labels import Box, measure_width, shorten
from aerogel.report.palette import stand_in
from aerogel.report.quantities import format_ticks
from aerogel.report.svg import Text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FONT = 12.5
_TOP, _BOTTOM = 34.0, 46.0
_WHOLE = 2.0  # the least span at which an axis of whole numbers is marked by whole numbers


@dataclass(frozen=True)
class Size:
    """Hold what a drawing is made for: a wide page or a narrow screen, in pixels."""

    name: str
    width: float
    height: float

    @property
    def is_narrow(self) -> bool:
        """Tell whether there is no room beside the plot."""
        return self.width < 500


SIZES = (Size("wide", 832, 430), Size("narrow", 380, 350))


@dataclass(frozen=True)
class Scale:
    """Hold one axis: what it measures, from where to where, and whether only in whole numbers."""

    label: str
    unit: str
    log: bool
    low: float
    high: float
    whole: bool = False

    @classmethod
    def fit(cls, label: str, unit: str, log: bool, values: Sequence[float], *, margin: float = 0.0) -> Scale:
        """Return the scale that shows all drawable ``values``, with ``margin`` of it free at both ends."""
        kept = [math.log10(value) if log else value for value in values if is_drawable(value, log)]
        low, high = (min(kept), max(kept)) if kept else (0.0, 1.0)
        if high - low <= 1e-9 * max(abs(low), abs(high)):
            half = 0.5 if log else (abs(low) * 0.1 or 1.0)
            low, high = low - half, high + half
        low, high = low - margin * (high - low), high + margin * (high - low)
        whole = not log and high - low >= _WHOLE and all(value == int(value) for value in kept)
        return cls(label, unit, log, 10.0**low if log else low, 10.0**high if log else high, whole)

    @property
    def title(self) -> str:
        """Return the words beside the axis; bytes carry their unit on the marks."""
        return f"{self.label} ({self.unit})" if self.unit and self.unit != "B" else self.label

    def marks(self, most: int) -> list[float]:
        """Return the values to mark, at most about ``most``."""
        from matplotlib.ticker import LogLocator, MaxNLocator

        if self.log:
            decades = math.log10(self.high / self.low)
            subs = (1.0,) if decades > 2 else ((1.0, 3.0) if decades > 1 else (1.0, 2.0, 3.0, 5.0, 7.0))
            locator: LogLocator | MaxNLocator = LogLocator(subs=subs, numticks=most)
        else:
            locator = MaxNLocator(nbins=most, steps=[1, 2, 2.5, 5, 10], integer=self.whole)
        slack = 1e-9 * (self.low if self.log else self.high - self.low)
        found = [float(value) for value in locator.tick_values(self.low, self.high)]
        return [value for value in found if self.low - slack <= value <= self.high + slack]


class Plot:
    """Hold an empty plot and where it lies; the caller draws into ``axes`` and adds ``texts``."""

    def __init__(self, size: Size, x: Scale, y: Scale, right: float = 14.0) -> None:
        """Draw the frame, leaving ``right`` pixels free beside it."""
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        self.size, self.x, self.y = size, x, y
        y_marks = y.marks(6)
        y_words = format_ticks(y_marks, y.unit, y.log)
        left = max((measure_width(word, FONT) for word in y_words), default=0.0) * 0.9 + 12
        self.frame = Box(left, _TOP, size.width - right, size.height - _BOTTOM)
        self.figure: Figure = Figure(figsize=(size.width / 72, size.height / 72), dpi=72)
        FigureCanvasSVG(self.figure)
        self.axes: Axes = self.figure.add_axes(self._place())
        self.texts: list[Text] = []
        self._dress(y_marks, y_words)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return where (x, y) lies on the figure, in pixels from its top left corner."""
        across, up = self.axes.transData.transform((x, y))
        return float(across), self.size.height - float(up)

    def clamp(self, y: float) -> float:
        """Return ``y`` held inside the y axis."""
        return min(max(y, self.y.low), self.y.high)

    def add_leader(
        self, start: tuple[float, float], end: tuple[float, float], role: str, weight: float = 0.9
    ) -> None:
        """Draw a thin line between two places of the figure, in pixels."""
        from matplotlib.lines import Line2D
        from matplotlib.transforms import IdentityTransform

        (x0, y0), (x1, y1), height = start, end, self.size.height
        style = {"color": stand_in(role), "linewidth": weight}
        self.figure.add_artist(
            Line2D([x0, x1], [height - y0, height - y1], transform=IdentityTransform(), **style)  # type: ignore[arg-type]
        )

    def _place(self) -> tuple[float, float, float, float]:
        width, height, frame = self.size.width, self.size.height, self.frame
        return (
            frame.left / width,
            1 - frame.bottom / height,
            (frame.right - frame.left) / width,
            (frame.bottom - frame.top) / height,
        )

    def _dress(self, y_marks: list[float], y_words: list[str]) -> None:
        axes, frame = self.axes, self.frame
        axes.set_xscale("log" if self.x.log else "linear")
        axes.set_yscale("log" if self.y.log else "linear")
        for side, spine in axes.spines.items():
            spine.set_visible(side == "bottom")
            spine.set_color(stand_in("line"))
        x_marks = self.x.marks(5 if self.size.is_narrow else 9)
        axes.set_xticks(x_marks, labels=[])
        axes.set_yticks(y_marks, labels=[])
        axes.set_xlim(self.x.low, self.x.high)
        axes.set_ylim(self.y.low, self.y.high)
        axes.minorticks_off()
        axes.tick_params(length=0)
        axes.set_axisbelow(True)
        axes.grid(axis="both", color=stand_in("line"), linewidth=1)
        self._write_x(x_marks)
        for value, word in zip(y_marks, y_words, strict=True):
            down = self.at(self.x.low, value)[1]
            self.texts.append(Text(frame.left - 8, down + 4, word, "tick", "end"))
        self.texts.append(Text(0, 14, shorten(self.y.title, FONT, self.size.width), "axis"))
        x_title = shorten(self.x.title, FONT, frame.right)
        self.texts.append(Text(frame.right, self.size.height - 6, x_title, "axis", "end"))

    def _write_x(self, marks: list[float]) -> None:
        """Write the marks below the axis, leaving out those that would touch the one before."""
        free = -math.inf
        for value, word in zip(marks, format_ticks(marks, self.x.unit, self.x.log), strict=True):
            across, half = self.at(value, self.y.low)[0], measure_width(word, FONT) / 2
            if across - half < free:
                continue
            across = min(across, self.size.width - half)
            self.texts.append(Text(across, self.frame.bottom + 18, word, "tick", "middle"))
            free = across + half + 8

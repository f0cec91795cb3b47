"""Hold measured values with their unit, spread and sample count, and tables of them."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, fields
from math import isfinite
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from aerogel.errors import DataError, compose
from aerogel.measure.units import format_value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.table import Table as RichTable

_REQUIRED = ("name", "value", "unit")


@dataclass(frozen=True)
class Measurement:
    """One measured value.

    ``spread`` has the unit of ``value``; ``spread_kind`` says what it is ("IQR", "std", "95% CI half-width")
    and ``samples`` how many observations stand behind the value. Numpy scalars become plain numbers.

    Raises:
        DataError: a value that is not a finite number, a negative spread, a spread without its kind (or the
            reverse), fewer than one sample.
    """

    name: str
    value: float
    unit: str
    spread: float | None = None
    spread_kind: str | None = None
    samples: int | None = None
    note: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", _number(self.value, f"the value of {self.name!r}"))
        if (self.spread is None) != (self.spread_kind is None):
            raise DataError(
                compose(
                    f"both spread and spread_kind of {self.name!r}, or neither",
                    f"spread={self.spread!r}, spread_kind={self.spread_kind!r}",
                    "say what the spread is, for example spread_kind='std'",
                )
            )
        if self.spread is not None:
            spread = _number(self.spread, f"the spread of {self.name!r}")
            if spread < 0:
                raise DataError(
                    compose("a spread of zero or more", repr(spread), "pass a half-width or a width")
                )
            object.__setattr__(self, "spread", spread)
        if self.samples is not None:
            samples = _number(self.samples, f"the sample count of {self.name!r}")
            if not isinstance(samples, int) or samples < 1:
                raise DataError(
                    compose(
                        "a whole sample count of at least 1", repr(self.samples), "pass None if it is unknown"
                    )
                )
            object.__setattr__(self, "samples", samples)

    @property
    def text(self) -> str:
        """Value, unit and spread for people, such as "93.53 % ± 0.48 %" or "12.30 ms (IQR 0.40 ms)"."""
        value = format_value(self.value, self.unit)
        if self.spread is None:
            return value
        spread = format_value(self.spread, self.unit)
        return f"{value} (IQR {spread})" if self.spread_kind == "IQR" else f"{value} ± {spread}"

    def __str__(self) -> str:
        return f"{self.name}: {self.text}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, every field present."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Measurement:
        """Build a measurement from what ``to_dict`` returned.

        Raises:
            DataError: a field is missing, unknown or of another type.
        """
        _check_fields(data)
        return cls(**data)


@dataclass(frozen=True)
class Table:
    """Measurements under one title; ``str(table)`` draws it, ``to_json`` writes it on one line."""

    title: str
    measurements: tuple[Measurement, ...]

    def __str__(self) -> str:
        from io import StringIO

        from rich.console import Console

        screen = StringIO()
        # A fixed width and no colour: the same table gives the same text on a terminal, in a pipe, in a log.
        console = Console(
            file=screen, width=110, color_system=None, force_terminal=False, legacy_windows=False
        )
        console.print(self.__rich__())
        return "\n".join(line.rstrip() for line in screen.getvalue().splitlines())

    def __rich__(self) -> RichTable:
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text

        drawn = RichTable(title=Text(self.title), box=box.SIMPLE, title_justify="left")
        for header in ("what", "value", "spread", "n", "note"):
            drawn.add_column(header, justify="right" if header in ("value", "n") else "left", overflow="fold")
        for each in self.measurements:
            spread = (
                "" if each.spread is None else f"{format_value(each.spread, each.unit)} ({each.spread_kind})"
            )
            count = "" if each.samples is None else f"{each.samples:,}"
            cells = (each.name, format_value(each.value, each.unit), spread, count, each.note)
            drawn.add_row(*(Text(cell) for cell in cells))
        return drawn

    def to_json(self) -> str:
        """Return one line of JSON."""
        rows = [each.to_dict() for each in self.measurements]
        return json.dumps({"title": self.title, "measurements": rows}, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Table:
        """Read back what ``to_json`` wrote.

        Raises:
            DataError: the text is no JSON, or not that of a table.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(
                compose("JSON written by Table.to_json", str(error), "check the source")
            ) from error
        if not (isinstance(data, dict) and data.keys() == {"title", "measurements"}):
            raise DataError(compose("the keys title and measurements", repr(data)[:80], "check the source"))
        if not (isinstance(data["title"], str) and isinstance(data["measurements"], list)):
            raise DataError(
                compose("a title and a list of measurements", repr(data)[:80], "check the source")
            )
        return cls(data["title"], tuple(Measurement.from_dict(each) for each in data["measurements"]))


def _check_fields(data: Mapping[str, Any]) -> None:
    if not hasattr(data, "keys"):
        raise DataError(compose("the fields of a measurement", repr(data)[:80], "pass what to_dict returned"))
    known = {field.name for field in fields(Measurement)}
    problems = [f"{name!r} is missing" for name in _REQUIRED if name not in data]
    problems += [f"{name!r} is unknown" for name in sorted(map(str, data.keys())) if name not in known]
    for name in ("name", "unit", "note", "spread_kind"):
        optional = name == "spread_kind" and data.get(name) is None
        if name in data and not optional and not isinstance(data[name], str):
            problems.append(f"{name!r} is {type(data[name]).__name__}, not text")
    if problems:
        raise DataError(
            compose(f"fields {', '.join(sorted(known))}", "; ".join(problems), "pass what to_dict returned")
        )


def _number(value: object, what: str) -> float:
    large = isinstance(value, Integral) and abs(int(value)) > sys.float_info.max
    if isinstance(value, Integral) and not isinstance(value, bool) and not large:
        return int(value)
    if isinstance(value, Real) and not isinstance(value, bool) and not large and isfinite(value):
        return float(value)
    got = "one that float64 does not hold" if large else repr(value)[:80]
    raise DataError(
        compose(f"a finite number as {what}", got, "leave the measurement out, or say in a note why")
    )

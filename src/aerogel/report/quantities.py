"""Write numbers for people."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import pairwise

_PREFIXES = ("", "k", "M", "G", "T", "P", "E")
_MINUS = "−"
_UNIT = re.compile(r"(?<=\d) (?=(?:%|[kMGT]?B|ms|s|min|h|px|points?)(?!\w))")


def format_quantity(value: float | None, unit: str = "") -> str:
    """Write ``value`` with three or four digits and its unit; bytes take decimal prefixes ("7.8 kB")."""
    if value is None:
        return "—"
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else ("∞" if value > 0 else f"{_MINUS}∞")
    if unit == "B":
        return _prefix(value)
    size = abs(value)
    if value == int(value) and size < 1e9:
        text = f"{int(value):,}"
    elif 1e-4 <= size < 1e6:
        text = f"{value:.4g}" if size < 1e4 else f"{value:,.0f}"
    else:
        text = f"{value:.3g}"
    return text.replace("-", _MINUS) + (f" {unit}" if unit else "")


def format_ticks(values: Sequence[float], unit: str = "", log: bool = False) -> list[str]:
    """Write the marks of one axis alike: the decimals that their step needs, the unit only for bytes."""
    if unit == "B":
        return [_prefix(value) for value in values]
    largest = max((abs(value) for value in values), default=0.0)
    smallest = min((abs(value) for value in values if value), default=1.0)
    if log or largest >= 1e6 or smallest < 1e-4:
        return [_shorten(value) for value in values]
    steps = [after - before for before, after in pairwise(values)]
    step = min(steps, default=1.0)
    decimals = max(0, next((d for d in range(9) if abs(round(step, d) - step) < step * 1e-6), 9))
    return [f"{value:,.{decimals}f}".replace("-", _MINUS) for value in values]


def tie_units(text: str) -> str:
    """Keep a number and its unit, and both sides of "±", on one line."""
    return _UNIT.sub("\N{NO-BREAK SPACE}", text).replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}")


def _prefix(value: float) -> str:
    scaled, power = abs(value), 0
    while float(f"{scaled:.3g}") >= 1000 and power < len(_PREFIXES) - 1:
        scaled, power = scaled / 1000, power + 1
    sign = _MINUS if value < 0 else ""
    digits = f"{scaled:.0f}" if scaled >= 100 or scaled == int(scaled) else f"{scaled:.2g}"
    return f"{sign}{digits} {_PREFIXES[power]}B"


def _shorten(value: float) -> str:
    if value and (abs(value) < 1e-3 or abs(value) >= 1e6):
        digits, _, power = f"{value:.2e}".partition("e")
        digits = digits.rstrip("0").rstrip(".").replace("-", _MINUS)
        raised = str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        return f"10{raised}" if digits == "1" else f"{digits}·10{raised}"
    return f"{value:,.10g}".replace("-", _MINUS)

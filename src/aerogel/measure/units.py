"""Write numbers with their units, for people."""

from __future__ import annotations

from math import floor, log10

from aerogel.errors import DataError, compose

_PREFIXES = ("", "k", "M", "G", "T", "P", "E")
_SCALED = {"MACs": "", "parameters": " "}  # unit -> what stands between the prefix and it
_DIGITS = 4


def format_bytes(n: float) -> str:
    """Write a byte count with decimal prefixes: 999 -> "999 B", 7812 -> "7.8 kB" (1 kB is 1,000 bytes).

    Raises:
        DataError: the count is negative.
    """
    if n < 0:
        raise DataError(
            compose("a byte count of zero or more", str(n), "pass the size of something that exists")
        )
    whole = round(n)
    if whole < 1000:
        return f"{whole} B"
    scaled, prefix = _scale(whole, decimals=1)
    return f"{scaled:.1f} {prefix}B"


def format_duration(seconds: float) -> str:
    """Write seconds for people: "0.3 s", "17 s", "1 min 12 s", "2 h 5 min"."""
    if seconds < 0.05:
        return "< 0.1 s"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def format_value(value: float, unit: str) -> str:
    """Write a value with its unit: "1.814 GMACs", "11.69 M parameters", "7.8 kB", "93.53 %", "12.30 ms".

    Whole numbers keep every digit, except for bytes, MACs and parameters, which get a decimal prefix; other
    values keep four significant digits, percentages two decimals.
    """
    if unit == "bytes" and value >= 0:
        return format_bytes(value)
    if unit == "%":
        return f"{value:.2f} %"
    if unit in _SCALED and abs(value) >= 1000:
        scaled, prefix = _scale(value, decimals=None)
        return f"{_write(scaled)} {prefix}{_SCALED[unit]}{unit}"
    return f"{_write(value)} {unit}".rstrip()


def _scale(value: float, *, decimals: int | None) -> tuple[float, str]:
    """Divide by thousands until the rounded value is below 1,000; None rounds to four significant digits."""
    step = 0
    scaled = float(value)
    while step < len(_PREFIXES) - 1 and abs(_rounded(scaled, decimals)) >= 1000:
        step += 1
        scaled = value / 1000**step
    return _rounded(scaled, decimals), _PREFIXES[step]


def _rounded(value: float, decimals: int | None) -> float:
    return round(value, _decimals(value) if decimals is None else decimals)


def _decimals(value: float) -> int:
    """Decimals that leave four significant digits."""
    return max(0, _DIGITS - 1 - floor(log10(abs(value)))) if value else 0


def _write(value: float) -> str:
    if isinstance(value, int) or value == 0:
        return f"{value:,.0f}"
    if abs(value) < 1e-4:
        return f"{value:.{_DIGITS - 1}g}"
    return f"{value:,.{_decimals(value)}f}"

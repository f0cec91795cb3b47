"""JSON that has one spelling when written and no surprises when read."""

from __future__ import annotations

import hashlib
import json
import math
import reprlib
from collections.abc import Mapping
from typing import Any

from aerogel.errors import DataError, compose

__all__ = ["canonical_json", "canonical_sha256", "parse_json", "plain_value", "show_value"]

_MAX_DEPTH = 64


def plain_value(value: Any, where: str = "value", _depth: int = 0) -> Any:
    """Copy a value into what JSON can carry: mappings become dicts, tuples lists, numbers stay finite.

    Raises:
        DataError: something in it has no JSON form; the message says where.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if _depth < _MAX_DEPTH:
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            return {key: plain_value(item, f"{where}.{key}", _depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain_value(item, f"{where}[{i}]", _depth + 1) for i, item in enumerate(value)]
    raise DataError(
        compose(
            f"text, finite numbers, true, false, null, lists and string-keyed dicts in {where}",
            f"{show_value(value)} ({type(value).__name__})",
            "convert it to one of these before it is stored",
        )
    )


def canonical_json(value: Any, where: str = "value") -> str:
    """Write a value as the one JSON text that equal values share: sorted keys, no spaces, ASCII.

    Raises:
        DataError: something in it has no JSON form.
    """
    return json.dumps(plain_value(value, where), sort_keys=True, separators=(",", ":"), allow_nan=False)


def canonical_sha256(value: Any, where: str = "value") -> str:
    """Hash the canonical JSON of a value.

    Raises:
        DataError: something in it has no JSON form.
    """
    return hashlib.sha256(canonical_json(value, where).encode("ascii")).hexdigest()


def show_value(value: Any) -> str:
    """Write a value for a message, cut to 100 characters however large or deep it is."""
    shortener = reprlib.Repr()
    shortener.maxlevel, shortener.maxstring, shortener.maxother = 2, 80, 80
    text = shortener.repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def parse_json(raw: bytes) -> Any:
    """Read JSON, and refuse what a careless or hostile writer may put into it.

    Refused are text that is not UTF-8, repeated keys, NaN, infinities, numbers beyond float64, lone
    surrogates and nesting deeper than 64.

    Raises:
        ValueError: the text is not such JSON; the message says why and leaves the place to the caller.
    """
    try:
        value = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
        _check_tree(value, 0)
    except RecursionError:
        raise ValueError(f"nested deeper than {_MAX_DEPTH} levels") from None
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key {show_value(repeated)} occurs twice")
    return result


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {show_value(text)} is too large")
    return number


def _check_tree(value: Any, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise ValueError(f"nested deeper than {_MAX_DEPTH} levels")
    if isinstance(value, str):
        value.encode("utf-8")
    elif isinstance(value, dict):
        for key, item in value.items():
            key.encode("utf-8")
            _check_tree(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check_tree(item, depth + 1)

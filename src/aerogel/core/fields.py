"""Checking the fields of a configuration against their annotations."""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union

from aerogel.core.canonical import show_value
from aerogel.core.registry import nearest
from aerogel.errors import ConfigError, compose

__all__ = ["Tag", "find_mistakes", "get_tag", "parse_config", "parse_value", "spell_value"]

_PLAIN = {int: "an integer", float: "a finite number", str: "text", bool: "true or false", type(None): "null"}


@dataclass(frozen=True)
class Tag:
    """Hold the name and version that a configuration is written with, and the ways up from older versions."""

    name: str
    version: int
    migrations: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]]


def get_tag(cls: type) -> Tag:
    """Look up the tag of a configuration class.

    Raises:
        ConfigError: the class is not a configuration.
    """
    tag = vars(cls).get("__aerogel_config__")
    if not isinstance(tag, Tag):
        raise ConfigError(
            compose("a class marked with @config", cls.__name__, "mark it, or pass such a class")
        )
    return tag


def parse_config(cls: type, data: Any, place: str, mistakes: list[str]) -> Any:
    """Read a mapping as a configuration, adding each mistake to the list; returns None if there were any."""
    tag = get_tag(cls)
    if type(data) is cls:
        return find_mistakes(data, place, mistakes)
    if not isinstance(data, Mapping):
        mistakes.append(_mistake(place, f"the settings of {tag.name} as a mapping", data))
        return None
    values = _upgrade(tag, dict(data), place, mistakes)
    if values is None:
        return None
    before = len(mistakes)
    names = [field.name for field in dataclasses.fields(cls) if field.init]
    for key in values:
        if key not in names:
            close = nearest(key, names) if isinstance(key, str) else None
            remedy = f"did you mean {close!r}?" if close else "remove it"
            mistakes.append(
                compose(f"one of {', '.join(names)}", f"unknown key {_join(place, key)!r}", remedy)
            )
    hints = typing.get_type_hints(cls)
    parsed: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        if field.init and field.name in values:
            count = len(mistakes)
            value = parse_value(hints[field.name], values[field.name], _join(place, field.name), mistakes)
            if len(mistakes) == count:
                parsed[field.name] = value
        elif field.init and _is_required(field):
            name = _join(place, field.name)
            mistakes.append(compose(f"a value for {name}", "none", f"add {field.name}"))
    return _build(cls, parsed, place, mistakes, before)


def find_mistakes(cfg: Any, place: str, mistakes: list[str]) -> Any:
    """Check a constructed configuration, adding each mistake to the list; returns it with typed numbers."""
    values = {field.name: getattr(cfg, field.name) for field in dataclasses.fields(cfg) if field.init}
    return parse_config(type(cfg), values, place, mistakes)


def parse_value(hint: Any, value: Any, place: str, mistakes: list[str]) -> Any:
    """Read a value as what an annotation allows, adding each mistake to the list.

    Annotations may be int, float, str, bool, None, Literal, a union, tuple[X, ...], tuple[X, Y], dict[str, X]
    or another configuration. A float takes an integer; an integer does not take true or false.

    Raises:
        ConfigError: the annotation is none of these.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return _parse_union(arguments, value, place, mistakes)
    if origin is Literal:
        return _parse_choice(arguments, value, place, mistakes)
    if origin is tuple:
        return _parse_tuple(arguments, value, place, mistakes)
    if origin is dict and arguments[0] is str:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            mistakes.append(_mistake(place, "a mapping from names", value))
            return None
        return {
            key: parse_value(arguments[1], item, _join(place, key), mistakes) for key, item in value.items()
        }
    if hint is None or hint in _PLAIN:
        return _parse_plain(type(None) if hint is None else hint, value, place, mistakes)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return parse_config(hint, value, place, mistakes)
    raise ConfigError(
        compose(f"an annotation that a config can carry at {place}", str(hint), "use plain types")
    )


def spell_value(value: Any) -> Any:
    """Turn a checked value into what JSON can carry."""
    if dataclasses.is_dataclass(value):
        tag = get_tag(type(value))
        names = [field.name for field in dataclasses.fields(value) if field.init]
        return {"type": tag.name, "version": tag.version} | {n: spell_value(getattr(value, n)) for n in names}
    if isinstance(value, tuple):
        return [spell_value(item) for item in value]
    if isinstance(value, dict):
        return {key: spell_value(item) for key, item in value.items()}
    return value


def _upgrade(tag: Tag, values: dict[Any, Any], place: str, mistakes: list[str]) -> dict[Any, Any] | None:
    name, version = values.pop("type", tag.name), values.pop("version", tag.version)
    if name != tag.name:
        mistakes.append(_mistake(_join(place, "type"), repr(tag.name), name))
        return None
    if type(version) is not int or version < 1:
        mistakes.append(_mistake(_join(place, "version"), "a version from 1 up", version))
        return None
    if version > tag.version:
        found = f"version {version} at {place or 'the top'}"
        mistakes.append(
            compose(f"{tag.name} of version {tag.version} or older", found, "install a newer Aerogel")
        )
        return None
    while version < tag.version:
        if version not in tag.migrations:
            found = f"version {version} at {place or 'the top'}"
            mistakes.append(compose(f"{tag.name} of version {tag.version}", found, "write the settings anew"))
            return None
        values, version = tag.migrations[version](values), version + 1
    return values


def _build(cls: type, parsed: dict[str, Any], place: str, mistakes: list[str], before: int) -> Any:
    wrong = len(mistakes) > before
    fields = [field for field in dataclasses.fields(cls) if field.init]
    absent = [field.name for field in fields if field.name not in parsed]
    if any(_is_required(field) for field in fields if field.name in absent):
        return None
    cfg = cls(**parsed)
    for mistake in getattr(cfg, "check", list)():
        # A default stands in for a value that could not be read; what is said about it would mislead.
        if not (wrong and any(re.search(rf"\b{re.escape(name)}\b", mistake) for name in absent)):
            mistakes.append(f"{place}: {mistake}" if place else mistake)
    return None if len(mistakes) > before else cfg


def _parse_union(arguments: tuple[Any, ...], value: Any, place: str, mistakes: list[str]) -> Any:
    attempts: list[list[str]] = []
    for hint in sorted(arguments, key=lambda hint: hint is not type(value)):
        attempt: list[str] = []
        parsed = parse_value(hint, value, place, attempt)
        if not attempt:
            return parsed
        attempts.append(attempt)
    nested = [hint for hint in arguments if isinstance(hint, type) and dataclasses.is_dataclass(hint)]
    if isinstance(value, Mapping) and nested:
        named = [hint for hint in nested if get_tag(hint).name == value.get("type")]
        if named or len(nested) == 1:
            parse_value((named or nested)[0], value, place, mistakes)
            return None
    mistakes.append(_mistake(place, " or ".join(dict.fromkeys(map(_describe, arguments))), value))
    return None


def _parse_choice(choices: tuple[Any, ...], value: Any, place: str, mistakes: list[str]) -> Any:
    for choice in choices:
        if type(choice) is type(value) and choice == value:
            return choice
    close = nearest(value, [c for c in choices if isinstance(c, str)]) if isinstance(value, str) else None
    remedy = f"did you mean {close!r}?" if close else "choose one of these"
    mistakes.append(_mistake(place, f"one of {', '.join(map(repr, choices))}", value, remedy))
    return None


def _parse_tuple(arguments: tuple[Any, ...], value: Any, place: str, mistakes: list[str]) -> Any:
    if not isinstance(value, list | tuple):
        mistakes.append(_mistake(place, "a list", value))
        return None
    hints = arguments[:1] * len(value) if arguments[1:] == (...,) else arguments
    if len(hints) != len(value):
        mistakes.append(_mistake(place, f"a list of {len(hints)}", value))
        return None
    pairs = zip(hints, value, strict=True)
    return tuple(parse_value(hint, item, f"{place}[{i}]", mistakes) for i, (hint, item) in enumerate(pairs))


def _parse_plain(kind: type, value: Any, place: str, mistakes: list[str]) -> Any:
    if kind is float and type(value) is int and abs(value) <= 2**53:
        return float(value)
    if type(value) is kind and (not isinstance(value, float) or math.isfinite(value)):
        return value
    mistakes.append(_mistake(place, _PLAIN[kind], value))
    return None


def _describe(hint: Any) -> str:
    if hint in _PLAIN:
        return _PLAIN[hint]
    if typing.get_origin(hint) is Literal:
        return " or ".join(map(repr, typing.get_args(hint)))
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return f"the settings of {get_tag(hint).name}"
    return "a list" if typing.get_origin(hint) is tuple else "a mapping"


def _mistake(place: str, expected: str, value: Any, remedy: str = "correct the value") -> str:
    got = f"{show_value(value)} ({type(value).__name__})"
    return compose(f"{expected} for {place}" if place else expected, got, remedy)


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _join(place: str, key: Any) -> str:
    return f"{place}.{key}" if place else str(key)

"""Settings as frozen dataclasses: checked, written with their type and version, and read back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from aerogel.core.canonical import parse_json
from aerogel.core.fields import Tag, find_mistakes, get_tag, parse_config, spell_value
from aerogel.core.files import open_regular, write_text_atomic
from aerogel.core.registry import nearest
from aerogel.errors import ConfigError, IntegrityError, compose

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    C = TypeVar("C", bound=DataclassInstance)
else:
    C = TypeVar("C")

__all__ = ["config", "from_dict", "load_config", "nearest", "override", "save_config", "to_dict", "validate"]

Migration = Callable[[dict[str, Any]], dict[str, Any]]
_MAX_BYTES = 2**20
_SHOWN, _LONGEST = 50, 1000
_RESERVED = {"type", "version"}


def config(
    name: str, version: int = 1, migrations: Mapping[int, Migration] | None = None
) -> Callable[[type[C]], type[C]]:
    """Mark a frozen dataclass as a configuration that is written under a name and a version.

    ``migrations`` maps an older version to the function that turns its fields into those of the next one. A
    configuration is read only where a signature names its class, so a file cannot ask for another.

    Raises:
        ConfigError: the class is not a frozen dataclass, or has a field named type or version.
    """

    def mark(cls: type[C]) -> type[C]:
        frozen = dataclasses.is_dataclass(cls) and cls.__dataclass_params__.frozen  # type: ignore[attr-defined]
        if not frozen or _RESERVED & {field.name for field in dataclasses.fields(cls)}:
            raise ConfigError(
                compose(
                    "a frozen dataclass without fields named type or version",
                    cls.__name__,
                    "put @config above @dataclass(frozen=True) and rename such fields",
                )
            )
        cls.__aerogel_config__ = Tag(name, version, dict(migrations or {}))  # type: ignore[attr-defined]
        return cls

    return mark


def to_dict(cfg: DataclassInstance) -> dict[str, Any]:
    """Turn a configuration into what JSON can carry, with its type and version and those of nested ones.

    Raises:
        ConfigError: a field holds a value that its annotation does not allow.
    """
    return spell_value(validate(cfg))  # type: ignore[no-any-return]


def from_dict(cls: type[C], data: Mapping[str, Any], where: str = "config") -> C:
    """Read a configuration from a mapping; ``type`` and ``version`` may be left out, and so may defaults.

    Raises:
        ConfigError: there are mistakes; the message lists all of them, each under its place in the mapping.
    """
    get_tag(cls)
    mistakes: list[str] = []
    parsed = parse_config(cls, data, "", mistakes)
    _refuse(mistakes, where)
    return parsed  # type: ignore[no-any-return]


def validate(cfg: C) -> C:
    """Check a configuration that was constructed directly; returns it with numbers in their fields' types.

    Raises:
        ConfigError: there are mistakes; the message lists all of them.
    """
    tag = get_tag(type(cfg))
    mistakes: list[str] = []
    parsed = find_mistakes(cfg, "", mistakes)
    _refuse(mistakes, f"{tag.name} config")
    return parsed  # type: ignore[no-any-return]


def save_config(cfg: DataclassInstance, path: str | Path) -> None:
    """Write a configuration as JSON or, with the suffix .yaml or .yml, as YAML.

    Raises:
        ConfigError: the suffix is another, or the configuration has mistakes.
        StorageFullError: the disk is full.
    """
    data = to_dict(cfg)
    if _is_yaml(path):
        import yaml

        write_text_atomic(path, yaml.safe_dump(data, sort_keys=False, allow_unicode=True))
    else:
        write_text_atomic(path, json.dumps(data, indent=2, allow_nan=False) + "\n")


def load_config(cls: type[C], path: str | Path) -> C:
    """Read a configuration from a .json, .yaml or .yml file.

    Raises:
        ConfigError: the file is missing, unreadable or larger than 1 MiB, or it has mistakes, all of them
        listed.
    """
    raw = _read(Path(path))
    try:
        data = _parse_yaml(raw) if _is_yaml(path) else parse_json(raw)
    except ValueError as error:
        raise ConfigError(
            compose(f"a readable recipe in {path}", str(error), "correct that place")
        ) from error
    return from_dict(cls, {} if data is None else data, where=str(path))


def _refuse(mistakes: list[str], where: str) -> None:
    count = len(mistakes)
    # A hostile file makes as many and as long ones as it likes.
    mistakes = [m if len(m) <= _LONGEST else f"{m[:_LONGEST]}..." for m in mistakes[:_SHOWN]]
    if count > _SHOWN:
        mistakes.append(f"{count - _SHOWN:,} more")
    if count == 1:
        raise ConfigError(f"{where} has a mistake: {mistakes[0]}")
    if mistakes:
        raise ConfigError("\n".join([f"{where} has {count} mistakes:", *(f"  - {m}" for m in mistakes)]))


def _is_yaml(path: str | Path) -> bool:
    suffix = Path(path).suffix.lower()
    if suffix not in (".json", ".yaml", ".yml"):
        raise ConfigError(compose("a file named .json, .yaml or .yml", str(path), "rename it"))
    return suffix != ".json"


def _read(path: Path) -> bytes:
    _is_yaml(path)
    import os

    try:
        with os.fdopen(open_regular(os.path.realpath(path)), "rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except IntegrityError as error:
        raise ConfigError(compose(f"a recipe at {path}", "no readable file", "check the path")) from error
    if len(raw) > _MAX_BYTES:
        raise ConfigError(compose(f"at most {_MAX_BYTES:,} bytes in {path}", "more", "pass a recipe"))
    return raw


def _parse_yaml(raw: bytes) -> Any:
    import yaml

    from aerogel.core.recipes import RecipeLoader

    try:
        return yaml.load(raw.decode("utf-8"), Loader=RecipeLoader)
    except RecursionError:
        raise ValueError("lists or mappings nested too deep") from None
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


def override(config: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of ``config``, none if it is None, with ``settings`` ahead of them.

    A mapping changes only what it names of a nested config; the result is unchecked, for :func:`from_dict`.
    """
    merged: dict[str, Any] = to_dict(config) if config is not None else {}
    for key, value in settings.items():
        known = merged.get(key)
        merged[key] = {**known, **value} if isinstance(known, dict) and isinstance(value, dict) else value
    return merged

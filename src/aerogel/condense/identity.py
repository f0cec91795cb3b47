"""Spell settings as a stage's identity: what came later than the stage counts only where it is used."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, TypeVar

from aerogel.core.config import to_dict

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["identify", "later"]

T = TypeVar("T")
_LATER = "later"


def later(default: T) -> T:
    """Declare a field that stages of earlier releases were made without; its default is what they did."""
    field: T = dataclasses.field(default=default, metadata={_LATER: True})
    return field


def identify(cfg: DataclassInstance) -> dict[str, Any]:
    """Spell a configuration like ``to_dict``, without the fields that are :func:`later` and at their default.

    So a folder that an earlier release made stays the folder of these settings, at every level of nesting.
    """
    spelled = to_dict(cfg)
    _drop(cfg, spelled)
    return spelled


def _drop(cfg: DataclassInstance, spelled: dict[str, Any]) -> None:
    for field in dataclasses.fields(cfg):
        value = getattr(cfg, field.name)
        if field.metadata.get(_LATER) and value == field.default:
            del spelled[field.name]
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            _drop(value, spelled[field.name])

"""What a family of models tells of itself, and who knows which model."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any, Protocol

from torch import nn

from aerogel.errors import DataError, MissingDependencyError, compose
from aerogel.slim.channels import Channels, check_channels
from aerogel.slim.families.sites import Sites
from aerogel.slim.plan import Layout

# One line per family: its module beside this one, and the instance in it.
_KNOWN = (("sam", "SAM"), ("sam_hq", "SAM_HQ"))


class Family(Protocol):
    """Knows the internals of one family of models; nothing else does."""

    name: str
    models: tuple[str, ...]

    def owns(self, model: nn.Module) -> bool:
        """Tell whether the model is of this family."""

    def describe(self, model: nn.Module, widths: Mapping[str, int] | None = None) -> Channels:
        """Return the model's groups of channels, as it is or as it would be with other ``widths``."""

    def settle_(self, model: nn.Module, widths: Mapping[str, int], layout: Layout) -> None:
        """Make modules, config and class agree with parameters that have these ``widths`` already."""

    def require_layout(self, model: nn.Module, layout: Layout) -> None:
        """Check, before anything is changed, that the model can take the layout."""

    def locate(self, model: nn.Module) -> Sites:
        """Return where the model's features are."""


def find_family(model: Any) -> Family:
    """Return the family of a model.

    Raises:
        DataError: no family knows it.
        MissingDependencyError: transformers is not installed.
    """
    require_transformers()
    known: list[str] = []
    for module, attribute in _KNOWN:
        family: Family = getattr(import_module(f"aerogel.slim.families.{module}"), attribute)
        if isinstance(model, nn.Module) and family.owns(model):
            return family
        known += family.models
    raise DataError(
        compose(
            f"a model of a known family ({', '.join(known)})",
            f"{type(model).__name__}",
            "load it with one of these classes, without a wrapper around it",
        )
    )


def describe(model: Any) -> Channels:
    """Return the groups of channels of a model, after checking that they cover its encoder.

    Raises:
        DataError: no family knows the model.
        MismatchError: the model has parts that its family does not know.
        MissingDependencyError: transformers is not installed.
    """
    channels = find_family(model).describe(model)
    named = model.named_parameters(remove_duplicate=False)
    check_channels(channels, {name: tuple(each.shape) for name, each in named})
    return channels


def require_transformers() -> ModuleType:
    """Return transformers.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        return import_module("transformers")
    except ImportError as missing:
        raise report_absence() from missing


def report_absence() -> MissingDependencyError:
    """Return the error that says that transformers is missing."""
    return MissingDependencyError(
        compose("transformers, to slim its models", "no such package", 'pip install "aerogel[slim]"')
    )

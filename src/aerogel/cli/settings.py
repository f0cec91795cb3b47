"""The flags that the stages of a condensation share, and the config that they and a recipe make."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from cyclopts import Group, Parameter

from aerogel.cli.shelf import find_recipe
from aerogel.condense.run_folder import require_run_folder
from aerogel.errors import ConfigError, compose

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from aerogel.condense.config import CondenseConfig

COMMON = Group("What to condense", sort_key=1)
WHERE = Group("Where and how", sort_key=2)

Config = TypeVar("Config", bound="DataclassInstance")
Flag = Parameter(negative="", show_default=False)


@Parameter(name="*")
@dataclass(frozen=True)
class Settings:
    """Hold the flags; None is "as the recipe says", or the default."""

    recipe: Annotated[
        str | None, Parameter(group=COMMON, help="A recipe file, or the name of one that comes with Aerogel.")
    ] = None
    ipc: Annotated[int | None, Parameter(group=COMMON, help="Images per class to keep.")] = None
    size: Annotated[
        int | None,
        Parameter(group=COMMON, help="Side of the square images in pixels; as they are if not given."),
    ] = None
    channels: Annotated[
        Literal[1, 3] | None, Parameter(group=COMMON, help="Grey or RGB; as they are if not given.")
    ] = None
    backbone: Annotated[
        str | None,
        Parameter(
            group=COMMON,
            help="Backbone of the label generator: one that ships, a folder, a hub name, or a weights file.",
        ),
    ] = None
    rank: Annotated[int | None, Parameter(group=COMMON, help="Rank of the change to the backbone.")] = None
    teacher: Annotated[
        str | None,
        Parameter(
            group=COMMON, help="A trained teacher: folder of a teacher stage, or a transformers classifier."
        ),
    ] = None
    seed: Annotated[int | None, Parameter(group=COMMON, help="What all random choices depend on.")] = None
    skip_bad: Annotated[
        bool,
        Flag,
        Parameter(group=COMMON, help="Leave out unusable files, naming each, instead of stopping."),
    ] = False
    sets: Annotated[
        tuple[str, ...],
        Parameter(
            name="--set",
            group=COMMON,
            negative="",
            show_default=False,
            help="Any other setting, as key.sub=value with a YAML value; may be repeated.",
        ),
    ] = ()
    device: Annotated[str | None, Parameter(group=WHERE, help='"auto", "cpu", "cuda" or "cuda:1".')] = None
    out: Annotated[
        Path | None, Parameter(group=WHERE, help="Folder of the run; condensed-DATA-ipcN if not given.")
    ] = None
    overwrite: Annotated[
        bool, Flag, Parameter(group=WHERE, help="Replace stages that other settings made in that folder.")
    ] = False


def gather_config(data: str | None, settings: Settings) -> CondenseConfig:
    """Make the config: the recipe, then ``--set``, then the flags, then DATA, the later ones ahead.

    Raises:
        ConfigError: there are mistakes, all of them listed, or no data is named.
        UnknownNameError: there is no such recipe.
    """
    from aerogel.condense.config import CondenseConfig

    flags = {
        "dataset": data,
        "ipc": settings.ipc,
        "size": settings.size,
        "channels": settings.channels,
        "seed": settings.seed,
        "device": settings.device,
        "skip_bad": settings.skip_bad or None,
        "projector.backbone": settings.backbone,
        "projector.rank": settings.rank,
        "teacher.path": settings.teacher,
    }
    config = merge_settings(CondenseConfig, settings.recipe, settings.sets, flags)
    if not config.dataset:
        raise ConfigError(
            compose(
                "the images to condense",
                "neither DATA nor a recipe that names them",
                "name them, as in `aerogel condense digits`, or pass --recipe FILE",
            )
        )
    return config


def merge_settings(
    kind: type[Config], recipe: str | None, sets: Sequence[str], flags: Mapping[str, Any]
) -> Config:
    """Make a config of ``kind``: the recipe, then ``key.sub=value`` texts, then flags that are not None.

    ``flags`` are by dotted key.

    Raises:
        ConfigError: there are mistakes, all of them listed.
        UnknownNameError: there is no such recipe.
    """
    from aerogel.core.config import from_dict, load_config, to_dict

    merged: dict[str, Any] = {}
    if recipe is not None:
        merged = to_dict(load_config(kind, find_recipe(recipe)))
    assign_all(merged, sets)
    for key, value in flags.items():
        if value is not None:
            assign(merged, key, value)
    return from_dict(kind, merged, "this configuration")


def assign_all(merged: dict[str, Any], sets: Sequence[str]) -> None:
    """Put every ``key.sub=value`` into the nested mapping, in place.

    Raises:
        ConfigError: one is not of that form; all such are listed.
    """
    mistakes = []
    for text in sets:
        key, found, value = text.partition("=")
        if not found or not key.strip():
            mistakes.append(
                compose("--set key.sub=value", repr(text), "write for example --set teacher.fit.epochs=30")
            )
            continue
        try:
            assign(merged, key.strip(), _read_value(value))
        except ValueError as error:
            mistakes.append(f"--set {key}: {error}")
    if mistakes:
        raise ConfigError("\n".join(mistakes))


def assign(merged: dict[str, Any], key: str, value: Any) -> None:
    """Put ``value`` at the dotted ``key`` of a nested mapping, in place, making the levels above it.

    Raises:
        ConfigError: a level above it is no mapping.
    """
    *above, last = key.split(".")
    place = merged
    for number, name in enumerate(above):
        place = place.setdefault(name, {})
        if not isinstance(place, dict):
            owner = ".".join(above[: number + 1])
            raise ConfigError(
                compose(f"settings below {owner}", f"a single value at {owner}", f"set {owner} itself")
            )
    place[last] = value


def _read_value(text: str) -> Any:
    """Read a value as recipes write it: 1e-3 is a number, [a, b] a list, other text is text."""
    import yaml

    from aerogel.core.recipes import RecipeLoader

    try:
        return yaml.load(text, Loader=RecipeLoader)
    except yaml.YAMLError as error:
        raise ValueError(compose("a YAML value", repr(text), 'quote it, as in --set "key=[a, b]"')) from error


def choose_folder(config: CondenseConfig, out: Path | None) -> Path:
    """Return the folder of the run: the given one, else one named after the data and the images per class.

    Raises:
        FolderExistsError: files are there that a run would replace and that no run wrote.
    """
    if out is None:
        name = re.sub(r"[^\w.-]+", "-", Path(config.dataset).name or Path(config.dataset).resolve().name)
        out = Path(f"condensed-{name.strip('-.') or 'set'}-ipc{config.ipc}")
    require_run_folder(out)
    return out

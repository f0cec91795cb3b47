"""The flags that the verbs of `aerogel slim` share, and the config that they and a recipe make."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Group, Parameter

from aerogel.cli.settings import Flag, merge_settings
from aerogel.errors import ConfigError, compose

if TYPE_CHECKING:
    from aerogel.slim.config import SlimConfig

WHAT = Group("What to slim", sort_key=1)
HOW = Group("How much and how", sort_key=2)
WHERE = Group("Where", sort_key=3)

Model = Annotated[
    str | None,
    Parameter(
        help="A SAM or SAM-HQ of transformers: a folder, or a hub name such as facebook/sam-vit-base; "
        "or aerogel/sam-nano, which ships."
    ),
]


@Parameter(name="*")
@dataclass(frozen=True)
class SlimSettings:
    """Hold the flags; None is "as the recipe says", or the default."""

    images: Annotated[
        str | None,
        Parameter(
            group=WHAT,
            help="Photos without labels: a folder, parquet, a data set of the hub; aerogel/samples ship.",
        ),
    ] = None
    limit: Annotated[int | None, Parameter(group=WHAT, help="How many photos to take; all if not given.")] = (
        None
    )
    held_out: Annotated[
        int | None, Parameter(group=WHAT, help="How many of them to keep back and judge the result on; 16.")
    ] = None
    recipe: Annotated[
        str | None, Parameter(group=WHAT, help="A recipe file, or the name of one that comes with Aerogel.")
    ] = None
    ratio: Annotated[
        float | None, Parameter(group=HOW, help="Share of embedding and MLP channels that goes; 0.5.")
    ] = None
    mlp_ratio: Annotated[float | None, Parameter(group=HOW, help="Another share for the MLPs.")] = None
    heads: Annotated[
        int | None, Parameter(group=HOW, help="Heads that stay, all if not given; fewer are much faster.")
    ] = None
    layout: Annotated[
        Literal["stock", "flex"] | None,
        Parameter(
            group=HOW, help="stock loads in plain transformers; flex gives blocks widths of their own."
        ),
    ] = None
    criterion: Annotated[
        str | None, Parameter(group=HOW, help="How channels are ranked; channel-fisher.")
    ] = None
    epochs: Annotated[
        int | None, Parameter(group=HOW, help="Passes over the photos in each aligning; 20.")
    ] = None
    mask_epochs: Annotated[
        int | None,
        Parameter(group=HOW, help="Passes that then teach encoder and mask decoder the model's masks; 0."),
    ] = None
    seed: Annotated[int | None, Parameter(group=HOW, help="What all random choices depend on.")] = None
    sets: Annotated[
        tuple[str, ...],
        Parameter(
            name="--set",
            group=HOW,
            negative="",
            show_default=False,
            help="Any other setting, as key.sub=value with a YAML value; may be repeated.",
        ),
    ] = ()
    device: Annotated[str | None, Parameter(group=WHERE, help='"auto", "cpu", "cuda" or "cuda:1".')] = None
    dtype: Annotated[
        str | None,
        Parameter(group=WHERE, help='Of the saved model: "auto", "float32", "float16", "bfloat16".'),
    ] = None
    out: Annotated[
        Path | None,
        Parameter(group=WHERE, help="Folder of the run, slim-MODEL-RATIO if not given; of a plan, its file."),
    ] = None
    teacher_cache: Annotated[
        Path | None,
        Parameter(
            group=WHERE,
            help="Folder for what the model makes of the photos, which runs at other ratios take from there.",
        ),
    ] = None
    overwrite: Annotated[
        bool, Flag, Parameter(group=WHERE, help="Replace stages that other settings made in that folder.")
    ] = False


def gather_slim_config(model: str | None, settings: SlimSettings) -> SlimConfig:
    """Make the config: the recipe, then ``--set``, then the flags, then MODEL, the later ones ahead.

    Raises:
        ConfigError: there are mistakes, all of them listed, or no model or photos are named.
        UnknownNameError: there is no such recipe.
    """
    from aerogel.slim.config import SlimConfig

    flags = {
        "model": model,
        "images": settings.images,
        "limit": settings.limit,
        "held_out": settings.held_out,
        "ratio": settings.ratio,
        "mlp_ratio": settings.mlp_ratio,
        "heads": settings.heads,
        "layout": settings.layout,
        "score.criterion": settings.criterion,
        "align.epochs": settings.epochs,
        "masks.epochs": settings.mask_epochs,
        "seed": settings.seed,
        "device": settings.device,
        "dtype": settings.dtype,
    }
    config = merge_settings(SlimConfig, settings.recipe, settings.sets, flags)
    for name, what, remedy in (
        (
            "model",
            "the model to slim",
            "name it, as in `aerogel slim facebook/sam-vit-base --images photos/`",
        ),
        ("images", "photos to slim it with", "pass --images FOLDER; labels are not needed"),
    ):
        if not getattr(config, name):
            raise ConfigError(compose(what, "none", remedy))
    return config


def choose_slim_folder(config: SlimConfig, out: Path | None) -> Path:
    """Return the folder of the run: the given one, else one named after the model and the ratio.

    Raises:
        FolderExistsError: files are there that a run would replace and that no run wrote.
    """
    from aerogel.slim.run_folder import require_run_folder

    if out is None:
        name = re.sub(r"[^\w.-]+", "-", Path(config.model).name or Path(config.model).resolve().name)
        out = Path(f"slim-{name.strip('-.') or 'model'}-{config.ratio:g}")
    require_run_folder(out)
    return out

"""The flags that the verbs of `aerogel sample` share, and the pipeline, request and config that they make."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from aerogel.core.progress import announce, is_watched
from aerogel.errors import ConfigError, compose

if TYPE_CHECKING:
    from aerogel.parallel.config import ParallelConfig
    from aerogel.parallel.sampling import Request

WHAT = Group("What to sample", sort_key=1)
HOW = Group("On how many devices", sort_key=2)

Model = Annotated[
    str,
    Parameter(help='A diffusers pipeline: "aerogel/fashion-unet", a folder, or a hub name.'),
]


@Parameter(name="*")
@dataclass(frozen=True)
class SampleSettings:
    """Hold the flags; None leaves the choice to the pipeline."""

    prompt: Annotated[str | None, Parameter(group=WHAT, help="What the pictures show.")] = None
    negative_prompt: Annotated[str | None, Parameter(group=WHAT, help="What they do not show.")] = None
    classes: Annotated[
        tuple[str, ...],
        Parameter(
            name="--class",
            negative="",
            show_default=False,
            group=WHAT,
            help="A class, by name or number, of a model that knows classes; may be repeated.",
        ),
    ] = ()
    count: Annotated[int, Parameter(group=WHAT, help="Pictures of the prompt, or of each class.")] = 1
    steps: Annotated[int, Parameter(group=WHAT, help="Denoising steps.")] = 50
    guidance: Annotated[float | None, Parameter(group=WHAT, help="Guidance scale.")] = None
    height: Annotated[int | None, Parameter(group=WHAT, help="Height in pixels.")] = None
    width: Annotated[int | None, Parameter(group=WHAT, help="Width in pixels.")] = None
    frames: Annotated[int | None, Parameter(group=WHAT, help="Frames of a video.")] = None
    seed: Annotated[int, Parameter(group=WHAT, help="What the noise depends on.")] = 0
    devices: Annotated[
        int | None,
        Parameter(
            group=HOW,
            help="Processes, each on a CUDA device or cores of its own; all CUDA devices, or 2.",
        ),
    ] = None
    stride: Annotated[
        int, Parameter(group=HOW, help="Steps that one round answers: 1, or 2 with one more device.")
    ] = 1
    warmup: Annotated[int, Parameter(group=HOW, help="First steps that are exact.")] = 1
    balance: Annotated[
        Literal["macs", "measured"],
        Parameter(group=HOW, help="Divide by multiply-accumulates, or by times measured here."),
    ] = "macs"
    speeds: Annotated[
        tuple[float, ...],
        Parameter(
            name="--speed",
            negative="",
            show_default=False,
            group=HOW,
            help="How fast a device is beside the others; once for each part, in their order.",
        ),
    ] = ()
    time_shift: Annotated[
        bool,
        Parameter(group=HOW, negative="", help="Give each parallel step the time of the step before."),
    ] = False
    threads: Annotated[
        int | None, Parameter(group=HOW, help="CPU threads of each process; an equal share of the cores.")
    ] = None
    timeout: Annotated[float, Parameter(group=HOW, help="Seconds to wait for another process.")] = 600.0
    device: Annotated[str, Parameter(group=HOW, help='"auto", "cpu", "cuda" or "cuda:1".')] = "auto"
    dtype: Annotated[str, Parameter(group=HOW, help='"auto", "float32", "bfloat16" or "float16".')] = "auto"


def make_config(settings: SampleSettings) -> ParallelConfig:
    """Make the parallel run's config of the flags.

    Raises:
        ConfigError: a value is out of range.
    """
    from aerogel.core.config import validate
    from aerogel.parallel.config import ParallelConfig

    least = settings.stride
    if settings.devices is not None and settings.devices < least:
        raise ConfigError(
            compose(
                f"{least} devices or more at a stride of {settings.stride}",
                f"--devices {settings.devices}",
                "raise --devices",
            )
        )
    return validate(
        ParallelConfig(
            components=None if settings.devices is None else settings.devices - settings.stride + 1,
            stride=settings.stride,
            warmup=settings.warmup,
            time_shift=settings.time_shift,
            balance=settings.balance,
            speeds=settings.speeds or None,
            threads=settings.threads,
            timeout_s=settings.timeout,
        )
    )


def make_request(settings: SampleSettings) -> Request:
    """Make the request of the flags.

    Raises:
        ConfigError: a value is out of range.
    """
    from aerogel.parallel.sampling import Request

    for name in ("count", "steps"):
        if getattr(settings, name) < 1:
            raise ConfigError(
                compose(f"--{name} of 1 or more", str(getattr(settings, name)), f"raise --{name}")
            )
    return Request(
        prompt=settings.prompt,
        negative_prompt=settings.negative_prompt,
        classes=settings.classes,
        count=settings.count,
        steps=settings.steps,
        guidance=settings.guidance,
        height=settings.height,
        width=settings.width,
        frames=settings.frames,
        seed=settings.seed,
    )


def open_model(model: str, settings: SampleSettings) -> Any:
    """Return the pipeline called ``model`` on the device, and in the numbers, that the flags ask for.

    Raises:
        AerogelError: there is none, or it cannot do what the flags say.
    """
    import torch

    from aerogel.core.devices import choose_device, choose_dtype
    from aerogel.parallel.api import require_scheduler
    from aerogel.parallel.sampling import find_arguments, open_pipeline

    device = choose_device(settings.device)
    dtype = choose_dtype(settings.dtype, device.value)
    announce(f"device: {device.value} ({device.reason}); numbers: {dtype.value} ({dtype.reason})")
    pipe = open_pipeline(model, dtype=getattr(torch, dtype.value), device=device.value)
    pipe.set_progress_bar_config(disable=not is_watched())
    require_scheduler(pipe)
    find_arguments(pipe, make_request(settings))
    return pipe


def name_folder(model: str, out: Path | None) -> Path:
    """Return the folder to write to: ``out``, or one called like the model."""
    return out or Path(f"samples-{Path(model).name}")

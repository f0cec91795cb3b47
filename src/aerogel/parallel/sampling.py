"""Open a pipeline by name, and ask any pipeline for pictures in the same words."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from aerogel.errors import ConfigError, DataError, compose

Pictures = npt.NDArray[np.float32]

_FAILURES = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    ImportError,
)
_OURS = "ClassConditionalPipeline"
_TIMED = ("num_inference_steps", "generator", "output_type")


@dataclass(frozen=True)
class Request:
    """Say what to sample; None leaves the choice to the pipeline.

    ``count`` pictures are made of the prompt, or of each class.
    """

    prompt: str | None = None
    negative_prompt: str | None = None
    classes: tuple[str, ...] = ()
    count: int = 1
    steps: int = 50
    guidance: float | None = None
    height: int | None = None
    width: int | None = None
    frames: int | None = None
    seed: int = 0


def open_pipeline(model: str, *, dtype: torch.dtype, device: str) -> Any:
    """Return the diffusers pipeline called ``model``: one that ships with Aerogel, a folder, or a hub name.

    Raises:
        UnknownNameError: no such model ships with Aerogel.
        DataError: it cannot be opened.
    """
    from aerogel.zoo.diffusion import ClassConditionalPipeline, load_pipeline, quiet_loading

    if model.startswith("aerogel/") and not Path(model).exists():
        return load_pipeline(model, dtype=dtype).to(device)
    from diffusers import DiffusionPipeline

    from aerogel.zoo.inspection import inspect_pipeline

    if Path(model).is_dir():
        inspect_pipeline(Path(model))
    kind = ClassConditionalPipeline if _read_class(model) == _OURS else DiffusionPipeline
    numbers = "dtype" if _has_dtype() else "torch_dtype"
    try:
        with quiet_loading():
            pipe = kind.from_pretrained(
                model, use_safetensors=True, trust_remote_code=False, **{numbers: dtype}
            )
            return pipe.to(device)
    except _FAILURES as error:
        raise DataError(
            compose(
                "a diffusers pipeline: a folder with model_index.json, or a hub name",
                f"{model} ({str(error).splitlines()[0].partition('. ')[0][:200]})",
                "check the name and the network; aerogel/fashion-unet needs none",
            )
        ) from error


def _has_dtype() -> bool:
    """Tell whether diffusers calls it ``dtype``: the older name gives a warning there."""
    import diffusers

    major, minor = diffusers.__version__.split(".")[:2]
    return (int(major), int(minor)) >= (0, 42)


def _read_class(model: str) -> str | None:
    index = Path(model) / "model_index.json"
    if not index.is_file():
        return None
    found = json.loads(index.read_text(encoding="utf-8"))
    return found.get("_class_name") if isinstance(found, dict) else None


def draw(pipe: Any, request: Request) -> Pictures:
    """Return what ``pipe`` makes of ``request``: pictures [N, H, W, C] or videos [N, F, H, W, C], 0 to 1.

    Random numbers are drawn on the CPU from the seed, the same on every device.

    Raises:
        ConfigError: the pipeline does not take something that the request says, or needs something.
        UnknownNameError: it knows no such class.
    """
    generator = torch.Generator().manual_seed(request.seed)
    found = pipe(**find_arguments(pipe, request), generator=generator, output_type="np")
    pictures = getattr(found, "images", None)
    if pictures is None:
        pictures = found.frames
    return np.stack([np.asarray(each, dtype=np.float32) for each in pictures])


def find_arguments(pipe: Any, request: Request) -> dict[str, Any]:
    """Return the arguments that a call of ``pipe`` needs for ``request``.

    Raises:
        ConfigError: the pipeline does not take something that the request says, or needs something.
        UnknownNameError: it knows no such class.
    """
    taken = inspect.signature(type(pipe).__call__).parameters
    wanted: dict[str, Any] = {
        "negative_prompt": request.negative_prompt,
        "guidance_scale": request.guidance,
        "height": request.height,
        "width": request.width,
        "num_frames": request.frames,
    }
    wanted = {name: value for name, value in wanted.items() if value is not None}
    if request.prompt is not None:
        many = "num_images_per_prompt" not in taken and request.count > 1
        wanted["prompt"] = [request.prompt] * request.count if many else request.prompt
        if not many and request.count > 1:
            wanted["num_images_per_prompt"] = request.count
    elif request.classes:
        wanted["class_labels"] = _find_classes(pipe, request.classes) * request.count
    elif "prompt" in taken or "class_labels" in taken:
        flag = "--prompt" if "prompt" in taken else "--class"
        raise ConfigError(compose(f"what to sample with {type(pipe).__name__}", "nothing", f"pass {flag}"))
    else:
        wanted["batch_size"] = request.count
    wanted["num_inference_steps"] = request.steps
    refused = [name for name in (*wanted, *_TIMED) if name not in taken]
    if refused:
        raise ConfigError(
            compose(
                f"what {type(pipe).__name__} takes: {', '.join(name for name in taken if name != 'self')}",
                ", ".join(refused),
                "leave it out, or use another pipeline",
            )
        )
    return wanted


def _find_classes(pipe: Any, classes: tuple[str, ...]) -> list[Any]:
    """Return labels by number where they are numbers, else as the pipeline knows them."""
    numbered = [int(each) if each.isdecimal() else each for each in classes]
    if hasattr(pipe, "get_label_ids") and not all(isinstance(each, int) for each in numbered):
        found: list[Any] = pipe.get_label_ids(numbered)
        return found
    return numbered


def to_bytes(pictures: Pictures) -> npt.NDArray[np.uint8]:
    """Return pictures 0 to 1 as 8-bit ones."""
    found: npt.NDArray[np.uint8] = (np.clip(pictures, 0.0, 1.0) * 255.0).round().astype(np.uint8)
    return found


def save_pictures(pictures: Pictures, folder: Path) -> list[str]:
    """Write pictures as PNG and videos as GIF into ``folder``; return the files' names."""
    from PIL import Image

    names = []
    for number, each in enumerate(to_bytes(pictures)):
        if each.ndim == 4:
            frames = [Image.fromarray(frame.squeeze(-1) if frame.shape[-1] == 1 else frame) for frame in each]
            names.append(f"{number:04d}.gif")
            frames[0].save(folder / names[-1], save_all=True, append_images=frames[1:], duration=125, loop=0)
        else:
            names.append(f"{number:04d}.png")
            Image.fromarray(each.squeeze(-1) if each.shape[-1] == 1 else each).save(folder / names[-1])
    return names


def tile(pictures: Pictures, columns: int) -> npt.NDArray[np.uint8]:
    """Return pictures [N, H, W, C] side by side, in rows of ``columns``; of videos the first frame."""
    shown = to_bytes(pictures if pictures.ndim == 4 else pictures[:, 0])
    count, height, width, channels = shown.shape
    rows = -(-count // columns)
    sheet = np.full((rows * height, min(columns, count) * width, channels), 255, dtype=np.uint8)
    for number, each in enumerate(shown):
        top, left = number // columns * height, number % columns * width
        sheet[top : top + height, left : left + width] = each
    return sheet.squeeze(-1) if channels == 1 else sheet

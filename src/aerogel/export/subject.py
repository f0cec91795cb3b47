"""The model to export: whether it can be, a copy to trace, and that copy in half precision."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from aerogel.errors import DataError, compose

# What a config calls its model. SAM-HQ's decoder needs features that the two parts do not exchange.
KINDS = ("sam", "aerogel_sam", "aerogel_mobile_sam")
_PARTS = ("vision_encoder", "prompt_encoder", "mask_decoder", "shared_image_embedding")
_HQ = ("sam_hq", "aerogel_sam_hq")
LARGEST_BYTES = 2**31 - 2**24


def copy_segmenter(model: Any) -> Any:
    """Copy a segmenter to the CPU, in float32 and evaluation mode, so that it can be traced.

    Raises:
        DataError: it is none that can be exported, an encoder alone, or too large for one file.
    """
    _require_whole(model)
    copied = copy.deepcopy(model).to(device="cpu", dtype=torch.float32).eval().requires_grad_(False)
    for module in copied.vision_encoder.modules():
        if hasattr(module, "rel_pos_h") and hasattr(module, "get_rel_pos"):
            module.get_rel_pos = slice_positions
    return copied


def slice_positions(queries: int, keys: int, table: Tensor) -> Tensor:
    """Take the relative positions of ``queries`` x ``keys`` from a table [2 S - 1, D]: [queries, keys, D].

    transformers resizes the table first, to the size that it has: an operation that graphs would carry and
    that runtimes without it in half precision would repeat for every image.

    Raises:
        DataError: the table is of another size.
    """
    size = int(queries)
    if int(keys) != size or len(table) != 2 * size - 1:
        raise DataError(
            compose(
                f"{2 * size - 1} relative positions for {size} tokens",
                f"{len(table)} for {int(keys)} keys",
                "save and load the model with its own image_size and window_size",
            )
        )
    steps = torch.arange(size)
    return table[steps[:, None] - steps[None, :] + size - 1]


def halve(model: nn.Module) -> nn.Module:
    """Copy a segmenter with its weights in float16, but for the frequencies of positions.

    A coordinate of a large image has more digits than float16 holds.
    """
    halved = copy.deepcopy(model)
    for name, parameter in halved.named_parameters():
        if not name.endswith("positional_embedding"):
            parameter.data = parameter.data.half()
    for name, buffer in halved.named_buffers():
        if buffer.is_floating_point() and not name.endswith("positional_embedding"):
            buffer.data = buffer.data.half()
    return halved


def read_side(model: Any) -> int:
    """Return the side in pixels of the square images that a segmenter sees."""
    return int(model.config.vision_config.image_size)


def _require_whole(model: Any) -> None:
    kind = str(getattr(getattr(model, "config", None), "model_type", None))
    name = type(model).__name__
    if kind in _HQ:
        raise _refuse("a SAM or a MobileSAM", f"{name}: SAM-HQ cannot be exported yet")
    absent = [part for part in _PARTS if not isinstance(getattr(model, part, None), nn.Module)]
    if not isinstance(model, nn.Module) or absent:
        got = f"{name} without {', '.join(absent)}"
        raise _refuse("a segmenter with image encoder, prompt encoder and mask decoder", got)
    if kind not in KINDS:
        raise _refuse(f"a segmenter of type {', '.join(KINDS)}", f"{name} of type {kind!r}")
    size = 4 * sum(parameter.numel() for parameter in model.parameters())
    if size > LARGEST_BYTES:
        expected = f"at most {LARGEST_BYTES:,} bytes of weights, which one ONNX file can hold"
        raise _refuse(expected, f"{size:,} bytes in float32", "slim the model first: aerogel slim")


def _refuse(expected: str, got: str, remedy: str = "pass a whole SamModel, or its folder") -> DataError:
    return DataError(compose(expected, got, remedy))

"""The graphs of a segmenter: names, types and shapes of what goes in and out, as transformers.js has them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from aerogel.export.subject import read_side

GraphName = Literal["encoder", "points", "boxes"]
ENCODER = "vision_encoder"
DECODER = "prompt_encoder_mask_decoder"
FOLDER = "onnx"
BOX_FOLDER = "onnx-boxes"


@dataclass(frozen=True)
class Port:
    """Hold the name of an input or output, its type, and its shape; a word in it is a size that may vary."""

    name: str
    dtype: Literal["float32", "int64"]
    shape: tuple[int | str, ...]

    @property
    def open_axes(self) -> dict[int, str]:
        """Return the axes whose size may vary, with their names."""
        return {axis: size for axis, size in enumerate(self.shape) if isinstance(size, str)}


@dataclass(frozen=True)
class Graph:
    """Hold one graph: what to call it, where it lies, what computes it and its ports."""

    name: GraphName
    folder: str
    stem: str
    build: Callable[[Any], nn.Module]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    def path(self, suffix: str = "") -> str:
        """Return the file's name in the folder of an export; ``suffix`` names the number format."""
        return f"{self.folder}/{self.stem}{suffix}.onnx"


class Encoder(nn.Module):
    """Encode images, and give the positional encoding that the decoder needs."""

    def __init__(self, model: Any) -> None:
        """Keep the model's encoder."""
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Return image_embeddings and image_positional_embeddings, both float32 [B, C, h, w]."""
        dtype = next(self.model.vision_encoder.parameters()).dtype
        found = self.model.vision_encoder(pixel_values.to(dtype))
        embeddings = getattr(found, "last_hidden_state", found)
        positions = self.model.get_image_wide_positional_embeddings().float()
        return embeddings.float(), positions.repeat(pixel_values.shape[0], 1, 1, 1)


class PointDecoder(nn.Module):
    """Decode three masks for each prompt, a group of points."""

    def __init__(self, model: Any) -> None:
        """Keep the model's prompt encoder and mask decoder."""
        super().__init__()
        self.model = model

    def forward(
        self, points: Tensor, labels: Tensor, embeddings: Tensor, positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return iou_scores [B, P, 3] and pred_masks [B, P, 3, h, w], logits."""
        return _decode(self.model, embeddings, positions, input_points=points, input_labels=labels)


class BoxDecoder(nn.Module):
    """Decode three masks for each prompt, a box."""

    def __init__(self, model: Any) -> None:
        """Keep the model's prompt encoder and mask decoder."""
        super().__init__()
        self.model = model

    def forward(self, boxes: Tensor, embeddings: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return iou_scores [B, P, 3] and pred_masks [B, P, 3, h, w], logits."""
        return _decode(self.model, embeddings, positions, input_boxes=boxes)


def list_graphs(model: Any, *, boxes: bool = True) -> tuple[Graph, ...]:
    """List the graphs of a segmenter: the encoder, the decoder for points, and the one for boxes.

    transformers.js looks in one folder for two files of these names. So the decoder for boxes, whose input is
    ``input_boxes`` [B, P, 4], has a folder of its own, to be chosen with ``subfolder``; the encoder is the
    same in both.
    """
    config: Any = model.config
    side, channels = read_side(model), int(config.prompt_encoder_config.hidden_size)
    grid = int(config.prompt_encoder_config.image_embedding_size)
    masks = int(config.mask_decoder_config.num_multimask_outputs)
    encoded = tuple(
        Port(name, "float32", ("batch_size", channels, grid, grid))
        for name in ("image_embeddings", "image_positional_embeddings")
    )
    decoded = (
        Port("iou_scores", "float32", ("batch_size", "point_batch_size", masks)),
        Port("pred_masks", "float32", ("batch_size", "point_batch_size", masks, 4 * grid, 4 * grid)),
    )
    pixels = Port("pixel_values", "float32", ("batch_size", 3, side, side))
    prompts = ("batch_size", "point_batch_size", "nb_points_per_image")
    points = (Port("input_points", "float32", (*prompts, 2)), Port("input_labels", "int64", prompts))
    corners = Port("input_boxes", "float32", ("batch_size", "point_batch_size", 4))
    graphs = (
        Graph("encoder", FOLDER, ENCODER, Encoder, (pixels,), encoded),
        Graph("points", FOLDER, DECODER, PointDecoder, (*points, *encoded), decoded),
        Graph("boxes", BOX_FOLDER, DECODER, BoxDecoder, (corners, *encoded), decoded),
    )
    return graphs if boxes else graphs[:2]


def _decode(model: Any, embeddings: Tensor, positions: Tensor, **prompts: Tensor) -> tuple[Tensor, Tensor]:
    given: dict[str, Tensor | None] = dict.fromkeys(("input_points", "input_labels", "input_boxes"))
    sparse, dense = model.prompt_encoder(**{**given, **prompts}, input_masks=None)
    dtype = next(model.mask_decoder.parameters()).dtype
    masks, scores = model.mask_decoder(
        image_embeddings=embeddings.to(dtype),
        image_positional_embeddings=positions.to(dtype),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=True,
    )
    return scores.float(), masks.float()


def draw_inputs(graph: Graph) -> tuple[Tensor, ...]:
    """Draw inputs to trace a graph with: one image, and two of everything else that may vary."""
    generator = torch.Generator().manual_seed(0)
    drawn = []
    for port in graph.inputs:
        shape = [size if isinstance(size, int) else _EXAMPLE[size] for size in port.shape]
        if port.dtype == "int64":
            drawn.append(torch.ones(shape, dtype=torch.int64))
        else:
            drawn.append(torch.rand(shape, generator=generator))
    return tuple(drawn)


_EXAMPLE = {"batch_size": 1, "point_batch_size": 2, "nb_points_per_image": 2}

"""Hold exported graphs against the torch model that they were made from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aerogel.core.folders import verify_folder
from aerogel.errors import DataError, MismatchError, compose
from aerogel.export.graphs import Graph, GraphName, list_graphs
from aerogel.export.runtime import graph_errors, open_session
from aerogel.export.subject import copy_segmenter, read_side
from aerogel.measure.masks import mask_iou
from aerogel.measure.results import Measurement, Table
from aerogel.slim.canvas import Canvas
from aerogel.zoo.photos import SAMPLES, Photos, open_photos

KIND = "onnx-segmenter"
Variant = Literal["fp32", "fp16", "q8"]
# What transformers.js appends to a file's name for each number format.
SUFFIXES: dict[Variant, str] = {"fp32": "", "fp16": "_fp16", "q8": "_quantized"}
# Photos in a batch, prompts for each photo, points in each prompt.
SHAPES = ((1, 1, 1), (2, 3, 2), (1, 2, 4))
# Pairs of tokens over all heads, for two photos: half a gigabyte for each step of attention that is held.
_MOST_ATTENTION = 2**27
_Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Difference:
    """Say how far one output of one graph is from torch's, in the output's own units.

    ``spread`` is the standard deviation of torch's output, to judge the others by.
    """

    variant: Variant
    graph: GraphName
    output: str
    largest: float
    mean: float
    spread: float

    @property
    def share(self) -> float:
        """The largest difference as a share of the output's spread."""
        return self.largest / self.spread if self.spread else float(self.largest > 0)


@dataclass(frozen=True)
class Agreement:
    """Say how well the masks of a whole chain of graphs, from pixels to masks, cover those of torch."""

    variant: Variant
    graph: GraphName
    iou: float
    smallest: float
    masks: int


@dataclass(frozen=True)
class Parity:
    """Hold what graphs differ by from their torch model, on photos, for several batches and prompts."""

    differences: tuple[Difference, ...]
    agreements: tuple[Agreement, ...]

    def find_worst(self, variant: Variant) -> Difference:
        """Return the difference of a number format that is the largest share of its spread.

        Raises:
            DataError: the export has no such format.
        """
        found = [each for each in self.differences if each.variant == variant]
        if not found:
            known = ", ".join(sorted({each.variant for each in self.differences}))
            raise DataError(compose(f"a number format of the export ({known})", variant, "name one of these"))
        return max(found, key=lambda each: each.share)

    def table(self) -> Table:
        """Return all of it as measurements."""
        rows = []
        for each in self.differences:
            name = f"{each.variant} {each.graph}: {each.output}, largest difference"
            note = f"{each.share:.1g} of the spread, {each.spread:.3g}; mean {each.mean:.1g}"
            rows.append(Measurement(name, each.largest, "", note=note))
        for agreement in self.agreements:
            name = f"{agreement.variant} pixels to masks by {agreement.graph}: mIoU"
            note = f"smallest {agreement.smallest:.3f}"
            rows.append(Measurement(name, agreement.iou, "", samples=agreement.masks, note=note))
        return Table("ONNX against torch", tuple(rows))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "differences": [asdict(each) for each in self.differences],
            "agreements": [asdict(each) for each in self.agreements],
        }


def check_parity(folder: str | Path, model: Any) -> Parity:
    """Run every graph of an export beside the torch model, on photos that ship.

    Each graph sees batches of one and two photos, one to three prompts and up to four points, some of them
    background or padding; an encoder whose attention is too large for that on a small machine sees one photo
    at a time. A decoder is compared on torch's embeddings, so that its difference is its own; the
    mIoU is of masks for which graphs did all of the work.

    Raises:
        DataError: the model is none that can be exported, or there is no folder.
        IntegrityError: files of the export are damaged or missing.
        MismatchError: the folder is no export, or that of a model of another size.
        MissingDependencyError: onnxruntime is not installed.
    """
    copied = copy_segmenter(model)
    side = verify_folder(folder, KIND, allow_extra=True).facts.get("image_size")
    if side != read_side(copied):
        raise MismatchError(
            compose(
                f"a model for images of {side} pixels, as in {folder}",
                f"{read_side(copied)} pixels",
                "pass the model that was exported",
            )
        )
    return measure_parity(folder, copied)


def measure_parity(folder: str | Path, model: Any) -> Parity:
    """Compare what lies in ``folder`` with a model on the CPU in float32, as ``check_parity`` does."""
    place = Path(folder)
    graphs = {graph.name: graph for graph in list_graphs(model)}
    photos = open_photos(SAMPLES, check="header")
    trials = [_Trial(model, photos, *shape, seed=number) for number, shape in enumerate(SHAPES)]
    together = count_attention(model) <= _MOST_ATTENTION
    differences: list[Difference] = []
    agreements: list[Agreement] = []
    for variant, suffix in SUFFIXES.items():
        encoder = place / graphs["encoder"].path(suffix)
        if not encoder.exists():
            continue
        # Of the same weights, so run once for both decoders.
        encoded = _encode(encoder, [trial.given["pixel_values"] for trial in trials], together=together)
        differences += _compare(variant, graphs["encoder"], trials, encoded)
        for name in ("points", "boxes"):
            graph = graphs[name]
            path = place / graph.path(suffix)
            if not path.exists():
                continue
            given = [trial.inputs(graph) for trial in trials]
            chained = [each | found for each, found in zip(given, encoded, strict=True)]
            answers = _run(path, given + chained)
            differences += _compare(variant, graph, trials, answers[: len(given)])
            agreements.append(_agree(variant, graph, trials, answers[len(given) :]))
    return Parity(tuple(differences), tuple(agreements))


class _Trial:
    """One batch of photos with prompts, and what torch says to it."""

    def __init__(
        self, model: Any, source: Photos, photos: int, prompts: int, points: int, *, seed: int
    ) -> None:
        side = read_side(model)
        generator = torch.Generator().manual_seed(seed)
        corners = torch.rand(photos, prompts, 2, 2, generator=generator).sort(dim=2).values * side
        labels = torch.randint(0, 2, (photos, prompts, points), generator=generator)
        if points > 2:
            # The label of what fills up prompts with fewer points.
            labels[..., -1] = -10
        self.given = {
            "pixel_values": _place_photos(model, source, photos, seed),
            "input_points": torch.rand(photos, prompts, points, 2, generator=generator) * side,
            "input_labels": labels,
            "input_boxes": corners.reshape(photos, prompts, 4),
        }
        with torch.no_grad():
            each = [model.get_image_embeddings(one[None]) for one in self.given["pixel_values"]]
            embeddings = torch.cat(each)
            positions = model.get_image_wide_positional_embeddings().repeat(photos, 1, 1, 1)
            self.encoded = {"image_embeddings": embeddings, "image_positional_embeddings": positions}
            by_points = model(
                image_embeddings=embeddings,
                input_points=self.given["input_points"],
                input_labels=self.given["input_labels"],
            )
            by_boxes = model(image_embeddings=embeddings, input_boxes=self.given["input_boxes"])
        self.answers = {
            "encoder": self.encoded,
            "points": {"iou_scores": by_points.iou_scores, "pred_masks": by_points.pred_masks},
            "boxes": {"iou_scores": by_boxes.iou_scores, "pred_masks": by_boxes.pred_masks},
        }

    def inputs(self, graph: Graph) -> _Arrays:
        """Return what goes into a graph."""
        known = self.given | self.encoded
        return {port.name: known[port.name].numpy() for port in graph.inputs}


def _place_photos(model: Any, photos: Photos, count: int, first: int) -> Tensor:
    canvas = Canvas.of(model)
    chosen = [photos[(first + number) % len(photos)] for number in range(count)]
    return torch.cat([canvas.place(photo.image)[0] for photo in chosen])


def count_attention(model: Any, photos: int = 2) -> int:
    """Count the pairs of tokens, over all heads, of the widest attention of an encoder."""
    vision: Any = model.config.vision_config
    if not getattr(vision, "global_attn_indexes", ()):
        return 0
    tokens = (read_side(model) // int(vision.patch_size)) ** 2
    return photos * int(vision.num_attention_heads) * tokens**2


def _encode(path: Path, pixels: Sequence[Tensor], *, together: bool) -> list[_Arrays]:
    batches = [
        {"pixel_values": part.numpy()}
        for batch in pixels
        for part in ([batch] if together else batch.split(1))
    ]
    found = iter(_run(path, batches))
    joined = []
    for batch in pixels:
        parts = [next(found) for _ in range(1 if together else len(batch))]
        joined.append({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
    return joined


def _run(path: Path, given: Sequence[_Arrays]) -> list[_Arrays]:
    session = open_session(path)
    names = [output.name for output in session.get_outputs()]
    with graph_errors(path):
        return [dict(zip(names, session.run(names, inputs), strict=True)) for inputs in given]


def _compare(
    variant: Variant, graph: Graph, trials: Sequence[_Trial], found: Sequence[_Arrays]
) -> Iterator[Difference]:
    for port in graph.outputs:
        pairs = [
            (trial.answers[graph.name][port.name].numpy(), each[port.name])
            for trial, each in zip(trials, found, strict=True)
        ]
        for ours, theirs in pairs:
            if ours.shape != theirs.shape:
                raise MismatchError(
                    compose(
                        f"{port.name} {list(ours.shape)} of {graph.path(SUFFIXES[variant])}",
                        str(list(theirs.shape)),
                        "export the model again",
                    )
                )
        apart = np.concatenate([np.abs(ours - theirs).ravel() for ours, theirs in pairs])
        spread = np.concatenate([ours.ravel() for ours, _ in pairs]).std()
        yield Difference(
            variant, graph.name, port.name, float(apart.max()), float(apart.mean()), float(spread)
        )


def _agree(variant: Variant, graph: Graph, trials: Sequence[_Trial], found: Sequence[_Arrays]) -> Agreement:
    shares = torch.cat(
        [
            mask_iou(
                torch.from_numpy(each["pred_masks"]).flatten(0, 2) > 0,
                trial.answers[graph.name]["pred_masks"].flatten(0, 2) > 0,
            )
            for trial, each in zip(trials, found, strict=True)
        ]
    )
    return Agreement(variant, graph.name, float(shares.mean()), float(shares.min()), len(shares))

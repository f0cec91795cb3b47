"""Evaluate a promptable segmenter on photos with masks: IoU for each object and each kind of prompt."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Sized
from typing import Any

import torch
from torch import Tensor

from aerogel.core.config import nearest
from aerogel.core.progress import track
from aerogel.errors import ConfigError, DataError, compose
from aerogel.measure.masks import boundary_band, fill_boxes, mask_iou
from aerogel.slim.canvas import Canvas
from aerogel.slim.prompts import PROMPT_KINDS, PromptKind, make_prompts
from aerogel.slim.scores import Evaluation, Predictor, Reference, Scores
from aerogel.slim.segmenter import EncodedPhoto, Segmenter
from aerogel.zoo.objects import SegmentedPhoto


def evaluate(
    model: Any,
    photos: Iterable[SegmentedPhoto],
    *,
    prompts: Sequence[PromptKind] = ("point", "centre", "box"),
    teacher: Any = None,
    boundary: bool = True,
    points: int = 1,
    seed: int = 0,
    chunk: int = 16,
    canvas: Canvas | None = None,
    teacher_canvas: Canvas | None = None,
    name: str | None = None,
) -> Evaluation:
    """Score a model's masks for every object of every photo, each photo encoded once.

    model: anything with the surface of transformers' SamModel; it is left in the mode that it was in.
    photos: what `open_segments` returned, or any other photos with masks.
    prompts: what the model is shown of an object, one mask each: "point", a random pixel of it, "centre", the
    pixel farthest from its border, "stored", the data set's own point, "box".
    teacher: a second model; ours is also compared with its masks for the same prompts.
    boundary: also measure the IoU of the boundary bands.
    points: how many random points, one after the other, are asked about each object: its score for "point" is
    their mean, so that less of it is chance. 1 is the published protocol.
    seed: that of the random points; they also depend on the ids of photo and object, and on nothing else.
    chunk: how many objects are decoded at once; memory grows with it, results do not depend on it but for
    rounding.
    canvas, teacher_canvas: the square that the model sees; None takes the size from its configuration.

    The control row "filled box" scores the box itself as a mask: what a prompt gives away without a model.
    Ground truth and masks are compared in the photo's own size.

    Raises:
        ConfigError: unknown or no prompts, or points or a chunk below 1.
        DataError: no photos, two of the same id, or a model whose answers are not masks.
    """
    _check(prompts, points, chunk)
    student = Segmenter(model, canvas or Canvas.of(model))
    tutor = None if teacher is None else Segmenter(teacher, teacher_canvas or Canvas.of(teacher))
    turns = {each: points if each == "point" else 1 for each in prompts}
    book, seen = _Book(boundary), set[str]()
    images, objects = list[str](), list[str]()
    total = len(photos) if isinstance(photos, Sized) else None
    for photo in track(photos, total=total, label="evaluate", unit="photo"):
        if photo.identifier in seen:
            got = f"{photo.identifier} twice"
            raise DataError(compose("photos with ids of their own", got, "rename one"))
        seen.add(photo.identifier)
        images += [photo.identifier] * len(photo)
        objects += photo.objects
        encoded = student.encode(photo.image)
        taught = None if tutor is None else tutor.encode(photo.image)
        for start in range(0, len(photo), chunk):
            rows = range(start, min(start + chunk, len(photo)))
            _score(book, photo, rows, turns, encoded, taught, seed)
    if not objects:
        raise DataError(compose("photos with at least one object", "none", "see open_segments"))
    title = name or type(model).__name__
    return Evaluation(title, tuple(images), tuple(objects), book.close(), seed, points)


def _score(
    book: _Book,
    photo: SegmentedPhoto,
    rows: range,
    turns: Mapping[PromptKind, int],
    encoded: EncodedPhoto,
    taught: EncodedPhoto | None,
    seed: int,
) -> None:
    """Score some objects; ``turns`` says how often each kind of prompt is made."""
    masks = photo.masks(rows)
    device = encoded.segmenter.device
    truth = book.look_at(torch.from_numpy(masks).to(device))
    filled = book.look_at(fill_boxes(photo.boxes[rows.start : rows.stop], photo.size).to(device))
    book.add("filled box", "box", "truth", [(filled, truth)])
    for kind, count in turns.items():
        asked = [make_prompts(photo, kind, rows, masks, seed=seed, turn=turn) for turn in range(count)]
        ours = [book.look_at(encoded.segment(kind, prompt)) for prompt in asked]
        book.add("model", kind, "truth", [(each, truth) for each in ours])
        if taught is None:
            continue
        theirs = [book.look_at(taught.segment(kind, prompt).to(device)) for prompt in asked]
        book.add("model", kind, "teacher", list(zip(ours, theirs, strict=True)))
        if kind == "box":
            book.add("filled box", kind, "teacher", [(filled, each) for each in theirs])


_Look = tuple[Tensor, Tensor | None]


class _Book:
    """Collects scores by row; a look is a stack of masks with its boundary bands, taken once."""

    def __init__(self, boundary: bool) -> None:
        self._boundary = boundary
        self._whole: dict[tuple[Predictor, str, Reference], list[float]] = defaultdict(list)
        self._edges: dict[tuple[Predictor, str, Reference], list[float]] = defaultdict(list)

    def look_at(self, masks: Tensor) -> _Look:
        return masks, boundary_band(masks) if self._boundary else None

    def add(
        self, predictor: Predictor, prompt: str, reference: Reference, pairs: Sequence[tuple[_Look, _Look]]
    ) -> None:
        """Add the scores of some objects, each the mean over ``pairs`` of looks at them."""
        key = (predictor, prompt, reference)
        self._whole[key] += _average([mask_iou(ours[0], theirs[0]) for ours, theirs in pairs])
        edges = [
            mask_iou(ours[1], theirs[1])
            for ours, theirs in pairs
            if ours[1] is not None and theirs[1] is not None
        ]
        if edges:
            self._edges[key] += _average(edges)

    def close(self) -> tuple[Scores, ...]:
        return tuple(
            Scores(*key, tuple(values), tuple(self._edges[key]) if self._boundary else None)
            for key, values in self._whole.items()
        )


def _average(scores: Sequence[Tensor]) -> list[float]:
    found: list[float] = torch.stack(list(scores)).mean(0).tolist()
    return found


def _check(prompts: Sequence[PromptKind], points: int, chunk: int) -> None:
    listed = [prompts] if isinstance(prompts, str) else list(prompts)
    unknown = [each for each in listed if each not in PROMPT_KINDS]
    if unknown or not listed or isinstance(prompts, str) or len(set(listed)) != len(listed):
        near = nearest(str(unknown[0]), list(PROMPT_KINDS)) if unknown else None
        remedy = f"did you mean {near!r}?" if near else "pass a tuple of them, each once"
        raise ConfigError(compose(f"prompts among {', '.join(PROMPT_KINDS)}", repr(prompts), remedy))
    if points < 1:
        raise ConfigError(compose("at least 1 point for each object", repr(points), "pass for example 4"))
    if chunk < 1:
        raise ConfigError(compose("a chunk of at least 1 object", repr(chunk), "pass for example 16"))

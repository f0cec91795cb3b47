"""Align a pruned encoder with its teachers, resumable after a kill to the same weights, bit for bit."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from aerogel.core.canonical import canonical_json, canonical_sha256
from aerogel.core.config import to_dict, validate
from aerogel.core.crew import Crew
from aerogel.core.devices import choose_dtype
from aerogel.core.randomness import derive_seed, permutation
from aerogel.core.stages import CHECKPOINT_NAME
from aerogel.errors import DataError, DivergedError, MismatchError, compose
from aerogel.slim.cache import TeacherCache, plan_cache
from aerogel.slim.canvas import Canvas
from aerogel.slim.checkpoint import (
    Ledger,
    load_checkpoint,
    measure_checkpoint,
    pack_optimiser,
    save_checkpoint,
    unpack_optimiser_,
)
from aerogel.slim.config import AlignConfig
from aerogel.slim.digest import digest_model
from aerogel.slim.families.family import find_family
from aerogel.slim.families.fused import fusing
from aerogel.slim.lesson import Lesson, Shown, Tutor
from aerogel.slim.loading import PhotoList, count_repeated, load_views
from aerogel.slim.optimiser import learning_rate, make_optimiser
from aerogel.slim.segmenter import evaluating
from aerogel.zoo.launch import join_crew

_SAVE_EVERY_S = 60.0
_DECODER = "mask_decoder."


@dataclass(frozen=True)
class AlignState:
    """Tell what one optimiser step did: ``step`` from 1 of ``steps``, its ``epoch`` from 0, the mean loss.

    ``terms`` are the means that the loss is made of, by name, before their weights; ``lr`` the rate,
    ``seconds`` the time that the step took. With the last step of an epoch comes ``epoch_means``: the means
    over all its photos, "loss" and the terms.
    """

    step: int
    steps: int
    epoch: int
    loss: float
    terms: Mapping[str, float]
    lr: float
    seconds: float
    epoch_means: Mapping[str, float] | None = None


def batch_photos(seed: int, epoch: int, photos: int, batch_size: int) -> list[NDArray[np.int64]]:
    """Return the photo numbers of each batch of an epoch: a permutation in pieces, the last one shorter."""
    order = permutation(derive_seed(seed, "align"), "order", epoch, photos)
    return np.split(order, range(batch_size, photos, batch_size))


def estimate_bytes(student: nn.Module, lesson: Lesson, photos: int, config: AlignConfig) -> int:
    """Return about how many bytes of disk an aligning takes at most: cached embeddings and two checkpoints.

    Raises:
        DataError: no family knows a model.
    """
    trained = _find_trained(student, lesson)
    cache = _plan_cache(Path(), lesson, "", count_repeated(photos, config), config, trained)
    return cache.need_bytes + cache.spare_bytes


def align(
    student: nn.Module,
    lesson: Lesson,
    photos: PhotoList,
    config: AlignConfig,
    *,
    seed: int,
    device: str,
    work: Path,
    cache: Path | None = None,
    save_steps: int | None = None,
) -> Generator[AlignState, None, None]:
    """Train the image encoder of ``student`` in place; yield after every optimiser step.

    Its prompt encoder is left as it is, and so is its mask decoder, unless the lesson is of masks. Models
    are moved to ``device``; teachers stay as they are. The state is written to ``work/checkpoint`` every
    minute, or every ``save_steps`` steps, and at the end. A later call with the same arguments, the student
    as it was at first, goes on from there with the losses and weights that it would have had; steps that
    were saved are not yielded again. The teacher's embeddings go to a folder of the checkpoint, or to
    ``cache``: runs may share it, so that it keeps also what this one shows but once.

    Every process that accelerate started calls this alike. Batches are the same whatever their number, and
    each process computes its share of one. After the last step the student has its final weights, or their
    moving average if there is one. Implements bottleneck and embedding aligning of arXiv 2312.05284,
    section 3.2.

    Raises:
        DataError: no family knows a model, the student is no float32, or there is no photo.
        MismatchError: models do not fit each other, or the checkpoint is another run's.
        DivergedError: the loss is no finite number.
        IntegrityError: the checkpoint is damaged.
        StorageFullError: the disk is full.
    """
    checked = validate(config)
    run = _prepare(student, lesson, photos, checked, seed=seed, device=device, work=work, cache=cache)
    sites = find_family(student).locate(student)
    models = [each for each in (student, lesson.teacher, lesson.before) if each is not None]
    with ExitStack() as stack:
        for model in models:
            stack.enter_context(evaluating(model))
            stack.enter_context(fusing(model))
        stack.enter_context(_training_only(student, run.trained.values()))
        stack.enter_context(sites.recomputing(checked.checkpoint_blocks))
        run.resume_()
        run.views = stack.enter_context(closing(run.load()))
        last_save = time.monotonic()
        while run.ledger.step < run.steps:
            state = run.advance_()
            yield state
            due = state.step == run.steps or (
                state.step % save_steps == 0 if save_steps else time.monotonic() - last_save > _SAVE_EVERY_S
            )
            if due:
                run.save()
                last_save = time.monotonic()
        run.settle_()


@dataclass
class _Run:
    """One aligning: what it reads, and where it is."""

    tutor: Tutor
    photos: PhotoList
    canvas: Canvas
    seed: int
    crew: Crew
    folder: Path
    identity: dict[str, Any]
    trained: dict[str, nn.Parameter]
    optimiser: torch.optim.Optimizer
    ledger: Ledger = field(default_factory=Ledger)
    views: Iterator[Shown] = field(default_factory=lambda: iter(()))
    averages: dict[str, Tensor] = field(default_factory=dict)

    @property
    def config(self) -> AlignConfig:
        return self.tutor.config

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.photos) // self.config.batch_size)

    @property
    def steps(self) -> int:
        return self.config.epochs * self.steps_per_epoch

    def advance_(self) -> AlignState:
        """Take the next step."""
        begin, step = time.monotonic(), self.ledger.step
        epoch, batch = self._find_batch(step)
        rate = learning_rate(step, self.steps, self.config)
        self.optimiser.zero_grad(set_to_none=True)
        values = self._descend(epoch, batch)
        self._require_finite(values["loss"], epoch)
        self._update_(rate)
        self.ledger.add(values, len(batch))
        loss = values.pop("loss")
        means = self.ledger.close_epoch() if (step + 1) % self.steps_per_epoch == 0 else None
        seconds = time.monotonic() - begin
        return AlignState(step + 1, self.steps, epoch, loss, values, rate, seconds, means)

    def _descend(self, epoch: int, batch: NDArray[np.int64]) -> dict[str, float]:
        """Add up the gradients of a batch over all processes; return its mean losses."""
        share = self.crew.take_share(batch)
        found: dict[str, float] = {}
        for part in np.array_split(share, min(self.config.accumulate, len(share)) or 1):
            if not len(part):
                continue
            loss = self.tutor.examine(epoch, list(islice(self.views, len(part))))
            weight = len(part) / len(batch)
            (loss.total * weight).backward()
            for name, value in {"loss": float(loss.total.detach()), **loss.terms}.items():
                found[name] = found.get(name, 0.0) + value * weight
        self.crew.add_gradients_(self.trained.values())
        return self.crew.gather_sums(found)

    def load(self) -> Generator[Shown, None, None]:
        """Yield the views of this process's shares of all batches that are left."""

        def order() -> Iterator[tuple[int, int]]:
            for step in range(self.ledger.step, self.steps):
                epoch, batch = self._find_batch(step)
                for number in self.crew.take_share(batch).tolist():
                    yield epoch, number

        return load_views(self.photos, self.canvas, self.config, self.seed, order())

    def _find_batch(self, step: int) -> tuple[int, NDArray[np.int64]]:
        epoch, index = divmod(step, self.steps_per_epoch)
        return epoch, batch_photos(self.seed, epoch, len(self.photos), self.config.batch_size)[index]

    def _require_finite(self, loss: float, epoch: int) -> None:
        if not math.isfinite(loss):
            raise DivergedError(
                compose(
                    "a finite loss",
                    f"{loss} in epoch {epoch}",
                    f"lower align.lr ({self.config.lr}), set align.clip, or compute in float32",
                )
            )

    def _update_(self, rate: float) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["scale"]
        if self.config.clip:
            nn.utils.clip_grad_norm_(list(self.trained.values()), self.config.clip)
        self.optimiser.step()
        if self.config.ema:
            # The average of few steps would be mostly that of the first weights.
            decay = min(self.config.ema, (1 + self.ledger.step) / (10 + self.ledger.step))
            for name, parameter in self.trained.items():
                self.averages[name].lerp_(parameter.detach(), 1.0 - decay)

    def resume_(self) -> None:
        """Go to where the last checkpoint is, or to the start."""
        if self.config.ema:
            self.averages = {name: each.detach().clone() for name, each in self.trained.items()}
        found = load_checkpoint(self.folder, self.identity)
        step = 0 if found is None else found[0].step
        # A folder that only the first process sees would let the others begin anew.
        self.crew.require_agreement(f"{canonical_json(self.identity)} at step {step}")
        if found is None:
            return
        self.ledger, tensors = found
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(tensors[f"student.{name}"])
            for name, average in self.averages.items():
                average.copy_(tensors[f"ema.{name}"])
        unpack_optimiser_(self.optimiser, tensors)

    def save(self) -> None:
        """Write a checkpoint, in the first process."""
        if self.crew.rank:
            return
        tensors: dict[str, Tensor] = {f"student.{name}": each for name, each in self.trained.items()}
        tensors |= {f"ema.{name}": each for name, each in self.averages.items()}
        tensors |= pack_optimiser(self.optimiser)
        save_checkpoint(self.folder, self.identity, self.ledger, tensors)

    def settle_(self) -> None:
        """Give the student its final weights."""
        with torch.no_grad():
            for name, average in self.averages.items():
                self.trained[name].copy_(average)


def _prepare(
    student: nn.Module,
    lesson: Lesson,
    photos: PhotoList,
    config: AlignConfig,
    *,
    seed: int,
    device: str,
    work: Path,
    cache: Path | None,
) -> _Run:
    if not len(photos):
        raise DataError(compose("photos to learn from", "none", "pass at least one"))
    canvas = _require_fit(student, lesson)
    crew = join_crew(device)
    teachers = {"teacher": lesson.teacher, "before": lesson.before}
    identity: dict[str, Any] = {
        "config": config.identify(),
        "seed": seed,
        "phase": lesson.phase,
        "student": digest_model(student),
        **{name: None if model is None else digest_model(model) for name, model in teachers.items()},
        "photos": canonical_sha256(list(photos.ids)),
    }
    if lesson.masks is not None:
        identity["masks"] = to_dict(lesson.masks)
    for model in (student, *teachers.values()):
        if model is not None:
            model.to(device)
    half = choose_dtype(config.dtype, device).value == "bfloat16"
    folder = work / CHECKPOINT_NAME
    precision = f"{identity['teacher']} {'bfloat16' if half else 'as it is'}"
    trained = _find_trained(student, lesson)
    kept = count_repeated(len(photos), config, shared=cache is not None)
    planned = _plan_cache(cache or folder / "teacher", lesson, precision, kept, config, trained)
    shares = {} if lesson.masks is None else {_DECODER: lesson.masks.decoder_lr / config.lr}
    optimiser = make_optimiser(trained, config, device, shares)
    tutor = Tutor(student, lesson, config, planned, device, half)
    return _Run(tutor, photos, canvas, seed, crew, folder, identity, trained, optimiser)


def _find_trained(student: nn.Module, lesson: Lesson) -> dict[str, nn.Parameter]:
    """Return what learns, by name: the encoder and, from masks, the decoder."""
    trained = dict(find_family(student).locate(student).encoder.named_parameters())
    if lesson.masks is not None and lesson.masks.decoder_lr:
        decoder = student.get_submodule(_DECODER.removesuffix("."))
        trained |= {f"{_DECODER}{name}": each for name, each in decoder.named_parameters()}
    return trained


def _plan_cache(
    folder: Path,
    lesson: Lesson,
    teacher: str,
    views: int,
    config: AlignConfig,
    trained: Mapping[str, nn.Parameter],
) -> TeacherCache:
    """Plan a cache that leaves room for two checkpoints."""
    shapes = find_family(lesson.teacher).locate(lesson.teacher).shape_outputs()
    spare = 2 * measure_checkpoint(trained, ema=config.ema > 0)
    return plan_cache(folder, teacher, shapes, views, config.cache_bytes, spare_bytes=spare)


def _require_fit(student: nn.Module, lesson: Lesson) -> Canvas:
    """Return the canvas that student and teachers share."""
    family = find_family(student)
    canvas = Canvas.of(student)
    shapes = family.locate(student).shape_outputs()
    for each in (student, lesson.teacher) if lesson.phase == "masks" else ():
        if not hasattr(each, "mask_decoder"):
            remedy = "pass the whole model, or learn from the embedding alone"
            raise MismatchError(compose("a model with a mask decoder", type(each).__name__, remedy))
    for model in (lesson.teacher, lesson.before):
        if model is None:
            continue
        theirs = find_family(model).locate(model).shape_outputs()
        if Canvas.of(model) != canvas or theirs != shapes:
            expected = f"a teacher for {canvas.size_px} px that gives {shapes}"
            got = f"{Canvas.of(model).size_px} px and {theirs}"
            remedy = "pass the model that the student was pruned from, whole if it is whole"
            raise MismatchError(compose(expected, got, remedy))
    kinds = {parameter.dtype for parameter in family.locate(student).encoder.parameters()}
    if not kinds <= {torch.float32, torch.float64}:
        got = ", ".join(sorted(str(each) for each in kinds))
        remedy = 'load it with dtype=torch.float32; AlignConfig(dtype="bfloat16") computes in less'
        raise DataError(compose("a student whose encoder is in float32", got, remedy))
    return canvas


@contextmanager
def _training_only(student: nn.Module, parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Let gradients reach these parameters alone, and give each its own mode back at the end."""
    trained = set(parameters)
    before = [(parameter, parameter.requires_grad) for parameter in student.parameters()]
    try:
        for parameter, _ in before:
            parameter.requires_grad_(parameter in trained)
        yield
    finally:
        for parameter, mode in before:
            parameter.requires_grad_(mode)
            parameter.grad = None

"""Stage 6: train a network on the condensed set with labels from any source, and score it on real images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from aerogel.condense.averaging import Averaged
from aerogel.condense.config import FitConfig, StudentConfig
from aerogel.condense.fit import EpochState, batches, fit, fused, share_loss
from aerogel.condense.labels import Batch, LabelSource, make_batch
from aerogel.condense.losses import SoftLoss, choose_loss, match_logits
from aerogel.condense.networks import Classifier, build_classifier
from aerogel.condense.teacher import predict
from aerogel.condense.views import Views
from aerogel.core.crew import ALONE, Crew
from aerogel.core.randomness import derive_seed
from aerogel.measure import Measurement, measure_accuracy
from aerogel.zoo.imageset import ImageSet


@dataclass(frozen=True)
class TrainingSet:
    """Hold what a student sees: images [N, C, S, S] (uint8), labels [N], augmentation and normalisation."""

    images: Tensor
    labels: Tensor
    views: Views
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)


def build_student(data: TrainingSet, config: StudentConfig, seed: int) -> Classifier:
    """Build the untrained student; its weights depend on ``seed`` alone."""
    return build_classifier(
        config.network,
        channels=int(data.images.shape[1]),
        classes=len(data.class_names),
        size=int(data.images.shape[-1]),
        width=config.width,
        depth=config.depth,
        mean=data.mean,
        std=data.std,
        seed=derive_seed(seed, "student"),
    )


def order_seed(seed: int) -> int:
    """Return the seed of the order in which a student with ``seed`` sees the samples."""
    return derive_seed(seed, "student/order")


def distillation_loss(
    logits: Tensor, soft: Tensor | None, batch: Batch, ce_weight: float, soft_loss: SoftLoss = match_logits
) -> Tensor:
    """Return ``soft_loss`` to the soft logits plus ``ce_weight`` times the cross-entropy to the mixed labels.

    With MSE, the default, it is the student objective of arXiv 2408.08201 (section 3.4). Without soft labels
    it is the cross-entropy.
    """
    hard = batch.hard_loss(logits)
    if soft is None:
        return hard
    return soft_loss(logits, soft, batch) + ce_weight * hard


def train_student(
    student: nn.Module,
    data: TrainingSet,
    labels: LabelSource,
    config: StudentConfig,
    *,
    seed: int,
    device: str = "cpu",
    checkpoint: Path | None = None,
    fit_config: FitConfig | None = None,
    view_epochs: int | None = None,
    crew: Crew = ALONE,
) -> Iterator[EpochState]:
    """Train ``student`` on views of ``data`` labelled by ``labels``; yield after every epoch.

    Every epoch has views of its own; with ``view_epochs`` the run goes round the views of that many. With
    ``config.ema`` the weights are their moving average once the last epoch is done. The processes of a
    ``crew`` share every batch.
    """
    forward = fused(student.to(device), config.fit)
    soft_loss = choose_loss(config)
    averaged = Averaged(student, config.ema) if config.ema else None

    def batch_loss(epoch: int, samples: np.ndarray) -> Tensor:
        shown = epoch % view_epochs if view_epochs else epoch
        batch = make_batch(data.images, data.labels, data.views, shown, samples, device)
        soft = labels.logits(batch)
        return distillation_loss(forward(batch.views), soft, batch, config.ce_weight, soft_loss)

    yield from fit(
        averaged or student,
        share_loss(batch_loss, crew),
        config=fit_config or config.fit,
        population=len(data),
        seed=order_seed(seed),
        device=device,
        checkpoint=checkpoint,
        crew=crew,
        after_step=averaged.update_ if averaged else None,
    )
    if averaged:
        averaged.settle_()


def training_batches(
    data: TrainingSet,
    fit_config: FitConfig,
    *,
    seed: int,
    device: str = "cpu",
    first_epoch: int = 0,
    crew: Crew = ALONE,
) -> Iterator[Batch]:
    """Yield the very batches that a student with ``seed`` is trained on, to store their labels.

    The processes of a ``crew`` take turns.
    """
    for epoch in range(first_epoch, fit_config.epochs):
        for samples in crew.take_turns(batches(order_seed(seed), epoch, len(data), fit_config.batch_size)):
            yield make_batch(data.images, data.labels, data.views, epoch, samples, device)


def score(student: nn.Module, test: ImageSet, device: str = "cpu") -> Measurement:
    """Return the accuracy on ``test`` in percent with its 95 % interval."""
    return measure_accuracy(predict(student, test.images, device), test.labels, name="accuracy")


def choose_rate(
    data: TrainingSet,
    labels: LabelSource,
    config: StudentConfig,
    held_out: ImageSet,
    *,
    seed: int,
    device: str = "cpu",
    view_epochs: int | None = None,
    watch: Callable[[str, Iterator[EpochState]], Iterator[EpochState]] = lambda _, run: run,
    crew: Crew = ALONE,
) -> tuple[float, dict[str, float]]:
    """Choose among ``config.rates`` by accuracy on held-out real training images, never on test images.

    Returns the rate and each candidate's accuracy in percent; with one candidate nothing is trained.
    ``view_epochs`` is that of :func:`train_student`.
    """
    if len(config.rates) == 1:
        return config.rates[0], {}
    seed = derive_seed(seed, "student/choose-rate")
    found: dict[str, float] = {}
    for rate in config.rates:
        student = build_student(data, config, seed)
        run = train_student(
            student,
            data,
            labels,
            config,
            seed=seed,
            device=device,
            fit_config=replace(config.fit, lr=rate),
            view_epochs=view_epochs,
            crew=crew,
        )
        for _ in watch(f"lr {rate:g}", run):
            pass
        found[f"{rate:g}"] = score(student, held_out, device).value
    best = max(config.rates, key=lambda rate: found[f"{rate:g}"])
    return best, found

"""Stage 4: train the label generator on the real training set and measure how true its labels are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn import functional

from aerogel.condense.config import ProjectorConfig, ViewConfig
from aerogel.condense.fit import EpochState, fit, fused, share_loss
from aerogel.condense.labels import Batch, StoredLabels, make_batch
from aerogel.condense.merged import Merged
from aerogel.condense.projector import Fidelity, compare_logits
from aerogel.condense.storing import cut_samples, store_views
from aerogel.condense.student import TrainingSet
from aerogel.condense.views import Views
from aerogel.core.crew import ALONE, Crew
from aerogel.core.devices import choose_dtype
from aerogel.core.randomness import derive_seed, uniforms
from aerogel.core.stages import CHECKPOINT_NAME
from aerogel.errors import ProjectorError, compose
from aerogel.zoo.imageset import ImageSet

_FIDELITY_SAMPLES = 2000
_CONDENSED_PER_REAL = 9
REAL_TARGETS = "targets"
CONDENSED_TARGETS = "condensed-targets"


@dataclass(frozen=True)
class MeanLogits:
    """Give the mean of several networks' logits, in the precision of the surrounding autocast."""

    networks: Sequence[nn.Module]
    name: str = "teachers"

    def logits(self, batch: Batch) -> Tensor:
        """Return the mean logits [B, classes] for the batch's views."""
        with torch.no_grad():
            return torch.stack([network(batch.views) for network in self.networks]).mean(0)


@dataclass(frozen=True)
class Lesson:
    """Hold what the label generator ``adapted`` is trained with; ``work`` is the folder of its stage.

    ``norms`` is its backbone's. The processes of ``crew`` share every batch, and the first one writes.
    """

    adapted: PeftModel
    data: ImageSet
    teachers: Sequence[nn.Module]
    config: ProjectorConfig
    view_config: ViewConfig
    seed: int
    device: str
    work: Path
    norms: Mapping[str, str] = field(default_factory=dict)
    crew: Crew = ALONE

    @property
    def views(self) -> Views:
        """Return the views of the real images."""
        return Views(self.view_config, derive_seed(self.seed, "generator/views"), len(self.data))

    @cached_property
    def forward(self) -> nn.Module:
        """Return the forward pass of the generator, its changes merged into the weights."""
        return fused(Merged(self.adapted.to(self.device), self.norms), self.config.fit)

    @cached_property
    def targets(self) -> MeanLogits:
        """Return the teachers' mean logits, computed for each batch."""
        return MeanLogits(
            [fused(teacher.to(self.device).eval(), self.config.fit) for teacher in self.teachers]
        )

    @property
    def checkpoint(self) -> Path:
        """Return the folder that a killed training continues from."""
        return self.work / CHECKPOINT_NAME


def pick_teachers(snapshots: Sequence[nn.Module], wanted: int | tuple[int, ...]) -> Sequence[nn.Module]:
    """Return the last ``wanted`` of the snapshots, or those with these numbers; 1 is the earliest."""
    if isinstance(wanted, int):
        return snapshots[-wanted:]
    return [snapshots[number - 1] for number in wanted]


def train_generator(lesson: Lesson) -> Iterator[EpochState]:
    """Train the low-rank change on real images: MSE to the teachers' mean logits + ``ce_weight`` x CE.

    Both are of the same augmented view. Yields after every epoch; continues from ``work/checkpoint`` after a
    kill. Implements the projector objective of arXiv 2408.08201 (section 3.3); how several weak teachers are
    combined is not said there, the mean of their logits is taken.
    """
    config = lesson.config
    show = _show(lesson, lesson.data, lesson.views, config.target_epochs, REAL_TARGETS)

    def batch_loss(epoch: int, samples: np.ndarray) -> Tensor:
        batch, targets = show(epoch, samples)
        logits = lesson.forward(batch.views)
        loss = functional.mse_loss(logits, targets)
        return loss + config.ce_weight * batch.hard_loss(logits) if config.ce_weight else loss

    return fit(
        lesson.adapted.to(lesson.device),
        share_loss(batch_loss, lesson.crew),
        config=config.fit,
        population=len(lesson.data),
        seed=derive_seed(lesson.seed, "generator/order"),
        device=lesson.device,
        checkpoint=lesson.checkpoint,
        crew=lesson.crew,
    )


def tune_generator(lesson: Lesson, condensed: TrainingSet) -> Iterator[EpochState]:
    """Go on training on views of the condensed images, which are all that the generator has to label.

    Ours, not the paper's. Every epoch shows each condensed image once, in the view that a student's epoch of
    the same number shows; with ``tune_target_epochs``, those of that many epochs in turn. Views of real
    images stay in every batch as a curb on memorising. Continues from ``work/checkpoint/tune`` after a kill.
    """
    data, config = lesson.data, lesson.config
    draw_seed = derive_seed(lesson.seed, "generator/tune")
    show = _show(lesson, condensed, condensed.views, config.tune_target_epochs, CONDENSED_TARGETS)
    show_real = _show(lesson, data, lesson.views, config.target_epochs, REAL_TARGETS)

    def batch_loss(epoch: int, samples: np.ndarray) -> Tensor:
        draws = uniforms(draw_seed, "real", epoch, samples[: max(1, len(samples) // _CONDENSED_PER_REAL)], 1)
        reals = (draws[:, 0] * len(data)).astype(np.int64)
        shares = ((show, lesson.crew.take_share(samples)), (show_real, lesson.crew.take_share(reals)))
        shown = [see(epoch, share) for see, share in shares if len(share)]
        if not shown:
            return torch.zeros(())
        logits = lesson.forward(torch.cat([batch.views for batch, _ in shown]))
        loss = functional.mse_loss(logits, torch.cat([targets for _, targets in shown]))
        if config.ce_weight:
            parts = logits.split([len(targets) for _, targets in shown])
            hard = [len(part) * batch.hard_loss(part) for part, (batch, _) in zip(parts, shown, strict=True)]
            loss = loss + config.ce_weight * torch.stack(hard).sum() / len(logits)
        return loss * (len(logits) / (len(samples) + len(reals))) if lesson.crew.size > 1 else loss

    return fit(
        lesson.adapted.to(lesson.device),
        batch_loss,
        config=replace(config.fit, epochs=config.tune_epochs, lr=config.tune_lr),
        population=len(condensed),
        seed=draw_seed,
        device=lesson.device,
        checkpoint=lesson.checkpoint / "tune",
        crew=lesson.crew,
    )


def _show(
    lesson: Lesson, data: ImageSet | TrainingSet, views: Views, epochs: int, name: str
) -> Callable[[int, np.ndarray], tuple[Batch, Tensor]]:
    """Return what gives a batch of ``views`` of ``data`` and its targets, by epoch and sample ids.

    Above 0, ``epochs`` is how many epochs of views there are, shown in turn; their targets are stored in the
    folder ``name`` of the checkpoint before this returns.
    """
    labels = store_targets(lesson, data, views, epochs, name) if epochs else lesson.targets

    def show(epoch: int, samples: np.ndarray) -> tuple[Batch, Tensor]:
        shown = epoch % epochs if epochs else epoch
        batch = make_batch(data.images, data.labels, views, shown, samples, lesson.device)
        return batch, labels.logits(batch)

    return show


def store_targets(
    lesson: Lesson, data: ImageSet | TrainingSet, views: Views, epochs: int, name: str
) -> StoredLabels:
    """Write the teachers' logits for ``epochs`` epochs of ``views`` of ``data``, in float16; return them.

    They lie in the folder ``name`` of the lesson's checkpoint, where training looks for REAL_TARGETS and
    CONDENSED_TARGETS; what lies there already is kept.
    """
    folder, crew = lesson.checkpoint / name, lesson.crew
    if crew.leads:
        folder.mkdir(parents=True, exist_ok=True)
    half = choose_dtype(lesson.config.fit.dtype, lesson.device).value == "bfloat16"
    with torch.autocast(torch.device(lesson.device).type, torch.bfloat16, enabled=half):
        store_views(
            folder,
            lesson.targets,
            data,
            views,
            epochs=epochs,
            device=lesson.device,
            title="teachers' logits",
            crew=crew,
        )
    return StoredLabels(folder, lesson.targets.name)


def measure_fidelity(
    generator: nn.Module,
    teacher: nn.Module,
    held_out: ImageSet,
    condensed: TrainingSet,
    view_config: ViewConfig,
    *,
    seed: int,
    device: str,
) -> tuple[Fidelity, ...]:
    """Compare generator and teacher on "augmented" and "cutmix" views of held-out images, and on "condensed".

    At most 2,000 held-out images are used, each in one view of either kind; the last are about as many of the
    views that students are shown, from their first epoch on.
    """
    count = min(len(held_out), _FIDELITY_SAMPLES)

    def batches(cutmix: float) -> Iterator[Batch]:
        views = Views(replace(view_config, cutmix=cutmix), derive_seed(seed, "fidelity"), len(held_out))
        for samples in cut_samples(np.arange(count)):
            yield make_batch(held_out.images, held_out.labels, views, 0, samples, device)

    def shown() -> Iterator[Batch]:
        for epoch in range(-(-_FIDELITY_SAMPLES // len(condensed))):
            samples = np.arange(min(len(condensed), _FIDELITY_SAMPLES))
            yield make_batch(condensed.images, condensed.labels, condensed.views, epoch, samples, device)

    kinds = {"augmented": batches(0.0), "cutmix": batches(1.0), "condensed": shown()}
    found = []
    for name, each in kinds.items():
        ours, theirs = [], []
        for batch in each:
            with torch.no_grad():
                ours.append(generator(batch.views).float().cpu())
                theirs.append(teacher(batch.views).float().cpu())
        found.append(compare_logits(name, torch.cat(theirs), torch.cat(ours)))
    return tuple(found)


def require_above_chance(fidelity: Fidelity, classes: int) -> None:
    """Check that the generator agrees with the teacher more often than guessing would.

    The bound is the share 1 / ``classes`` plus four standard errors, or plus half of what is left to 1 if
    that is less.

    Raises:
        ProjectorError: it does not; a student would learn noise.
    """
    chance = 1.0 / classes
    margin = 4.0 * (chance * (1.0 - chance) / fidelity.samples) ** 0.5
    bound = chance + min(margin, (1.0 - chance) / 2.0)
    if not fidelity.agreement > bound:
        raise ProjectorError(
            compose(
                f"a label generator that agrees with the teacher on more than {bound:.1%} of held-out views "
                f"(chance is {chance:.1%})",
                f"{fidelity.agreement:.1%} on {fidelity.samples} views",
                "lower projector.fit.lr, train longer (projector.fit.epochs), raise projector.rank, or use a "
                "backbone that knows such images",
            )
        )

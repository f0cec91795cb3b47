"""The settings of a condensation, one frozen dataclass per stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from aerogel.condense.checks import check_residual, check_weak_teachers, check_width, last_weak_teacher
from aerogel.condense.codecs.naming import PREFIX, parse_codec, suggest
from aerogel.condense.identity import later
from aerogel.core.config import config
from aerogel.errors import ConfigError, compose

NetworkName = Literal["convnet", "resnet18", "resnet50", "mobilenet-v2", "vit-t", "swin-t"]
AdapterCodec = Literal["float32", "float16", "int8", "int7", "int6", "int5", "int4"]

# From the most faithful to the smallest; the first two are files that peft reads.
ADAPTER_CODECS: tuple[AdapterCodec, ...] = ("float32", "float16", "int8", "int7", "int6", "int5", "int4")
FLOAT_CODECS: tuple[AdapterCodec, ...] = ADAPTER_CODECS[:2]

# Stored labels may be written by any codec; these are the kinds that have no parameters.
LABEL_KINDS: tuple[str, ...] = ("generator", "teacher", "stored-fp32", "stored-fp16", "one-per-image", "hard")


def _positive(mistakes: list[str], owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if value is not None and not value > 0:
            mistakes.append(f"{name}: expected a number above 0; got {value}")


def _share(mistakes: list[str], owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if not 0.0 <= value <= 1.0:
            mistakes.append(f"{name}: expected a share between 0 and 1; got {value}")


def _find_unknown_labels(kind: str) -> str | None:
    """Return what is wrong with the name of a kind of labels, or None."""
    if kind in LABEL_KINDS:
        return None
    if not kind.startswith(PREFIX):
        close = suggest(kind, LABEL_KINDS)
        remedy = f"did you mean {close!r}?" if close else "choose one of these"
        return compose(f"one of {', '.join(LABEL_KINDS)}, or another label codec", repr(kind), remedy)
    try:
        parse_codec(kind)
    except ConfigError as fault:
        return str(fault)
    return None


@config("condense.views", version=1)
@dataclass(frozen=True)
class ViewConfig:
    """Set the augmentation of a training view: random resized crop, horizontal flip, CutMix.

    ``crop_scale`` is the range of the crop's area as a share of the image, ``crop_ratio`` of its width over
    height, ``flip`` and ``cutmix`` are probabilities. ``open_tiles`` lets a view of a mosaic show one of its
    patches, enlarged, in place of the whole mosaic; it changes nothing for images that are not mosaics.
    """

    crop_scale: tuple[float, float] = (0.5, 1.0)
    crop_ratio: tuple[float, float] = (0.75, 4.0 / 3.0)
    flip: float = 0.5
    cutmix: float = 0.5
    open_tiles: bool = True

    def check(self) -> list[str]:
        """Return what is wrong with the values, a sentence each."""
        mistakes: list[str] = []
        _share(mistakes, self, "flip", "cutmix")
        low, high = self.crop_scale
        if not 0.0 < low <= high <= 1.0:
            mistakes.append(f"crop_scale: expected 0 < low <= high <= 1; got [{low}, {high}]")
        low, high = self.crop_ratio
        if not 0.0 < low <= high:
            mistakes.append(f"crop_ratio: expected 0 < low <= high; got [{low}, {high}]")
        return mistakes


@config("condense.fit", version=1)
@dataclass(frozen=True)
class FitConfig:
    """Set one training run: AdamW, linear warm-up, cosine decay to zero, gradient clipping.

    ``lr`` is the peak learning rate, ``warmup`` the share of all steps that ramps up to it, ``clip`` the
    largest gradient norm, ``dtype`` what the forward pass computes in (weights and optimiser stay float32).
    """

    epochs: int = 20
    batch_size: int = 128
    lr: float = 2e-3
    weight_decay: float = 0.01
    warmup: float = 0.05
    clip: float = 1.0
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: bool = False

    def check(self) -> list[str]:
        """Return what is wrong with the values, a sentence each."""
        mistakes: list[str] = []
        _positive(mistakes, self, "epochs", "batch_size", "lr", "clip")
        _share(mistakes, self, "warmup")
        if not self.weight_decay >= 0:
            mistakes.append(f"weight_decay: expected 0 or more; got {self.weight_decay}")
        return mistakes


@config("condense.teacher", version=1)
@dataclass(frozen=True)
class TeacherConfig:
    """Set the classifier whose soft labels are condensed.

    ``path`` imports a trained one instead of training: a folder of an earlier teacher stage, a transformers
    image classifier (folder or hub name), or the weights file of a CIFAR ResNet. ``width`` None is the
    network's published one, 128 channels for ConvNet and 64 for a ResNet; ``depth`` is ConvNet's, the others
    come in one. ``snapshots`` are kept at equal distances along the run; the last is the teacher itself.
    ``held_out`` is the share of the training set that is kept from every fit, to choose learning rates and to
    measure fidelity on.
    """

    network: NetworkName = "convnet"
    width: int | None = None
    depth: int = 3
    path: str | None = None
    snapshots: int = 3
    held_out: float = 0.05
    label_smoothing: float = 0.0
    views: ViewConfig = field(default_factory=ViewConfig)
    fit: FitConfig = field(default_factory=FitConfig)

    def check(self) -> list[str]:
        """Return what is wrong with the values, a sentence each."""
        mistakes: list[str] = []
        _positive(mistakes, self, "width", "depth", "snapshots")
        mistakes += check_width("width", self.network, self.width)
        _share(mistakes, self, "label_smoothing")
        if not 0.0 < self.held_out < 0.5:
            mistakes.append(f"held_out: expected a share above 0 and below 0.5; got {self.held_out}")
        if self.snapshots > self.fit.epochs:
            mistakes.append(
                f"snapshots: expected at most one per epoch ({self.fit.epochs}); got {self.snapshots}"
            )
        return mistakes


@config("condense.selection", version=1)
@dataclass(frozen=True)
class SelectionConfig:
    """Set how starting images are picked (RDED, arXiv 2312.03526, section 4).

    Of every class, ``candidates`` images give ``crops`` random crops each (all images if fewer, or if 0); the
    crop that the teacher is surest of stands for its image, the best of them are tiled ``tiles`` x ``tiles``
    into one stored image. ``tiles`` "auto" is 2 from 96 pixels up and 1 below. ``order`` "confident" takes
    the surest images, as published; "representative" groups the candidates by k-means on the teacher's
    logits, one group per patch, and takes the surest of each group; "random" picks by chance, the baseline
    that every figure is held against.
    """

    candidates: int = 300
    crops: int = 5
    crop_scale: tuple[float, float] = (0.5, 1.0)
    tiles: int | Literal["auto"] = "auto"
    order: Literal["confident", "representative", "random"] = "representative"

    def check(self) -> list[str]:
        """Return what is wrong with the values, a sentence each."""
        mistakes: list[str] = []
        _positive(mistakes, self, "crops")
        if self.candidates < 0:
            mistakes.append(f"candidates: expected 0 (all) or more; got {self.candidates}")
        if isinstance(self.tiles, int) and self.tiles < 1:
            mistakes.append(f"tiles: expected 1 or more; got {self.tiles}")
        low, high = self.crop_scale
        if not 0.0 < low <= high <= 1.0:
            mistakes.append(f"crop_scale: expected 0 < low <= high <= 1; got [{low}, {high}]")
        return mistakes


@config("condense.projector", version=1)
@dataclass(frozen=True)
class ProjectorConfig:
    """Set the label generator: a frozen public backbone, a linear head, LoRA on both (arXiv 2408.08201).

    ``backbone`` is the name of one that ships, a folder or hub name of a transformers image network, or the
    file of EfficientNet-Lite0. ``rank`` is LoRA's on it, ``head_rank`` on the head; "full" stores the head's
    whole change, "auto" takes what is smaller in bytes: that, or LoRA of the backbone's rank. ``ce_weight``
    is the weight of the cross-entropy to the hard labels beside the MSE to the teachers' logits.
    ``weak_teachers`` averages the logits of that many of the last snapshots; 1 is the teacher alone, and a
    list such as [1, 3] names snapshots, from 1, the earliest. ``grid`` x ``grid`` cells of the backbone's
    feature maps feed the head; "auto" is 2 for a backbone without a text tower and images from 16 pixels up,
    else 1. ``target_epochs`` above 0 computes the teachers' logits once, for the views of that many epochs,
    and goes round these: most of an epoch is the teacher's forward pass. ``tune_epochs`` follow on views of
    the condensed images, the ones to be labelled, with a peak rate of ``tune_lr`` and one view of a real
    image to nine of theirs; ``tune_target_epochs`` is to them what ``target_epochs`` is to the real images.
    ``templates`` word the classes for a backbone with a text tower. ``dtype`` is what the numbers of the
    adapter are stored in; "float32" and "float16" give files that peft reads, "int8" to "int4" codes with a
    scale for each output channel. ``budget`` is the most bytes that the adapter's files may take: of
    ``dtype`` and the smaller ones, the most faithful that fits is then chosen. ``residual`` is a label codec,
    such as "stored-vq256": it stores what the finished generator leaves out of the teacher's logits, for the
    views of ``residual_epochs`` epochs, and students then go round these views; ours, not the paper's.
    """

    backbone: str = "aerogel/shapes-resnet8"
    rank: int = 8
    head_rank: int | Literal["auto", "full"] = "auto"
    ce_weight: float = 0.1
    weak_teachers: int | tuple[int, ...] = 1
    grid: int | Literal["auto"] = "auto"
    target_epochs: int = 0
    tune_epochs: int = 0
    tune_target_epochs: int = 0
    tune_lr: float = 5e-3
    templates: tuple[str, ...] = ("a photo of a {}.",)
    dtype: AdapterCodec = "float16"
    budget: int | None = later(None)
    residual: str | None = later(None)
    residual_epochs: int = later(0)
    fit: FitConfig = field(default_factory=FitConfig)

    def check(self) -> list[str]:
        """Return what is wrong with the values, a sentence each."""
        mistakes: list[str] = []
        _positive(mistakes, self, "rank", "tune_lr", "budget")
        mistakes += check_weak_teachers(self.weak_teachers)
        if isinstance(self.head_rank, int) and self.head_rank < 1:
            mistakes.append(f'head_rank: expected 1 or more, "auto" or "full"; got {self.head_rank}')
        if isinstance(self.grid, int) and self.grid < 1:
            mistakes.append(f'grid: expected 1 or more, or "auto"; got {self.grid}')
        if not 0 <= self.target_epochs <= self.fit.epochs:
            mistakes.append(
                f"target_epochs: expected 0 to fit.epochs ({self.fit.epochs}); got {self.target_epochs}"
            )
        if self.tune_epochs < 0:
            mistakes.append(f"tune_epochs: expected 0 (none) or more; got {self.tune_epochs}")
        if not 0 <= self.tune_target_epochs <= self.tune_epochs:
            mistakes.append(
                f"tune_target_epochs: expected 0 to tune_epochs ({self.tune_epochs}); "
                f"got {self.tune_target_epochs}"
            )
        if not self.ce_weight >= 0:
            mistakes.append(f"ce_weight: expected 0 or more; got {self.ce_weight}")
        mistakes += check_residual(self.residual, self.residual_epochs)
        for template in self.templates:
            if template.count("{}") != 1:
                mistakes.append(f'templates: expected one "{{}}" for the class name; got {template!r}')
        return mistakes


@config("condense.student", version=1)
@dataclass(frozen=True)
class StudentConfig:
    """Set the network trained on the condensed set, and its loss: MSE to soft labels + ``ce_weight`` x CE.

    ``labels`` are "generator", "teacher", "one-per-image", "hard" or the name of a label codec, such as
    "stored-fp16", "stored-top10" or "stored-pruned10+int8". ``width`` None is the network's published one, as
    for the teacher. Of several learning rates in ``lrs`` the best on held-out training images is taken;
    without any, it is ``fit.lr``. In place of "mse", ``loss`` can be "kl", the divergence of class
    probabilities at ``temperature`` (times its square with ``rescale_temperature``), or "cosine", GIFT's
    (arXiv 2405.14736). ``ema`` above 0 averages the weights
    with that decay; the average is what is scored after the last epoch.

    Of a comparison: ``hard_baseline`` adds the row of hard labels where ``labels`` lacks it,
    ``random_baseline`` real images picked by chance, ``full_baseline`` all real images with hard labels,
    trained as the teacher is (``teacher.fit``); ``plain_views`` adds the rows without augmentation that the
    augmentation-robust score needs. ``networks`` are trained beside ``network``, each with every kind of
    labels; ``network_widths`` are theirs in the same order, null for the published one.
    """

    network: NetworkName = "convnet"
    width: int | None = None
    depth: int = 3
    ce_weight: float = 0.1
    labels: tuple[str, ...] = ("generator", "stored-fp16", "one-per-image", "hard")
    random_baseline: bool = True
    seeds: tuple[int, ...] = (0,)
    lrs: tuple[float, ...] = ()
    fit: FitConfig = field(default_factory=lambda: FitConfig(epochs=300, batch_size=16, lr=2e-3))
    loss: Literal["mse", "kl", "cosine"] = later("mse")
    temperature: float = later(4.0)
    rescale_temperature: bool = later(False)
    ema: float = later(0.0)
    hard_baseline: bool = later(True)
    full_baseline: bool = later(False)
    plain_views: bool = later(False)
    networks: tuple[NetworkName, ...] = later(())
    network_widths: tuple[int | None, ...] = later(())

    @property
    def rates(self) -> tuple[float, ...]:
        """Return the learning rates to choose among."""
        return self.lrs or (self.fit.lr,)

    def check(self) -> list[str]:
        """Return what is wrong with the values, a sentence each."""
        mistakes: list[str] = []
        _positive(mistakes, self, "width", "depth")
        unknown = [fault for kind in self.labels if (fault := _find_unknown_labels(kind))]
        mistakes += [f"labels: {fault}" for fault in unknown]
        mistakes += check_width("width", self.network, self.width)
        if not self.seeds:
            mistakes.append("seeds: expected at least one; got none")
        if not all(rate > 0 for rate in self.lrs):
            mistakes.append(f"lrs: expected learning rates above 0; got {list(self.lrs)}")
        if not self.ce_weight >= 0:
            mistakes.append(f"ce_weight: expected 0 or more; got {self.ce_weight}")
        for name in ("labels", "seeds", "lrs", "networks"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                mistakes.append(f"{name}: expected each value once; got {list(values)}")
        _positive(mistakes, self, "temperature")
        if not 0.0 <= self.ema < 1.0:
            mistakes.append(f"ema: expected 0 (off) or a decay below 1; got {self.ema}")
        if self.plain_views and not (self.random_baseline and "stored-fp16" in self.labels):
            mistakes.append(
                "plain_views: expected random_baseline and stored-fp16 among labels beside it; "
                f"got {self.random_baseline} and {list(self.labels)}"
            )
        if self.network in self.networks:
            mistakes.append(f"networks: expected others than network; got {self.network}")
        if len(self.network_widths) not in (0, len(self.networks)):
            mistakes.append(
                f"network_widths: expected one for each of networks ({len(self.networks)}), or none; "
                f"got {len(self.network_widths)}"
            )
        if not all(width is None or width > 0 for width in self.network_widths):
            mistakes.append(f"network_widths: expected numbers above 0; got {list(self.network_widths)}")
        for network, width in zip(self.networks, self.network_widths, strict=False):
            mistakes += check_width("network_widths", network, width)
        return mistakes


@config("condense.refine", version=1)
@dataclass(frozen=True)
class RefineConfig:
    """Set the image update (arXiv 2408.08201): ``steps`` of Adam on the pixels of shrunk patches, 0 for none.

    ``lr`` is how far a step moves a pixel at most, in units where black is 0 and white 1.
    """

    steps: int = 0
    lr: float = 0.01

    def check(self) -> list[str]:
        """Return what is wrong with the values, a sentence each."""
        mistakes: list[str] = []
        _positive(mistakes, self, "lr")
        if self.steps < 0:
            mistakes.append(f"steps: expected 0 (none) or more; got {self.steps}")
        return mistakes


@config("condense", version=1)
@dataclass(frozen=True)
class CondenseConfig:
    """Set a whole condensation: what to read, how many images per class to keep, and each stage's settings.

    ``dataset`` is a path, a named source or a hub name; ``size`` the side of the square images in pixels
    (None: as they are); ``channels`` 1 or 3 (None: as they are).
    """

    dataset: str = ""
    ipc: int = 10
    size: int | None = None
    channels: Literal[1, 3] | None = None
    seed: int = 0
    device: str = "auto"
    skip_bad: bool = False
    views: ViewConfig = field(default_factory=ViewConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    projector: ProjectorConfig = field(default_factory=ProjectorConfig)
    student: StudentConfig = field(default_factory=StudentConfig)
    refine: RefineConfig = later(RefineConfig())  # noqa: RUF009 - frozen, and compared by value

    def check(self) -> list[str]:
        """Return what is wrong with the values, a sentence each."""
        mistakes: list[str] = []
        _positive(mistakes, self, "ipc")
        if self.size is not None and self.size < 8:
            mistakes.append(f"size: expected 8 pixels or more; got {self.size}")
        if self.refine.steps > 0 and self.selection.tiles == 1:
            mistakes.append("refine.steps: expected 0 where selection.tiles is 1, for nothing is shrunk")
        weak = self.projector.weak_teachers
        if not check_weak_teachers(weak) and last_weak_teacher(weak) > self.teacher.snapshots:
            shown = weak if isinstance(weak, int) else list(weak)
            mistakes.append(
                f"projector.weak_teachers: expected at most teacher.snapshots ({self.teacher.snapshots}); "
                f"got {shown}"
            )
        return mistakes

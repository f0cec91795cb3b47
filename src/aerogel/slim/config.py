"""The settings of slimming, one frozen dataclass per part."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from aerogel.core.config import config, to_dict
from aerogel.core.registry import nearest
from aerogel.slim.criteria import CRITERIA
from aerogel.slim.plan import Layout
from aerogel.slim.planning import Ranking
from aerogel.slim.ranking import NORMALIZERS, Normalizer

Method = Literal["alternate", "one-step"]
Augment = Literal["none", "flip", "crop", "mosaic"]
Padding = Literal["all", "windows", "none"]
Weighting = Literal["paper", "constant", "dynamic"]


@config("slim.score", version=1)
@dataclass(frozen=True)
class ScoreConfig:
    """Set how channels are ranked.

    ``criterion`` is one of `score_channels`; of the photos, ``photos`` are looked at, with ``draws`` of
    noise each. ``mlp`` says what ranks the MLPs' channels: the "criterion", or "least-squares", by what
    others cannot say for them (:func:`aerogel.slim.subset.score_mlps`); "auto" is the latter where the
    criterion is channel-fisher and what is left is fitted. ``ranking`` "local" gives every block the same
    widths; with "mlp" the blocks' MLPs compete for channels, with "global" their head dimensions too;
    "auto" is "global" for the flex layout, else "local". They are compared by ``normalizer``: "auto" is
    "none" for channel-fisher, whose scores are losses of the embedding in every block, and else
    "gaussian", as published. ``rescore`` ranks the MLPs anew once the heads are cut, which the published
    code does not.
    """

    criterion: str = "channel-fisher"
    mlp: Literal["auto", "criterion", "least-squares"] = "auto"
    photos: int = 64
    draws: int = 1
    ranking: Ranking | Literal["auto"] = "auto"
    normalizer: Normalizer | Literal["auto"] = "auto"
    rescore: bool = True

    @property
    def compares_by(self) -> Normalizer:
        """Return what makes scores of different blocks comparable."""
        if self.normalizer == "auto":
            return "none" if self.criterion == "channel-fisher" else "gaussian"
        return self.normalizer

    def check(self) -> list[str]:
        """Return what is wrong with the values, a sentence each."""
        mistakes = [
            f"{name}: expected 1 or more; got {getattr(self, name)}"
            for name in ("photos", "draws")
            if getattr(self, name) < 1
        ]
        if self.criterion not in CRITERIA.names():
            close = nearest(self.criterion, CRITERIA.names())
            hint = f"; did you mean {close!r}?" if close else ""
            known = ", ".join(CRITERIA.names())
            mistakes.append(f"criterion: expected one of {known}; got {self.criterion!r}{hint}")
        if self.normalizer not in ("auto", *NORMALIZERS):
            known = ", ".join(("auto", *NORMALIZERS))
            mistakes.append(f"normalizer: expected one of {known}; got {self.normalizer!r}")
        return mistakes


@config("slim.rotate", version=1)
@dataclass(frozen=True)
class RotateConfig:
    """Set whether the model is turned, before channels are scored, so that few of them say most of it.

    Its function stays the same; what is cut are then directions, not the channels that it was trained with.
    The basis is found on ``photos``; 0 leaves the model as it is, as published.
    """

    photos: int = 64

    def check(self) -> list[str]:
        """Return what is wrong with the values, a sentence each."""
        return [] if self.photos >= 0 else [f"photos: expected 0 or more; got {self.photos}"]


@config("slim.surgery", version=1)
@dataclass(frozen=True)
class SurgeryConfig:
    """Set what surgery keeps; each False puts a fault of the published code back, to measure its worth.

    ``positions`` slices and keeps relative positions (False: zero after each pruning), ``temperature`` keeps
    the logits of heads that lose dimensions (False: divided by the square root of what is left, which shows
    where nothing is reconstructed: fitted keys have the right size again).
    """

    positions: bool = True
    temperature: bool = True


@config("slim.reconstruct", version=1)
@dataclass(frozen=True)
class ReconstructConfig:
    """Set how layers are fitted after each pruning, by least squares, to what they gave before it.

    ``photos`` is how many are looked at, 0 to leave the weights as they were cut, as published; fewer are
    taken where their tokens would fill 2 GiB. ``ridge`` holds weights to their values after the cut, in
    shares of the mean square of what they are multiplied with, or of a hundredth of that of all inputs.
    """

    photos: int = 1024
    ridge: float = 0.03

    def check(self) -> list[str]:
        """Return what is wrong with the values, a sentence each."""
        mistakes = []
        if self.photos < 0:
            mistakes.append(f"photos: expected 0 or more; got {self.photos}")
        if not self.ridge > 0:
            mistakes.append(f"ridge: expected a number above 0; got {self.ridge}")
        return mistakes


@config("slim.align", version=1)
@dataclass(frozen=True)
class AlignConfig:
    """Set how a student is aligned with its teachers (arXiv 2312.05284, sections 3.2 and 4.1).

    ``batch_size`` is of one optimiser step, over all processes; each process computes its share in
    ``accumulate`` parts, to save memory: SAM-B at 1024 px takes 6.5 GiB photo by photo. ``lr`` is the peak of
    the rate, which a ``warmup`` share of all steps rises to and which then falls by ``schedule``, to zero if
    it falls. ``relative_steps`` multiplies each tensor's rate by the root mean square of its weights at the
    start (as Adafactor does, arXiv 1804.04235, section 8): after a fit these differ a hundredfold, and a
    step that suits one spoils another. ``clip`` is the largest norm of the gradient and ``weight_decay``
    AdamW's; 0 is none. ``ema`` above 0 ends with the moving average of the weights, decaying by that factor
    a step.

    The features weigh in for ``weight_epochs`` epochs (N in eq. 8; None: the first half of them, as the
    published 10 of 20; the published code has 11 in eq. 8).
    ``weighting`` "paper" is constant at ``weight`` for bottlenecks and falling ("dynamic") for the embedding.
    ``repair_qkv`` lets queries, keys and values of global blocks count, which the published code forgets.
    ``mask_padding`` "all" leaves out what fills up windows and photos, "windows" the former, "none" nothing,
    as published. ``relative`` divides each error by the mean square of what it is compared with. The
    published errors of the embedding are so small that the derivatives of many weights lie below the 1e-8
    that Adam adds to their size, and that the features' errors are hundreds of times larger.

    ``dtype`` is what is computed in (weights stay as they are). ``checkpoint_blocks`` computes each block
    twice instead of keeping all that happens in it. ``augment`` "flip" mirrors half of the photos, "crop"
    also cuts out a part of each, "mosaic" puts parts of four photos side by side in half of the views: anew
    in every epoch, or with ``views`` above 0 so many of each in turn.
    ``cache_bytes`` is how much disk the teacher's embeddings may take, in float16, of what is shown again:
    whole photos, and all views where these are so many.
    """

    epochs: int = 20
    batch_size: int = 4
    accumulate: int = 4
    lr: float = 3e-4
    relative_steps: bool = True
    optimiser: Literal["adam", "adamw"] = "adam"
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine", "linear"] = "cosine"
    warmup: float = 0.2
    clip: float = 0.0
    ema: float = 0.0
    weight: float = 0.5
    weight_epochs: int | None = None
    weighting: Weighting = "paper"
    repair_qkv: bool = True
    mask_padding: Padding = "all"
    relative: bool = True
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    checkpoint_blocks: bool = True
    cache_bytes: int = 8 * 2**30
    augment: Augment = "none"
    views: int = 0

    def identify(self) -> dict[str, Any]:
        """Return what decides what is learnt.

        How much memory and disk that may take does not: a run that ran short goes on with less.
        """
        spared = ("accumulate", "checkpoint_blocks", "cache_bytes")
        return {name: value for name, value in to_dict(self).items() if name not in spared}

    @property
    def feature_epochs(self) -> int:
        """Return for how many epochs, from the first, the features weigh in."""
        return -(-self.epochs // 2) if self.weight_epochs is None else self.weight_epochs

    def check(self) -> list[str]:
        """Return what is wrong with the values, a sentence each."""
        mistakes = []
        for name in ("epochs", "batch_size", "accumulate", "lr"):
            if not getattr(self, name) > 0:
                mistakes.append(f"{name}: expected a number above 0; got {getattr(self, name)}")
        for name in ("weight_decay", "clip", "weight_epochs", "cache_bytes", "views"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                mistakes.append(f"{name}: expected 0 or more; got {value}")
        for name in ("ema", "weight", "warmup"):
            if not 0.0 <= getattr(self, name) < 1.0:
                mistakes.append(f"{name}: expected a number from 0 to below 1; got {getattr(self, name)}")
        if self.weight_decay and self.optimiser == "adam":
            mistakes.append('weight_decay: expected 0 with adam; got a number: use optimiser "adamw"')
        if self.views and self.augment == "none":
            mistakes.append(f'views: expected 0 where augment is "none"; got {self.views}')
        return mistakes


@config("slim.masks", version=1)
@dataclass(frozen=True)
class MasksConfig:
    """Set how the aligned student learns its teacher's masks, encoder and mask decoder together.

    The published method ends before that and leaves the decoder as it is, and so do 0 ``epochs``. What is
    shown, and all that is not named here, is as in `AlignConfig`. About each view ``points`` are asked, drawn
    anew each time, and the boxes of the teacher's masks for them; about a share ``several`` of the views all
    guesses at each point instead. Of ``candidates`` times as many points those in small masks are preferred,
    so that small things are asked about too; 1 takes them as they fall. The more there are, the better small
    things come out and the worse large ones. ``lr`` is the encoder's rate and ``decoder_lr`` the decoder's, 0
    to leave it alone; ``output_weight`` what the embedding's error weighs beside the masks'. That a student
    should learn from prompts too is EdgeSAM's finding (arXiv 2312.06660, section 3.2).
    """

    epochs: int = 0
    lr: float = 1e-4
    decoder_lr: float = 1e-3
    points: int = 4
    candidates: int = 2
    several: float = 0.25
    output_weight: float = 0.5
    warmup: float = 0.1
    clip: float = 1.0

    def check(self) -> list[str]:
        """Return what is wrong with the values, a sentence each."""
        mistakes = [
            f"{name}: expected 0 or more; got {getattr(self, name)}"
            for name in ("epochs", "decoder_lr", "output_weight", "clip")
            if not getattr(self, name) >= 0
        ]
        if not self.lr > 0:
            mistakes.append(f"lr: expected a number above 0; got {self.lr}")
        for name in ("points", "candidates"):
            if getattr(self, name) < 1:
                mistakes.append(f"{name}: expected 1 or more; got {getattr(self, name)}")
        if not 0.0 <= self.several <= 1.0:
            mistakes.append(f"several: expected a share from 0 to 1; got {self.several}")
        if not 0.0 <= self.warmup < 1.0:
            mistakes.append(f"warmup: expected a number from 0 to below 1; got {self.warmup}")
        return mistakes


@config("slim", version=1)
@dataclass(frozen=True)
class SlimConfig:
    """Set a whole slimming: the model, the photos, how much goes, and each part's settings.

    ``model`` is a folder, a hub name or one that ships; ``images`` photos without labels, of which ``limit``
    are taken (None: all) and ``held_out`` kept back, to compare the slim model with its teacher on.
    ``ratio`` is the share of embedding and MLP channels that goes, ``mlp_ratio`` another one for the MLPs,
    ``heads`` how many heads stay (None: all). ``method`` "alternate" prunes and aligns twice, as published;
    "one-step" prunes once and aligns to the final embedding. ``bottleneck_epochs`` are passes of the
    first of two alignings, whose student is cut again (None: as many as of the other). ``start`` "random"
    forgets the weights of the encoder after cutting: the baseline that shows what they are worth. ``dtype``
    is that of the saved model; "auto" the teacher's.
    """

    model: str = ""
    images: str = ""
    limit: int | None = None
    held_out: int = 16
    ratio: float = 0.5
    mlp_ratio: float | None = None
    heads: int | None = None
    layout: Layout = "stock"
    method: Method = "alternate"
    bottleneck_epochs: int | None = None
    start: Literal["teacher", "random"] = "teacher"
    rotate: RotateConfig = field(default_factory=RotateConfig)
    score: ScoreConfig = field(default_factory=ScoreConfig)
    surgery: SurgeryConfig = field(default_factory=SurgeryConfig)
    reconstruct: ReconstructConfig = field(default_factory=ReconstructConfig)
    align: AlignConfig = field(default_factory=AlignConfig)
    masks: MasksConfig = field(default_factory=MasksConfig)
    seed: int = 0
    device: str = "auto"
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"

    def align_by(self, lesson: str) -> AlignConfig:
        """Return the settings of aligning as one lesson takes them: "bottleneck", "masks" or another."""
        if lesson == "masks":
            masks = self.masks
            return replace(self.align, epochs=masks.epochs, lr=masks.lr, warmup=masks.warmup, clip=masks.clip)
        if lesson == "bottleneck" and self.bottleneck_epochs is not None:
            return replace(self.align, epochs=self.bottleneck_epochs)
        return self.align

    @property
    def ranks_by(self) -> Ranking:
        """Return whether, and for what, blocks compete."""
        if self.score.ranking == "auto":
            return "global" if self.layout == "flex" else "local"
        return self.score.ranking

    @property
    def matches_mlps(self) -> bool:
        """Tell whether least squares rank the MLPs' channels."""
        if self.score.mlp == "auto":
            return self.score.criterion == "channel-fisher" and self.reconstruct.photos > 0
        return self.score.mlp == "least-squares"

    def check(self) -> list[str]:
        """Return what is wrong with the values, a sentence each."""
        mistakes = []
        for name in ("ratio", "mlp_ratio"):
            value = getattr(self, name)
            if value is not None and not 0.0 <= value < 1.0:
                mistakes.append(f"{name}: expected a share from 0 up to but not including 1; got {value}")
        for name, least in (("limit", 2), ("held_out", 1), ("heads", 1), ("bottleneck_epochs", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                mistakes.append(f"{name}: expected {least} or more; got {value}")
        if self.limit is not None and self.held_out >= self.limit:
            mistakes.append(f"held_out: expected fewer than limit ({self.limit}); got {self.held_out}")
        if self.layout == "stock" and self.ranks_by != "local":
            mistakes.append(
                f"score.ranking: expected local for the stock layout, whose blocks are alike; "
                f"got {self.score.ranking}"
            )
        if self.bottleneck_epochs is not None and self.method == "one-step":
            mistakes.append("bottleneck_epochs: expected none for the method one-step, which aligns once")
        if self.start == "random" and self.method != "one-step":
            mistakes.append(f"start: expected random with the method one-step only; got {self.method}")
        return mistakes

"""The losses of SlimSAM's two aligning phases, and their weights (arXiv 2312.05284, eq. 5 to 8)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aerogel.errors import MismatchError, compose
from aerogel.slim.features import Bottleneck, Features, mask_windows

# Features of both sides of one place, and the mask of their tokens.
_Pair = tuple[Tensor, Tensor, Tensor | None]


@dataclass(frozen=True)
class Loss:
    """Hold a loss to descend, a scalar, and the means that it is made of, by name, before their weights."""

    total: Tensor
    terms: Mapping[str, float]


def bottleneck_weight(epoch: int, epochs: int = 10, value: float = 0.5) -> float:
    """Return the weight of the bottleneck's features: ``value`` in the first ``epochs`` epochs, then 0.

    Epochs count from 0. Implements eq. 6 of arXiv 2312.05284.
    """
    return value if epoch < epochs else 0.0


def embedding_weight(epoch: int, epochs: int = 10) -> float:
    """Return the weight of the model before its pruning: from (N - 1) / N down to 0.

    N is ``epochs``, which count from 0. Implements eq. 8 of arXiv 2312.05284; the published code has N = 11.
    """
    return (epochs - epoch - 1) / epochs if epoch < epochs else 0.0


def mean_error(pairs: Iterable[_Pair], images: int, *, relative: bool = False) -> Tensor:
    """Return the mean squared error over all elements of several pairs, each image counting alike.

    Pairs are (one [N, h, w, C], other alike, boolean mask [N, h, w] or None for all), N a multiple of
    ``images`` with the parts of an image together. As in the published code pairs stand as if concatenated:
    an element counts alike in whichever pair it is, and so a pair with twice the channels counts twice. An
    image's mean is over its real tokens alone, so that the result depends neither on padding nor on which
    images come together. The gradient goes to the first of each pair alone. If ``relative``, each image's
    mean is divided by the mean square of the others, over the same tokens: 1 is the error of all zeros.

    Raises:
        MismatchError: the shapes differ, or there is no pair.
    """
    sums: list[Tensor] = []
    sizes: list[Tensor] = []
    for one, other, real in pairs:
        _require_alike(one, other)
        errors, count = _sum_by_image(one, other, real, images)
        sums.append(errors)
        if relative:
            count, _ = _sum_by_image(other.detach(), other.new_zeros(()), real, images)
        sizes.append(count)
    if not sums:
        raise MismatchError(
            compose("features to compare", "none", "observe both models with what the loss is of")
        )
    total, size = torch.stack(sums).sum(0), torch.stack(sizes).sum(0)
    # An image without a real token has no error, rather than none that is a number.
    return (total / torch.where(size > 0, size, 1)).mean()


def output_loss(student: Features, teacher: Features, *, relative: bool = False) -> Loss:
    """Return the error of what decoders see, MSE(t_student, t_teacher).

    That is the final embedding ("output") and, between SAM-HQ's with their decoders, what these make of the
    first global block ("details"), which the embedding does not show; both count alike. If ``relative``,
    errors are divided by the mean square of what the teacher says, as :func:`mean_error` does it.
    """
    terms = _output_terms(student, teacher, relative)
    return Loss(_add(terms), _read(terms))


def bottleneck_loss(
    student: Features, teacher: Features, weight: float, *, repaired: bool = True, relative: bool = False
) -> Loss:
    """Return the loss of bottleneck aligning: a · MSE(H) + (1 - a) · MSE(t), with a = ``weight``.

    MSE(H) is the sum of three means, as in the published code: over queries, keys and values of the windowed
    blocks ("window_qkv"), of the global ones ("global_qkv"), and over the MLPs' hidden channels ("hidden").
    Each is over all elements of all its blocks, so a wider block counts more. That code compares the global
    term with itself, so that it is always zero; without ``repaired`` it is zero here too. Implements eq. 5 of
    arXiv 2312.05284. At weight 0 bottlenecks need not have been observed. If ``relative``, each error is
    divided by the mean square of what the teacher has there.

    Raises:
        MismatchError: the bottlenecks have other widths, or were not observed.
    """
    if weight == 0:
        return output_loss(student, teacher, relative=relative)
    pairs = _pair_blocks(student.bottlenecks, teacher.bottlenecks)
    images, real = student.embedding.shape[0], student.real
    windows = [_qkv_pair(one, other, real) for one, other in pairs if one.window]
    whole = [_qkv_pair(one, other, real) for one, other in pairs if not one.window]
    terms = {}
    if windows:
        terms["window_qkv"] = mean_error(windows, images, relative=relative)
    if whole:
        error = mean_error(whole, images, relative=relative)
        terms["global_qkv"] = error if repaired else torch.zeros_like(error)
    hidden = ((one.hidden, other.hidden, real) for one, other in pairs)
    terms["hidden"] = mean_error(hidden, images, relative=relative)
    output = _output_terms(student, teacher, relative)
    return Loss(weight * _add(terms) + (1.0 - weight) * _add(output), _read({**terms, **output}))


def embedding_loss(
    student: Features,
    before: Features | None,
    teacher: Features,
    weight: float,
    *,
    relative: bool = False,
) -> Loss:
    """Return the loss of embedding aligning: a · (MSE(E1, E2) + MSE(t1, t2)) + (1 - a) · MSE(t0, t2).

    a is ``weight``; 2 is the student, 1 the model ``before`` its bottlenecks were pruned, 0 the first
    ``teacher``. MSE(E) ("residuals") is the mean over all elements of the residual stream at all its places.
    Heads and bottlenecks play no part, so the student may have fewer. At weight 0 ``before`` may be None.
    If ``relative``, each error is divided by the mean square of what the model to learn from has there.
    Implements eq. 7 of arXiv 2312.05284.

    Raises:
        MismatchError: the residual streams differ in width, or were not observed.
    """
    if weight == 0:
        return output_loss(student, teacher, relative=relative)
    if before is None or len(before.residuals) != len(student.residuals):
        got = "none before" if before is None else f"{len(before.residuals)} and {len(student.residuals)}"
        remedy = "observe both with residuals=True; pruned bottlenecks leave them as they are"
        raise MismatchError(compose("residual streams of the same places in both models", got, remedy))
    images, real = student.embedding.shape[0], student.real
    pairs = zip(before.residuals, student.residuals, strict=True)
    residuals = mean_error(((two, one, real) for one, two in pairs), images, relative=relative)
    former = _output_terms(student, before, relative)
    output = _output_terms(student, teacher, relative)
    terms = {"residuals": residuals, **{f"before_{name}": value for name, value in former.items()}}
    return Loss(weight * _add(terms) + (1.0 - weight) * _add(output), _read({**terms, **output}))


def mask_loss(errors: Mapping[str, Tensor], output: Loss, weight: float) -> Loss:
    """Return the loss of learning masks: the ``errors`` of masks and scores, and ``weight`` times ``output``.

    Output is what :func:`output_loss` gave, so that the embedding stays one that any decoder of the teacher's
    could read.
    """
    found = {name: float(error.detach()) for name, error in errors.items()}
    return Loss(_add(errors) + weight * output.total, {**found, **output.terms})


def _output_terms(student: Features, teacher: Features, relative: bool) -> dict[str, Tensor]:
    images, real = student.embedding.shape[0], student.real
    pair = _channels_last(student.embedding, teacher.embedding, real)
    terms = {"output": mean_error([pair], images, relative=relative)}
    if student.details is not None and teacher.details is not None:
        ratio = student.details.shape[-1] // student.embedding.shape[-1]
        fine = None if real is None else real.repeat_interleave(ratio, 1).repeat_interleave(ratio, 2)
        pair = _channels_last(student.details, teacher.details, fine)
        terms["details"] = mean_error([pair], images, relative=relative)
    return terms


def _channels_last(one: Tensor, other: Tensor, real: Tensor | None) -> _Pair:
    return one.permute(0, 2, 3, 1), other.permute(0, 2, 3, 1), real


def _pair_blocks(
    student: Sequence[Bottleneck], teacher: Sequence[Bottleneck]
) -> list[tuple[Bottleneck, Bottleneck]]:
    if not student or len(student) != len(teacher):
        got = f"{len(student)} and {len(teacher)}"
        remedy = "observe both with bottlenecks=True; they must have the same number of blocks"
        raise MismatchError(compose("bottlenecks of the same blocks in both models", got, remedy))
    pairs = list(zip(student, teacher, strict=True))
    for index, (one, other) in enumerate(pairs):
        ours, theirs = (each.heads for each in (one, other))
        if ours != theirs or one.window != other.window:
            got = (
                f"{ours} heads in windows of {one.window} and {theirs} in windows of {other.window} "
                f"in block {index}"
            )
            remedy = "prune heads and blocks only after this phase, or align by the output alone"
            raise MismatchError(compose("the same heads and windows in both models", got, remedy))
        _require_alike(one.qkv, other.qkv)
        _require_alike(one.hidden, other.hidden)
    return pairs


def _qkv_pair(one: Bottleneck, other: Bottleneck, real: Tensor | None) -> _Pair:
    return one.qkv, other.qkv, None if real is None else mask_windows(real, one.window)


def _require_alike(one: Tensor, other: Tensor) -> None:
    if one.shape != other.shape:
        raise MismatchError(
            compose(
                "features of the same shape on both sides",
                f"{list(one.shape)} and {list(other.shape)}",
                "compare models whose widths agree at this place: the one before and after its pruning, "
                "elsewhere than where it was pruned",
            )
        )


def _sum_by_image(one: Tensor, other: Tensor, real: Tensor | None, images: int) -> tuple[Tensor, Tensor]:
    """Return the sums of squared differences [images] and how many elements each is over."""
    if real is None:
        real = torch.ones(one.shape[:-1], dtype=torch.bool, device=one.device)
    if real.shape != one.shape[:-1]:
        got = f"{list(real.shape)} for features {list(one.shape)}"
        raise MismatchError(compose("a mask with one value for each token", got, "mask each as it lies"))
    errors: Tensor = _SquaredError.apply(one, other, real)  # type: ignore[no-untyped-call]
    counts = real.reshape(images, -1).sum(1).to(errors.dtype) * one.shape[-1]
    return errors.reshape(images, -1).sum(1), counts


class _SquaredError(torch.autograd.Function):
    """Sums squared differences over the channels of real tokens, keeping no difference for the way back.

    The plain expression would hold one more tensor as large as each feature until the backward pass. In the
    precision of the features, but in float32 at least.
    """

    @staticmethod
    def forward(ctx: Any, one: Tensor, other: Tensor, real: Tensor) -> Tensor:
        ctx.save_for_backward(one, other, real)
        return _subtract(one, other, real).square_().sum(-1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        one, other, real = ctx.saved_tensors
        found = _subtract(one, other, real).mul_(2.0 * gradient.unsqueeze(-1))
        return found.to(one.dtype), None, None


def _subtract(one: Tensor, other: Tensor, real: Tensor) -> Tensor:
    exact = torch.promote_types(torch.promote_types(one.dtype, other.dtype), torch.float32)
    difference = one.to(exact) - other.to(exact)
    return difference.masked_fill_(~real.unsqueeze(-1), 0.0)


def _add(terms: Mapping[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()


def _read(terms: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: float(value.detach()) for name, value in terms.items()}

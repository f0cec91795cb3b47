"""What pulls a student to its soft labels: squared error, divergence, or angle."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from aerogel.condense.config import StudentConfig
    from aerogel.condense.labels import Batch

SoftLoss = Callable[[Tensor, Tensor, "Batch"], Tensor]

HARD_SHARE = 0.1
SMOOTHING = 0.1


def match_logits(logits: Tensor, soft: Tensor, batch: Batch) -> Tensor:
    """Return the mean squared difference of the logits [B, classes] (arXiv 2408.08201, section 3.4)."""
    del batch
    return functional.mse_loss(logits, soft)


def match_probabilities(
    logits: Tensor, soft: Tensor, batch: Batch, *, temperature: float, rescale: bool
) -> Tensor:
    """Return the divergence KL(soft || student) of class probabilities at ``temperature``, in nats a view.

    ``rescale`` multiplies by the squared temperature, which keeps the gradient's size from falling with it
    (arXiv 1503.02531, section 2); RDED and SRe2L leave it out.
    """
    del batch
    student = functional.log_softmax(logits / temperature, 1)
    target = functional.log_softmax(soft / temperature, 1)
    divergence = functional.kl_div(student, target, reduction="batchmean", log_target=True)
    return divergence * temperature**2 if rescale else divergence


def match_direction(logits: Tensor, soft: Tensor, batch: Batch, *, temperature: float) -> Tensor:
    """Return one minus the cosine between the student's logits and the refined label, mean over B.

    The refined label is 0.9 parts of the soft label, as probabilities at ``temperature``, and 0.1 parts of
    the hard label, mixed as the view is and smoothed by 0.1; both have length 1. Implements the loss of GIFT
    (arXiv 2405.14736); its soft labels are given as they are, the temperature is ours.
    """
    refined = refine_labels(soft, batch, temperature)
    return (1.0 - functional.cosine_similarity(logits, refined, dim=1)).mean()


def refine_labels(soft: Tensor, batch: Batch, temperature: float) -> Tensor:
    """Mix soft logits [B, classes], as probabilities at ``temperature``, with the smoothed hard labels."""
    classes = soft.shape[1]
    own = functional.one_hot(batch.labels, classes).to(soft.dtype)
    partner = functional.one_hot(batch.partner_labels, classes).to(soft.dtype)
    weights = batch.weights[:, None]
    hard = (1.0 - SMOOTHING) * (weights * own + (1.0 - weights) * partner) + SMOOTHING / classes
    softened = functional.normalize((soft / temperature).softmax(1), dim=1)
    return HARD_SHARE * functional.normalize(hard, dim=1) + (1.0 - HARD_SHARE) * softened


def choose_loss(config: StudentConfig) -> SoftLoss:
    """Return the loss that ``config.loss`` names, with its temperature."""
    if config.loss == "kl":
        return partial(
            match_probabilities, temperature=config.temperature, rescale=config.rescale_temperature
        )
    if config.loss == "cosine":
        return partial(match_direction, temperature=config.temperature)
    return match_logits


def write_loss(config: StudentConfig) -> str:
    """Write the student's objective in a line, for manifests."""
    first = {
        "mse": "mse(logits)",
        "kl": f"{'T^2 ' if config.rescale_temperature else ''}kl(softmax(logits / T)), T = "
        f"{config.temperature:g},",
        "cosine": f"1 - cosine(logits, label refined at T = {config.temperature:g})",
    }[config.loss]
    return f"{first} + ce_weight * cross-entropy"

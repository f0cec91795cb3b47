"""Train a module epoch by epoch, resumable after a kill to the same weights, bit for bit."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from aerogel.condense.config import FitConfig
from aerogel.core.canonical import parse_json, show_value
from aerogel.core.crew import ALONE, Crew
from aerogel.core.devices import choose_dtype, is_cuda
from aerogel.core.documents import digest_tensors, read_tensors
from aerogel.core.folders import write_bytes_atomic
from aerogel.core.randomness import derive_seed, permutation, seed_torch
from aerogel.errors import DivergedError, IntegrityError, compose

_SAVE_EVERY_S = 20.0
_LOSSES_AT_ONCE = 50
_CHECKPOINT = "fit.safetensors"
_ANEW = "delete it, to begin anew"

BatchLoss = Callable[[int, np.ndarray], Tensor]


@dataclass(frozen=True)
class EpochState:
    """Tell what one epoch did: its number from 0, the mean loss over its batches, its seconds."""

    epoch: int
    loss: float
    seconds: float


def learning_rate(step: int, steps: int, config: FitConfig) -> float:
    """Return the rate at ``step`` of ``steps``: linear warm-up, then half a cosine down to zero."""
    warm = max(1, round(config.warmup * steps))
    if step < warm:
        return config.lr * (step + 1) / warm
    return config.lr * 0.5 * (1.0 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def fused(module: nn.Module, config: FitConfig) -> nn.Module:
    """Return the forward pass of ``module``, compiled where ``config.compile`` asks for it."""
    if not config.compile:
        return module
    return cast(nn.Module, torch.compile(module, dynamic=False))


def batches(seed: int, epoch: int, population: int, batch_size: int) -> list[np.ndarray]:
    """Return the sample ids of each batch of ``epoch``: a permutation cut into batches, the last one shorter.

    A last batch under a quarter of ``batch_size`` is joined to the one before it.
    """
    order = permutation(seed, "order", epoch, population)
    cuts = list(range(batch_size, population, batch_size))
    if cuts and population - cuts[-1] < max(2, batch_size // 4):
        cuts.pop()
    return np.split(order, cuts)


def share_loss(mean_loss: BatchLoss, crew: Crew) -> BatchLoss:
    """Return this process's part of ``mean_loss``, a mean over samples; the parts add up to the whole.

    Batches are the same whatever the number of processes, and each computes its share of one.
    """
    if crew.size == 1:
        return mean_loss

    def part(epoch: int, samples: np.ndarray) -> Tensor:
        share = crew.take_share(samples)
        if not len(share):
            return torch.zeros(())
        return mean_loss(epoch, share) * (len(share) / len(samples))

    return part


def fit(
    module: nn.Module,
    batch_loss: BatchLoss,
    *,
    config: FitConfig,
    population: int,
    seed: int,
    device: str,
    checkpoint: Path | None = None,
    save_after: frozenset[int] = frozenset(),
    crew: Crew = ALONE,
    after_step: Callable[[], None] | None = None,
) -> Iterator[EpochState]:
    """Train the parameters of ``module`` that require a gradient; yield after every epoch.

    ``batch_loss(epoch, samples)`` returns the scalar loss of the batch with those sample ids [B]. With
    ``checkpoint``, a folder, the run continues where the last saved epoch ended; what the module, the
    optimiser and the order of samples are then is what they would have been without the stop. The epochs
    before the resume point are not yielded again; those in ``save_after``, counted from 1, are saved only
    once the caller is done with them, so that a kill between the two repeats the epoch. ``after_step`` is
    called when the weights have moved; what it keeps in buffers of ``module`` is saved and continued too.

    Every process of a ``crew`` calls this alike, with its part of the loss as :func:`share_loss` makes it.
    Gradients are added up; running statistics of batch normalisations, which see each process's share, are
    averaged after every epoch. The first process saves, all read.

    Raises:
        DivergedError: the loss is no finite number.
        MismatchError: the processes do not train the same, or do not see the same checkpoint.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimiser = _build_optimiser(trained, config, device)
    half = choose_dtype(config.dtype, device).value == "bfloat16"
    steps_per_epoch = len(batches(seed, 0, population, config.batch_size))
    steps = config.epochs * steps_per_epoch
    history = _resume(module, optimiser, checkpoint) if checkpoint else []
    first = len(history)
    crew.require_agreement(f"{config}, {population} samples, seed {seed}, from epoch {first}")
    last_save = time.monotonic()
    for epoch in range(first, config.epochs):
        begin = time.monotonic()
        losses = _Losses(epoch, config, device)
        module.train()
        with seed_torch(derive_seed(seed, "epoch", str(epoch))):
            for index, samples in enumerate(batches(seed, epoch, population, config.batch_size)):
                rate = learning_rate(epoch * steps_per_epoch + index, steps, config)
                with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=half):
                    loss = batch_loss(epoch, samples)
                losses.append(crew.add(loss), last=index + 1 == steps_per_epoch)
                _step(optimiser, trained, loss, rate, config.clip, crew)
                if after_step is not None:
                    after_step()
        _average_statistics_(module, crew)
        history.append(float(np.mean(losses.values)))
        yield EpochState(epoch, history[-1], time.monotonic() - begin)
        late = time.monotonic() - last_save > _SAVE_EVERY_S
        if checkpoint and crew.leads and (late or epoch + 1 in {*save_after, config.epochs}):
            _save(module, optimiser, checkpoint, history)
            last_save = time.monotonic()


def read_losses(checkpoint: Path) -> list[float]:
    """Return the mean loss of every epoch of the run that saved to ``checkpoint``, resumed or not."""
    path = checkpoint / _CHECKPOINT
    if not os.path.lexists(path):
        return []
    tensors, facts = read_tensors(path)
    return _check_losses(path, tensors, facts)


def _check_losses(path: Path, tensors: dict[str, Tensor], facts: dict[str, str]) -> list[float]:
    """Return the losses in a checkpoint, once they are numbers and the tensors are those that were saved."""
    try:
        found = parse_json(facts["fit"].encode())
        losses: list[float] = found["losses"]
        sound = isinstance(losses, list) and all(type(loss) is float for loss in losses)
        # Those written before there were check sums have none.
        sound = sound and found.get("check", digest_tensors(tensors)) == digest_tensors(tensors)
    except (ValueError, LookupError, TypeError, AttributeError) as failure:
        raise _refuse_checkpoint(path, repr(failure)) from failure
    if not sound:
        raise _refuse_checkpoint(path, "other losses or tensors")
    return losses


def _refuse_checkpoint(path: Path, got: str) -> IntegrityError:
    return IntegrityError(compose(f"a whole checkpoint of this training at {path}", got, _ANEW))


def _build_optimiser(trained: list[nn.Parameter], config: FitConfig, device: str) -> torch.optim.Optimizer:
    """Build AdamW, on a GPU with all of a step in one kernel."""
    return torch.optim.AdamW(
        trained, lr=config.lr, weight_decay=config.weight_decay, fused=is_cuda(device) or None
    )


class _Losses:
    """Gather the losses of an epoch and check that they are finite.

    On a GPU several are read together: to read one waits for it, and the next steps with it.
    """

    def __init__(self, epoch: int, config: FitConfig, device: str) -> None:
        self.epoch = epoch
        self.config = config
        self.values: list[float] = []
        self._at_once = _LOSSES_AT_ONCE if is_cuda(device) else 1
        self._unread: list[Tensor] = []

    def append(self, loss: Tensor, *, last: bool) -> None:
        """Keep the loss of a step, and read it at once if it is the ``last`` of the epoch."""
        self._unread.append(loss.detach())
        if last or len(self._unread) == self._at_once:
            self.values += [_finite(each, self.epoch, self.config) for each in self._unread]
            self._unread.clear()


def _finite(loss: Tensor, epoch: int, config: FitConfig) -> float:
    value = float(loss)
    if not math.isfinite(value):
        raise DivergedError(
            compose(
                "a finite loss",
                f"{value} in epoch {epoch}",
                f"lower fit.lr ({config.lr}) or fit.clip ({config.clip})",
            )
        )
    return value


def _step(
    optimiser: torch.optim.Optimizer,
    trained: list[nn.Parameter],
    loss: Tensor,
    rate: float,
    clip: float,
    crew: Crew,
) -> None:
    """Update ``trained`` once, at learning rate ``rate``, with the gradient norm clipped to ``clip``."""
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.zero_grad(set_to_none=True)
    if loss.requires_grad:  # a process without a share has none
        loss.backward()
    crew.add_gradients_(trained)
    nn.utils.clip_grad_norm_(trained, clip)
    optimiser.step()


def _average_statistics_(module: nn.Module, crew: Crew) -> None:
    """Give all processes the mean of the running statistics that each gathered from its shares."""
    if crew.size == 1:
        return
    for layer in module.modules():
        running = (getattr(layer, name, None) for name in ("running_mean", "running_var"))
        # A frozen layer gathers none, and a mean over processes could be off by a rounding.
        if any(parameter.requires_grad for parameter in layer.parameters(recurse=False)):
            for values in running:
                if values is not None:
                    values.copy_(crew.add(values) / crew.size)


def _save(module: nn.Module, optimiser: torch.optim.Optimizer, folder: Path, losses: list[float]) -> None:
    """Write what training changes in module and optimiser, and the epochs' losses, whole or not."""
    frozen = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
    state = {name: value for name, value in module.state_dict().items() if name not in frozen}
    tensors = {f"module.{name}": value for name, value in state.items()}
    for index, moments in optimiser.state_dict()["state"].items():
        for name, value in moments.items():
            tensors[f"optimiser.{index}.{name}"] = value
    folder.mkdir(parents=True, exist_ok=True)
    clones = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    write_bytes_atomic(
        folder / _CHECKPOINT,
        save(clones, {"fit": json.dumps({"losses": losses, "check": digest_tensors(clones)})}),
    )


def _require_same_tensors(
    path: Path, module: nn.Module, optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]
) -> None:
    """Check that a checkpoint holds what :func:`_save` would write now, so that nothing is resumed by half.

    Raises:
        IntegrityError: a tensor is missing, too many, or of another shape.
    """
    frozen = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
    expected = {
        f"module.{name}": value.shape for name, value in module.state_dict().items() if name not in frozen
    }
    trained = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    for index, parameter in enumerate(trained):
        known = {"step": torch.Size(), "exp_avg": parameter.shape, "exp_avg_sq": parameter.shape}
        if any(name.startswith(f"optimiser.{index}.") for name in tensors):
            expected |= {f"optimiser.{index}.{name}": shape for name, shape in known.items()}
    found = {name: value.shape for name, value in tensors.items()}
    if found != expected or not all(value.isfinite().all() for value in tensors.values()):
        odd = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
        raise _refuse_checkpoint(path, f"other tensors: {show_value(odd[:3])}")


def _resume(module: nn.Module, optimiser: torch.optim.Optimizer, folder: Path) -> list[float]:
    """Load what :func:`_save` wrote, if anything, and return the losses of the epochs done."""
    path = folder / _CHECKPOINT
    if not os.path.lexists(path):
        return []
    tensors, facts = read_tensors(path)
    losses = _check_losses(path, tensors, facts)
    _require_same_tensors(path, module, optimiser, tensors)
    weights: dict[str, Tensor] = {}
    moments: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        if part == "module":
            weights[rest] = value
        else:
            index, _, moment = rest.partition(".")
            moments.setdefault(int(index), {})[moment] = value
    module.load_state_dict(weights, strict=False)
    state = optimiser.state_dict()
    optimiser.load_state_dict({"state": moments, "param_groups": state["param_groups"]})
    return losses

"""A run that is killed and resumed ends with the very weights of one that was not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.optimizer import register_optimizer_step_pre_hook

from aerogel.condense import fit as fit_module
from aerogel.condense.config import FitConfig
from aerogel.condense.fit import EpochState, batches, fit, learning_rate, read_losses
from aerogel.errors import AerogelError, DivergedError

POPULATION = 11
CONFIG = FitConfig(epochs=5, batch_size=4, lr=0.05, weight_decay=0.1, warmup=0.2, clip=0.5)
ALL = frozenset(range(1, CONFIG.epochs + 1))
RANDOM = np.random.default_rng(0)
IMAGES = torch.from_numpy(RANDOM.random((POPULATION, 2, 6, 6), dtype=np.float32))
LABELS = torch.from_numpy(RANDOM.integers(0, 3, POPULATION))


class Killed(Exception):
    """Stands for the end of the process."""


def build(seed: int = 0) -> nn.Module:
    """Make a network with all that a checkpoint has to keep: batch statistics, a counter, use of chance."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(64, 3)
    )


def loss_of(module: nn.Module, kill_at: tuple[int, int] | None = None) -> Callable[[int, np.ndarray], Tensor]:
    seen: dict[int, int] = {}

    def batch_loss(epoch: int, samples: np.ndarray) -> Tensor:
        batch = seen.setdefault(epoch, 0)
        seen[epoch] += 1
        if (epoch, batch) == kill_at:
            raise Killed
        chosen = torch.from_numpy(samples)
        return functional.cross_entropy(module(IMAGES[chosen]), LABELS[chosen])

    return batch_loss


def run(
    module: nn.Module,
    checkpoint: Path | None = None,
    kill_at: tuple[int, int] | None = None,
    *,
    config: FitConfig = CONFIG,
    save_after: frozenset[int] = ALL,
) -> list[EpochState]:
    return list(
        fit(
            module,
            loss_of(module, kill_at),
            config=config,
            population=POPULATION,
            seed=17,
            device="cpu",
            checkpoint=checkpoint,
            save_after=save_after,
        )
    )


def state(module: nn.Module) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in module.state_dict().items()}


def epochs_and_losses(states: list[EpochState]) -> list[tuple[int, float]]:
    return [(each.epoch, each.loss) for each in states]


# --- the same as plain torch --------------------------------------------------------------------------------


def test_fit_is_adamw_with_this_schedule_and_clipping() -> None:
    ours = build()
    found = run(ours)
    theirs = build()
    optimiser = torch.optim.AdamW(theirs.parameters(), lr=CONFIG.lr, weight_decay=CONFIG.weight_decay)
    step, losses = 0, []
    for epoch in range(CONFIG.epochs):
        theirs.train()
        epoch_losses = []
        with fit_module.seed_torch(fit_module.derive_seed(17, "epoch", str(epoch))):
            for samples in batches(17, epoch, POPULATION, CONFIG.batch_size):
                chosen = torch.from_numpy(samples)
                loss = functional.cross_entropy(theirs(IMAGES[chosen]), LABELS[chosen])
                optimiser.param_groups[0]["lr"] = (
                    CONFIG.lr * (step + 1) / 3
                    if step < 3
                    else CONFIG.lr * (1 + math.cos(math.pi * (step - 3) / 12)) / 2
                )
                optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(theirs.parameters(), CONFIG.clip)
                optimiser.step()
                epoch_losses.append(loss.item())
                step += 1
        losses.append(sum(epoch_losses) / len(epoch_losses))
    assert step == 15
    assert state(ours) == state(theirs)
    assert [each.epoch for each in found] == list(range(CONFIG.epochs))
    assert [each.loss for each in found] == pytest.approx(losses)
    assert all(each.seconds >= 0.0 for each in found)


def test_the_optimiser_sees_the_rates_and_clipped_gradients() -> None:
    rates, norms = [], []

    def watch(optimiser: torch.optim.Optimizer, *_: object) -> None:
        group = optimiser.param_groups[0]
        rates.append(group["lr"])
        norms.append(math.sqrt(sum(float(each.grad.square().sum()) for each in group["params"])))

    handle = register_optimizer_step_pre_hook(watch)
    try:
        run(build(), config=replace(CONFIG, clip=0.2))
    finally:
        handle.remove()
    assert rates == [learning_rate(step, 15, CONFIG) for step in range(15)]
    assert max(norms) <= 0.2 * (1 + 1e-5)
    assert max(norms) > 0.19


@pytest.mark.parametrize(("warmup", "warm"), [(0.0, 1), (0.05, 5), (0.2, 20), (1.0, 100)])
def test_the_rate_rises_in_a_line_and_falls_as_a_cosine(warmup: float, warm: int) -> None:
    config = FitConfig(lr=0.5, warmup=warmup)
    rates = [learning_rate(step, 100, config) for step in range(100)]
    assert rates[:warm] == pytest.approx([0.5 * (step + 1) / warm for step in range(warm)])
    left = 100 - warm
    assert rates[warm:] == pytest.approx([0.5 * math.cos(math.pi * k / left / 2) ** 2 for k in range(left)])
    assert max(rates) == pytest.approx(0.5)
    assert warm == 100 or rates[-1] < 0.001


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 3))
def test_batches_hold_every_sample_once(population: int, batch_size: int, epoch: int) -> None:
    made = batches(5, epoch, population, batch_size)
    assert sorted(np.concatenate(made).tolist()) == list(range(population))
    assert all(len(batch) == batch_size for batch in made[:-1])
    smallest = max(2, batch_size // 4)
    assert len(made[-1]) < batch_size + smallest
    assert len(made) == 1 or len(made[-1]) >= smallest


def test_every_epoch_and_seed_has_its_order() -> None:
    orders = {np.concatenate(batches(seed, epoch, 30, 8)).tobytes() for seed in (0, 1) for epoch in (0, 1)}
    assert len(orders) == 4


# --- resuming -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def straight() -> tuple[dict[str, bytes], list[tuple[int, float]]]:
    module = build()
    states = run(module)
    return state(module), epochs_and_losses(states)


@pytest.mark.parametrize("epoch", range(CONFIG.epochs))
@pytest.mark.parametrize("batch", [0, 2])
def test_a_killed_run_ends_like_a_straight_one(
    tmp_path: Path, straight: tuple[dict[str, bytes], list[tuple[int, float]]], epoch: int, batch: int
) -> None:
    with pytest.raises(Killed):
        run(build(), tmp_path, kill_at=(epoch, batch))
    # Another start than before would show in everything that the checkpoint does not hold.
    resumed = build(seed=0 if epoch == 0 else 123)
    torch.manual_seed(epoch)
    states = run(resumed, tmp_path)
    assert state(resumed) == straight[0]
    assert epochs_and_losses(states) == straight[1][epoch:]


def test_a_run_killed_again_and_again_ends_like_a_straight_one(
    tmp_path: Path, straight: tuple[dict[str, bytes], list[tuple[int, float]]]
) -> None:
    for epoch in range(1, CONFIG.epochs):
        with pytest.raises(Killed):
            run(build(), tmp_path, kill_at=(epoch, 1))
    last = build()
    assert [each.epoch for each in run(last, tmp_path)] == [CONFIG.epochs - 1]
    assert state(last) == straight[0]


def test_the_losses_of_all_epochs_are_kept_over_resumes(
    tmp_path: Path, straight: tuple[dict[str, bytes], list[tuple[int, float]]]
) -> None:
    assert read_losses(tmp_path) == []
    for epoch in (2, 4):
        with pytest.raises(Killed):
            run(build(), tmp_path, kill_at=(epoch, 1))
        assert len(read_losses(tmp_path)) == epoch
    run(build(), tmp_path)
    assert list(enumerate(read_losses(tmp_path))) == straight[1]


def test_a_kill_between_a_snapshot_and_its_checkpoint_repeats_the_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However slow the machine: only snapshots call for a save here.
    monkeypatch.setattr(fit_module, "_SAVE_EVERY_S", float("inf"))
    kept = frozenset({2, 5})

    def snapshots(kill_after: int | None) -> tuple[dict[int, dict[str, bytes]], list[int], nn.Module]:
        module, taken, epochs = build(), {}, []
        folder = tmp_path / ("straight" if kill_after is None else "killed")
        states = fit(
            module,
            loss_of(module),
            config=CONFIG,
            population=POPULATION,
            seed=17,
            device="cpu",
            checkpoint=folder,
            save_after=kept,
        )
        for each in states:
            epochs.append(each.epoch)
            if each.epoch + 1 in kept:
                taken[each.epoch + 1] = state(module)
            if each.epoch + 1 == kill_after:
                states.close()  # type: ignore[attr-defined]
                break
        return taken, epochs, module

    whole, _, straight = snapshots(None)
    assert sorted(whole) == [2, 5]
    before, _, _ = snapshots(2)
    assert not (tmp_path / "killed").exists()
    again, epochs, _ = snapshots(5)
    assert epochs == [0, 1, 2, 3, 4]
    assert before[2] == again[2] == whole[2]
    last, epochs, resumed = snapshots(5)
    assert epochs == [2, 3, 4]
    assert last[5] == again[5] == whole[5]
    assert state(resumed) == state(straight)


def test_a_finished_run_is_only_loaded(tmp_path: Path) -> None:
    first, second = build(), build(seed=9)
    run(first, tmp_path)
    before = (tmp_path / "fit.safetensors").read_bytes()
    assert run(second, tmp_path, kill_at=(0, 0)) == []
    assert state(second) == state(first)
    assert (tmp_path / "fit.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["fit.safetensors"]


@pytest.mark.parametrize(("every", "epochs"), [(-1.0, [3, 4]), (1e9, [0, 1, 2, 3, 4])])
def test_checkpoints_come_by_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: float, epochs: list[int]
) -> None:
    monkeypatch.setattr(fit_module, "_SAVE_EVERY_S", every)
    with pytest.raises(Killed):
        run(build(), tmp_path, kill_at=(3, 0), save_after=frozenset())
    assert [each.epoch for each in run(build(), tmp_path, save_after=frozenset())] == epochs


def test_frozen_parameters_neither_train_nor_lie_in_the_checkpoint(tmp_path: Path) -> None:
    module = build()
    module[0].requires_grad_(False)  # type: ignore[index]
    before = state(module)
    run(module, tmp_path)
    after = state(module)
    assert after["0.weight"] == before["0.weight"]
    assert after["5.weight"] != before["5.weight"]
    with safe_open(tmp_path / "fit.safetensors", framework="pt") as stored:
        names = set(stored.keys())
    assert not {"module.0.weight", "module.0.bias"} & names
    assert {"module.1.running_mean", "module.1.num_batches_tracked", "module.5.weight"} <= names
    assert {"optimiser.0.exp_avg", "optimiser.0.exp_avg_sq", "optimiser.0.step"} <= names
    other = build(seed=4)
    other[0].requires_grad_(False)  # type: ignore[index]
    mine = state(other)
    assert run(other, tmp_path) == []
    assert state(other)["0.weight"] == mine["0.weight"]
    assert state(other)["5.weight"] == after["5.weight"]


def test_chance_in_the_network_is_addressed_and_the_callers_is_left_alone() -> None:
    results = []
    for ambient in (1, 2):
        module = build()
        torch.manual_seed(ambient)
        before = torch.get_rng_state()
        run(module)
        assert torch.equal(torch.get_rng_state(), before)
        results.append(state(module))
    assert results[0] == results[1]


# --- trouble ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path, bad: float) -> None:
    module = build()
    good = loss_of(module)

    def batch_loss(epoch: int, samples: np.ndarray) -> Tensor:
        return good(epoch, samples) * (bad if epoch == 2 else 1.0)

    states = fit(
        module,
        batch_loss,
        config=CONFIG,
        population=POPULATION,
        seed=17,
        device="cpu",
        checkpoint=tmp_path,
        save_after=ALL,
    )
    with pytest.raises(
        DivergedError, match=rf"a finite loss; got {bad} in epoch 2; .*fit\.lr \(0\.05\)"
    ) as found:
        list(states)
    assert isinstance(found.value, AerogelError)
    assert isinstance(found.value, ArithmeticError)
    assert [each.epoch for each in run(build(), tmp_path)] == [2, 3, 4]


def test_bfloat16_is_for_the_forward_pass_only() -> None:
    seen = set()
    module = build()
    module[0].register_forward_hook(lambda *hooked: seen.add(hooked[2].dtype))  # type: ignore[index]
    run(module, config=replace(CONFIG, dtype="bfloat16"))
    assert seen == {torch.bfloat16}
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    exact = build()
    run(exact)
    assert state(module) != state(exact)

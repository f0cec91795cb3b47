"""A checkpoint gives back what was saved, to the run that saved it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from aerogel.errors import IntegrityError, MismatchError
from aerogel.slim.checkpoint import (
    Ledger,
    load_checkpoint,
    measure_checkpoint,
    pack_optimiser,
    read_epochs,
    save_checkpoint,
    unpack_optimiser_,
)

IDENTITY: dict[str, Any] = {"config": {"lr": 0.1, "epochs": 2}, "seed": 3, "before": None}


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path, IDENTITY) is None and read_epochs(tmp_path) == []
    ledger = Ledger()
    ledger.add({"loss": 0.1}, 2)
    ledger.add({"loss": 1 / 3, "output": 7.0}, 1)
    means = ledger.close_epoch()
    assert means == {"loss": (0.1 * 2 + 1 / 3) / 3, "output": 7.0 / 3}
    ledger.add({"loss": 0.7}, 2)
    tensors = {"student.a": torch.randn(3, 2).t(), "ema.a": torch.zeros((), dtype=torch.bfloat16)}
    save_checkpoint(tmp_path, IDENTITY, ledger, tensors)
    found = load_checkpoint(tmp_path, dict(reversed(IDENTITY.items())))
    assert found is not None and found[0] == ledger
    assert found[0].step == 3 and found[0].photos == 2
    assert all(torch.equal(found[1][name], each) for name, each in tensors.items())
    assert read_epochs(tmp_path) == [means]


def test_another_run_is_refused_with_what_differs(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, IDENTITY, Ledger(), {})
    other = {**IDENTITY, "config": {"lr": 0.2, "epochs": 2}, "before": "digest"}
    with pytest.raises(MismatchError, match=r"one where before, config\.lr differ"):
        load_checkpoint(tmp_path, other)


@pytest.mark.parametrize("content", [b"", b"nothing of the kind" * 9])
def test_a_damaged_file_is_reported(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "align.safetensors").write_bytes(content)
    with pytest.raises(IntegrityError, match="a whole checkpoint"):
        load_checkpoint(tmp_path, IDENTITY)
    with pytest.raises(IntegrityError, match="a whole checkpoint"):
        read_epochs(tmp_path)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_moments_come_back(kind: type[torch.optim.Optimizer]) -> None:
    def step(weight: torch.nn.Parameter, optimiser: torch.optim.Optimizer) -> None:
        optimiser.zero_grad()
        weight.pow(3).sum().backward()
        optimiser.step()

    weights = [torch.nn.Parameter(torch.linspace(-1, 1, 5)) for _ in range(2)]
    optimisers = [kind([each], lr=0.1) for each in weights]  # type: ignore[call-arg]
    for _ in range(3):
        step(weights[0], optimisers[0])
    weights[1].data.copy_(weights[0].data)
    packed = {name: each.clone() for name, each in pack_optimiser(optimisers[0]).items()}
    unpack_optimiser_(optimisers[1], packed)
    for weight, optimiser in zip(weights, optimisers, strict=True):
        step(weight, optimiser)
    assert torch.equal(weights[0], weights[1])


def test_its_size_is_known_before(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.zeros(100_000))
    optimiser = torch.optim.Adam([weight])
    weight.sum().backward()
    optimiser.step()
    tensors = {"student.weight": weight, "ema.weight": weight, **pack_optimiser(optimiser)}
    save_checkpoint(tmp_path, IDENTITY, Ledger(), tensors)
    written = (tmp_path / "align.safetensors").stat().st_size
    assert written <= measure_checkpoint({"weight": weight}, ema=True) < 1.1 * written

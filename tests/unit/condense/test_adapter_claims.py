from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import save_file
from torch import nn

from aerogel.condense.adapter_claims import read_floats, read_lora, require_fit, require_same_tensors
from aerogel.errors import IntegrityError, MismatchError

SETTINGS: dict[str, Any] = {
    "peft_type": "LORA",
    "r": 2,
    "lora_alpha": 4,
    "target_modules": ["backbone.conv", "head"],
    "modules_to_save": None,
    "rank_pattern": {"head": 3},
    "alpha_pattern": {"head": 6},
}


class Layers(nn.Module):
    """Two layers under one name, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.ModuleDict({"value": nn.Linear(4, 6)}) for _ in range(2))
        self.head = nn.Linear(6, 3)


def lora(**changes: Any) -> LoraConfig:
    return LoraConfig(**{"r": 2, "target_modules": ["blocks.0.value", "blocks.1.value"], **changes})


def test_settings_are_read_as_they_are_written_here_alone(tmp_path: Path) -> None:
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**SETTINGS, "runtime_config": {"evil": 1}, "auto_mapping": {"a": "os"}}))
    found = read_lora(path)
    assert (found.r, found.target_modules) == (2, {"backbone.conv", "head"})
    assert found.auto_mapping is None
    changes: list[dict[str, Any]] = [
        {"peft_type": "IA3"},
        {"r": 10**10},
        {"r": True},
        {"target_modules": ".*"},
        {"rank_pattern": {"(a+)+$": 1}},
        {"modules_to_save": ["backbone"]},
    ]
    for change in changes:
        path.write_text(json.dumps({**SETTINGS, **change}))
        with pytest.raises(IntegrityError, match="adapter_config"):
            read_lora(path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_numbers_are_read_in_two_types(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(2, dtype=dtype)}, path)
    assert torch.equal(read_floats(path)["a"], torch.ones(2, dtype=dtype))
    for odd in (torch.ones(2, dtype=torch.int32), torch.ones(2).double(), torch.tensor([torch.nan])):
        save_file({"a": odd}, path)
        with pytest.raises(IntegrityError, match="finite"):
            read_floats(path)


def test_tensors_must_be_those_of_a_fresh_adapter(tmp_path: Path) -> None:
    fresh = {"a": torch.zeros(2), "b": torch.zeros(3)}
    require_same_tensors(fresh, {"a": torch.ones(2), "b": torch.ones(3)}, tmp_path)
    with pytest.raises(MismatchError, match=r"the 2 tensors.*differing in b"):
        require_same_tensors(fresh, {"a": torch.ones(2)}, tmp_path)


def test_ranks_must_be_within_the_numbers_that_are_stored(tmp_path: Path) -> None:
    layers = Layers()
    require_fit(layers, lora(), 2 * 2 * (4 + 6), tmp_path)
    for config, held in ((lora(), 39), (lora(r=2**30), 1000)):
        with pytest.raises(MismatchError, match="ranks that need"):
            require_fit(layers, config, held, tmp_path)


def test_the_end_of_a_name_means_every_layer_that_ends_so(tmp_path: Path) -> None:
    layers = Layers()
    short = lora(target_modules=["value"])
    require_fit(layers, short, 40, tmp_path)
    with pytest.raises(MismatchError, match="ranks that need 40"):
        require_fit(layers, short, 39, tmp_path)
    for name in ("alue", "blocks.2.value", "blocks.0.value.weight"):
        with pytest.raises(MismatchError, match="lacks"):
            require_fit(layers, lora(target_modules=[name]), 40, tmp_path)

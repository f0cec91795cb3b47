from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from aerogel.errors import DataError
from aerogel.zoo.inspection import inspect_folder, inspect_pipeline


def write(folder: Path, config: Any, name: str = "config.json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(config))
    return folder


def test_a_sound_model_passes(tmp_path: Path) -> None:
    save_file({f"layers.{n}.weight": torch.zeros(1) for n in range(4)}, tmp_path / "model.safetensors")
    config = {"num_hidden_layers": 4, "hidden_size": 768, "vision_feature_size": -1, "depths": [2, 2]}
    config |= {"num_block_repeats": [1, 1], "depth_coefficient": 1.0, "width_coefficient": 1.2}
    inspect_folder(write(tmp_path, config))
    inspect_folder(
        write(tmp_path, {"weight_map": {"a": "model.safetensors"}}, "model.safetensors.index.json")
    )


@pytest.mark.parametrize(
    "config",
    [
        {"num_hidden_layers": 5},
        {"vision_config": {"depths": [1, 10**9]}},
        {"vision_config": None},
        {"depths": [2, 3]},
        {"num_block_repeats": [1, 4]},
        {"num_block_repeats": [1, 2], "depth_coefficient": 2.0},
        {"depth_coefficient": 1e6},
        {"width_coefficient": -1.0},
        {"depth_multiplier": 65},
        {"text_config": {"patch_size": 0}},
        {"num_hidden_layers": -1},
        {"num_labels": 10**9},
        {"text_config": {"attn_implementation": "owner/kernel"}},
        {"quantization_config": {"quant_method": "any"}},
        ["no object"],
    ],
)
def test_what_a_config_claims_is_bounded(tmp_path: Path, config: Any) -> None:
    save_file({f"layers.{n}.weight": torch.zeros(1) for n in range(4)}, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match=str(tmp_path)):
        inspect_folder(write(tmp_path, config))


@pytest.mark.parametrize("place", ["../model.safetensors", "/model.safetensors", "model.bin"])
def test_weights_lie_in_the_folder(tmp_path: Path, place: str) -> None:
    with pytest.raises(DataError, match="index"):
        inspect_folder(write(tmp_path, {"weight_map": {"a": place}}, "model.safetensors.index.json"))


def test_integers_are_no_weights(tmp_path: Path) -> None:
    save_file({"a.weight": torch.zeros(1, dtype=torch.int32)}, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match=r"floating-point.*a\.weight"):
        inspect_folder(write(tmp_path, {}))


def test_an_adapter_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="adapter"):
        inspect_folder(write(write(tmp_path, {}), {}, "adapter_config.json"))


def test_the_parts_of_a_pipeline_come_from_known_libraries(tmp_path: Path) -> None:
    index = {"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"], "class_names": ["a", "b"]}
    write(tmp_path / "unet", {"layers_per_block": 2})
    inspect_pipeline(write(tmp_path, index, "model_index.json"))
    inspect_pipeline(
        write(tmp_path, {**index, "safety_checker": ["stable_diffusion", "X"]}, "model_index.json")
    )
    for part in (["os", "system"], ["../unet", "Evil"], ["diffusers", "a.b"]):
        with pytest.raises(DataError, match="unet"):
            inspect_pipeline(write(tmp_path, {**index, "unet": part}, "model_index.json"))
    with pytest.raises(DataError, match="class"):
        inspect_pipeline(write(tmp_path, {**index, "_class_name": ["code", "Evil"]}, "model_index.json"))

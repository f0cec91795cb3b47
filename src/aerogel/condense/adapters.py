"""Store the label generator's adapter in the number format that was asked for, or that a budget allows."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peft import PeftModel, get_peft_model, get_peft_model_state_dict
from torch import nn

from aerogel.condense.adapter_codecs import encode
from aerogel.condense.config import ADAPTER_CODECS, FLOAT_CODECS, AdapterCodec, ProjectorConfig
from aerogel.condense.families import Backbone
from aerogel.condense.projector import (
    ADAPTER_CODES,
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    Projector,
    adapt,
    read_origins,
    save_adapter,
)
from aerogel.core.folders import write_bytes_atomic, write_text_atomic
from aerogel.core.randomness import seed_torch
from aerogel.errors import ConfigError, compose

# What loading reads of LoRA's settings, and what peft's own file says besides to be recognised.
_SETTINGS = ("alpha_pattern", "lora_alpha", "modules_to_save", "peft_type", "r", "rank_pattern")


def store_adapter(adapted: PeftModel, plain: Projector, folder: Path, codec: AdapterCodec) -> int:
    """Write ``adapted`` into ``folder`` in ``codec`` and return the bytes of its files.

    "float32" and "float16" are files that peft reads. "int8" to "int4" are the codes of what training
    changed in ``plain``, the projector that ``adapted`` started as, which is used up; with the few settings
    that loading needs. Files of another codec in the folder are removed.

    Raises:
        ProjectorError: a number is not finite, or too large to be stored.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if codec in FLOAT_CODECS:
        (folder / ADAPTER_CODES).unlink(missing_ok=True)
        save_adapter(adapted, folder, getattr(torch, codec))
        return sum((folder / name).stat().st_size for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS))
    lora: Any = adapted.peft_config["default"]
    with seed_torch(0):
        origins = read_origins(get_peft_model(plain, copy.deepcopy(lora)))
    state = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    changes = {key: state[key].detach().float().cpu() - value for key, value in origins.items()}
    (folder / ADAPTER_WEIGHTS).unlink(missing_ok=True)
    write_bytes_atomic(folder / ADAPTER_CODES, encode(changes, codec))
    settings = lora.to_dict()
    kept = {name: settings[name] for name in _SETTINGS} | {"target_modules": sorted(lora.target_modules)}
    write_text_atomic(folder / ADAPTER_CONFIG, json.dumps(kept, sort_keys=True, separators=(",", ":")) + "\n")
    return sum((folder / name).stat().st_size for name in (ADAPTER_CONFIG, ADAPTER_CODES))


def choose_codec(backbone: Backbone, config: ProjectorConfig, classes: int) -> AdapterCodec:
    """Return ``config.dtype``, or with a budget the most faithful of it and the smaller ones that fits.

    An adapter's bytes depend on shapes alone, so that this is known before any training: one of zeros is
    written in each codec and its files are weighed.

    Raises:
        ConfigError: not even the smallest fits.
    """
    if config.budget is None:
        return config.dtype
    size = 0
    for codec in ADAPTER_CODECS[ADAPTER_CODECS.index(config.dtype) :]:
        size = weigh_adapter(backbone, replace(config, dtype=codec), classes)
        if size <= config.budget:
            return codec
    raise ConfigError(
        compose(
            f"an adapter of at most {config.budget:,} bytes (projector.budget)",
            f"{size:,} bytes in {ADAPTER_CODECS[-1]}, the smallest",
            f"raise projector.budget to {size} or more, or lower projector.rank ({config.rank}) or "
            f"projector.head_rank ({config.head_rank})",
        )
    )


def weigh_adapter(backbone: Backbone, config: ProjectorConfig, classes: int) -> int:
    """Return the bytes of the adapter's files in ``config.dtype``, by writing an untrained one."""

    def blank() -> Projector:
        head = nn.Linear(backbone.features, classes)
        shift, scale = torch.zeros(backbone.features), torch.ones(backbone.features)
        projector = Projector(copy.deepcopy(backbone.module), head, shift, scale, backbone.name)
        return projector.requires_grad_(False)

    with seed_torch(0), TemporaryDirectory() as folder:
        adapted = adapt(blank(), backbone, config, classes)
        return store_adapter(adapted, blank(), Path(folder), config.dtype)

"""The label generator: a frozen public backbone, a linear head, low-rank changes (arXiv 2408.08201)."""

from __future__ import annotations

import copy
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from safetensors.torch import save
from torch import Tensor, nn

from aerogel.condense.adapter_claims import read_floats, read_lora, require_fit, require_same_tensors
from aerogel.condense.adapter_codecs import count_bytes, count_codes, decode
from aerogel.condense.config import ProjectorConfig
from aerogel.condense.families import Backbone
from aerogel.core.folders import write_bytes_atomic, write_text_atomic
from aerogel.core.randomness import seed_torch
from aerogel.errors import IntegrityError, MismatchError, compose

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CODES = "adapter_codes.safetensors"
ADAPTER_CONFIG = "adapter_config.json"

_HEAD = "head"
# A head that is stored whole: its bias under a second name, and the bias that it replaced.
_ECHO = f".{_HEAD}.modules_to_save.bias"
_UNUSED = f".{_HEAD}.original_module.bias"


class Projector(nn.Module):
    """Map images to logits: standardised features of a frozen backbone times a linear head.

    ``shift`` and ``scale`` [d] standardise the features. The backbone stays in evaluation mode whatever
    ``train()`` asks, so that its normalisation statistics never move. ``name_or_path`` names the backbone to
    peft, which writes it into the adapter's config.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self, backbone: nn.Module, head: nn.Linear, shift: Tensor, scale: Tensor, name: str = ""
    ) -> None:
        super().__init__()
        self.name_or_path = name
        self.backbone = backbone
        self.head = head
        self.register_buffer("shift", shift)
        self.register_buffer("scale", scale)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, classes] in float32 for ``images`` [B, C, S, S] in [0, 1]."""
        features = self.backbone(images)
        logits: Tensor = self.head((features - self.shift) * self.scale)
        return logits.float()

    def train(self, mode: bool = True) -> Projector:
        """Set the head's mode only."""
        super().train(mode)
        self.backbone.eval()
        return self


def _features(backbone: Backbone, images: Tensor) -> Tensor:
    """Return the features [N, d] of uint8 ``images`` [N, C, S, S]."""
    with torch.no_grad():
        return torch.cat([backbone.module(part.float() / 255.0).float() for part in images.split(256)])


def build_projector(
    backbone: Backbone, images: Tensor, labels: Tensor, classes: tuple[str, ...], templates: tuple[str, ...]
) -> Projector:
    """Build the projector with its initial head; nothing of that head needs storing.

    With a text tower, the head's rows are the class names' embeddings times its temperature, and zeros for
    the cells of a grid, so the projector is the zero-shot classifier (Proposition 1 of arXiv 2408.08201).
    Without one, the rows are the class means of the standardised features of the condensed ``images``
    [N, C, S, S] (uint8) with ``labels`` [N], and the bias is that of the nearest-mean classifier; both can be
    computed again from the condensed set.
    """
    with seed_torch(0):
        head = nn.Linear(backbone.features, len(classes))
    shift, scale = torch.zeros(backbone.features), torch.ones(backbone.features)
    with torch.no_grad():
        if backbone.text is not None:
            rows = backbone.text(classes, templates)
            head.weight.zero_()[:, : rows.shape[1]] = rows
            head.bias.fill_(backbone.logit_bias)
            scale *= backbone.logit_scale
        else:
            features = _features(backbone, images)
            shift = features.mean(0)
            scale = 1.0 / features.std(0).clamp_min(1e-3)
            features = (features - shift) * scale
            means = torch.stack([features[labels == index].mean(0) for index in range(len(classes))])
            temperature = backbone.features**0.5
            head.weight.copy_(means / temperature)
            head.bias.copy_(-means.square().sum(1) / (2.0 * temperature))
            head.bias.sub_(head.bias.mean())
    # A copy, for peft replaces layers in place and the backbone serves again for the next plain projector.
    projector = Projector(copy.deepcopy(backbone.module), head, shift, scale, backbone.name)
    return projector.requires_grad_(False)


def head_storage(config: ProjectorConfig, features: int, classes: int) -> int | None:
    """Return LoRA's rank on the head, or None where the head's whole change is stored.

    "auto" takes LoRA of the backbone's rank unless the whole change is smaller in bytes: in the float formats
    where r (d + C) >= d C.
    """
    if config.head_rank == "full":
        return None
    if config.head_rank == "auto":
        factors = ((config.rank, features), (classes, config.rank))
        low, whole = (count_bytes(shapes, config.dtype) for shapes in (factors, [(classes, features)]))
        return config.rank if low < whole else None
    return int(config.head_rank)


def adapt(
    projector: Projector, backbone: Backbone, config: ProjectorConfig, classes: int, *, seed: int = 0
) -> PeftModel:
    """Wrap the projector with LoRA on backbone targets and head; only these and the biases train.

    The low-rank product starts at zero, so the adapted projector starts as the plain one; its random factor
    depends on ``seed`` alone.
    """
    rank = head_storage(config, backbone.features, classes)
    targets = [f"backbone.{name}" for name in backbone.lora_targets]
    settings: dict[str, Any] = {"rank_pattern": {}, "alpha_pattern": {}}
    if rank is None:
        settings["modules_to_save"] = [_HEAD]
    else:
        targets.append(_HEAD)
        settings["rank_pattern"][_HEAD] = rank
        settings["alpha_pattern"][_HEAD] = 2 * rank
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=2 * config.rank,
        lora_dropout=0.0,
        target_modules=targets,
        bias="all",
        base_model_name_or_path=backbone.name,
        **settings,
    )
    with seed_torch(seed):
        return get_peft_model(projector, lora)


def save_adapter(adapted: PeftModel, folder: Path, dtype: torch.dtype) -> None:
    """Write ``adapter_model.safetensors`` in ``dtype`` and ``adapter_config.json``, as peft reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    # peft names the bias of a head that is stored whole twice; safetensors refuses tensors that share memory.
    tensors = {key: value.detach().cpu().to(dtype, copy=True).contiguous() for key, value in weights.items()}
    write_bytes_atomic(folder / ADAPTER_WEIGHTS, save(tensors))
    lora = adapted.peft_config["default"].to_dict() | {"inference_mode": True}
    # peft keeps the targets in a set, whose order is another in every process.
    lora["target_modules"] = sorted(lora["target_modules"])
    write_text_atomic(folder / ADAPTER_CONFIG, json.dumps(lora, indent=2, sort_keys=True) + "\n")


def load_adapter(projector: Projector, folder: Path) -> PeftModel:
    """Open an adapter that was stored over its plain projector, for inference; codes become float32 here.

    Raises:
        IntegrityError: the adapter's files are damaged.
        MismatchError: the adapter belongs to another backbone or another number of classes.
    """
    coded = os.path.lexists(folder / ADAPTER_CODES)
    if coded and os.path.lexists(folder / ADAPTER_WEIGHTS):
        got = f"{ADAPTER_CODES} and {ADAPTER_WEIGHTS} in {folder}"
        raise IntegrityError(compose("one file of weights", got, "fetch the folder again"))
    stored = {} if coded else read_floats(folder / ADAPTER_WEIGHTS)
    held = count_codes(folder / ADAPTER_CODES) if coded else sum(value.numel() for value in stored.values())
    lora = read_lora(folder / ADAPTER_CONFIG)
    require_fit(projector, lora, held, folder)
    try:
        with seed_torch(0):
            adapted = get_peft_model(projector, lora)
    except (RuntimeError, ValueError) as failure:
        raise MismatchError(
            compose(
                "an adapter made for this backbone and these classes",
                f"one that does not fit ({str(failure).splitlines()[0]})",
                "load the backbone named in the manifest",
            )
        ) from failure
    fresh = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    if coded:
        stored = _read_codes(folder, adapted, fresh)
    else:
        require_same_tensors(fresh, stored, folder / ADAPTER_WEIGHTS)
    set_peft_model_state_dict(adapted, stored)
    return adapted.float().eval().requires_grad_(False)


def _read_codes(folder: Path, adapted: PeftModel, fresh: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of an adapter stored as codes, from the ``fresh`` ones of ``adapted``."""
    origins = read_origins(adapted)
    changes = decode(folder / ADAPTER_CODES, {key: tuple(value.shape) for key, value in origins.items()})
    stored = {key: value + changes[key] for key, value in origins.items()}
    for key, value in fresh.items():
        if key.endswith(_ECHO):
            stored[key] = stored[key.replace(".modules_to_save.", ".")]
        elif key not in stored:
            stored[key] = value
    return stored


def read_origins(fresh: PeftModel) -> dict[str, Tensor]:
    """Return what each tensor of an untrained adapter is before it changes, in float32.

    That is 0 for a low-rank factor, and for biases and a head whose whole change is stored the plain
    projector's own numbers, which are made again from backbone, class names and images. What peft holds twice
    is left out.
    """
    state = get_peft_model_state_dict(fresh, save_embedding_layers=False)
    return {
        key: torch.zeros(value.shape) if ".lora_" in key else value.detach().float().cpu()
        for key, value in state.items()
        if not key.endswith((_ECHO, _UNUSED))
    }


@dataclass(frozen=True)
class Fidelity:
    """Tell how close the generator's labels are to the teacher's on one kind of views.

    ``agreement`` is the share of views with the same top class, ``kl`` the mean Kullback-Leibler divergence
    of the generator's from the teacher's class probabilities in nats, ``mse`` the mean squared difference of
    the logits.
    """

    views: str
    agreement: float
    kl: float
    mse: float
    samples: int


def compare_logits(views: str, teacher: Tensor, generated: Tensor) -> Fidelity:
    """Compare logits [N, classes] of the teacher and the generator for the same views."""
    log_teacher, log_generated = teacher.log_softmax(1), generated.log_softmax(1)
    kl = (log_teacher.exp() * (log_teacher - log_generated)).sum(1).mean()
    return Fidelity(
        views=views,
        agreement=float((teacher.argmax(1) == generated.argmax(1)).float().mean()),
        kl=float(kl),
        mse=float((teacher - generated).square().mean()),
        samples=len(teacher),
    )

"""The label generator: a frozen public backbone, a linear head, low-rank changes (arXiv 2408.08201)."""

from __future__ import annotations

import copy
import json
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

from aerogel.condense.config import ProjectorConfig
from aerogel.condense.families import Backbone
from aerogel.core.canonical import show_value
from aerogel.core.documents import read_object, read_tensors
from aerogel.core.folders import write_bytes_atomic, write_text_atomic
from aerogel.core.randomness import seed_torch
from aerogel.errors import IntegrityError, MismatchError, compose

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"

_HEAD = "head"
_LARGEST = 2**31


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

    With a text tower, the head's rows are the class names' embeddings times CLIP's temperature, so the
    projector is the zero-shot classifier (Proposition 1 of arXiv 2408.08201). Without one, the rows are the
    class means of the standardised features of the condensed ``images`` [N, C, S, S] (uint8) with ``labels``
    [N], and the bias is that of the nearest-mean classifier; both can be computed again from the condensed
    set.
    """
    with seed_torch(0):
        head = nn.Linear(backbone.features, len(classes))
    shift, scale = torch.zeros(backbone.features), torch.ones(backbone.features)
    with torch.no_grad():
        if backbone.text is not None:
            head.weight.copy_(backbone.text(classes, templates))
            head.bias.zero_()
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

    "auto" takes LoRA of the backbone's rank unless the whole head is smaller: r (d + C) < d C.
    """
    if config.head_rank == "full":
        return None
    if config.head_rank == "auto":
        return config.rank if config.rank * (features + classes) < features * classes else None
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
    """Open an adapter that :func:`save_adapter` wrote over its plain projector, for inference.

    Raises:
        IntegrityError: the adapter's files are damaged.
        MismatchError: the adapter belongs to another backbone or another number of classes.
    """
    stored, _ = read_tensors(folder / ADAPTER_WEIGHTS)
    lora = _read_lora(folder / ADAPTER_CONFIG)
    _require_fit(projector, lora, stored, folder)
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
    odd = sorted(key for key, value in stored.items() if not _is_sound(value))
    if odd:
        raise IntegrityError(
            compose(
                f"finite floating-point numbers in {folder / ADAPTER_WEIGHTS}",
                f"others in {show_value(odd[:3])}",
                "fetch the folder again",
            )
        )
    expected = {
        key: value.shape
        for key, value in get_peft_model_state_dict(adapted, save_embedding_layers=False).items()
    }
    found = {key: value.shape for key, value in stored.items()}
    if expected != found:
        wrong = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
        raise MismatchError(
            compose(
                f"an adapter with the {len(expected)} tensors of this backbone and these classes",
                f"{len(found)} in {folder / ADAPTER_WEIGHTS}, differing in {', '.join(wrong[:3])[:300]}",
                "load the backbone named in the manifest",
            )
        )
    set_peft_model_state_dict(adapted, stored)
    return adapted.float().eval().requires_grad_(False)


def _is_sound(value: Tensor) -> bool:
    return value.is_floating_point() and bool(value.isfinite().all())


def _require_fit(projector: Projector, lora: LoraConfig, stored: dict[str, Tensor], folder: Path) -> None:
    """Check that the layers exist and that the file holds their factors, before memory is taken for them.

    Raises:
        MismatchError: it is not so.
    """
    layers = dict(projector.named_modules())
    targets = set(lora.target_modules or ())
    foreign = sorted(targets - layers.keys())
    needed = 0
    for name in targets & layers.keys():
        weight = getattr(layers[name], "weight", None)
        if isinstance(weight, Tensor) and weight.ndim > 1:
            rank = (lora.rank_pattern or {}).get(name, lora.r)
            needed += rank * (weight[0].numel() + len(weight))
    held = sum(value.numel() for value in stored.values())
    if foreign or needed > held:
        got = f"layers {show_value(foreign)} that it lacks" if foreign else f"ranks that need {needed:,}"
        raise MismatchError(
            compose(
                f"an adapter of this backbone within the {held:,} numbers of {folder / ADAPTER_WEIGHTS}",
                f"{got} in {folder / ADAPTER_CONFIG}",
                "load the backbone named in the manifest",
            )
        )


def _read_lora(path: Path) -> LoraConfig:
    """Read what :func:`adapt` sets and nothing else: other settings of peft's can import modules."""
    try:
        data = read_object(path)
        targets, saved = data["target_modules"], data["modules_to_save"]
        ranks, alphas = data["rank_pattern"], data["alpha_pattern"]
        if data["peft_type"] != "LORA" or not isinstance(targets, list) or not targets:
            raise ValueError("no LoRA on listed layers")
        if not all(isinstance(target, str) for target in targets) or saved not in (None, [], [_HEAD]):
            raise ValueError("layers that are not named as written here")
        # peft takes the keys for regular expressions, and a hostile one can take for ever.
        if not {*ranks, *alphas} <= {_HEAD}:
            raise ValueError(f"ranks of other layers than {_HEAD}")
        numbers = (data["r"], data["lora_alpha"], *ranks.values(), *alphas.values())
        if not all(type(number) is int and 0 < number < _LARGEST for number in numbers):
            raise ValueError("ranks that are no numbers from 1 up")
        return LoraConfig(
            r=data["r"],
            lora_alpha=data["lora_alpha"],
            target_modules=targets,
            modules_to_save=[_HEAD] if saved else None,
            rank_pattern=ranks,
            alpha_pattern=alphas,
            bias="all",
            lora_dropout=0.0,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as failure:
        raise IntegrityError(
            compose("the config of a LoRA adapter", f"{path}: {failure}", "fetch the folder again")
        ) from failure


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

"""What the files of an adapter claim, checked before memory is taken for it."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import LoraConfig
from torch import Tensor, nn

from aerogel.core.canonical import show_value
from aerogel.core.documents import read_object, read_tensors
from aerogel.errors import IntegrityError, MismatchError, compose

_HEAD = "head"
_LARGEST = 2**31
_SHOWN = 3


def read_floats(path: Path) -> dict[str, Tensor]:
    """Read an adapter's tensors as peft writes them, in float32 or float16.

    Raises:
        IntegrityError: there is no such file, or a number is not finite or of another type.
    """
    stored, _ = read_tensors(path)
    odd = sorted(key for key, value in stored.items() if not _is_sound(value))
    if odd:
        raise IntegrityError(
            compose(
                f"finite numbers in float32 or float16 in {path}",
                f"others in {show_value(odd[:_SHOWN])}",
                "fetch the folder again",
            )
        )
    return stored


def _is_sound(value: Tensor) -> bool:
    return value.dtype in (torch.float32, torch.float16) and bool(value.isfinite().all())


def require_same_tensors(fresh: dict[str, Tensor], stored: dict[str, Tensor], path: Path) -> None:
    """Check that an adapter's file at ``path`` holds the tensors that a ``fresh`` one has.

    Raises:
        MismatchError: names or shapes differ.
    """
    expected = {key: value.shape for key, value in fresh.items()}
    found = {key: value.shape for key, value in stored.items()}
    if expected != found:
        wrong = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
        raise MismatchError(
            compose(
                f"an adapter with the {len(expected)} tensors of this backbone and these classes",
                f"{len(found)} in {path}, differing in {', '.join(wrong[:_SHOWN])[:300]}",
                "load the backbone named in the manifest",
            )
        )


def require_fit(projector: nn.Module, lora: LoraConfig, held: int, folder: Path) -> None:
    """Check that the layers exist and that their factors are within ``held``, the numbers that are stored.

    Raises:
        MismatchError: it is not so.
    """
    layers = dict(projector.named_modules())
    # peft shortens many targets to the last parts of their names, which then mean every layer that ends so.
    ends = {name: _list_ends(name) for name in layers}
    targets = set(lora.target_modules or ())
    foreign = sorted(targets.difference(*ends.values()))
    needed = 0
    for name in [name for name, known in ends.items() if not targets.isdisjoint(known)]:
        weight = getattr(layers[name], "weight", None)
        if isinstance(weight, Tensor) and weight.ndim > 1:
            rank = (lora.rank_pattern or {}).get(name, lora.r)
            needed += rank * (weight[0].numel() + len(weight))
    if foreign or needed > held:
        got = f"layers {show_value(foreign)} that it lacks" if foreign else f"ranks that need {needed:,}"
        raise MismatchError(
            compose(
                f"an adapter of this backbone within the {held:,} numbers that {folder} holds",
                f"{got} in its adapter_config.json",
                "load the backbone named in the manifest",
            )
        )


def _list_ends(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[start:]) for start in range(len(parts))]


def read_lora(path: Path) -> LoraConfig:
    """Read the settings that are set here and nothing else: others of peft's can import modules.

    Raises:
        IntegrityError: there is no such file, or a setting is not as it is written here.
    """
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

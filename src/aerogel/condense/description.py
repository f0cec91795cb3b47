"""A stored classifier: the description beside its weights, checked, and the network built from both."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError

from aerogel.condense.networks import Classifier, build_classifier
from aerogel.core.canonical import show_value
from aerogel.core.documents import read_object, read_tensors
from aerogel.errors import IntegrityError, compose

_LARGEST_SIDE = 4096
_SHOWN = 3
_FAILURES = (ValueError, LookupError, TypeError, RuntimeError, ArithmeticError, StrictDataclassError)


def read_description(path: Path) -> dict[str, Any]:
    """Read what was written beside a network's weights, with the class names and image shape checked.

    Raises:
        IntegrityError: it is no such description.
    """
    found = read_object(path)
    names = found.get("class_names")
    sound = {
        "class_names": isinstance(names, list)
        and len(names) > 0
        and all(isinstance(name, str) for name in names)
        and len(set(names)) == len(names),
        "channels": found.get("channels") in (1, 3) and type(found["channels"]) is int,
        "size": type(found.get("size")) is int and 0 < found["size"] <= _LARGEST_SIDE,
        "network": isinstance(found.get("network"), str),
    }
    _require_sound(path, found, sound)
    return found


def require_preparation(path: Path, found: Mapping[str, Any]) -> None:
    """Check what a description says of the way that images are prepared for an imported classifier.

    Raises:
        IntegrityError: it is not what was written.
    """
    wanted = found.get("preparation")
    if not isinstance(wanted, dict):
        raise _refuse(path, "preparation", wanted)
    shapes = [wanted.get("resize"), wanted.get("crop")]
    spread = wanted.get("std")
    sound = {
        "resize": _is_shape(shapes[0]),
        "crop": _is_shape(shapes[1]),
        "filter": wanted.get("filter") in ("nearest", "bilinear", "bicubic"),
        "factor": _is_number(wanted.get("factor")),
        "mean": _are_numbers(wanted.get("mean")),
        "std": _are_numbers(spread) and isinstance(spread, list) and min(spread) > 0.0,
    }
    _require_sound(path, wanted, sound)


def rebuild(found: Mapping[str, Any], weights: Path) -> Classifier:
    """Build the network that ``found`` describes and give it the stored ``weights``.

    The network takes memory only once the file is known to hold every number of it, by a comparison with one
    that takes none: a description that claims a vast one costs nothing.

    Raises:
        IntegrityError: description and file do not fit each other, or a weight is no finite number.
    """
    stored, _ = read_tensors(weights)
    depth = found.get("depth")
    if type(depth) is not int or not 0 < depth <= max(len(stored), 18):
        raise _refuse(weights, "depth", depth)
    width = found.get("width")
    if width is not None and (type(width) is not int or width <= 0):
        raise _refuse(weights, "width", width)
    try:
        with torch.device("meta"):
            expected = _build(found, width, depth).state_dict()
    except _FAILURES as failure:
        got = f"another ({str(failure)[:300]})"
        raise IntegrityError(
            compose(f"the description of a network beside {weights}", got, "train or fetch it again")
        ) from failure
    odd = sorted(
        name
        for name in expected.keys() | stored.keys()
        if name not in expected
        or name not in stored
        or expected[name].shape != stored[name].shape
        or expected[name].is_floating_point() != stored[name].is_floating_point()
        or not bool(stored[name].isfinite().all())
    )
    if odd:
        raise IntegrityError(
            compose(
                f"the {len(expected)} finite tensors of the described {found['network']} in {weights}",
                f"{len(stored)}, differing in {show_value(odd[:_SHOWN])}",
                "train or fetch it again",
            )
        )
    # Built once more, as some networks hold tables that are not stored, which have no numbers without memory.
    classifier = _build(found, width, depth)
    classifier.load_state_dict(stored)
    return classifier.eval().requires_grad_(False)


def _build(found: Mapping[str, Any], width: int | None, depth: int) -> Classifier:
    return build_classifier(
        found["network"],
        channels=found["channels"],
        classes=len(found["class_names"]),
        size=found["size"],
        width=width,
        depth=depth,
        mean=tuple(found["mean"]),
        std=tuple(found["std"]),
        seed=0,
    )


def _is_shape(value: Any) -> bool:
    if value is None:
        return True
    whole = isinstance(value, list) and len(value) == 2 and all(type(side) is int for side in value)
    return whole and all(0 < side <= _LARGEST_SIDE for side in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list) and len(values) in (1, 3) and all(map(_is_number, values))


def _require_sound(path: Path, found: Mapping[str, Any], sound: Mapping[str, bool]) -> None:
    for name, holds in sound.items():
        if not holds:
            raise _refuse(path, name, found.get(name))


def _refuse(path: Path, name: str, value: Any) -> IntegrityError:
    return IntegrityError(
        compose(f"a {name} as it was written in {path}", show_value(value), "train or fetch it again")
    )

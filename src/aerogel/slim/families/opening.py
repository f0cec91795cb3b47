"""Open a segmenter by folder, hub name, checkpoint or the name of one that ships."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from aerogel.core.canonical import show_value
from aerogel.core.folders import verify_folder
from aerogel.core.manifests import MANIFEST_NAME
from aerogel.errors import DataError, compose
from aerogel.slim.families.family import require_transformers
from aerogel.zoo.cards import open_weights
from aerogel.zoo.pretrained import load_pretrained, quiet, read_config
from aerogel.zoo.sources import HUB_NAME

# What a config calls its model -> the module and the class that load it.
_MODELING = "transformers.models"
_CLASSES = {
    "sam": (f"{_MODELING}.sam.modeling_sam", "SamModel"),
    "sam_hq": (f"{_MODELING}.sam_hq.modeling_sam_hq", "SamHQModel"),
    "aerogel_sam": ("aerogel.slim.families.flex_sam", "FlexSamModel"),
    "aerogel_sam_hq": ("aerogel.slim.families.flex_sam_hq", "FlexSamHQModel"),
    "sam_vision_model": (f"{_MODELING}.sam.modeling_sam", "SamVisionModel"),
    "sam_hq_vision_model": (f"{_MODELING}.sam_hq.modeling_sam_hq", "SamHQVisionModel"),
    "aerogel_sam_vision_model": ("aerogel.slim.families.flex_sam", "FlexSamVisionModel"),
    "aerogel_sam_hq_vision_model": ("aerogel.slim.families.flex_sam_hq", "FlexSamHQVisionModel"),
}
_MOBILE = "aerogel_mobile_sam"
_SHIPPED = "aerogel/"


def open_model(source: str | Path) -> Any:
    """Open a segmenter, or its image encoder alone, in float32 and evaluation mode.

    ``source`` is a folder that ``save_pretrained`` wrote or a name on the Hugging Face hub, of a SAM, a
    SAM-HQ or a slimmed one of either layout; "aerogel/..." for one that ships; or MobileSAM's checkpoint, a
    safetensors file. Weights stored with pickle are not opened, and code from a folder or the hub is not
    run.

    Raises:
        DataError: nothing of that name can be opened, or it is another kind of model, or weights are missing.
        IntegrityError: the folder has a manifest, and a file is not as that says.
        UnknownNameError: no such model ships.
        MissingDependencyError: transformers is not installed.
    """
    require_transformers()
    name = str(source)
    _require_name(name)
    if name.startswith(_SHIPPED) and not Path(name).exists():
        with open_weights(name, "segmenter") as path:
            return _open_folder(str(path.parent))
    if Path(name).is_file():
        return _open_mobile(name)
    return _open_folder(name)


def _require_name(name: str) -> None:
    """Refuse what is neither there nor a hub's "owner/name", without asking the network for long.

    Raises:
        DataError: it is neither.
    """
    if name and (Path(name).exists() or (HUB_NAME.fullmatch(name) and "/" in name)):
        return
    raise DataError(
        compose(
            "the folder of a segmenter, or its name on the Hugging Face hub (owner/name)",
            f"{name!r}, which does not exist",
            "correct the path; a name on the hub has one slash, as in facebook/sam-vit-base",
        )
    )


def read_dtype(source: str | Path) -> torch.dtype | None:
    """Return the type that a model is stored in, by its config; None where that does not say.

    Raises:
        DataError: nothing of that name can be read.
        UnknownNameError: no such model ships.
    """
    name = str(source)
    if Path(name).is_file():
        return None
    if name.startswith(_SHIPPED) and not Path(name).exists():
        with open_weights(name, "segmenter") as path:
            return read_dtype(path.parent)
    config = read_config(name)
    stored = config.get("dtype") or config.get("torch_dtype")
    found = getattr(torch, stored, None) if isinstance(stored, str) else None
    return found if isinstance(found, torch.dtype) and found.is_floating_point else None


def _open_folder(name: str) -> Any:
    if (Path(name) / MANIFEST_NAME).is_file():
        # What hosting services add is let be; what was sealed must be as it was.
        remedy = f"copy the folder again, or delete its {MANIFEST_NAME} if you trained the model on"
        verify_folder(name, allow_extra=True, remedy=remedy)
    config = read_config(name)
    kind = config.get("model_type")
    if kind == _MOBILE:
        return _open_mobile(name)
    if not isinstance(kind, str) or kind not in _CLASSES:
        raise DataError(
            compose(
                f"a segmenter of type {', '.join([*_CLASSES, _MOBILE])}",
                f"{name!r} of type {show_value(kind)}",
                "choose a SAM or a SAM-HQ that transformers loads",
            )
        )
    module, attribute = _CLASSES[kind]
    # A bare encoder has the config of the model around it, which says no more than that.
    bare = attribute.replace("VisionModel", "VisionEncoder")
    if bare in (config.get("architectures") or ()):
        attribute = bare
    model = load_pretrained(getattr(import_module(module), attribute), name)
    return model.requires_grad_(False)


def _open_mobile(name: str) -> Any:
    from aerogel.slim.families.mobile_sam import load_mobile_sam

    with quiet():
        return load_mobile_sam(name).requires_grad_(False)

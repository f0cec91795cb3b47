"""Open a segmenter by folder, hub name, checkpoint or the name of one that ships."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from aerogel.errors import DataError, compose
from aerogel.slim.families.family import require_transformers
from aerogel.zoo.cards import open_weights
from aerogel.zoo.pretrained import load_pretrained, quiet, read_config

# What a config calls its model -> the module and the class that load it.
_CLASSES = {
    "sam": ("transformers", "SamModel"),
    "sam_hq": ("transformers", "SamHQModel"),
    "aerogel_sam": ("aerogel.slim.families.flex_sam", "FlexSamModel"),
    "aerogel_sam_hq": ("aerogel.slim.families.flex_sam_hq", "FlexSamHQModel"),
}
_MOBILE = "aerogel_mobile_sam"
_SHIPPED = "aerogel/"


def open_model(source: str | Path) -> Any:
    """Open a segmenter in float32 and evaluation mode.

    ``source`` is a folder that ``save_pretrained`` wrote or a name on the Hugging Face hub, of a SAM, a
    SAM-HQ or a slimmed one of either layout; "aerogel/..." for one that ships; or MobileSAM's checkpoint, a
    safetensors file. Weights stored with pickle are not opened, and code from a folder or the hub is not
    run.

    Raises:
        DataError: nothing of that name can be opened, or it is another kind of model, or weights are missing.
        UnknownNameError: no such model ships.
        MissingDependencyError: transformers is not installed.
    """
    require_transformers()
    name = str(source)
    if name.startswith(_SHIPPED) and not Path(name).exists():
        with open_weights(name, "segmenter") as path:
            return _open_folder(str(path.parent))
    if Path(name).is_file():
        return _open_mobile(name)
    return _open_folder(name)


def _open_folder(name: str) -> Any:
    kind = read_config(name).get("model_type")
    if kind == _MOBILE:
        return _open_mobile(name)
    if kind not in _CLASSES:
        raise DataError(
            compose(
                f"a segmenter of type {', '.join([*_CLASSES, _MOBILE])}",
                f"{name!r} of type {kind!r}",
                "choose a SAM or a SAM-HQ that transformers loads",
            )
        )
    module, attribute = _CLASSES[kind]
    model = load_pretrained(getattr(import_module(module), attribute), name)
    return model.requires_grad_(False)


def _open_mobile(name: str) -> Any:
    from aerogel.slim.families.mobile_sam import load_mobile_sam

    with quiet():
        return load_mobile_sam(name).requires_grad_(False)

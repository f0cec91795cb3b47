"""Look through the folder of a model before a library opens it: what it claims, and what it asks for."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aerogel.core.canonical import parse_json, show_value
from aerogel.core.files import open_regular
from aerogel.core.manifests import find_name_fault
from aerogel.errors import DataError, IntegrityError, compose

_CONFIG = "config.json"
_PIPELINE = "model_index.json"
_INDEX = "model.safetensors.index.json"
_ADAPTER = "adapter_config.json"
_MOST_BYTES = 1 << 26
_MOST = 10**6
_REPEATED = re.compile(r"layers|depth|repeats|num_multimask_outputs|num_point_embeddings")
_ADDED_UP = re.compile(r"depths|repeats")
# What widths and numbers of layers are multiplied by; the largest published EfficientNet has 5.3.
_FACTOR = re.compile(r"coefficient|multiplier")
_LARGEST_FACTOR = 64
_DIVISOR = re.compile(r"^patch_size$|^strides$")
_SIZES = re.compile(r"^num_|size|dim|width|heads|channels|rank")
_KERNEL = re.compile(r"implementation$")


def inspect_folder(folder: Path) -> None:
    """Check the folder of a model of transformers, as far as can be told without building it.

    Refused are counts of layers beyond the number of stored tensors, sizes that no model has, weights in
    another folder, quantised weights, attention whose code comes from the hub, and an adapter's config, which
    would put another model in this one's place. A hub's cache consists of links, so links are followed.

    Raises:
        DataError: something of this is so, or a file is no JSON.
    """
    for name in (_CONFIG, _INDEX, "preprocessor_config.json", "tokenizer_config.json"):
        if os.path.lexists(folder / name):
            found = _read(folder / name)
            if name == _CONFIG:
                _check_config(folder, found)
            elif name == _INDEX:
                _check_index(folder, found)
    if os.path.lexists(folder / _ADAPTER):
        raise DataError(
            compose(f"a whole model in {folder}", f"an adapter ({_ADAPTER})", "merge it into its model first")
        )


def inspect_pipeline(folder: Path) -> None:
    """Check the folder of a pipeline of diffusers: its index, and the config of each part, before building.

    Raises:
        DataError: a part is of a class that neither diffusers nor transformers brings, or as for
            :func:`inspect_folder`.
    """
    index = _read(folder / _PIPELINE)
    if not isinstance(index.get("_class_name"), str) or not index["_class_name"].isidentifier():
        raise _refuse(folder, f"the name of a class of diffusers in {_PIPELINE}", index.get("_class_name"))
    for name, part in index.items():
        if name.startswith("_") or name == "class_names" or not isinstance(part, list) or len(part) != 2:
            continue
        if part == [None, None] or not all(isinstance(each, str) or each is None for each in part):
            continue
        if not name.isidentifier() or not _is_library(part[0]) or not str(part[1]).isidentifier():
            raise _refuse(folder, f"a class of diffusers or transformers as {name} in {_PIPELINE}", part)
        for place in sorted((folder / name).glob("*config.json")):
            _check_config(folder / name, _read(place))
        if os.path.lexists(folder / name / _ADAPTER):
            raise _refuse(folder / name, "a whole model", f"an adapter ({_ADAPTER})")


def _is_library(name: str | None) -> bool:
    """Tell whether a part comes from a library that is known, or from a pipeline's own module there."""
    if name in ("diffusers", "transformers"):
        return True
    return isinstance(name, str) and name.isidentifier() and name in _list_pipelines()


def _list_pipelines() -> set[str]:
    from pkgutil import iter_modules

    import diffusers.pipelines

    return {module.name for module in iter_modules(diffusers.pipelines.__path__) if module.ispkg}


def _read(path: Path) -> dict[str, Any]:
    try:
        with os.fdopen(open_regular(os.path.realpath(path)), "rb") as file:
            raw = file.read(_MOST_BYTES + 1)
        if len(raw) > _MOST_BYTES:
            raise ValueError(f"more than {_MOST_BYTES:,} bytes")
        found = parse_json(raw)
    except (ValueError, IntegrityError) as error:
        raise DataError(compose(f"JSON text in {path}", str(error), "save or fetch it again")) from error
    if not isinstance(found, dict):
        raise DataError(compose(f"a JSON object in {path}", show_value(found), "save or fetch it again"))
    return found


def _check_config(folder: Path, config: dict[str, Any]) -> None:
    tensors = _count_tensors(folder)
    stretch = config.get("depth_coefficient")
    stretch = max(1.0, stretch) if isinstance(stretch, int | float) else 1.0
    for key, value in _walk(config):
        values = value if isinstance(value, list) else [value]
        numbers = [each for each in values if type(each) in (int, float)]
        most = max(tensors, 1) if _REPEATED.search(key) and tensors else _MOST
        bounded = _REPEATED.search(key) or _SIZES.search(key)
        least = 0 if _REPEATED.search(key) else -_MOST
        if len(values) > _MOST or (
            bounded and not all(least <= each <= (_MOST if type(each) is float else most) for each in numbers)
        ):
            raise _refuse(folder, f"{key} from 0 to {most:,}", value)
        if _ADDED_UP.search(key) and sum(numbers) * stretch > most:
            raise _refuse(folder, f"{key} of {most:,} layers together", value)
        if _FACTOR.search(key) and not all(0 < each <= _LARGEST_FACTOR for each in numbers):
            raise _refuse(folder, f"{key} above 0, up to {_LARGEST_FACTOR}", value)
        if _DIVISOR.search(key) and not all(each > 0 for each in numbers):
            raise _refuse(folder, f"{key} above 0", value)
        if _KERNEL.search(key) and isinstance(value, str) and "/" in value:
            raise _refuse(folder, f"{key} that needs no code of the hub's", value)
        if key == "vision_config":
            raise _refuse(folder, "settings of an image encoder (vision_config)", value)
        if key == "quantization_config" and value is not None:
            raise _refuse(folder, "weights that are not quantised", value)


def _check_index(folder: Path, index: dict[str, Any]) -> None:
    places = index.get("weight_map")
    if not isinstance(places, dict):
        raise _refuse(folder, f"a weight_map in {_INDEX}", places)
    for place in set(map(str, places.values())):
        if find_name_fault(place) or "/" in place or not place.endswith(".safetensors"):
            raise _refuse(folder, f"the names of .safetensors files in {_INDEX}", place)


def _count_tensors(folder: Path) -> int:
    """Return the number of tensors in the folder's files; 0 where none can be read, which others report."""
    from safetensors import SafetensorError, safe_open

    count = 0
    for path in folder.glob("*.safetensors"):
        if path.is_file():
            try:
                with safe_open(path, framework="pt") as stored:
                    names = list(stored.keys())
                    kinds = {name: stored.get_slice(name).get_dtype() for name in names}
            except (SafetensorError, OSError):
                return 0
            count += len(names)
            odd = [name for name in names if name.endswith((".weight", ".bias")) and "F" not in kinds[name]]
            if odd:
                raise _refuse(folder, f"floating-point weights in {path.name}", odd[:3])
    return count


def _walk(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, item in value.items():
            if name == "quantization_config":
                yield name, item
            yield from _walk(item, name)
    else:
        yield key, value
        if isinstance(value, list):
            for item in value:
                if isinstance(item, dict | list):
                    yield from _walk(item, key)


def _refuse(folder: Path, expected: str, got: Any) -> DataError:
    return DataError(
        compose(
            f"a model with {expected} in {folder}", show_value(got), "choose a model that was saved whole"
        )
    )

"""Stage 5: the condensed set on disk, images and label generator, with measured bytes and no pickle."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from aerogel.condense.card import write_metadata
from aerogel.core.canonical import parse_json
from aerogel.core.folders import verify_folder
from aerogel.core.manifests import Manifest
from aerogel.errors import IntegrityError, compose
from aerogel.zoo.decode import FAILURES

KIND = "condensed-set"
IMAGES = "data/train-00000-of-00001.parquet"
LABELS = "labels"
RESIDUAL = "residual"
_LARGEST_SIDE = 4096
_LONGEST_NAME = 1000
_LARGEST_LOGIT = 1e6
# For the names of the images that a stored one was made of, and what a PNG has beside its pixels.
_ROOM = 2**16
_SCHEMA = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("label", pa.int64()),
        ("source_id", pa.string()),
    ]
)
_FACTS: Mapping[str, type] = {
    "images": int,
    "class_names": list,
    "channels": int,
    "size": int,
    "tiles": int,
    "view_seed": int,
    "mean": list,
    "std": list,
    "views": dict,
    "backbone": dict,
    "templates": list,
    "probe": list,
    "projector": dict,
}


@dataclass(frozen=True)
class StoredImages:
    """Hold what the parquet file holds: images [N, C, S, S] (uint8), labels [N], and their sources' ids."""

    images: Tensor
    labels: Tensor
    source_ids: tuple[str, ...]


def encode_png(image: Tensor) -> bytes:
    """Return ``image`` [C, S, S] (uint8, one or three channels) as PNG, which loses nothing."""
    pixels = image.permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def write_images(path: Path, stored: StoredImages, class_names: tuple[str, ...]) -> None:
    """Write a parquet file that Hugging Face ``datasets`` opens: image, class label and id columns."""
    rows = [
        {"bytes": encode_png(image), "path": f"{index:06d}.png"} for index, image in enumerate(stored.images)
    ]
    features = {
        "image": {"_type": "Image"},
        "label": {"names": list(class_names), "_type": "ClassLabel"},
        "source_id": {"dtype": "string", "_type": "Value"},
    }
    schema = _SCHEMA.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    table = pa.Table.from_pydict(
        {"image": rows, "label": stored.labels.tolist(), "source_id": list(stored.source_ids)}, schema=schema
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd")


def read_images(
    path: Path,
    *,
    channels: int,
    size: int,
    classes: int,
    images: int | None = None,
    class_names: tuple[str, ...] | None = None,
) -> StoredImages:
    """Read what :func:`write_images` wrote, refusing anything that is not of the given shape.

    The table's own account of its types and sizes is checked before any of it is unpacked. ``images`` is the
    number that there must be, ``class_names`` those that the table must declare; None takes any.

    Raises:
        IntegrityError: the file is no such table, or an image or a label does not fit.
    """
    try:
        with pq.ParquetFile(path) as file:
            _require_table(file, room=_ROOM + 2 * channels * size * size, images=images, names=class_names)
            table = file.read(columns=["image", "label", "source_id"])
        rows = table.column("image").to_pylist()
        labels = torch.tensor(table.column("label").to_pylist(), dtype=torch.int64)
        if table.column("source_id").null_count:
            raise ValueError("images without source_id")
        ids = tuple(table.column("source_id").to_pylist())
        pixels = torch.stack([_decode(row["bytes"], channels, size) for row in rows])
    except (pa.ArrowException, RuntimeError, AttributeError, *FAILURES) as failure:
        raise IntegrityError(
            compose(
                f"a parquet file of {channels}-channel images of {size} pixels with labels",
                f"{path}: {failure}",
                "fetch the folder again",
            )
        ) from failure
    if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < classes):
        raise IntegrityError(
            compose(
                f"labels from 0 to {classes - 1}",
                f"labels from {int(labels.min())} to {int(labels.max())} in {path}",
                "fetch the folder again",
            )
        )
    return StoredImages(pixels, labels, ids)


def _require_table(
    file: pq.ParquetFile, *, room: int, images: int | None, names: tuple[str, ...] | None
) -> None:
    """Check types, rows and unpacked size by the table's footer; ``room`` is what a row may take in bytes."""
    found = file.schema_arrow
    if any(
        found.get_field_index(each.name) < 0 or found.field(each.name).type != each.type for each in _SCHEMA
    ):
        raise ValueError(f"columns {', '.join(f'{each.name}: {each.type}' for each in found)}"[:300])
    facts = file.metadata
    if images is not None and facts.num_rows != images:
        raise ValueError(f"{facts.num_rows:,} rows for {images:,} images")
    unpacked = sum(facts.row_group(group).total_byte_size for group in range(facts.num_row_groups))
    if unpacked > room * (1 + facts.num_rows):
        raise ValueError(f"{unpacked:,} bytes unpacked for {facts.num_rows:,} rows")
    if names is not None:
        declared = parse_json((found.metadata or {}).get(b"huggingface", b"null"))
        if declared["info"]["features"]["label"]["names"] != list(names):
            raise ValueError("other class names than the manifest's")


def _decode(data: bytes, channels: int, size: int) -> Tensor:
    """Return one PNG as uint8 [C, S, S]; its header is checked before its pixels are unpacked."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
        mode = "L" if channels == 1 else "RGB"
        if picture.size != (size, size) or picture.mode != mode or size > _LARGEST_SIDE:
            raise ValueError(f"expected {mode} of {size} x {size}, got {picture.mode} of {picture.size}")
        pixels = np.array(picture)
    return torch.from_numpy(pixels.reshape(size, size, channels)).permute(2, 0, 1).contiguous()


def write_card(path: Path, *, name: str, facts: Mapping[str, Any]) -> None:
    """Write the dataset card: what the set is, how to load it, what it weighs, what labels it replaces."""
    storage = facts["storage"]
    rows = "\n".join(f"| {row['name']} | {row['bytes']:,} |" for row in storage)
    classes = ", ".join(str(value) for value in facts["class_names"])
    rest = ""
    if RESIDUAL in facts:
        rest = (
            f"\nWhat the generator leaves out is stored beside it ({facts[RESIDUAL]['codec']}), for the "
            f"views of {facts[RESIDUAL]['epochs']} epochs, which training goes round.\n"
        )
    path.write_text(
        f"""---
{write_metadata(facts, path.parent / IMAGES)}---
# {name}, condensed

{facts["images"]} images that stand for {facts["source"]["images"]} ({facts["ipc"]} per class), with
a generator of soft labels in place of stored ones (HeLlO, arXiv 2408.08201).
Classes, in label order: {classes}.
{rest}
```python
import aerogel

data = aerogel.load_condensed("path/to/this/folder")
item = data[0]
soft = data.labels(item["view"][None], [item["sample"]])
```

The images alone open in Hugging Face datasets: `datasets.load_dataset("path/to/this/folder", split="train")`.

| what | bytes |
|---|---|
{rows}

Source: {facts["source"]["name"]}; licence of the images: {facts["source"]["licence"]}.
Label generator: {facts["backbone"]["name"]}. Every file's size and SHA-256 is in `manifest.json`.
""",
        encoding="utf-8",
    )


def delta_bytes(folder: Path) -> int:
    """Return the bytes on disk of all that stands in for the soft labels: the files below ``labels/``."""
    return sum(path.stat().st_size for path in (folder / LABELS).rglob("*") if path.is_file())


def open_archive(folder: Path) -> Manifest:
    """Verify every file of a condensed set against its manifest, and the manifest's own facts.

    Raises:
        IntegrityError: a file differs from the manifest, is missing or too many, or the facts are not as
            written.
    """
    manifest = verify_folder(folder, KIND)
    facts = manifest.facts
    wrong = _find_faults(facts)
    stored = any(name.startswith(f"{LABELS}/{RESIDUAL}/") for name in manifest.files)
    if stored != (RESIDUAL in facts):
        wrong.append(RESIDUAL)
    if wrong:
        raise IntegrityError(
            compose(
                f"a condensed set's manifest in {folder} with {', '.join(wrong)}",
                "none, or values that cannot be",
                "fetch the folder again",
            )
        )
    return manifest


def _find_faults(facts: Mapping[str, Any]) -> list[str]:
    """Name the facts that are missing, of another type, or at odds with each other."""
    wrong = [name for name, kind in _FACTS.items() if type(facts.get(name)) is not kind]
    if wrong:
        return wrong
    names, channels, size = facts["class_names"], facts["channels"], facts["size"]
    backbone, probe = facts["backbone"], facts["probe"]
    sound = {
        "class_names": _is_list(names, str)
        and 0 < len(names) == len(set(names))
        and max(map(len, names)) <= _LONGEST_NAME,
        "view_seed": 0 <= facts["view_seed"] < 2**64,
        "channels": channels in (1, 3),
        "size": 0 < size <= _LARGEST_SIDE,
        "tiles": 0 < facts["tiles"] <= size,
        "mean": _are_shares(facts["mean"], channels),
        "std": _are_shares(facts["std"], channels),
        "backbone": _is_list([backbone.get("name"), backbone.get("sha256")], str)
        and _can_name(backbone["name"])
        and type(backbone.get("grid")) is int
        and 0 < backbone["grid"] <= size,
        "templates": _is_list(facts["templates"], str)
        and all(template.count("{}") == 1 for template in facts["templates"]),
        "probe": len(probe) > 0
        and all(_is_list(row, float) and len(row) == len(names) for row in probe)
        and max(abs(logit) for row in probe for logit in row) < _LARGEST_LOGIT,
    }
    if RESIDUAL in facts:
        sound[RESIDUAL] = _is_residual(facts[RESIDUAL])
    return [name for name, holds in sound.items() if not holds]


def _is_residual(found: Any) -> bool:
    """Tell whether this names the codec of stored residuals and of how many epochs they are."""
    if not isinstance(found, dict) or type(found.get("epochs")) is not int:
        return False
    codec = found.get("codec")
    return isinstance(codec, str) and len(codec) <= _LONGEST_NAME and 0 < found["epochs"] < 2**32


def _can_name(text: str) -> bool:
    """Tell whether a text may be the name or the path of a backbone."""
    return 0 < len(text) <= 1024 and text.isprintable() and max(map(len, text.split("/"))) <= 255


def _are_shares(values: Any, count: int) -> bool:
    """Tell whether these are statistics of pixels in [0, 1], one for each channel."""
    return _is_list(values, float) and len(values) == count and all(0.0 <= each <= 1.0 for each in values)


def _is_list(values: Any, kind: type) -> bool:
    return isinstance(values, list) and all(type(value) is kind for value in values)

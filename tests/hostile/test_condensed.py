"""Hostile condensed sets: the folder that people pass on."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from aerogel.condense.condensed import load_condensed
from tests.hostile.judge import Subject, judge, offer
from tests.hostile.manifests import hostile_manifests
from tests.hostile.mutate import (
    Edit,
    Mutation,
    added,
    boobytrap,
    cuts,
    edited,
    exchanged,
    flips,
    hostile_json,
    hostile_safetensors,
    misplaced,
    mutation,
    signed,
    swapped,
    written,
)

if TYPE_CHECKING:
    from aerogel.condense.api import Condensed

IMAGES = "data/train-00000-of-00001.parquet"
CONFIG = "labels/adapter_config.json"
WEIGHTS = "labels/adapter_model.safetensors"
CARD = "README.md"


def load(folder: Path) -> Any:
    """Return all that a condensed set gives: images, labels, a view, facts, and the generator's labels."""
    data = load_condensed(folder)
    logits = data.labels(data.images[:4].float() / 255.0)
    # The adapter may differ as far as the recorded logits let it: only these are compared, by the loader.
    assert bool(logits.isfinite().all())
    return {
        "images": data.images,
        "labels": data.class_labels,
        "ids": data.source_ids,
        "view": data[0]["view"],
        "facts": data.manifest.facts,
        "kind": data.manifest.kind,
    }


@pytest.fixture(scope="session")
def subject(condensed: Condensed, other_condensed: Condensed) -> Subject:
    return Subject(condensed.data.folder, other_condensed.data.folder, load)


def facts(name: str, change: Edit, *about: str) -> Mutation:
    """Change the facts of the manifest."""

    def edit(data: Any) -> Any:
        changed = change(data["facts"])
        if changed is not None:
            data["facts"] = changed

    return edited(f"facts-{name}", "manifest.json", edit, (*about, "manifest.json"))


def set_fact(key: str, value: Any, name: str = "") -> Mutation:
    spelled = json.dumps(value)
    return facts(f"{key}-{name or spelled[:24].replace('/', '_')}", lambda f: f.update({key: value}), key)


def set_inner(key: str, inner: str, value: Any) -> Mutation:
    name = f"{key}.{inner}-{json.dumps(value)[:24].replace('/', '_')}"
    return facts(name, lambda f: f[key].update({inner: value}), key, str(value))


def drop(key: str) -> Mutation:
    return facts(f"without-{key}", lambda f: f.pop(key) and None, key)


FACTS = [
    "images",
    "class_names",
    "channels",
    "size",
    "tiles",
    "view_seed",
    "mean",
    "std",
    "views",
    "backbone",
    "templates",
    "probe",
    "projector",
]

MANIFESTS = [
    *(drop(key) for key in FACTS),
    *(set_fact(key, None) for key in FACTS),
    *(set_fact(key, value) for key in ("images", "size", "tiles", "channels") for value in (-1, 0, 2**62)),
    set_fact("view_seed", -(2**70)),
    set_fact("view_seed", 2**200),
    set_fact("size", 4096),
    set_fact("size", 8.0),
    set_fact("size", "8"),
    set_fact("channels", True),
    set_fact("class_names", ["bar", "bar", "bar"]),
    set_fact("class_names", ["a/../../b"] * 100_000, "hundred-thousand"),
    set_fact("class_names", ["bar", "", "ring"]),
    set_fact("class_names", ["bar", 1, "ring"]),
    set_fact("class_names", [["bar"], "dot", "ring"]),
    set_fact("class_names", ["x" * 10**6, "dot", "ring"], "million-letters"),
    set_fact("mean", [1e308]),
    set_fact("mean", [0.5, 0.5]),
    set_fact("std", [-1.0]),
    set_fact("probe", []),
    set_fact("probe", [[1e308, 1e308, 1e308]]),
    set_fact("probe", [[0.0, 0.0, 0.0]] * 10_000, "ten-thousand"),
    set_fact("templates", ["{0.__class__.__init__.__globals__}"]),
    set_fact("templates", ["{:>9999999999}"]),
    set_fact("templates", ["no place"]),
    set_fact("templates", ["{} {}"]),
    set_inner("backbone", "name", "../../somewhere"),
    set_inner("backbone", "name", "aerogel/none-of-ours"),
    set_inner("backbone", "name", "aerogel/fashion-unet"),
    set_inner("backbone", "name", "https://example.org/backbone"),
    set_inner("backbone", "name", "a\nb" * 1000),
    set_inner("backbone", "sha256", "0" * 64),
    set_inner("backbone", "grid", 8),
    set_inner("backbone", "grid", 10**9),
    set_inner("views", "flip", 2.0),
    set_inner("views", "crop_scale", [2.0, 1.0]),
    set_inner("views", "crop_scale", [0.5, 1e308]),
    set_inner("views", "crop_ratio", [0.0, 1.0]),
    set_inner("views", "evil", 1),
    set_inner("views", "type", "condense.teacher"),
    set_inner("views", "version", 10**9),
]


def lora(name: str, **values: Any) -> Mutation:
    return edited(name, CONFIG, lambda data: data.update(values))


ADAPTERS = [
    lora("other-kind", peft_type="IA3"),
    lora("rank-billion", r=10**9),
    lora("rank-negative", r=-1),
    lora("rank-zero", r=0),
    lora("rank-text", r="2"),
    lora("rank-float", r=2.5),
    lora("rank-true", r=True),
    lora("rank-list", r=[2]),
    lora("alpha-huge", lora_alpha=10**400),
    lora("alpha-null", lora_alpha=None),
    lora("targets-text", target_modules=".*"),
    lora("targets-all", target_modules="all-linear"),
    lora("targets-none", target_modules=[]),
    lora("targets-foreign", target_modules=["backbone.nothing"]),
    lora("targets-many", target_modules=[f"backbone.{n}" for n in range(100_000)]),
    lora("targets-numbers", target_modules=[1, 2]),
    lora("pattern-slow", rank_pattern={"(a+)+$": 3, "(.*a){30}b": 3}),
    lora("pattern-huge", rank_pattern={"head": 10**9}),
    lora("pattern-list", rank_pattern=[1]),
    lora("auto-mapping", auto_mapping={"base_model_class": "Popen", "parent_library": "subprocess"}),
    lora("base-model", base_model_name_or_path="../../other"),
    lora("runtime", runtime_config={"ephemeral_gpu_offload": True}),
    lora("custom", megatron_config={"a": 1}, megatron_core="antigravity"),
    lora("loftq", init_lora_weights="loftq", loftq_config={"loftq_bits": 4}),
    lora("saved-modules", modules_to_save=["backbone"]),
    lora("dora", use_dora=True),
]


def column(name: str, change: Callable[[list[Any]], list[Any]], kind: Any = None) -> Mutation:
    """Rewrite one column of the images' table, with another type if one is given."""
    place, _, what = name.partition("-")

    def act(folder: Path, other: Path) -> None:
        table = pq.read_table(folder / IMAGES)
        index = table.schema.get_field_index(place)
        values = change(table.column(place).to_pylist())
        array = pa.array(values, type=kind or table.schema.field(place).type)
        others = [each for each in table.schema.names if each != place]
        kept = table.select(others).slice(0, len(values))
        while len(kept) < len(values):
            kept = pa.concat_tables([kept, table.select(others)]).slice(0, len(values))
        pq.write_table(kept.add_column(index, place, array), folder / IMAGES)

    return mutation(f"{IMAGES}-{place}-{what}", IMAGES, act)


def pictures(name: str, content: Callable[[bytes], bytes | None]) -> Mutation:
    """Put other bytes in the place of the first image."""
    return column(
        f"image-{name}",
        lambda rows: [{**rows[0], "bytes": content(rows[0]["bytes"])}, *rows[1:]],
    )


def claim(width: int, height: int) -> Callable[[bytes], bytes]:
    """Return a PNG whose header claims another size, with its check sum in order."""
    import struct
    import zlib

    def change(png: bytes) -> bytes:
        head = png[12:16] + struct.pack(">II", width, height) + png[24:29]
        return png[:12] + head + struct.pack(">I", zlib.crc32(head)) + png[33:]

    return change


def encode(kind: str, size: tuple[int, int] = (8, 8), mode: str = "L") -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size).save(stream, kind)
    return stream.getvalue()


def blow_up(folder: Path, other: Path) -> None:
    """Write a table of 10 million rows that packs into nothing."""
    import numpy as np

    rows = 10_000_000
    labels = pa.array(np.zeros(rows, np.int64))
    empty = pa.nulls(rows, pa.string())
    table = pa.table({"image": empty, "label": labels, "source_id": empty})
    pq.write_table(table, folder / IMAGES, compression="zstd")


def blow_up_image(folder: Path, other: Path) -> None:
    """Put 60 MB of zeros, which pack into nothing, in the place of one image."""
    table = pq.read_table(folder / IMAGES)
    rows = table.column("image").to_pylist()
    rows[0] = {"bytes": b"\0" * 60_000_000, "path": "0.png"}
    array = pa.array(rows, type=table.schema.field("image").type)
    pq.write_table(table.set_column(0, "image", array), folder / IMAGES, compression="zstd")


TABLES = [
    pictures("claims-60000", claim(60_000, 60_000)),
    pictures("claims-2-31", claim(2**31 - 1, 2**31 - 1)),
    pictures("claims-0", claim(0, 0)),
    pictures("claims-9x8", claim(9, 8)),
    pictures("svg", lambda png: b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
    pictures("pickle", lambda png: boobytrap(Path("/nowhere"))),
    pictures("gif", lambda png: encode("GIF")),
    pictures("gif-huge", lambda png: b"GIF89a\xff\xff\xff\xff\x80\0\0" + b"\0" * 20),
    pictures("eps", lambda png: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n"),
    pictures("colour", lambda png: encode("PNG", mode="RGB")),
    pictures("palette", lambda png: encode("PNG", mode="P")),
    pictures("larger", lambda png: encode("PNG", (64, 64))),
    pictures("cut", lambda png: png[: len(png) // 2]),
    pictures("empty", lambda png: b""),
    pictures("no-bytes", lambda png: None),
    column("image-null", lambda rows: [None, *rows[1:]]),
    column("image-text", lambda rows: ["x"] * len(rows), pa.string()),
    column(
        "image-list",
        lambda rows: [[{"bytes": b""}]] * len(rows),
        pa.list_(pa.struct([("bytes", pa.binary())])),
    ),
    column("label-negative", lambda rows: [-1, *rows[1:]]),
    column("label-beyond", lambda rows: [3, *rows[1:]]),
    column("label-huge", lambda rows: [2**62, *rows[1:]]),
    column("label-null", lambda rows: [None, *rows[1:]]),
    column("label-text", lambda rows: ["0"] * len(rows), pa.string()),
    column("label-float", lambda rows: [0.5] * len(rows), pa.float64()),
    column("label-true", lambda rows: [True] * len(rows), pa.bool_()),
    column("label-list", lambda rows: [[0]] * len(rows), pa.list_(pa.int64())),
    column("label-fewer", lambda rows: rows[:-1]),
    column("label-more", lambda rows: rows * 2),
    column("label-none", lambda rows: []),
    column("source_id-null", lambda rows: [None] * len(rows)),
    column("source_id-number", lambda rows: [1] * len(rows), pa.int64()),
    column("source_id-long", lambda rows: ["x" * 10**7] * len(rows)),
    mutation(f"{IMAGES}-rows", (IMAGES,), blow_up),
    mutation(f"{IMAGES}-large", (IMAGES,), blow_up_image),
    written("footer-length", IMAGES, lambda f: (f / IMAGES).read_bytes()[:-8] + b"\xff\xff\xff\x7fPAR1"),
    written("pickle", IMAGES, boobytrap),
    written("only-magic", IMAGES, b"PAR1PAR1"),
    written("columns", IMAGES, lambda f: _table({"other": [1]})),
]


def _table(columns: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream)
    return stream.getvalue()


FILES = (IMAGES, CONFIG, WEIGHTS, CARD)
DAMAGE = [
    *(each for file in FILES for each in (*cuts(file), *flips(file), *misplaced(file))),
    exchanged(CONFIG, WEIGHTS),
    exchanged(CONFIG, CARD),
    *(swapped(file) for file in (IMAGES, WEIGHTS, CARD)),
    added("labels/adapter_model.bin"),
    added("more.py", b"raise SystemExit"),
    added("data/.hidden"),
    written("pickle", WEIGHTS, boobytrap),
]
MADE_TO_FIT = signed(
    [
        *cuts(IMAGES),
        *cuts(WEIGHTS),
        *cuts(CONFIG),
        *flips(IMAGES, (0, 1, -1, -2, -5, -6, -8)),
        *flips(WEIGHTS, (0, 1, 5, 7, 8, 9, 12, 40)),
        *flips(CONFIG, (0, 1, -2)),
        *(misplaced(file)[0] for file in FILES[:3]),
        *(misplaced(file)[1] for file in FILES[:3]),
        swapped(IMAGES),
        swapped(WEIGHTS),
        exchanged(CONFIG, WEIGHTS),
        exchanged(IMAGES, WEIGHTS),
        *hostile_json(CONFIG),
        *hostile_safetensors(WEIGHTS),
        *ADAPTERS,
        *TABLES,
    ]
)
HARMLESS = signed([written("other", CARD, b"# Another card\n")])
CORPUS = [
    *DAMAGE,
    *MADE_TO_FIT,
    *signed(MANIFESTS),
    *hostile_manifests("condensed-set"),
    *HARMLESS,
]


@pytest.mark.parametrize("change", offer(CORPUS))
def test_a_mutated_set_is_refused_or_is_the_same(change: Mutation, subject: Subject, tmp_path: Path) -> None:
    judge(subject, change, tmp_path)

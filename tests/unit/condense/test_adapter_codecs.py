"""Codes come back within half a step, weigh what the formula says, and a damaged file is refused."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from aerogel.condense.adapter_codecs import choose_kind, count_bytes, decode, encode
from aerogel.condense.config import ADAPTER_CODECS, AdapterCodec
from aerogel.errors import IntegrityError, MismatchError, ProjectorError

CODED: tuple[AdapterCodec, ...] = ("int8", "int7", "int6", "int5", "int4")
LEVELS = {"int8": 127, "int7": 63, "int6": 31, "int5": 15, "int4": 7}
SHAPES = {
    "conv.lora_A": (3, 5, 3, 3),
    "conv.lora_B": (33, 3, 1, 1),
    "head.lora_A": (4, 61),
    "head.lora_B": (70, 4),
    "long.bias": (90,),
    "short.bias": (7,),
}


def draw(scale: float = 0.1, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: scale * torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def there_and_back(changes: dict[str, Tensor], codec: AdapterCodec, path: Path) -> dict[str, Tensor]:
    path.write_bytes(encode(changes, codec))
    return decode(path, {name: tuple(value.shape) for name, value in changes.items()})


def rows(value: Tensor) -> Tensor:
    return value.reshape(value.shape[0] if value.ndim > 1 else 1, -1)


@pytest.mark.parametrize("codec", CODED)
@pytest.mark.parametrize("scale", [1e-9, 1e-5, 0.1, 50.0])
def test_every_number_comes_back_within_half_a_step(
    codec: AdapterCodec, scale: float, tmp_path: Path
) -> None:
    changes = draw(scale)
    found = there_and_back(changes, codec, tmp_path / "x")
    assert found.keys() == changes.keys()
    for name, value in changes.items():
        kind = choose_kind(value.shape, codec)
        error = rows(found[name] - value).abs()
        if kind == "float16":
            assert torch.equal(found[name], value.half().float())
            continue
        # Scales are float16, rounded up: a thousandth larger, or by the smallest number that it knows.
        steps = rows(value).abs().amax(1) / LEVELS[kind] * (1 + 2**-10) + 6e-8
        if kind == "int8":
            assert bool((error.amax(1) <= steps / 2 * 1.0001).all())
        else:
            # Where it pays to clip an outlier, the row as a whole is still no worse than that.
            assert bool((error.square().mean(1).sqrt() <= steps / 2 * 1.0001).all())


def test_clipping_is_only_done_where_it_brings_a_row_closer(tmp_path: Path) -> None:
    value = torch.randn(16, 400, generator=torch.Generator().manual_seed(3))
    value[0, 0] = 9.0
    found = there_and_back({"a": value}, "int4", tmp_path / "x")["a"]
    steps = value.abs().amax(1, keepdim=True) / 7
    plain = (value / steps).round() * steps
    ours, theirs = ((each - value).square().sum(1) for each in (found, plain))
    assert bool((ours <= theirs * 1.001).all())
    assert ours.sum() < 0.8 * theirs.sum()


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=3), min_size=1, max_size=4),
    st.sampled_from(CODED),
)
def test_any_shapes_come_back_and_weigh_what_the_formula_says(
    tmp_path_factory: pytest.TempPathFactory, shapes: list[list[int]], codec: AdapterCodec
) -> None:
    generator = torch.Generator().manual_seed(len(shapes))
    changes = {str(index): torch.randn(shape, generator=generator) for index, shape in enumerate(shapes)}
    path = tmp_path_factory.mktemp("codes") / "x"
    found = there_and_back(changes, codec, path)
    assert {name: value.shape for name, value in found.items()} == {
        name: value.shape for name, value in changes.items()
    }
    for name, value in changes.items():
        assert bool(((found[name] - value).abs() <= value.abs().max() / 2 + 1e-3).all())
    with safe_open(path, framework="pt") as stored:
        parts = [stored.get_tensor(name) for name in stored.keys()]  # noqa: SIM118
    payload = sum(part.numel() * part.element_size() for part in parts)
    # Bytes are shared between tensors: less than one is saved for each.
    assert 0 <= count_bytes(shapes, codec) - payload <= len(shapes)


def test_bytes_are_those_of_codes_scales_and_float16() -> None:
    assert count_bytes([(128, 512), (1000, 128)], "float32") == 4 * 193_536
    assert count_bytes([(128, 512), (1000, 128)], "float16") == 2 * 193_536
    assert count_bytes([(128, 512), (1000, 128)], "int8") == 193_536 + 2 * 1128
    assert count_bytes([(128, 512), (1000, 128)], "int4") == 193_536 // 2 + 2 * 1128
    assert count_bytes([(128, 512), (1000, 128)], "int6") == 193_536 * 3 // 4 + 2 * 1128
    assert count_bytes([(768,)], "int4") == count_bytes([(768,)], "int8") == 770


@pytest.mark.parametrize(
    ("shape", "codec", "kind"),
    [
        ((64, 64), "float32", "float32"),
        ((64, 64), "float16", "float16"),
        ((64, 64), "int8", "int8"),
        ((64, 64), "int4", "int4"),
        ((768,), "int8", "int8"),
        ((768,), "int4", "int8"),
        ((10,), "int8", "float16"),
        ((4, 4), "int4", "float16"),
        ((1000, 2), "int8", "float16"),
        ((1000, 2), "int4", "int4"),
    ],
)
def test_what_saves_next_to_nothing_stays_float16(
    shape: tuple[int, ...], codec: AdapterCodec, kind: AdapterCodec
) -> None:
    assert choose_kind(shape, codec) == kind
    sizes = [count_bytes([shape], each) for each in ADAPTER_CODECS]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("codec", CODED)
def test_equal_changes_are_equal_files_of_the_expected_size(codec: AdapterCodec) -> None:
    first = encode(draw(), codec)
    assert first == encode(dict(reversed(list(draw().items()))), codec)
    whole = count_bytes(list(SHAPES.values()), codec)
    assert whole - len(SHAPES) < len(first) < whole + 600
    assert len(first) == len(encode({name: torch.zeros(shape) for name, shape in SHAPES.items()}, codec))


@pytest.mark.parametrize("codec", CODED)
def test_zeros_are_zeros(codec: AdapterCodec, tmp_path: Path) -> None:
    changes = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    assert all(not value.any() for value in there_and_back(changes, codec, tmp_path / "x").values())


@pytest.mark.parametrize("codec", CODED)
@pytest.mark.parametrize("name", ["head.lora_A", "long.bias", "short.bias"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -1e9])
def test_numbers_that_cannot_be_stored_are_refused(codec: AdapterCodec, name: str, value: float) -> None:
    changes = draw()
    changes[name].view(-1)[1] = value
    with pytest.raises(ProjectorError, match=r"finite numbers .*; what to do: lower projector\.fit\.lr"):
        encode(changes, codec)


def edit(path: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    """Change the tensors as somebody would who knows the format."""
    with safe_open(path, framework="pt") as stored:
        metadata = stored.metadata()
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata)


def fill(name: str, index: int, value: float) -> Callable[[dict[str, Tensor]], Any]:
    return lambda tensors: tensors[name].__setitem__(index, value)


DAMAGE: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "scale nan": fill("scales", 3, math.nan),
    "scale infinite": fill("scales", 3, math.inf),
    "scale below 0": fill("scales", 3, -1.0),
    "number infinite": fill("float16", 0, math.inf),
    "code of eight bits": fill("int8", 0, -128),
    "code of four bits": fill("int4", 0, 0x80),
    "unknown tensor": lambda tensors: tensors.update(more=torch.zeros(1)),
    "missing tensor": lambda tensors: tensors.pop("scales"),
    "too short": lambda tensors: tensors.update(int8=tensors["int8"][:-1]),
    "too long": lambda tensors: tensors.update(scales=torch.cat([tensors["scales"], torch.ones(1).half()])),
    "other type": lambda tensors: tensors.update(scales=tensors["scales"].view(torch.bfloat16)),
    "other shape": lambda tensors: tensors.update(int8=tensors["int8"][None]),
}


@pytest.mark.parametrize("damage", sorted(DAMAGE))
def test_a_file_that_encode_never_writes_is_refused(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(encode(draw(), "int4"))
    edit(path, lambda tensors: None)
    decode(path, SHAPES)
    edit(path, DAMAGE[damage])
    with pytest.raises(IntegrityError, match=r"stored as codes; got .*; what to do: fetch"):
        decode(path, SHAPES)


@pytest.mark.parametrize(("codec", "used"), [("int7", 7), ("int6", 6), ("int5", 5), ("int4", 4)])
def test_bits_that_no_code_needs_are_no_place_to_hide_in(
    codec: AdapterCodec, used: int, tmp_path: Path
) -> None:
    # One more than a multiple of eight codes: the last byte holds the last code, and what is left of it.
    shapes = {"a": (1, 1001)}
    path = tmp_path / "x"
    path.write_bytes(encode({"a": torch.randn(shapes["a"])}, codec))
    decode(path, shapes)
    edit(path, lambda tensors: tensors[codec].__setitem__(-1, int(tensors[codec][-1]) ^ 1 << used))
    with pytest.raises(IntegrityError, match="bits are used that no code needs"):
        decode(path, shapes)


def test_codes_follow_one_another_from_the_lowest_bit_on(tmp_path: Path) -> None:
    path = tmp_path / "x"
    value = torch.zeros(1, 128)
    value[0, :3] = torch.tensor([31.0, -31.0, 1.0])
    path.write_bytes(encode({"a": value}, "int6"))
    stream = int.from_bytes(load_file(path)["int6"].numpy().tobytes(), "little")
    assert [(stream >> 6 * place & 63) - 32 for place in range(4)] == [31, -31, 1, 0]


@pytest.mark.parametrize("header", ["", "{", "[]", "{}", json.dumps({"codec": "int2"})])
def test_another_header_is_refused(header: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    for metadata in (None, {"aerogel": header}):
        path.write_bytes(encode(draw(), "int8"))
        save_file(load_file(path), path, metadata)
        with pytest.raises(IntegrityError, match="stored as codes"):
            decode(path, SHAPES)


def test_truncated_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    whole = encode(draw(), "int8")
    path = tmp_path / "x"
    with pytest.raises(IntegrityError, match=r"/x; got"):
        decode(path, SHAPES)
    for data in (b"", whole[:7], whole[:100], whole[:-1], whole + b"x", b"no tensors"):
        path.write_bytes(data)
        with pytest.raises(IntegrityError, match=r"/x; got"):
            decode(path, SHAPES)


@pytest.mark.parametrize("codec", CODED)
def test_whatever_happens_to_a_file_it_is_refused_or_gives_finite_numbers_of_the_right_shapes(
    codec: AdapterCodec, tmp_path: Path
) -> None:
    whole, path, chance = encode(draw(), codec), tmp_path / "x", random.Random(5)
    header = 8 + int.from_bytes(whole[:8], "little")
    refused = 0
    for trial in range(150):
        data = bytearray(whole)
        # Every other time in the header, where a changed bit says most.
        for _ in range(chance.randint(1, 3)):
            data[chance.randrange(header if trial % 2 else len(data))] ^= 1 << chance.randrange(8)
        if trial % 10 == 0:
            start = chance.randrange(len(data))
            data[start : start + chance.randrange(40)] = b""
        path.write_bytes(data)
        try:
            found = decode(path, SHAPES)
        except (IntegrityError, MismatchError):
            refused += 1
            continue
        assert {name: tuple(value.shape) for name, value in found.items()} == SHAPES
        assert all(bool(torch.isfinite(value).all()) for value in found.values())
    assert refused > 75


def test_the_codes_of_other_tensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(encode(draw(), "int8"))
    others: list[dict[str, tuple[int, ...]]] = [
        {**SHAPES, "long.bias": (91,)},
        {**SHAPES, "more": (2,)},
        {name: shape for name, shape in SHAPES.items() if name != "short.bias"},
        {("renamed" if name == "long.bias" else name): shape for name, shape in SHAPES.items()},
        {**SHAPES, "head.lora_A": (61, 4)},
    ]
    for shapes in others:
        with pytest.raises(MismatchError, match="load the backbone named"):
            decode(path, shapes)

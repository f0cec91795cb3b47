"""Adapters in four to eight bits a number: codes with a scale for each output channel."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from aerogel.condense.config import FLOAT_CODECS, AdapterCodec
from aerogel.core.canonical import parse_json
from aerogel.core.documents import read_tensors
from aerogel.errors import IntegrityError, MismatchError, ProjectorError, compose

_METADATA = "aerogel"
_FORMAT = "adapter-codes"
_VERSION = 1
_BITS = {"float32": 32, "float16": 16, "int8": 8, "int7": 7, "int6": 6, "int5": 5, "int4": 4}
_LEVELS = {kind: 2 ** (bits - 1) - 1 for kind, bits in _BITS.items() if bits <= 8}
_PACKED = tuple(kind for kind in _LEVELS if kind != "int8")
# What a row's scale is tried at, as a share of that which clips nothing: of few levels it pays to clip a few
# outliers, of 255 it never does.
_WHOLE, _CLIPPED = (1.0,), tuple(1.0 - 0.05 * step for step in range(10))
_TYPES = {"int8": torch.int8, "scales": torch.float16, "float16": torch.float16} | dict.fromkeys(
    _PACKED, torch.uint8
)
_LONGEST = 1000
_LEAST_SHARE = 0.25
_LEAST_BYTES = 64


def choose_kind(shape: Sequence[int], codec: AdapterCodec) -> AdapterCodec:
    """Return how a tensor of ``shape`` is stored under ``codec``: as codes only where that saves bytes.

    A vector takes whole bytes in fewer bits too: it has one scale, and is the smaller part. What saves less
    than a quarter of the float16 bytes, or fewer than 64 of them, stays float16.
    """
    if codec in FLOAT_CODECS:
        return codec
    kind: AdapterCodec = codec if len(shape) > 1 else "int8"
    half = 2 * math.prod(shape)
    saved = half - _code_bytes(shape, kind)
    return kind if saved >= max(_LEAST_BYTES, _LEAST_SHARE * half) else "float16"


def _rows(shape: Sequence[int]) -> int:
    """Return the number of scales: one for each output channel, which is the first axis; one for a vector."""
    return shape[0] if len(shape) > 1 else 1


def _code_bytes(shape: Sequence[int], kind: AdapterCodec) -> int:
    return math.ceil(math.prod(shape) * _BITS[kind] / 8) + 2 * _rows(shape)


def count_bytes(shapes: Sequence[Sequence[int]], codec: AdapterCodec) -> int:
    """Return the bytes of the numbers and scales of tensors of ``shapes``, without the file around them."""
    total = 0
    for shape in shapes:
        kind = choose_kind(shape, codec)
        total += math.prod(shape) * _BITS[kind] // 8 if kind in FLOAT_CODECS else _code_bytes(shape, kind)
    return total


@dataclass(frozen=True)
class _Layout:
    """Say which tensors lie one after another in which part of the file, in the order of their names."""

    codec: AdapterCodec
    shapes: Mapping[str, tuple[int, ...]]

    def part(self, kind: str) -> list[str]:
        return [name for name in sorted(self.shapes) if choose_kind(self.shapes[name], self.codec) == kind]

    def count(self, kind: str) -> int:
        return sum(math.prod(self.shapes[name]) for name in self.part(kind))

    @property
    def rows(self) -> list[int]:
        """Return the number of scales of each coded tensor, those of whole bytes first."""
        return [_rows(self.shapes[name]) for kind in _LEVELS for name in self.part(kind)]

    @property
    def lengths(self) -> dict[str, int]:
        """Return the length of each stored vector; empty ones are left out."""
        found = {kind: math.ceil(self.count(kind) * _BITS[kind] / 8) for kind in _LEVELS}
        found |= {"scales": sum(self.rows), "float16": self.count("float16")}
        return {name: length for name, length in found.items() if length}

    @property
    def header(self) -> str:
        named = json.dumps([[name, list(self.shapes[name])] for name in sorted(self.shapes)])
        digest = hashlib.sha256(named.encode()).hexdigest()
        facts = {"codec": self.codec, "format": _FORMAT, "tensors": digest, "version": _VERSION}
        return json.dumps(facts, sort_keys=True, separators=(",", ":"))


def encode(changes: Mapping[str, Tensor], codec: AdapterCodec) -> bytes:
    """Return a safetensors file of ``changes`` in codes of b = 8 ("int8") to 4 bits ("int4").

    A row is an output channel. Its scale is float16, rounded up so that nothing is clipped by rounding; codes
    lie symmetrically around 0, up to 2^(b-1) - 1. Those of fewer than eight bits are stored plus 2^(b-1),
    bit after bit, each from its lowest on, and the bytes are filled from their lowest bit. All codes lie one
    after another in the order of the tensors' names, all scales and all float16 numbers likewise: a header
    for each tensor would weigh as much as the small tensors. The header holds a hash of names and shapes in
    their place.

    Raises:
        ProjectorError: a number is not finite, or too large for float16.
    """
    layout = _Layout(codec, {name: tuple(value.shape) for name, value in changes.items()})
    found: dict[str, Tensor] = {}
    scales = []
    for kind, levels in _LEVELS.items():
        codes = []
        for name in layout.part(kind):
            value = changes[name].detach().float().cpu()
            shares = _WHOLE if kind == "int8" else _CLIPPED
            ours, theirs = _code(value.reshape(_rows(value.shape), -1), levels, shares)
            codes.append(ours.flatten())
            scales.append(theirs)
        if codes:
            found[kind] = torch.cat(codes) if kind == "int8" else _pack(torch.cat(codes), _BITS[kind])
    if scales:
        found["scales"] = torch.cat(scales)
    kept = [changes[name].detach().cpu().half().flatten() for name in layout.part("float16")]
    if kept:
        found["float16"] = torch.cat(kept)
    for name in ("scales", "float16"):
        if name in found and not bool(torch.isfinite(found[name]).all()):
            raise ProjectorError(
                compose(
                    "an adapter of finite numbers that float16 holds",
                    f"one that {codec} cannot store",
                    "lower projector.fit.lr, or train the label generator longer",
                )
            )
    return save({name: found[name] for name in layout.lengths}, {_METADATA: layout.header})


def _code(rows: Tensor, levels: int, shares: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Return codes [R, n] (int8) and scales [R] (float16) of ``rows``, each with its best of ``shares``."""
    peaks = rows.abs().amax(1)
    codes = torch.zeros_like(rows)
    scales = torch.zeros_like(peaks, dtype=torch.float16)
    least = torch.full_like(peaks, torch.inf)
    for share in shares:
        wanted = share * peaks / levels
        step = wanted.half()
        # The next float16 up: bits of positive numbers are in the order of the numbers.
        above = (step.view(torch.int16) + 1).view(torch.float16)
        step = torch.where(step.float() < wanted, above, step)
        divisor = torch.where(step > 0, step.float(), 1.0)[:, None]
        tried = (rows / divisor).round().clamp(-levels, levels)
        error = (tried * divisor - rows).square().sum(1)
        better = error < least
        codes[better], scales[better], least[better] = tried[better], step[better], error[better]
    # A row without a finite error keeps the scale that says so.
    scales[~torch.isfinite(least)] = torch.nan
    return codes.to(torch.int8), scales


def _pack(codes: Tensor, bits: int) -> Tensor:
    """Return codes [n] of so many ``bits`` as bytes; what the last byte has left over is of a zero's code."""
    zero = 2 ** (bits - 1)
    filling = np.full(8 // bits + 1, zero, dtype=np.uint8)
    raised = np.append((codes.numpy() + zero).astype(np.uint8), filling)
    places = raised[:, None] >> np.arange(bits, dtype=np.uint8) & 1
    needed = math.ceil(len(codes) * bits / 8)
    packed = np.packbits(places.flatten()[: 8 * needed], bitorder="little")
    return torch.from_numpy(packed)


def _unpack(packed: Tensor, bits: int, count: int) -> Tensor:
    """Return the first ``count`` codes in ``packed`` bytes."""
    places = np.unpackbits(packed.numpy(), count=count * bits, bitorder="little").reshape(count, bits)
    raised = places.astype(np.int16) @ (1 << np.arange(bits, dtype=np.int16))
    return torch.from_numpy((raised - 2 ** (bits - 1)).astype(np.int8))


def decode(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Return the changes, in float32, that :func:`encode` wrote for tensors of ``shapes``.

    Everything is checked before anything is returned.

    Raises:
        IntegrityError: the file is no such file, or holds what :func:`encode` never writes.
        MismatchError: it was written for tensors of other names or shapes.
    """
    tensors, written = read_tensors(path)
    try:
        header = written.get(_METADATA, "")
        layout = _Layout(_read_codec(header), shapes)
        if header != layout.header:
            raise MismatchError(_explain_mismatch(path, len(shapes)))
        found = {name: (part.dtype, tuple(part.shape)) for name, part in tensors.items()}
        expected = {name: (_TYPES[name], (length,)) for name, length in layout.lengths.items()}
        if found != expected:
            raise ValueError(f"holds {found} in place of {expected}"[:_LONGEST])
        _check_values(tensors, layout)
    except (ValueError, LookupError, TypeError) as failure:
        if isinstance(failure, MismatchError):
            raise
        raise IntegrityError(
            compose("an adapter stored as codes", f"{path}: {failure}", "fetch the folder again")
        ) from failure
    return _expand(tensors, layout)


def count_codes(path: Path) -> int:
    """Return how many numbers a file of codes holds at most, scales among them.

    Raises:
        IntegrityError: there is no such file, or it is damaged.
    """
    tensors, _ = read_tensors(path)
    return sum(part.numel() * 8 // (_BITS[name] if name in _PACKED else 8) for name, part in tensors.items())


def _read_codec(header: str) -> AdapterCodec:
    facts = parse_json(header.encode("utf-8"))
    if not isinstance(facts, dict) or not isinstance(facts.get("codec"), str):
        raise ValueError(f"its header is {header[:200]!r}")
    if facts["format"] != _FORMAT or facts["version"] != _VERSION or facts["codec"] not in _LEVELS:
        raise ValueError(f"its header is {header[:200]!r}")
    codec: AdapterCodec = facts["codec"]
    return codec


def _explain_mismatch(path: Path, count: int) -> str:
    return compose(
        f"an adapter with the {count} tensors of this backbone and these classes",
        f"{path}, whose tensors have other names or shapes",
        "load the backbone named in the manifest",
    )


def _check_values(tensors: Mapping[str, Tensor], layout: _Layout) -> None:
    """Refuse numbers that are not finite, and codes and scales below the smallest.

    Raises:
        ValueError: there is one.
    """
    for name in ("scales", "float16"):
        if name in tensors and not bool(torch.isfinite(tensors[name]).all()):
            raise ValueError(f"{name} are not all finite")
    if "scales" in tensors and bool((tensors["scales"] < 0).any()):
        raise ValueError("scales are not all 0 or more")
    if "int8" in tensors and int(tensors["int8"].min()) < -_LEVELS["int8"]:
        raise ValueError("a code is -128")
    for kind in _PACKED:
        if kind in tensors:
            codes = _unpack(tensors[kind], _BITS[kind], layout.count(kind))
            if int(codes.min()) < -_LEVELS[kind] or not torch.equal(_pack(codes, _BITS[kind]), tensors[kind]):
                raise ValueError(f"a code is {-_LEVELS[kind] - 1}, or bits are used that no code needs")


def _expand(tensors: Mapping[str, Tensor], layout: _Layout) -> dict[str, Tensor]:
    """Return the changes by name from the parts of the file."""
    parts = {kind: tensors[kind] for kind in ("int8", "float16") if kind in tensors}
    for kind in _PACKED:
        if kind in tensors:
            parts[kind] = _unpack(tensors[kind], _BITS[kind], layout.count(kind))
    changes: dict[str, Tensor] = {}
    scales = iter(tensors["scales"].float().split(layout.rows) if layout.rows else ())
    for kind in (*_LEVELS, "float16"):
        names = layout.part(kind)
        if not layout.count(kind):
            changes |= {name: torch.zeros(layout.shapes[name]) for name in names}
            continue
        sizes = [math.prod(layout.shapes[name]) for name in names]
        for name, part in zip(names, parts[kind].float().split(sizes), strict=True):
            steps = torch.ones(1) if kind == "float16" else next(scales)
            changes[name] = (part.reshape(len(steps), -1) * steps[:, None]).reshape(layout.shapes[name])
    return changes

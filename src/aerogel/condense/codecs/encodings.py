"""How one view's label is written: encodings of logits, all with the same contract.

An encoding turns logits [V, C] of V views into tensors whose first axis is V, and back. It works row by row:
the code of a view depends on its own logits only, so that codes do not depend on batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from aerogel.condense.codecs.naming import Codec, Part
from aerogel.core.randomness import derive_seed
from aerogel.core.registry import Registry
from aerogel.errors import DataError, compose

__all__ = ["ENCODINGS", "Encoding", "Field", "build_encoding", "fit_codebooks", "sample_size", "view_bytes"]

_LARGEST = 65504.0  # of float16
_TINY = 2.0**-24  # the smallest float16 above zero
_DISTANCES = 2**22  # held at a time
_ROWS_AT_ONCE = 2**18
_ROUNDS = 50
_SAMPLE = 2**14
_PER_ROW = 64


@dataclass(frozen=True)
class Field:
    """Describe one tensor of a code: its type, and its shape for one view."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Return what one view takes."""
        return self.dtype.itemsize * math.prod(self.shape)


class Encoding(Protocol):
    """Turn logits into what is stored, and back."""

    @property
    def layout(self) -> dict[str, Field]:
        """Return the stored tensors by name."""
        ...

    def encode(self, logits: Tensor) -> dict[str, Tensor]:
        """Return the code of ``logits`` [V, C] (float32, on the CPU), tensors as in ``layout``.

        Raises:
            DataError: there is a logit that the encoding cannot hold.
        """
        ...

    def decode(self, code: Mapping[str, Tensor]) -> Tensor:
        """Return logits [V, C] in float32."""
        ...

    def find_fault(self, code: Mapping[str, Tensor]) -> str | None:
        """Return what no encoder writes in tensors that have the layout's types and shapes, or None."""
        ...


Builder = Callable[[tuple[int, ...], int, tuple[Part, ...], Mapping[str, Tensor]], Encoding]
ENCODINGS: Registry[Builder] = Registry("label encoding")


def build_encoding(codec: Codec, classes: int, books: Mapping[str, Tensor] | None = None) -> Encoding:
    """Build the encoding of a codec for labels of ``classes`` classes.

    ``books`` are the codebooks from :func:`fit_codebooks`, for codecs that have them; without them the layout
    is all that such an encoding knows.
    """
    return _build(codec.encoding, classes, books or {})


def view_bytes(codec: Codec, classes: int) -> int:
    """Return the bytes that a codec writes for one stored view, without files' headers and codebooks."""
    return sum(field.bytes for field in build_encoding(codec, classes).layout.values())


def _build(parts: tuple[Part, ...], width: int, books: Mapping[str, Tensor]) -> Encoding:
    return ENCODINGS.get(parts[0].kind)(parts[0].numbers, width, parts[1:], books)


def _index_type(count: int) -> torch.dtype:
    """Return the smallest of three types that holds the numbers below ``count``."""
    if count <= 2**8:
        return torch.uint8
    return torch.int16 if count <= 2**15 else torch.int32


def _require_float16(logits: Tensor) -> None:
    """Check that float16 holds every logit.

    Raises:
        DataError: one is larger, or no number.
    """
    largest = float(logits.abs().amax()) if logits.numel() else 0.0
    if not largest <= _LARGEST:
        raise DataError(
            compose(
                f"logits up to {_LARGEST:,.0f}, which float16 holds",
                f"{largest:g}",
                "store them as stored-fp32, or look at what the teacher gives",
            )
        )


def _find_unfinite(code: Mapping[str, Tensor]) -> str | None:
    for name, tensor in code.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            return f"values of {name!r} that are no finite numbers"
    return None


def _find_outside(name: str, indices: Tensor, count: int) -> str | None:
    if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < count:
        return f"indices in {name!r} from {int(indices.min())} to {int(indices.max())}, of {count}"
    return None


@dataclass(frozen=True)
class Plain:
    """Write logits as floating-point numbers: float32 as they are, float16 rounded once."""

    width: int
    dtype: torch.dtype

    @property
    def layout(self) -> dict[str, Field]:
        """Return the one tensor: a number for each class."""
        return {"labels": Field(self.dtype, (self.width,))}

    def encode(self, logits: Tensor) -> dict[str, Tensor]:
        """Return the logits in the type."""
        if self.dtype == torch.float16:
            _require_float16(logits)
        return {"labels": logits.to(self.dtype)}

    def decode(self, code: Mapping[str, Tensor]) -> Tensor:
        """Return the numbers in float32."""
        return code["labels"].float()

    def find_fault(self, code: Mapping[str, Tensor]) -> str | None:
        """Tell of numbers that are not finite."""
        return _find_unfinite(code)


@ENCODINGS.register("fp32")
def _build_fp32(numbers: object, width: int, rest: object, books: object) -> Encoding:
    return Plain(width, torch.float32)


@ENCODINGS.register("fp16")
def _build_fp16(numbers: object, width: int, rest: object, books: object) -> Encoding:
    return Plain(width, torch.float16)


@dataclass(frozen=True)
class Integers:
    """Write logits in 256 even steps between the row's smallest and largest.

    A row has an offset o and a step s in float16, and a class the code q = round((z - o) / s) from 0 to 255;
    it is read as o + s q. The offset is rounded down and the step up, so that no code is cut off and the
    error is at most half a step: s / 2, where s is (max - min) / 255 up to float16's rounding.
    """

    width: int

    @property
    def layout(self) -> dict[str, Field]:
        """Return codes, steps and offsets."""
        half = Field(torch.float16, ())
        return {"codes": Field(torch.uint8, (self.width,)), "steps": half, "offsets": half}

    def encode(self, logits: Tensor) -> dict[str, Tensor]:
        """Return codes, and each row's step and offset."""
        _require_float16(logits)
        exact = logits.double().numpy()
        low, high = exact.min(1), exact.max(1)
        offsets = _round_half(low, -np.inf)
        steps = np.maximum(_round_half((high - offsets) / 255.0, np.inf), np.float16(_TINY))
        distance = exact - offsets.astype(np.float64)[:, None]
        codes = np.rint(distance / steps.astype(np.float64)[:, None])
        return {
            "codes": torch.from_numpy(codes.astype(np.uint8)),
            "steps": torch.from_numpy(steps),
            "offsets": torch.from_numpy(offsets),
        }

    def decode(self, code: Mapping[str, Tensor]) -> Tensor:
        """Return offset + step * code."""
        return code["offsets"].float()[:, None] + code["steps"].float()[:, None] * code["codes"].float()

    def find_fault(self, code: Mapping[str, Tensor]) -> str | None:
        """Tell of steps or offsets that are not finite, or steps that are not above zero."""
        if code["steps"].numel() and not bool((code["steps"] > 0).all()):
            return "steps that are not above zero"
        return _find_unfinite(code)


def _round_half(values: np.ndarray, towards: float) -> np.ndarray:
    """Return ``values`` [V] as float16, rounded towards minus or plus infinity."""
    with np.errstate(over="ignore"):
        near = values.astype(np.float16)
    past = near > values if towards < 0 else near < values
    limit = np.float16(towards)
    found: np.ndarray = np.where(past, np.nextafter(near, limit), near)
    return found.clip(np.float16(-_LARGEST), np.float16(_LARGEST))


@ENCODINGS.register("int8")
def _build_int8(numbers: object, width: int, rest: object, books: object) -> Encoding:
    return Integers(width)


@dataclass(frozen=True)
class Top:
    """Write the ``count`` largest logits and their classes, the rest of the probability spread evenly.

    Let R be the classes left out and t = log(mean of exp(z_c) over R), the level at which each would have to
    stand so that together they keep their probability. Stored are the classes in falling order (equal logits:
    the lower class first) and z_c - t, by the ``values`` encoding. Read back, those are the logits of the
    classes, 0 is that of all others, and the row's mean is taken off: a softmax gives back the probability of
    every stored class and, for each other one, an even share of what is left.
    """

    width: int
    count: int
    values: Encoding

    @property
    def layout(self) -> dict[str, Field]:
        """Return the classes, in the smallest index type, and the values' tensors."""
        return {"classes": Field(_index_type(self.width), (self.count,)), **self.values.layout}

    def encode(self, logits: Tensor) -> dict[str, Tensor]:
        """Return classes and heights above the level of the rest."""
        _require_float16(logits)
        ordered, classes = logits.double().sort(dim=1, descending=True, stable=True)
        rest = ordered[:, self.count :]
        level = rest.logsumexp(1, keepdim=True) - math.log(rest.shape[1])
        heights = (ordered[:, : self.count] - level).float()
        # A copy: a part of a larger tensor would be written with all of it.
        kept = classes[:, : self.count].to(_index_type(self.width)).contiguous()
        return {"classes": kept, **self.values.encode(heights)}

    def decode(self, code: Mapping[str, Tensor]) -> Tensor:
        """Return the logits, their mean zero in every row."""
        heights = self.values.decode({name: code[name] for name in self.values.layout})
        logits = torch.zeros(len(heights), self.width).scatter_(1, code["classes"].long(), heights)
        return logits - logits.mean(1, keepdim=True)

    def find_fault(self, code: Mapping[str, Tensor]) -> str | None:
        """Tell of classes that do not exist or come twice in a row, and of what is wrong with the values."""
        outside = _find_outside("classes", code["classes"], self.width)
        if outside:
            return outside
        for part in code["classes"].split(_ROWS_AT_ONCE):
            ordered = part.sort(1).values
            if bool((ordered[:, 1:] == ordered[:, :-1]).any()):
                return "a class that comes twice in one label"
        return self.values.find_fault({name: code[name] for name in self.values.layout})


@ENCODINGS.register("top")
def _build_top(
    numbers: tuple[int, ...], width: int, rest: tuple[Part, ...], books: Mapping[str, Tensor]
) -> Encoding:
    return Top(width, numbers[0], _build(rest, numbers[0], books))


@dataclass(frozen=True)
class Codebooks:
    """Write for each run of classes the index of the nearest of ``rows`` rows of its codebook.

    The classes are cut into ``runs`` runs as even as can be, in order (one: vector quantisation; more:
    product quantisation, H. Jégou et al., IEEE TPAMI 33(1), 2011). ``books`` hold at most ``rows`` rows each,
    in float16; none is needed to know the layout.
    """

    width: int
    runs: int
    rows: int
    books: tuple[Tensor, ...] = ()

    @property
    def layout(self) -> dict[str, Field]:
        """Return the indices, one for each run."""
        return {"indices": Field(_index_type(self.rows), (self.runs,))}

    def encode(self, logits: Tensor) -> dict[str, Tensor]:
        """Return the index of the nearest row, of equal ones the first, by Euclidean distance."""
        _require_float16(logits)
        runs = zip(_cut(logits, self.runs), self.books, strict=True)
        found = [_find_nearest(run.double(), book.double()) for run, book in runs]
        return {"indices": torch.stack(found, 1).to(_index_type(self.rows))}

    def decode(self, code: Mapping[str, Tensor]) -> Tensor:
        """Return the rows that the indices point to, side by side."""
        indices = code["indices"].long()
        return torch.cat([book[indices[:, run]].float() for run, book in enumerate(self.books)], 1)

    def find_fault(self, code: Mapping[str, Tensor]) -> str | None:
        """Tell of indices that point outside their codebook."""
        for run, book in enumerate(self.books):
            outside = _find_outside("indices", code["indices"][:, run], len(book))
            if outside:
                return outside
        return None


@ENCODINGS.register("vq")
def _build_vq(numbers: tuple[int, ...], width: int, rest: object, books: Mapping[str, Tensor]) -> Encoding:
    return Codebooks(width, 1, numbers[0], _order_books(books))


@ENCODINGS.register("pq")
def _build_pq(numbers: tuple[int, ...], width: int, rest: object, books: Mapping[str, Tensor]) -> Encoding:
    return Codebooks(width, numbers[0], numbers[1], _order_books(books))


def _order_books(books: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    return tuple(books[f"book-{run}"] for run in range(len(books)))


def _cut(logits: Tensor, runs: int) -> tuple[Tensor, ...]:
    return tuple(logits.tensor_split(runs, dim=1))


def _find_nearest(rows: Tensor, book: Tensor) -> Tensor:
    lengths = book.square().sum(1)
    parts = rows.split(max(1, _DISTANCES // len(book)))
    return torch.cat([(lengths - 2.0 * part @ book.T).argmin(1) for part in parts])


def sample_size(codec: Codec) -> int:
    """Return how many labels the codebooks are fitted to: 64 for each row, at least 16,384."""
    (part,) = codec.encoding
    return max(_SAMPLE, _PER_ROW * part.numbers[-1])


def fit_codebooks(codec: Codec, sample: Tensor, seed: int) -> dict[str, Tensor]:
    """Fit a codec's codebooks to a ``sample`` of logits [V, C] by k-means, one for each run of classes.

    Returns them in float16, [rows, classes of the run] each, without repetitions and in lexical order; a
    sample of fewer distinct labels than rows gives fewer. They depend on the sample and the seed alone.

    Raises:
        DataError: there is a logit that float16 cannot hold.
    """
    # Imported here: it takes a second.
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    _require_float16(sample)
    (part,) = codec.encoding
    runs, rows = part.numbers if part.kind == "pq" else (1, *part.numbers)
    books = {}
    for run, logits in enumerate(_cut(sample, runs)):
        exact = logits.double().numpy()
        distinct = np.unique(exact, axis=0)
        if len(distinct) > rows:
            chosen = derive_seed(seed, "codebook", run) % 2**32
            # Sums of several threads would round in the order in which these end.
            with threadpool_limits(limits=1):
                means = KMeans(rows, n_init=1, max_iter=_ROUNDS, random_state=chosen).fit(exact)
            distinct = means.cluster_centers_
        books[f"book-{run}"] = torch.from_numpy(np.unique(distinct.astype(np.float16), axis=0))
    return books

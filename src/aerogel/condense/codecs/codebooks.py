"""Encodings that write the index of a row of a codebook: fitted rows, or drawn ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from aerogel.condense.codecs.contract import (
    ENCODINGS,
    Encoding,
    Field,
    find_outside,
    index_type,
    require_float16,
)
from aerogel.condense.codecs.naming import Codec, Part
from aerogel.core.randomness import derive_seed, uniforms

__all__ = ["Codebooks", "RandomCodebook", "are_codebooks", "fit_codebooks", "sample_size"]

_DISTANCES = 2**22  # held at a time
_ROUNDS = 50
_HALVINGS = 100
_SAMPLE = 2**14
_PER_ROW = 64


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
        return {"indices": Field(index_type(self.rows), (self.runs,))}

    def encode(self, logits: Tensor) -> dict[str, Tensor]:
        """Return the index of the nearest row, of equal ones the first, by Euclidean distance."""
        require_float16(logits)
        runs = zip(_cut(logits, self.runs), self.books, strict=True)
        found = [_find_nearest(run.double(), book.double()) for run, book in runs]
        return {"indices": torch.stack(found, 1).to(index_type(self.rows))}

    def decode(self, code: Mapping[str, Tensor]) -> Tensor:
        """Return the rows that the indices point to, side by side."""
        indices = code["indices"].long()
        return torch.cat([book[indices[:, run]].float() for run, book in enumerate(self.books)], 1)

    def find_fault(self, code: Mapping[str, Tensor]) -> str | None:
        """Tell of indices that point outside their codebook."""
        for run, book in enumerate(self.books):
            outside = find_outside("indices", code["indices"][:, run], len(book))
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


@dataclass(frozen=True)
class RandomCodebook:
    """Write the index of the nearest of 2^``bits`` rows that are drawn, and so need not be stored.

    Row i is mean + factor z_i; z_i is standard normal and depends on i alone. Such a codebook is what the
    coding theorem for a Gaussian source is proved with (C. E. Shannon, "Coding theorems for a discrete source
    with a fidelity criterion", 1959). ``books`` are mean [1, C] and factor [C, C], in float16; neither is
    needed to know the layout.
    """

    width: int
    bits: int
    books: Mapping[str, Tensor]

    @property
    def layout(self) -> dict[str, Field]:
        """Return the one index."""
        return {"indices": Field(torch.uint8 if self.bits <= 8 else torch.int16, ())}

    @cached_property
    def rows(self) -> Tensor:
        """Return the codebook [2^bits, C] in float64."""
        normal = torch.from_numpy(_draw_normal(2**self.bits, self.width))
        return self.books["mean"].double() + normal @ self.books["factor"].double()

    def encode(self, logits: Tensor) -> dict[str, Tensor]:
        """Return the index of the nearest row, by Euclidean distance; sixteen bits as int16 has them."""
        require_float16(logits)
        return {"indices": _find_nearest(logits.double(), self.rows).to(self.layout["indices"].dtype)}

    def decode(self, code: Mapping[str, Tensor]) -> Tensor:
        """Return the rows that the indices point to."""
        return self.rows[code["indices"].long() & (2**self.bits - 1)].float()

    def find_fault(self, code: Mapping[str, Tensor]) -> str | None:
        """Tell of indices that point outside the codebook."""
        if self.bits == 16:
            return None
        return find_outside("indices", code["indices"], 2**self.bits)


@ENCODINGS.register("gauss")
def _build_gauss(numbers: tuple[int, ...], width: int, rest: object, books: Mapping[str, Tensor]) -> Encoding:
    return RandomCodebook(width, numbers[0], books)


def _draw_normal(rows: int, width: int) -> np.ndarray:
    """Draw standard normal numbers [rows, width], each row by its number alone (Box and Muller, 1958)."""
    pairs = (width + 1) // 2
    drawn = uniforms(0, "random codebook", 0, np.arange(rows), 2 * pairs)
    length = np.sqrt(-2.0 * np.log1p(-drawn[:, :pairs]))
    angle = 2.0 * np.pi * drawn[:, pairs:]
    found: np.ndarray = np.concatenate([length * np.cos(angle), length * np.sin(angle)], 1)[:, :width]
    return found


def _cut(logits: Tensor, runs: int) -> tuple[Tensor, ...]:
    return tuple(logits.tensor_split(runs, dim=1))


def _find_nearest(rows: Tensor, book: Tensor) -> Tensor:
    lengths = book.square().sum(1)
    parts = rows.split(max(1, _DISTANCES // len(book)))
    return torch.cat([(lengths - 2.0 * part @ book.T).argmin(1) for part in parts])


def sample_size(codec: Codec) -> int:
    """Return how many labels the codebooks are fitted to: 64 for each row, at least 16,384."""
    (part,) = codec.encoding
    return _SAMPLE if part.kind == "gauss" else max(_SAMPLE, _PER_ROW * part.numbers[-1])


def fit_codebooks(codec: Codec, sample: Tensor, seed: int) -> dict[str, Tensor]:
    """Fit a codec's codebooks to a ``sample`` of logits [V, C].

    "vq" and "pq": by k-means, one for each run of classes. Returns them in float16, [rows, classes of the
    run] each, without repetitions and in lexical order; a sample of fewer distinct labels than rows gives
    fewer. They depend on the sample and the seed alone.

    "gauss": the sample's mean and, for b bits, the symmetric root of (covariance - t)+, in float16. The level
    t is that at which the eigenvalues w have sum(log2(w / t)+) / 2 = b: what a code of b bits leaves of a
    Gaussian label is t in every direction that is wider than that ("reverse water-filling", T. M. Cover and
    J. A. Thomas, Elements of Information Theory, section 10.3.3).

    Raises:
        DataError: there is a logit that float16 cannot hold.
    """
    require_float16(sample)
    (part,) = codec.encoding
    exact = sample.double().numpy()
    if part.kind == "gauss":
        mean = exact.mean(0, keepdims=True)
        factor = _find_factor((exact - mean).T @ (exact - mean) / len(exact), part.numbers[0])
        return {"mean": torch.from_numpy(mean).half(), "factor": torch.from_numpy(factor).half()}
    runs, rows = _split_numbers(part)
    return {
        f"book-{run}": _find_means(logits, rows, derive_seed(seed, "codebook", run) % 2**32)
        for run, logits in enumerate(np.array_split(exact, runs, axis=1))
    }


def _find_factor(covariance: np.ndarray, bits: int) -> np.ndarray:
    """Return the symmetric root of ``covariance`` [C, C] less what a code of so many bits leaves."""
    widths, axes = np.linalg.eigh(covariance)
    high = max(float(widths.max()), 0.0)
    low = high * 2.0 ** (-2 * bits)
    for _ in range(_HALVINGS if high else 0):
        level = (low + high) / 2.0
        short = np.log2(np.maximum(widths / level, 1.0)).sum() / 2.0 > bits
        low, high = (level, high) if short else (low, level)
    factor: np.ndarray = (axes * np.sqrt(np.maximum(widths - high, 0.0))) @ axes.T
    return factor


def _find_means(logits: np.ndarray, rows: int, seed: int) -> Tensor:
    """Return at most ``rows`` distinct rows by k-means over ``logits`` [V, classes], in float16."""
    # Imported here: it takes a second.
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    distinct = np.unique(logits, axis=0)
    if len(distinct) > rows:
        # Sums of several threads would round in the order in which these end.
        with threadpool_limits(limits=1):
            means = KMeans(rows, n_init=1, max_iter=_ROUNDS, random_state=seed).fit(logits)
        distinct = means.cluster_centers_
    return torch.from_numpy(np.unique(distinct.astype(np.float16), axis=0))


def _split_numbers(part: Part) -> tuple[int, int]:
    """Return the runs of classes and the rows of each codebook."""
    return (part.numbers[0], part.numbers[1]) if part.kind == "pq" else (1, part.numbers[0])


def are_codebooks(books: Mapping[str, Tensor], codec: Codec, classes: int) -> bool:
    """Tell whether ``books`` have the names, types and shapes of a codec's, and finite numbers."""
    (part,) = codec.encoding
    if part.kind == "gauss":
        heights = {"mean": (1, 1), "factor": (classes, classes)}
        widths = dict.fromkeys(heights, classes)
    else:
        runs, rows = _split_numbers(part)
        if len(books) != runs:
            return False
        names = [f"book-{run}" for run in range(runs)]
        heights = dict.fromkeys(names, (1, rows))
        least, more = divmod(classes, runs)
        widths = {name: least + (run < more) for run, name in enumerate(names)}
    return books.keys() == widths.keys() and all(
        book.dtype == torch.float16
        and book.ndim == 2
        and book.shape[1] == widths[name]
        and heights[name][0] <= len(book) <= heights[name][1]
        and bool(torch.isfinite(book).all())
        for name, book in books.items()
    )

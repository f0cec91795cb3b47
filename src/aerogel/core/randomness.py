"""Random numbers that are a function of names and numbers, not of the order in which they are drawn."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aerogel.errors import ConfigError, DataError, compose

__all__ = ["derive_seed", "permutation", "philox", "seed_torch", "uniforms"]

_ROUNDS = 10
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_WORD = np.uint64(32)


def philox(counter: NDArray[np.uint32], key: tuple[int, int]) -> NDArray[np.uint32]:
    """Encrypt counters into random words, four at a time.

    ``counter`` is [n, 4] and so is the result; the key is two 32-bit words. Row i of the result depends on
    row i of the counter and on the key alone. Implements Philox-4x32-10 of Salmon et al., "Parallel random
    numbers: as easy as 1, 2, 3", SC 2011, section 3.3.
    """
    words = counter.astype(np.uint64)
    c0, c1, c2, c3 = words[:, 0], words[:, 1], words[:, 2], words[:, 3]
    k0, k1 = key
    for _ in range(_ROUNDS):
        left, right = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c2 = (right >> _WORD) ^ c1 ^ np.uint64(k0), (left >> _WORD) ^ c3 ^ np.uint64(k1)
        c1, c3 = right & _LOW, left & _LOW
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return np.stack((c0, c1, c2, c3), axis=1).astype(np.uint32)


def uniforms(
    seed: int, stream: str, epoch: int, samples: NDArray[np.int64], draws: int
) -> NDArray[np.float64]:
    """Draw uniform numbers in [0, 1) for every sample; the result is [len(samples), draws].

    Each number is a function of (seed, stream, epoch, sample, draw) and of nothing else: the other samples of
    the call, their order and ``draws`` do not matter. Seed and stream become the key of Philox-4x32-10;
    sample, epoch and draw become its counter. A number has 53 random bits, taken from two 32-bit words, so it
    is exact in float64; a cast to float32 can round it up to 1.0.

    Raises:
        DataError: samples are not a vector of integers, or epoch or draws are out of range.
    """
    rows = _vector(samples)
    if not 0 <= epoch < 2**32:
        raise DataError(compose("an epoch from 0 to 2**32 - 1", str(epoch), "count epochs from zero"))
    if not 0 <= draws < 2**32:
        raise DataError(
            compose("a number of draws from 0 to 2**32 - 1", str(draws), "ask for that many per sample")
        )
    blocks = (draws + 1) // 2
    counter = np.empty((len(rows), blocks, 4), dtype=np.uint32)
    counter[:, :, 0] = (rows & _LOW).astype(np.uint32)[:, None]
    counter[:, :, 1] = (rows >> _WORD).astype(np.uint32)[:, None]
    counter[:, :, 2] = np.uint32(epoch)
    counter[:, :, 3] = np.arange(blocks, dtype=np.uint32)[None, :]
    digest = _digest("uniforms", seed, stream)
    key = (int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little"))
    words = philox(counter.reshape(-1, 4), key).reshape(len(rows), blocks * 2, 2)
    high = (words[:, :, 0] >> np.uint32(5)).astype(np.float64)
    low = (words[:, :, 1] >> np.uint32(6)).astype(np.float64)
    return np.ascontiguousarray(((high * 2.0**26 + low) * 2.0**-53)[:, :draws])


def permutation(seed: int, stream: str, epoch: int, n: int) -> NDArray[np.int64]:
    """Shuffle the numbers 0 to n - 1; the result is [n] and depends on the four arguments alone.

    Numbers are sorted by one uniform draw each; equal draws keep the order of their indices.

    Raises:
        DataError: n is negative.
    """
    if n < 0:
        raise DataError(compose("a length of zero or more", str(n), "pass the number of items to shuffle"))
    keys = uniforms(seed, stream, epoch, np.arange(n, dtype=np.int64), 1)[:, 0]
    return np.argsort(keys, kind="stable").astype(np.int64)


def derive_seed(seed: int, *names: str | int) -> int:
    """Derive a seed of 63 bits for the part of a run that the names point to.

    Different names give unrelated seeds, so that adding a part to a run leaves the others as they were.
    """
    return int.from_bytes(_digest("seed", seed, *names)[:8], "little") >> 1


@contextmanager
def seed_torch(seed: int) -> Iterator[None]:
    """Seed torch's global generators for a block, and give the caller's states back at its end.

    Covers the CPU and every visible CUDA device, so that the weights of a model that is built in the block
    depend on the seed alone.

    Raises:
        ConfigError: the seed is not from 0 to 2**63 - 1.
    """
    if not 0 <= seed < 2**63:
        raise ConfigError(
            compose("a seed from 0 to 2**63 - 1", str(seed), "pass such a seed, or use derive_seed")
        )
    import torch

    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.manual_seed_all(seed)
        yield


def _vector(samples: Any) -> NDArray[np.uint64]:
    values = np.asarray(samples)
    if values.size == 0 and values.ndim == 1:
        return np.empty(0, dtype=np.uint64)
    if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer):
        raise DataError(
            compose(
                "sample numbers as a vector of integers",
                f"an array of {values.dtype} with shape {values.shape}",
                "pass the samples' indices, such as numpy.arange(n)",
            )
        )
    return values.astype(np.int64).view(np.uint64)


def _digest(*parts: str | int) -> bytes:
    text = json.dumps([part if isinstance(part, str) else int(part) for part in parts], separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).digest()

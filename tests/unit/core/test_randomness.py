"""Random numbers are a function of seed, stream, epoch, sample and draw, and of nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from aerogel.core.randomness import derive_seed, permutation, philox, seed_torch, uniforms
from aerogel.errors import ConfigError, DataError

ONES = 0xFFFFFFFF
EVER = [
    [0.007371485167205094, 0.15439214830419867, 0.0952211480377575],
    [0.42122296082787525, 0.9780680743172513, 0.21285266778885226],
    [0.33971230659679885, 0.07667881353950579, 0.6265166817312761],
]
ORDER = [2, 1, 0, 7, 4, 3, 6, 5]
SEED = 830403829343167454
INDICES = hnp.arrays(np.int64, st.integers(1, 30), elements=st.integers(0, 2**63 - 1))


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ONES, ONES, ONES, ONES), (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_known_answers(
    counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    rows = np.array([counter, (1, 2, 3, 4), counter], dtype=np.uint32)
    words = philox(rows, key)
    assert words.dtype == np.uint32
    assert tuple(words[0]) == tuple(words[2]) == expected
    assert tuple(words[1]) != expected


@given(INDICES, st.integers(0, 2**32 - 1), st.integers(1, 9), st.data())
def test_a_number_does_not_depend_on_the_rest_of_the_call(
    samples: np.ndarray[Any, Any], epoch: int, draws: int, data: st.DataObject
) -> None:
    together = uniforms(7, "views", epoch, samples, draws)
    row = data.draw(st.integers(0, len(samples) - 1))
    fewer = data.draw(st.integers(0, draws))
    alone = uniforms(7, "views", epoch, samples[row : row + 1], fewer)
    assert together.shape == (len(samples), draws)
    assert alone[0].tobytes() == together[row, :fewer].tobytes()
    backwards = uniforms(7, "views", epoch, samples[::-1], draws)
    assert backwards[::-1].tobytes() == together.tobytes()
    assert together.min() >= 0.0
    assert together.max() < 1.0


def test_the_numbers_stay_the_same_for_ever() -> None:
    found = uniforms(0, "views", 3, np.array([0, 1, 2**40], dtype=np.int64), 3)
    assert found.tolist() == EVER
    assert permutation(0, "order", 1, 8).tolist() == ORDER
    assert derive_seed(0, "teacher", 2) == SEED


def test_each_part_of_the_key_changes_the_numbers() -> None:
    samples = np.arange(4)
    calls = [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1), (-1, "a", 0), (0, "a", 2**32 - 1)]
    values = np.concatenate([uniforms(*call, samples, 3).ravel() for call in calls])
    assert len(np.unique(values)) == values.size
    far = uniforms(0, "a", 0, np.array([1, 1 + 2**32]), 1)
    assert far[0, 0] != far[1, 0]


def test_the_numbers_are_uniform_and_use_all_53_bits() -> None:
    values = uniforms(3, "spread", 0, np.arange(20_000), 5)
    counts = np.histogram(values, bins=50, range=(0, 1))[0]
    expected = values.size / 50
    assert ((counts - expected) ** 2 / expected).sum() < 95  # chi-square, 49 degrees of freedom, p = 1e-4
    assert abs(np.corrcoef(values.T) - np.eye(5)).max() < 0.03
    mantissas = (values * 2.0**53).astype(np.uint64)
    assert (mantissas.astype(np.float64) * 2.0**-53 == values).all()
    for bit in range(53):
        assert 0.48 < ((mantissas >> np.uint64(bit)) & np.uint64(1)).mean() < 0.52


@pytest.mark.parametrize("samples", [[0.5], [[1]], 3, ["a"]])
def test_samples_that_are_no_indices_are_refused(samples: Any) -> None:
    with pytest.raises(DataError, match="vector of integers"):
        uniforms(0, "a", 0, samples, 1)


@pytest.mark.parametrize(("epoch", "draws"), [(-1, 1), (2**32, 1), (0, -1)])
def test_epochs_and_draws_out_of_range_are_refused(epoch: int, draws: int) -> None:
    with pytest.raises(DataError):
        uniforms(0, "a", epoch, np.arange(2), draws)


def test_nothing_asked_nothing_given() -> None:
    assert uniforms(0, "a", 0, np.arange(0), 3).shape == (0, 3)
    assert uniforms(0, "a", 0, [], 3).shape == (0, 3)  # type: ignore[arg-type]
    assert uniforms(0, "a", 0, np.arange(3), 0).shape == (3, 0)
    assert permutation(0, "a", 0, 0).shape == (0,)


@given(st.integers(0, 300), st.integers(0, 99), st.integers(0, 9))
def test_a_permutation_holds_every_number_once(n: int, seed: int, epoch: int) -> None:
    order = permutation(seed, "order", epoch, n)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(n))


def test_a_permutation_keeps_no_place_and_refuses_a_negative_length() -> None:
    firsts = [int(permutation(0, "order", epoch, 10)[0]) for epoch in range(2000)]
    assert min(np.bincount(firsts, minlength=10)) > 140
    with pytest.raises(DataError):
        permutation(0, "order", 0, -1)


NAMES = st.lists(st.text() | st.integers(), max_size=3)


@given(st.integers(), NAMES, st.integers(), NAMES)
def test_derived_seeds_differ_exactly_when_their_names_do(
    seed: int, names: list[str | int], other: int, others: list[str | int]
) -> None:
    same = (seed, [(type(n), n) for n in names]) == (other, [(type(n), n) for n in others])
    first, second = derive_seed(seed, *names), derive_seed(other, *others)
    assert 0 <= first < 2**63
    assert (first == second) == same


def test_names_are_not_glued_together() -> None:
    assert derive_seed(0, "ab", "c") != derive_seed(0, "a", "bc")
    assert derive_seed(0, "1") != derive_seed(0, 1)
    assert derive_seed(1, "a") == derive_seed(int(np.int64(1)), "a") == derive_seed(np.int64(1), "a")


def test_torch_is_seeded_inside_and_untouched_outside() -> None:
    before = torch.get_rng_state()
    with seed_torch(5):
        first = torch.nn.Linear(3, 2).weight
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(9)
    with pytest.raises(KeyboardInterrupt), seed_torch(5):
        second = torch.nn.Linear(3, 2).weight
        raise KeyboardInterrupt
    assert torch.equal(first, second)
    with seed_torch(6):
        assert not torch.equal(first, torch.nn.Linear(3, 2).weight)


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_torch_would_not_take_is_refused(seed: int) -> None:
    with pytest.raises(ConfigError, match="seed from 0"), seed_torch(seed):
        pass

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aerogel.errors import DataError
from aerogel.zoo.imageset import ImageSet


def make_set(labels: list[int], classes: int | None = None, channels: int = 1, name: str = "toy") -> ImageSet:
    generator = np.random.default_rng(len(labels))
    pixels = generator.integers(0, 256, (len(labels), channels, 8, 8), dtype=np.uint8)
    count = classes if classes is not None else max(labels, default=-1) + 1
    return ImageSet(
        torch.from_numpy(pixels),
        torch.tensor(labels, dtype=torch.int64),
        tuple(f"class {c}" for c in range(count)),
        tuple(f"train:{row}" for row in range(len(labels))),
        name,
        "CC0-1.0",
    )


def test_length_and_shape() -> None:
    data = make_set([0, 1, 1], channels=3)
    assert len(data) == 3
    assert data.shape == (3, 8, 8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": torch.zeros(2, 1, 8, 8)}, "float32"),
        ({"images": torch.zeros(2, 2, 8, 8, dtype=torch.uint8)}, "C must be 1 or 3"),
        ({"images": torch.zeros(3, 1, 8, 8, dtype=torch.uint8)}, "3 images, 2 labels and 2 ids"),
        ({"labels": torch.zeros(2, dtype=torch.int32)}, "int32"),
        ({"labels": torch.tensor([0, 2])}, "labels from 0 to 2 for a list of 2"),
        ({"labels": torch.tensor([-1, 0])}, "labels from -1 to 0"),
        ({"ids": ("a",)}, "1 ids"),
    ],
)
def test_refuses_parts_that_disagree(change: dict[str, object], words: str) -> None:
    with pytest.raises(DataError, match=words):
        replace(make_set([0, 1]), **change)


def test_subset_keeps_order_ids_and_class_list() -> None:
    data = make_set([0, 1, 2, 1])
    part = data.subset([3, 0])
    assert part.ids == ("train:3", "train:0")
    assert part.labels.tolist() == [1, 0]
    assert torch.equal(part.images, data.images[[3, 0]])
    assert part.class_names == data.class_names


def test_subset_takes_a_mask() -> None:
    data = make_set([0, 1, 2, 1])
    assert data.subset(data.labels == 1).ids == ("train:1", "train:3")
    assert data.subset(data.labels.numpy() == 1).ids == ("train:1", "train:3")


def test_subset_copies() -> None:
    data = make_set([0, 1])
    before = data.fingerprint()
    data.subset([0, 1]).images.zero_()
    assert data.fingerprint() == before


@given(st.lists(st.integers(0, 4), max_size=30))
def test_per_class_partitions_the_indices(labels: list[int]) -> None:
    groups = make_set(labels, classes=5).per_class()
    assert list(groups) == [0, 1, 2, 3, 4]
    assert sorted(i for indices in groups.values() for i in indices.tolist()) == list(range(len(labels)))
    assert all(labels[i] == c for c, indices in groups.items() for i in indices.tolist())


def test_check_lists_every_empty_and_double_class() -> None:
    data = replace(make_set([0, 2, 4]), class_names=("a", "b", "c", "d", "a"))
    with pytest.raises(DataError) as caught:
        data.check()
    assert "'a' is listed twice" in str(caught.value)
    assert "'b' has no images" in str(caught.value)
    assert "'d' has no images" in str(caught.value)


def test_check_returns_a_sound_set_and_refuses_an_empty_one() -> None:
    data = make_set([0, 1])
    assert data.check() is data
    with pytest.raises(DataError, match="no classes"):
        make_set([]).check()


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.floats(0.05, 0.95), st.integers(0, 2**32))
def test_split_is_a_stratified_partition(labels: list[int], fraction: float, seed: int) -> None:
    data = make_set(labels, classes=4)
    kept, held = data.split(fraction, seed)
    assert sorted(kept.ids + held.ids, key=data.ids.index) == list(data.ids)
    for c, indices in data.per_class().items():
        part = int((held.labels == c).sum())
        assert abs(part - len(indices) * fraction) <= 1
        if len(indices) >= 2:
            assert 0 < part < len(indices)
    assert list(held.ids) == sorted(held.ids, key=data.ids.index)


def test_split_totals_round_to_the_nearest_image() -> None:
    labels = [
        c for c, count in enumerate([178, 182, 177, 183, 181, 182, 181, 179, 174, 180]) for _ in range(count)
    ]
    kept, held = make_set(labels).split(360 / 1797, 0)
    assert (len(kept), len(held)) == (1437, 360)


def test_split_depends_on_seed_and_stream_only() -> None:
    data = make_set([0, 1] * 50)
    first = data.split(0.3, 7)[1].ids
    assert data.split(0.3, 7)[1].ids == first
    assert data.split(0.3, 8)[1].ids != first
    assert data.split(0.3, 7, "other")[1].ids != first


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_split_refuses_a_fraction_outside_the_unit_interval(fraction: float) -> None:
    with pytest.raises(DataError, match="between 0 and 1"):
        make_set([0, 1]).split(fraction, 0)


def test_fingerprint_covers_pixels_labels_and_names_only() -> None:
    data = make_set([0, 1, 1])
    changed = data.images.clone()
    changed[2, 0, 7, 7] ^= 1
    variants = [
        replace(data, images=changed),
        replace(data, images=data.images.reshape(3, 1, 4, 16)),
        replace(data, labels=torch.tensor([0, 1, 0])),
        replace(data, class_names=("class 0", "other")),
    ]
    assert len({data.fingerprint(), *(v.fingerprint() for v in variants)}) == 5
    assert replace(data, name="x", licence="y", ids=("a", "b", "c")).fingerprint() == data.fingerprint()


def test_fingerprint_is_the_documented_hash_and_ignores_strides() -> None:
    data = make_set([1, 0], channels=3)
    head = b'{"class_names": ["class 0", "class 1"], "shape": [2, 3, 8, 8]}'
    labels = np.array([1, 0], dtype="<i8").tobytes()
    expected = hashlib.sha256(head + data.images.numpy().tobytes() + labels).hexdigest()
    assert data.fingerprint() == expected
    strided = data.images.to(memory_format=torch.channels_last)
    assert replace(data, images=strided).fingerprint() == expected


@given(st.integers(0, 10_000))
def test_statistics_match_a_direct_computation(seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 3, 8, 9), dtype=np.uint8)
    data = replace(make_set([0, 0, 0, 1, 1], channels=3), images=torch.from_numpy(pixels))
    mean, deviation = data.statistics()
    assert mean == pytest.approx((pixels / 255).mean(axis=(0, 2, 3)), abs=1e-12)
    assert deviation == pytest.approx((pixels / 255).std(axis=(0, 2, 3)), abs=1e-12)


def test_statistics_of_a_flat_set_have_no_deviation() -> None:
    data = replace(make_set([0]), images=torch.full((1, 1, 8, 8), 51, dtype=torch.uint8))
    assert data.statistics() == ((pytest.approx(0.2),), (pytest.approx(0.0, abs=1e-12),))

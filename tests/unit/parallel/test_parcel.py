"""Parcels hold what has changed and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._pytree import tree_flatten

from aerogel.parallel.messages import open_message, pack_message
from aerogel.parallel.parcel import Packer, Unpacker

CPU = torch.device("cpu")
BIG = 1000


class Way:
    """Take values from here to there and back into view."""

    def __init__(self) -> None:
        self._packer, self._unpacker = Packer(CPU), Unpacker()
        self.size_bytes = -1

    def send(self, values: Any) -> Any:
        parcel, buffer = self._packer.pack(values)
        assert buffer.nbytes == parcel.size_bytes
        self.size_bytes = parcel.size_bytes
        return self._unpacker.unpack(open_message(pack_message(parcel)), buffer.clone())


def same(one: Any, other: Any) -> bool:
    (ones, structure), (others, as_well) = tree_flatten(one), tree_flatten(other)
    return structure == as_well and all(
        torch.equal(left, right) and left.dtype == right.dtype and left.shape == right.shape
        if isinstance(left, Tensor)
        else left == right
        for left, right in zip(ones, others, strict=True)
    )


TENSORS = {
    "long": torch.arange(BIG, dtype=torch.float32),
    "half": torch.arange(BIG).to(torch.bfloat16),
    "odd": torch.arange(BIG + 1).to(torch.int8),
    "truths": torch.arange(BIG) % 3 == 0,
    "complex": torch.view_as_complex(torch.arange(2.0 * BIG).reshape(BIG, 2)),
    "scalar": torch.tensor(3.5, dtype=torch.float64),
    "empty": torch.zeros(0, 4),
    "channels last": torch.arange(4 * BIG)
    .reshape(2, 2, 100, 10)
    .contiguous(memory_format=torch.channels_last),
    "slice": torch.arange(4.0 * BIG).reshape(4, BIG)[1:3, ::2],
    "expanded": torch.arange(float(BIG)).expand(3, BIG),
}


@pytest.mark.parametrize("name", TENSORS)
def test_a_tensor_arrives_as_it_was(name: str) -> None:
    tensor = TENSORS[name]
    found = Way().send((tensor,))[0]
    assert same(found, tensor)
    assert found.stride() == tensor.clone().stride()


def test_everything_arrives_in_its_place() -> None:
    values = {
        7: ((torch.ones(BIG), 3), {"t": torch.tensor(1.0), "none": None, "more": [torch.zeros(BIG), "text"]})
    }
    assert same(Way().send(values), values)


def test_what_is_the_same_stays_home() -> None:
    way, text, noise = Way(), torch.ones(BIG), torch.zeros(BIG)
    way.send({"text": text, "noise": noise})
    both = way.size_bytes
    found = way.send({"text": text, "noise": noise + 1.0})
    assert same(found, {"text": text, "noise": noise + 1.0})
    assert way.size_bytes == both // 2
    way.send({"text": text, "noise": noise})
    way.send({"text": text, "noise": noise})
    assert way.size_bytes == 0


def test_what_was_changed_in_place_is_sent_again() -> None:
    way, text = Way(), torch.ones(BIG)
    way.send([text])
    text += 1.0
    assert same(way.send([text]), [text])
    assert way.size_bytes > 0


def test_equal_numbers_elsewhere_are_sent_as_their_own() -> None:
    way = Way()
    for number in range(20):
        # Freed in turn: the next may get the same place in memory and the same number.
        values = [torch.full((BIG,), float(number))]
        assert same(way.send(values), values)


def test_one_tensor_in_two_places_is_sent_once() -> None:
    way, text = Way(), torch.ones(BIG)
    found = way.send([text, text, text.clone()])
    assert found[0] is found[1]
    assert found[2] is not found[0]
    assert way.size_bytes == 2 * -(-text.nbytes // 64) * 64
    assert same(way.send([text.clone(), text]), [text, text])


def test_tensors_of_inference_mode_are_sent_each_time() -> None:
    with torch.inference_mode():
        way, text = Way(), torch.ones(BIG)
        way.send([text])
        text += 1.0
        assert same(way.send([text]), [text])


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=4), min_size=1, max_size=6
    )
)
def test_any_sequence_of_parcels_arrives(calls: list[list[tuple[int, bool]]]) -> None:
    way, known = Way(), [torch.full((100,), float(number)) for number in range(4)]
    for call in calls:
        for number, changes in call:
            if changes:
                known[number] += 10.0
        values = {step: known[number] for step, (number, _) in enumerate(call)}
        assert same(way.send(values), values)

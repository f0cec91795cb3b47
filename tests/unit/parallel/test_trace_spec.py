"""What is known of a tensor is enough to make another like it, and to put that in its place."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from aerogel.parallel.trace import TensorSpec, distinct_tensors, replace_tensors


@pytest.mark.parametrize(
    ("tensor", "strides", "size"),
    [
        (torch.ones(2, 3), (3, 1), 24),
        (torch.ones(3, 2).T, (1, 2), 24),
        (torch.ones(2, 6)[:, ::2], (3, 1), 24),
        (torch.ones(3).expand(2, 3), None, 24),
        (torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last), (60, 1, 15, 3), 480),
        (torch.ones(2, 3, dtype=torch.bfloat16), (3, 1), 12),
        (torch.ones(5, dtype=torch.bool), (1,), 5),
        (torch.ones((), dtype=torch.int64), (), 8),
        (torch.ones(0, 3), (3, 1), 0),
    ],
    ids=["plain", "transposed", "holes", "overlaps", "channels last", "half", "bool", "scalar", "empty"],
)
def test_a_spec_is_that_of_a_clone(tensor: Tensor, strides: tuple[int, ...] | None, size: int) -> None:
    spec = TensorSpec.of(tensor)
    clone = tensor.clone()
    assert (spec.shape, spec.strides, spec.dtype) == (tuple(clone.shape), clone.stride(), clone.dtype)
    assert strides is None or spec.strides == strides
    assert spec.size_bytes == size
    flat = torch.zeros(tensor.numel(), dtype=tensor.dtype)
    spec.view(flat).copy_(tensor)
    assert torch.equal(spec.view(flat), tensor)
    copied = spec.copy(tensor)
    assert torch.equal(copied, tensor)
    assert copied.stride() == spec.strides
    assert copied.data_ptr() != tensor.data_ptr() or not tensor.numel()


def test_dimensions_are_arranged_in_memory_as_asked() -> None:
    spec = TensorSpec((2, 3, 4, 5), (60, 1, 15, 3), torch.float32)
    assert spec.order == (0, 2, 3, 1)
    assert TensorSpec.of(torch.ones(2, 3, 4, 5)).arrange(spec.order) == spec
    assert spec.arrange((0, 1, 2, 3)) == TensorSpec.of(torch.ones(2, 3, 4, 5))


def test_tensors_are_exchanged_where_they_are() -> None:
    a, b, c, d = (torch.full((1,), float(number)) for number in range(4))
    values = {"x": a, "y": (b, [a, None, "text", 3])}
    assert [each.item() for each in distinct_tensors(values)] == [0.0, 1.0]
    assert replace_tensors(values, [c, d]) == {"x": c, "y": (d, [c, None, "text", 3])}
    assert values["x"] is a
    with pytest.raises(ValueError, match="zip"):
        replace_tensors(values, [c])

"""What operations read, give and look at is reported, however they are called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from aerogel.parallel.observer import observe


def looked_at(function: Callable[..., Any], *args: Tensor) -> list[Tensor]:
    seen: list[Tensor] = []
    with observe(lambda inputs, outputs: None, seen.extend, lambda macs: None):
        function(*args)
    return seen


def numbers() -> Tensor:
    return torch.tensor([1, 2, 0, 3])


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x[0].item(),
        lambda x: bool(x[0]),
        lambda x: float(x[1]),
        lambda x: f"{x[1]}",
        lambda x: x.tolist(),
        lambda x: x.numpy(),
        lambda x: np.asarray(x),
        lambda x: torch.arange(x[1]),
        lambda x: torch.equal(x, x),
        lambda x: x.nonzero(),
        lambda x: torch.where(x),
        lambda x: x.unique(),
        lambda x: torch.arange(4).repeat_interleave(x),
    ],
)
def test_values_that_become_numbers_or_shapes_are_looked_at(read: Callable[[Tensor], Any]) -> None:
    x = numbers()
    (seen,) = {each.untyped_storage().data_ptr() for each in looked_at(read, x)}
    assert seen == x.untyped_storage().data_ptr()


@pytest.mark.parametrize(
    "use",
    [
        lambda x: x + 1,
        lambda x: x.cpu(),
        lambda x: x.sum(),
        lambda x: torch.arange(4)[x],
        lambda x: torch.arange(8).view(2, 4)[:, x],
        lambda x: torch.where(x > 1, x, 0),
        lambda x: torch.zeros(4).index_put_((x.bool(),), torch.tensor(1.0)),
        lambda x: torch.arange(len(x)),
        lambda x: list(x),
        lambda x: x.shape,
    ],
)
def test_values_that_stay_in_tensors_are_not_looked_at(use: Callable[[Tensor], Any]) -> None:
    assert looked_at(use, numbers()) == []


@pytest.mark.filterwarnings("ignore:indexing with dtype torch.uint8:UserWarning")
@pytest.mark.parametrize("kind", [torch.bool, torch.uint8])
def test_of_a_choice_by_truths_only_the_truths_are_looked_at(kind: torch.dtype) -> None:
    truths, x = torch.tensor([True, False, True]).to(kind), torch.arange(6).view(3, 2)
    (seen,) = looked_at(lambda x, truths: x[truths, :], x, truths)
    assert seen is truths


def reported(function: Callable[..., Any], *args: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Return all inputs and all outputs of the operations that ``function`` calls."""
    read: list[Tensor] = []
    given: list[Tensor] = []

    def note(inputs: list[Tensor], outputs: list[Tensor]) -> None:
        read.extend(inputs)
        given.extend(outputs)

    with observe(note, lambda values: None, lambda macs: None):
        given.append(function(*args))
    return read, given


def test_an_operation_is_reported_with_all_tensors_it_takes_and_gives() -> None:
    x, y = torch.ones(2), torch.ones(2)
    read, given = reported(lambda x, y: torch.add(x, other=y), x, y)
    assert [each is other for each, other in zip(read, (x, y), strict=True)] == [True, True]
    assert given[0] is given[-1]
    read, given = reported(lambda x, y: torch.cat([x, y]), x, y)
    assert len(read) == 2
    read, given = reported(lambda x, y: torch.add(x, 1, out=y), x, y)
    assert given[0] is y


@pytest.mark.parametrize(
    "form",
    [
        torch.zeros_like,
        torch.ones_like,
        torch.empty_like,
        torch.rand_like,
        torch.randn_like,
        lambda x: torch.full_like(x, 2.0),
        lambda x: x.new_zeros(3),
        lambda x: x.new_ones(3, dtype=torch.bool),
        lambda x: x.new_empty(3),
        lambda x: x.new_full((3,), 1.0),
        lambda x: x.new_tensor([1.0]),
    ],
)
def test_what_takes_only_the_form_of_a_tensor_reads_nothing_of_it(form: Callable[[Tensor], Tensor]) -> None:
    x = torch.ones(2)
    assert all(each is not x for each in reported(form, x)[0])


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_multiply_accumulates_are_those_of_the_products(device: str) -> None:
    """Attention of 4 heads, 5 queries, 7 keys of 3 values and 7 values of 6; a layer, a convolution."""
    query, key, value = (torch.ones(2, 4, *shape, device=device) for shape in ((5, 3), (7, 3), (7, 6)))
    found: list[int] = []
    with observe(lambda inputs, outputs: None, lambda values: None, found.append):
        F.scaled_dot_product_attention(query, key, value).sin()
        products = sum(found)
        F.linear(query, torch.ones(8, 3, device=device))
        layer = sum(found) - products
        F.conv2d(torch.ones(1, 2, 5, 5, device=device), torch.ones(3, 2, 3, 3, device=device))
    assert products == 2 * 4 * 5 * 7 * (3 + 6)
    assert layer == 2 * 4 * 5 * 3 * 8
    assert sum(found) - layer - products == 3 * 3 * 3 * 2 * 9


def test_nothing_is_reported_afterwards() -> None:
    seen: list[Any] = []
    note: Any = lambda *values: seen.append(values)  # noqa: E731
    with pytest.raises(ValueError, match="in the context"), observe(note, note, note):
        raise ValueError("in the context")
    numbers().view(2, 2).float().mm(torch.ones(2, 2)).tolist()
    assert seen == []

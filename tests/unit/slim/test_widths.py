"""Widths as published, at any head count."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aerogel.errors import ConfigError
from aerogel.slim.channels import Channels, Group
from aerogel.slim.widths import Widths, derive_widths, round_width


def channels(embedding: int, heads: int, mlp: int, blocks: int = 2) -> Channels:
    sizes = {"heads": heads, "head_dims": embedding // heads, "mlp": mlp}
    groups = [Group("embedding", embedding, ())]
    groups += [Group(f"blocks.{i}.{kind}", size, ()) for i in range(blocks) for kind, size in sizes.items()]
    return Channels("toy", "", tuple(groups), frozenset())


SAM_B, SAM_L, SAM_H = channels(768, 12, 3072), channels(1024, 16, 4096), channels(1280, 16, 5120)


@pytest.mark.parametrize(
    ("size", "ratio", "kept"), [(768, 0.77, 168), (3072, 0.77, 696), (768, 0.5, 384), (3072, 0.5, 1536)]
)
def test_published_widths(size: int, ratio: float, kept: int) -> None:
    assert round_width(size, ratio, 12) == kept


def test_a_ratio_is_the_decimal_that_it_is_written_as() -> None:
    assert int(1280 * (1 - 0.9)) == 127
    assert round_width(1280, 0.9, 16) == 128


@given(st.integers(1, 5120), st.integers(0, 999), st.integers(1, 32))
def test_rounding(size: int, thousandths: int, multiple: int) -> None:
    ratio = thousandths / 1000
    exact = size * (1 - Fraction(thousandths, 1000))
    if thousandths == 0:
        assert round_width(size, ratio, multiple) == size
    elif exact < multiple:
        with pytest.raises(ConfigError, match="leaves at least"):
            round_width(size, ratio, multiple)
    else:
        kept = round_width(size, ratio, multiple)
        assert kept % multiple == 0
        assert kept <= exact < kept + multiple


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 2.0, float("nan"), float("inf")])
def test_ratios_outside_are_refused(ratio: float) -> None:
    with pytest.raises(ConfigError, match="from 0 up to"):
        round_width(768, ratio, 12)


def test_the_highest_ratio_that_is_named_works() -> None:
    with pytest.raises(ConfigError, match=r"choose at most 0\.984"):
        round_width(768, 0.99, 12)
    assert round_width(768, 0.984, 12) == 12


def test_widths_of_sams() -> None:
    assert derive_widths(SAM_B, 0.77) == Widths(168, 12, 14, 696)
    assert derive_widths(SAM_B, 0.5) == Widths(384, 12, 32, 1536)
    assert derive_widths(SAM_L, 0.5) == Widths(512, 16, 32, 2048)
    assert derive_widths(SAM_H, 0.77) == Widths(288, 16, 18, 1168)
    assert derive_widths(SAM_B, 0.0) == Widths(768, 12, 64, 3072)
    assert derive_widths(SAM_B, 0.77, mlp_ratio=0.5) == Widths(168, 12, 14, 1536)


def test_fewer_heads_share_the_same_width() -> None:
    assert derive_widths(SAM_B, 0.77, heads=3) == Widths(174, 3, 58, 705)
    with pytest.raises(
        ConfigError, match=r"at most 64 dimensions; got 2 heads at ratio 0\.77; .* choose one of 4"
    ):
        derive_widths(SAM_B, 0.77, heads=2)
    for heads in (0, 13):
        with pytest.raises(ConfigError, match="1 to 12 heads"):
            derive_widths(SAM_B, 0.5, heads=heads)


@given(st.integers(1, 16), st.integers(1, 80), st.integers(1, 6), st.integers(0, 99), st.integers(0, 16))
def test_derived_widths_are_stock(heads: int, dims: int, times: int, percent: int, fewer: int) -> None:
    model = channels(heads * dims, heads, heads * dims * times)
    try:
        widths = derive_widths(model, percent / 100, heads=max(1, heads - fewer))
    except ConfigError:
        return
    assert widths.embedding == (widths.heads or 0) * (widths.head_dims or 0)
    assert (widths.head_dims or 0) <= dims and (widths.mlp or 0) <= heads * dims * times
    assert min(widths.get("embedding") or 0, widths.get("mlp") or 0) >= 1


def test_blocks_of_different_widths_have_no_ratio() -> None:
    mixed = channels(24, 4, 40)
    groups = tuple(Group(g.name, 7, ()) if g.name == "blocks.1.mlp" else g for g in mixed.groups)
    with pytest.raises(ConfigError, match="one number of mlp in all blocks"):
        derive_widths(Channels("toy", "", groups, frozenset()), 0.5)

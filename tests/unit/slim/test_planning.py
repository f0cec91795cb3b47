"""Plans from scores: widths are met, blocks compete or do not, the residual stream is chosen freely."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aerogel.errors import ConfigError, DataError
from aerogel.slim.channels import Channels, Group
from aerogel.slim.families import describe
from aerogel.slim.plan import identity_plan
from aerogel.slim.planning import make_plan
from aerogel.slim.widths import Widths, derive_widths
from tests.unit.slim.tiny import build


def draw_scores(channels: Channels, seed: int = 0) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    return {group.name: generator.random(group.size) for group in channels.groups}


@pytest.fixture(scope="module")
def channels() -> Channels:
    return describe(build())


def test_a_ratio_gives_a_stock_plan(channels: Channels) -> None:
    scores = draw_scores(channels)
    plan = make_plan(channels, scores, derive_widths(channels, 0.5))
    assert plan.layout == "stock"
    assert {plan.widths[f"blocks.{i}.mlp"] for i in range(3)} == {20}
    assert {plan.widths[f"blocks.{i}.head_dims"] for i in range(3)} == {3}
    assert plan.kept["embedding"] == tuple(sorted(np.argsort(-scores["embedding"])[:12].tolist()))
    assert plan.kept["blocks.0.mlp"] != plan.kept["blocks.1.mlp"]


@pytest.mark.parametrize("ranking", ["local", "global"])
def test_ratio_zero_needs_no_scores(channels: Channels, ranking: Any) -> None:
    assert make_plan(channels, {}, derive_widths(channels, 0.0), ranking=ranking) == identity_plan(channels)


def test_one_kind_at_a_time(channels: Channels) -> None:
    scores = draw_scores(channels)
    embedding = make_plan(channels, {"embedding": scores["embedding"]}, Widths(embedding=12))
    assert embedding.layout == "flex" and embedding.widths["blocks.0.mlp"] == 40
    with pytest.raises(ConfigError, match="heads times head dimensions"):
        make_plan(channels, scores, Widths(embedding=12), layout="stock")


def test_blocks_compete(channels: Channels) -> None:
    scores = draw_scores(channels)
    plan = make_plan(channels, scores, Widths(head_dims=3, mlp=20), ranking="global")
    mlp = [plan.widths[f"blocks.{i}.mlp"] for i in range(3)]
    dims = [plan.widths[f"blocks.{i}.head_dims"] for i in range(3)]
    assert plan.layout == "flex"
    assert sum(mlp) == 60 and len(set(mlp)) > 1 and all(width % 4 == 0 for width in mlp)
    assert sum(dims) == 9
    limited = make_plan(channels, scores, Widths(head_dims=4), ranking="global", head_dim_limit=4)
    assert {limited.widths[f"blocks.{i}.head_dims"] for i in range(3)} == {4}


def test_whole_heads_can_go(channels: Channels) -> None:
    plan = make_plan(channels, draw_scores(channels), derive_widths(channels, 0.5, heads=2))
    assert plan.layout == "stock"
    assert plan.widths["blocks.1.heads"] == 2 and plan.widths["blocks.1.head_dims"] == 6


def test_the_residual_stream_is_not_chosen_in_step_with_the_heads() -> None:
    """Channels c, c + 64, c + 128 ... of 768 must be free to part, also where heads prefer a pattern."""
    groups = [Group("embedding", 768, ())]
    groups += [Group(f"blocks.0.{kind}", n, ()) for kind, n in (("heads", 12), ("head_dims", 64), ("mlp", 8))]
    sam = Channels("sam", "", tuple(groups), frozenset())
    plan = make_plan(sam, draw_scores(sam), Widths(embedding=384, head_dims=32))
    stays = np.isin(np.arange(768), plan.kept["embedding"]).reshape(12, 64)
    assert (stays.any(0) & ~stays.all(0)).mean() > 0, "some residue must be kept in part"
    assert (stays.any(0) & ~stays.all(0)).mean() > 0.9
    best = np.zeros(768)
    best[:384] = 1.0
    plan = make_plan(sam, {"embedding": best}, Widths(embedding=384))
    assert plan.kept["embedding"] == tuple(range(384)), "six heads' channels, if these score highest"


def test_the_published_lockstep_is_a_matter_of_scores() -> None:
    """What the published code chose can be had for comparison: equal scores for channels c, c + 64 ..."""
    sam = Channels("sam", "", (Group("embedding", 768, ()),), frozenset())
    residues = np.random.default_rng(0).random(64)
    plan = make_plan(sam, {"embedding": np.tile(residues, 12)}, Widths(embedding=168))
    stays = np.isin(np.arange(768), plan.kept["embedding"]).reshape(12, 64)
    assert (stays == stays[0]).all()
    assert np.flatnonzero(stays[0]).tolist() == sorted(np.argsort(-residues)[:14].tolist())


def test_scores_must_be_there(channels: Channels) -> None:
    scores = draw_scores(channels)
    del scores["blocks.1.mlp"]
    with pytest.raises(DataError, match=r"scores for blocks\.1\.mlp"):
        make_plan(channels, scores, Widths(mlp=20))
    make_plan(channels, scores, Widths(embedding=12))


def test_widths_must_fit(channels: Channels) -> None:
    scores = draw_scores(channels)
    with pytest.raises(ConfigError, match="1 to 24 channels"):
        make_plan(channels, scores, Widths(embedding=25))
    with pytest.raises(ConfigError, match="at least 4 MLP channels"):
        make_plan(channels, scores, Widths(mlp=3), ranking="global")


def test_only_mlps_compete_where_that_is_asked_for(channels: Channels) -> None:
    scores = draw_scores(channels)
    plan = make_plan(channels, scores, derive_widths(channels, 0.5), ranking="mlp")
    mlp = [plan.widths[f"blocks.{i}.mlp"] for i in range(3)]
    assert plan.layout == "flex" and sum(mlp) == 60 and len(set(mlp)) > 1
    assert all(width % 4 == 0 for width in mlp)
    assert {plan.widths[f"blocks.{i}.head_dims"] for i in range(3)} == {3}
    local = make_plan(channels, scores, derive_widths(channels, 0.5))
    for name in ("embedding", "blocks.0.head_dims", "blocks.2.head_dims"):
        assert plan.kept[name] == local.kept[name]
    with pytest.raises(ConfigError, match="layout"):
        make_plan(channels, scores, derive_widths(channels, 0.5), ranking="mlp", layout="stock")

"""Make a plan from scores and widths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from aerogel.core.config import validate
from aerogel.errors import ConfigError, DataError, compose
from aerogel.slim.channels import KINDS, Channels, Kind
from aerogel.slim.plan import Layout, Plan, find_stock_faults
from aerogel.slim.ranking import Normalizer, choose, choose_among, read_scores
from aerogel.slim.widths import Widths

Ranking = Literal["local", "mlp", "global"]


def make_plan(
    channels: Channels,
    scores: Mapping[str, Any],
    widths: Widths,
    *,
    ranking: Ranking = "local",
    normalizer: Normalizer = "gaussian",
    layout: Layout | None = None,
    head_dim_limit: int | None = None,
) -> Plan:
    """Return the plan that keeps the channels of the highest ``scores``.

    ``scores`` maps a group's name to a score for each of its channels, 0 or more; groups that stay whole
    need none. The residual stream has one group, whose channels are chosen one by one. "local" ranking
    gives every block the same widths; with "global" the blocks compete for blocks times width channels, MLP
    channels in multiples of the number of heads, compared by ``normalizer``, and no block keeps more than
    ``head_dim_limit`` dimensions of a head; with "mlp" they compete for MLP channels alone. Without a
    ``layout`` it is "stock" where the widths allow it. (Section 3.2 of arXiv 2312.05284.)

    Raises:
        ConfigError: the widths do not fit the model or the layout.
        DataError: scores are missing or wrong.
    """
    kept: dict[str, tuple[int, ...]] = {name: tuple(range(size)) for name, size in channels.sizes.items()}
    for kind in KINDS:
        width = widths.get(kind)
        groups = {group.name: group.size for group in channels.of_kind(kind)}
        if width is None or all(width == size for size in groups.values()):
            continue
        read = {name: _read(scores, name, size) for name, size in groups.items()}
        competes = ranking == "global" or ranking == kind
        if not competes or len(groups) == 1:
            kept |= {name: choose(values, width) for name, values in read.items()}
        else:
            kept |= choose_among(
                read,
                width * len(groups),
                normalizer=normalizer,
                multiple=_multiple(channels, kind, widths, width),
                limit=head_dim_limit if kind == "head_dims" else None,
            )
    counts = {name: len(indices) for name, indices in kept.items()}
    chosen: Layout = layout or ("flex" if find_stock_faults(counts) else "stock")
    return validate(Plan(channels.family, chosen, channels.sizes, kept))


def _read(scores: Mapping[str, Any], name: str, size: int) -> Any:
    if name not in scores:
        raise DataError(
            compose(f"scores for {name}", f"scores for {len(scores)} other groups", "score that group too")
        )
    return read_scores(name, scores[name], size)


def _multiple(channels: Channels, kind: Kind, widths: Widths, width: int) -> int:
    """Return the number of heads for MLPs whose width is a multiple of it, else 1."""
    if kind != "mlp":
        return 1
    heads = widths.heads or max((group.size for group in channels.of_kind("heads")), default=1)
    if width < heads:
        raise ConfigError(compose(f"at least {heads} MLP channels", f"{width}", "keep more"))
    return heads if width % heads == 0 else 1

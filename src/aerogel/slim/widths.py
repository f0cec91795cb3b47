"""Widths of a slimmed encoder from a ratio, as published."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from aerogel.errors import ConfigError, compose
from aerogel.slim.channels import Channels, Kind


@dataclass(frozen=True)
class Widths:
    """Hold how many channels each group of a kind keeps; None keeps all of them.

    Where blocks compete for channels, the numbers are means over the blocks.
    """

    embedding: int | None = None
    heads: int | None = None
    head_dims: int | None = None
    mlp: int | None = None

    def get(self, kind: Kind) -> int | None:
        """Return the width of one kind."""
        return {
            "embedding": self.embedding,
            "heads": self.heads,
            "head_dims": self.head_dims,
            "mlp": self.mlp,
        }[kind]


def round_width(channels: int, ratio: float, multiple: int) -> int:
    """Return how many of ``channels`` stay at a pruning ``ratio``: floor(C (1 - r)), less its remainder.

    The ratio is taken as the decimal that it is written as, so that 128 of 1280 stay at 0.9. Ratio 0 keeps
    all. (The published code's rounding, with the number of heads as ``multiple``: 768 at 0.77 leave 168.)

    Raises:
        ConfigError: the ratio is not in [0, 1), or leaves no channel.
    """
    if not 0.0 <= ratio < 1.0:
        raise ConfigError(compose("a ratio from 0 up to but not including 1", f"{ratio}", "choose such"))
    if ratio == 0.0:
        return channels
    kept = int(channels * (1 - Fraction(repr(float(ratio)))))
    kept -= kept % multiple
    if kept < 1:
        raise ConfigError(
            compose(
                f"a ratio that leaves at least {multiple} of {channels} channels, one for each head",
                f"{ratio}",
                f"choose at most {float(1 - Fraction(multiple, channels)):.3f}"
                if multiple < channels
                else "choose 0, or fewer heads",
            )
        )
    return kept


def derive_widths(
    channels: Channels, ratio: float, *, mlp_ratio: float | None = None, heads: int | None = None
) -> Widths:
    """Return the uniform widths that a pruning ``ratio`` leaves, ready for the stock layout.

    Embedding and MLP are rounded down to multiples of the number of heads; the heads share the embedding's
    width. ``mlp_ratio`` is another ratio for the MLPs, ``heads`` a smaller number of heads: with the same
    widths fewer heads are faster. (Section 4.1 of arXiv 2312.05284: 768/3072 with 12 heads become 384/1536 at
    0.5 and 168/696 at 0.77.)

    Raises:
        ConfigError: a ratio leaves no channel, or a head count does not fit the model.
    """
    have_heads = _one_size(channels, "heads")
    have_dims, have_mlp = _one_size(channels, "head_dims"), _one_size(channels, "mlp")
    width = channels.sizes["embedding"]
    wanted = have_heads if heads is None else heads
    if not 1 <= wanted <= have_heads:
        raise ConfigError(
            compose(f"1 to {have_heads} heads, as the model has", f"{wanted}", "heads can only be dropped")
        )
    embedding = round_width(width, ratio, wanted)
    head_dims, rest = divmod(embedding, wanted)
    if rest or head_dims > have_dims:
        fitting = [
            count
            for count in range(1, have_heads + 1)
            if embedding % count == 0 and embedding // count <= have_dims
        ]
        raise ConfigError(
            compose(
                f"a head count that divides {embedding} into parts of at most {have_dims} dimensions",
                f"{wanted} heads at ratio {ratio}",
                f"choose one of {', '.join(map(str, fitting))}" if fitting else "choose a higher ratio",
            )
        )
    mlp = round_width(have_mlp, ratio if mlp_ratio is None else mlp_ratio, wanted)
    return Widths(embedding=embedding, heads=wanted, head_dims=head_dims, mlp=mlp)


def _one_size(channels: Channels, kind: Kind) -> int:
    sizes = sorted({group.size for group in channels.of_kind(kind)})
    if len(sizes) != 1:
        raise ConfigError(
            compose(
                f"one number of {kind} in all blocks, for a ratio to be taken of",
                f"{', '.join(map(str, sizes)) or 'none'}",
                "give the widths themselves",
            )
        )
    return sizes[0]

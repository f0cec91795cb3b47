"""Plan which students a comparison trains: the kinds of labels, the baselines, the other networks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from aerogel.condense.config import StudentConfig, ViewConfig
from aerogel.condense.identity import identify

AUGMENTED, PLAIN = "augmented", "plain"
CHOSEN, RANDOM, ALL = "chosen", "random", "all"
BASELINE = "stored-fp16"

# A view that is the image itself.
PLAIN_VIEWS = ViewConfig(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=0.0, cutmix=0.0, open_tiles=False)


@dataclass(frozen=True)
class Entry:
    """Name the students of one row: the ``network``, its ``labels``, and what it sees.

    ``images`` is "chosen" (the condensed set), "random" (as many real ones by chance) or "all" (every real
    one); ``views`` is "augmented" or "plain", the images as they are.
    """

    labels: str
    images: str
    network: str
    views: str = AUGMENTED


def plan_rows(config: StudentConfig) -> tuple[Entry, ...]:
    """Return the rows of a comparison in the order in which they are shown.

    Hard labels and random images are always among them, unless switched off. What is compared with random
    images has to have the labels that these have: with ``full_baseline``, which is asked for the scores, the
    label generator labels random images too.
    """
    own = config.network
    kinds: list[str] = [*config.labels]
    if config.hard_baseline and "hard" not in kinds:
        kinds.append("hard")
    main = [(kind, CHOSEN) for kind in kinds]
    if config.random_baseline:
        main.append((BASELINE, RANDOM))
    rows = [Entry(*pair, own) for pair in main]
    if config.full_baseline:
        if config.random_baseline and "generator" in kinds:
            rows.append(Entry("generator", RANDOM, own))
        rows.append(Entry("hard", ALL, own))
    if config.plain_views:
        rows += [Entry(BASELINE, images, own, PLAIN) for images in (CHOSEN, RANDOM)]
    rows += [Entry(*pair, network) for network in config.networks for pair in main]
    return tuple(rows)


def configure_network(config: StudentConfig, network: str) -> StudentConfig:
    """Return the settings of the students of ``network``, the comparison's own or one of ``networks``.

    What only says which rows there are is at its default, so that asking for more of them changes none.
    """
    plain = StudentConfig()
    found = replace(
        config,
        networks=plain.networks,
        network_widths=plain.network_widths,
        hard_baseline=plain.hard_baseline,
        full_baseline=plain.full_baseline,
        plain_views=plain.plain_views,
    )
    if network == config.network:
        return found
    widths = dict(zip(config.networks, config.network_widths, strict=False))
    return replace(found, network=network, width=widths.get(network), depth=plain.depth)  # type: ignore[arg-type, call-overload]


def spell_student(config: StudentConfig) -> dict[str, Any]:
    """Spell what one student is trained with, apart from its labels and images, as its folder records it."""
    spelled = identify(config)
    plain = ("network", "width", "depth", "fit", "ce_weight")
    names = (*plain, "loss", "temperature", "rescale_temperature", "ema")
    return {name: spelled[name] for name in names if name in spelled}

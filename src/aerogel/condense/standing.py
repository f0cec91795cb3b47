"""What the rows of a comparison say together: DD-Ranking's scores, and one table over the networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aerogel.condense.lineup import ALL, AUGMENTED, CHOSEN, PLAIN, RANDOM
from aerogel.measure import (
    Measurement,
    mean_std,
    score_augmentation,
    score_labels,
    weigh_hard_labels,
    weigh_random,
)
from aerogel.report import Section, TableBlock

if TYPE_CHECKING:
    from aerogel.condense.account import Run
    from aerogel.condense.comparison import Row


@dataclass(frozen=True)
class Standing:
    """Hold the scores of the condensed images with one kind of labels, as shares; mean and std over seeds.

    ``ior`` is what they win over random images with labels of that kind, ``hlr`` what hard labels lose on
    them to all real images, ``lrs`` and ``ars`` the label-robust and the augmentation-robust score. None is a
    score that lacks a row: ``hlr`` and ``lrs`` need ``student.full_baseline``, ``ars`` needs
    ``student.plain_views``.
    """

    labels: str
    ior: Measurement
    hlr: Measurement | None
    lrs: Measurement | None
    ars: Measurement | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        scores = {name: getattr(self, name) for name in ("ior", "hlr", "lrs", "ars")}
        return {
            "labels": self.labels,
            **{k: None if v is None else v.to_dict() for k, v in scores.items()},
        }


def rank_rows(rows: Sequence[Row], network: str) -> tuple[Standing, ...]:
    """Score each kind of labels that ``network`` was trained with on chosen and on random images.

    The definitions are those of :mod:`aerogel.measure.ranking`. Rows of equal seeds are scored seed by seed.
    """
    known = {(r.labels, r.images, r.views): r for r in rows if r.network in ("", network)}
    found = []
    for (labels, images, views), row in known.items():
        random = known.get((labels, RANDOM, AUGMENTED))
        if (images, views) != (CHOSEN, AUGMENTED) or random is None:
            continue
        whole, hard = known.get(("hard", ALL, AUGMENTED)), known.get(("hard", CHOSEN, AUGMENTED))
        plain, plain_random = known.get((labels, CHOSEN, PLAIN)), known.get((labels, RANDOM, PLAIN))
        iors = [weigh_random(*pair) for pair in _pair(row, random)]
        hlr = lrs = ars = None
        if whole is not None and hard is not None:
            hlr = _sum_up("hlr", [weigh_hard_labels(*pair) for pair in _pair(whole, hard)])
            four = _pair(row, random, whole, hard)
            lrs = _sum_up(
                "lrs",
                [score_labels(ior=weigh_random(a, b), hlr=weigh_hard_labels(c, d)) for a, b, c, d in four],
            )
        if plain is not None and plain_random is not None:
            four = _pair(row, random, plain, plain_random)
            ars = _sum_up(
                "ars",
                [
                    score_augmentation(augmented=weigh_random(a, b), plain=weigh_random(c, d))
                    for a, b, c, d in four
                ],
            )
        found.append(Standing(labels, _sum_up("ior", iors), hlr, lrs, ars))
    return tuple(found)


def _pair(*rows: Row) -> list[tuple[float, ...]]:
    """Return the accuracies of ``rows`` as shares, seed by seed, or their means where the seeds differ."""
    lengths = {len(row.values) for row in rows}
    if len(lengths) == 1 and lengths != {0}:
        return list(zip(*([value / 100.0 for value in row.values] for row in rows), strict=True))
    return [tuple(row.accuracy.value / 100.0 for row in rows)]


def _sum_up(name: str, values: Sequence[float]) -> Measurement:
    return mean_std(values, name=name, unit="")


@dataclass(frozen=True)
class CrossRow:
    """Hold one kind of labels on one choice of images, and its accuracy by network."""

    labels: str
    images: str
    accuracies: Mapping[str, Measurement]


def cross_networks(rows: Sequence[Row], network: str) -> tuple[CrossRow, ...]:
    """Gather the rows by labels and images, an accuracy per network; empty if one network was trained.

    ``network`` is what rows without a name are of.
    """
    named = [(row.network or network, row) for row in rows if row.views == AUGMENTED]
    if len({name for name, _ in named}) < 2:
        return ()
    gathered: dict[tuple[str, str], dict[str, Measurement]] = {}
    for name, row in named:
        gathered.setdefault((row.labels, row.images), {})[name] = row.accuracy
    return tuple(CrossRow(*key, found) for key, found in gathered.items() if len(found) > 1)


def write_share(measured: Measurement | None, digits: int = 3) -> str:
    """Write a score with its spread: "0.412 ± 0.010", or nothing for none."""
    if measured is None:
        return ""
    spread = "" if measured.spread is None else f" ± {measured.spread:.{digits}f}"
    return f"{measured.value:.{digits}f}{spread}"


def write_percent(measured: Measurement | None) -> str:
    """Write an accuracy in percent with its spread and without its unit, or nothing for none."""
    return write_share(measured, 1)


def list_networks(rows: Sequence[CrossRow]) -> tuple[str, ...]:
    """Return the networks of a table in the order in which they were trained."""
    return tuple(dict.fromkeys(name for row in rows for name in row.accuracies))


def describe_students(run: Run, name: Callable[[str], str]) -> list[Section]:
    """Return the sections that need several rows at once; ``name`` names a kind of labels."""
    network = run.config.student.network
    found = []
    crossed = cross_networks(run.rows, network)
    if crossed:
        found.append(_show_networks(crossed, name))
    standings = rank_rows(run.rows, network)
    if standings:
        found.append(_show_scores(standings, name))
    return found


def _show_networks(crossed: Sequence[CrossRow], name: Callable[[str], str]) -> Section:
    networks = list_networks(crossed)
    rows = [
        (name(row.labels), row.images, *(write_percent(row.accuracies.get(each)) for each in networks))
        for row in crossed
    ]
    return Section(
        "Other networks",
        "The labels and images are the same for all; only the network that learns from them changes.",
        [TableBlock(("labels", "images", *(f"{name} (%)" for name in networks)), rows)],
    )


def _show_scores(standings: Sequence[Standing], name: Callable[[str], str]) -> Section:
    rows = [
        (name(each.labels), *(write_share(score) for score in (each.ior, each.hlr, each.lrs, each.ars)))
        for each in standings
    ]
    text = (
        "Scores of DD-Ranking (arXiv 2505.13300), from accuracies as shares. IOR is what the chosen images "
        "win over random ones with the same labels, HLR what hard labels on them lose to training on all "
        "real images. LRS joins the two, ARS the IOR with and without augmentation, at equal weights; "
        "0.269 is where nothing is won or lost. Empty cells need students that were not asked for "
        "(student.full_baseline, student.plain_views)."
    )
    header = ("labels", "IOR", "HLR (lower is better)", "LRS", "ARS")
    return Section("What the images themselves are worth", text, [TableBlock(header, rows)])

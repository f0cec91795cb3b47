"""The plan of a comparison: what is always in it, and what is asked for."""

from __future__ import annotations

from dataclasses import replace

from aerogel.condense.config import StudentConfig
from aerogel.condense.lineup import PLAIN_VIEWS, Entry, configure_network, plan_rows

SMALL = StudentConfig(labels=("generator",))


def test_hard_labels_and_random_images_unless_switched_off() -> None:
    own = "convnet"
    always = (Entry("hard", "chosen", own), Entry("stored-fp16", "random", own))
    assert plan_rows(SMALL) == (Entry("generator", "chosen", own), *always)
    assert plan_rows(StudentConfig(labels=("hard",))) == always
    off = replace(SMALL, hard_baseline=False, random_baseline=False)
    assert plan_rows(off) == (Entry("generator", "chosen", own),)


def test_the_scores_have_their_rows() -> None:
    rows = plan_rows(replace(SMALL, full_baseline=True))
    assert rows[3:] == (Entry("generator", "random", "convnet"), Entry("hard", "all", "convnet"))
    without = plan_rows(replace(SMALL, full_baseline=True, random_baseline=False))
    assert without[2:] == (Entry("hard", "all", "convnet"),)
    plain = plan_rows(StudentConfig(plain_views=True))[-2:]
    assert [(each.labels, each.images, each.views) for each in plain] == [
        ("stored-fp16", "chosen", "plain"),
        ("stored-fp16", "random", "plain"),
    ]
    assert PLAIN_VIEWS.check() == []


def test_every_network_has_the_main_rows() -> None:
    rows = plan_rows(replace(SMALL, networks=("resnet18", "vit-t"), full_baseline=True))
    for network in ("resnet18", "vit-t"):
        own = [(each.labels, each.images) for each in rows if each.network == network]
        assert own == [("generator", "chosen"), ("hard", "chosen"), ("stored-fp16", "random")]


def test_asking_for_more_rows_changes_no_settings() -> None:
    asked = replace(
        SMALL,
        width=7,
        depth=2,
        loss="kl",
        networks=("resnet18", "vit-t"),
        network_widths=(None, 9),
        full_baseline=True,
        hard_baseline=False,
    )
    assert configure_network(asked, "convnet") == replace(SMALL, width=7, depth=2, loss="kl")
    other = configure_network(asked, "vit-t")
    assert (other.network, other.width, other.depth, other.loss) == ("vit-t", 9, 3, "kl")
    assert configure_network(asked, "resnet18").width is None
    assert configure_network(replace(asked, network_widths=()), "vit-t").width is None

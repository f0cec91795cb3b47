"""Settings say what is wrong with them, all at once, and survive being written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from aerogel.core.config import load_config, save_config, validate
from aerogel.errors import ConfigError
from aerogel.slim.config import AlignConfig, MasksConfig, ScoreConfig, SlimConfig, SurgeryConfig


def test_settings_survive_being_written(tmp_path: Path) -> None:
    config = AlignConfig(epochs=3, weighting="dynamic", mask_padding="none", augment="crop", ema=0.99)
    for name in ("align.json", "align.yaml"):
        save_config(config, tmp_path / name)
        assert load_config(AlignConfig, tmp_path / name) == config


def test_the_defaults_are_sound() -> None:
    assert validate(AlignConfig()) == AlignConfig()


def test_all_mistakes_are_listed_at_once() -> None:
    wrong = AlignConfig(epochs=0, batch_size=-1, lr=0.0, clip=-1.0, cache_bytes=-1, ema=1.0, warmup=1.5)
    with pytest.raises(ConfigError) as caught:
        validate(wrong)
    for name in ("epochs", "batch_size", "lr", "clip", "cache_bytes", "ema", "warmup"):
        assert f"- {name}: expected" in str(caught.value)


def test_mistakes_about_masks_are_listed() -> None:
    assert validate(MasksConfig()).epochs == 0, "as published"
    wrong = MasksConfig(-1, 0.0, -1.0, 0, 0, 1.5, -0.1, 1.0, -1.0)
    with pytest.raises(ConfigError) as caught:
        validate(wrong)
    for name in vars(wrong):
        assert f"- {name}: expected" in str(caught.value)


def test_learning_masks_differs_from_aligning_where_it_says_so() -> None:
    config = SlimConfig(
        align=AlignConfig(epochs=7, augment="crop", ema=0.9), masks=MasksConfig(epochs=3, lr=2e-5)
    )
    assert config.align_by("masks") == replace(config.align, epochs=3, lr=2e-5, warmup=0.1, clip=1.0)


def test_the_first_aligning_may_be_shorter_than_the_second() -> None:
    config = SlimConfig(align=AlignConfig(epochs=7, augment="crop"))
    assert config.align_by("bottleneck") == config.align_by("embedding") == config.align
    shorter = replace(config, bottleneck_epochs=2)
    assert shorter.align_by("bottleneck") == replace(config.align, epochs=2)
    assert shorter.align_by("embedding") == config.align
    with pytest.raises(ConfigError, match="bottleneck_epochs: expected 1 or more; got 0"):
        validate(replace(config, bottleneck_epochs=0))
    with pytest.raises(ConfigError, match="bottleneck_epochs: expected none for the method one-step"):
        validate(replace(shorter, method="one-step"))


def test_values_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ConfigError, match="schedule"):
        validate(replace(AlignConfig(), schedule="plateau"))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="adamw"):
        validate(AlignConfig(weight_decay=0.1))
    validate(AlignConfig(weight_decay=0.1, optimiser="adamw"))


def test_a_whole_slimming_survives_being_written(tmp_path: Path) -> None:
    config = SlimConfig(
        model="a/b",
        images="photos",
        limit=100,
        ratio=0.77,
        mlp_ratio=0.5,
        heads=3,
        layout="flex",
        bottleneck_epochs=4,
        score=ScoreConfig(criterion="taylor", ranking="mlp", rescore=False),
        surgery=SurgeryConfig(positions=False),
        align=AlignConfig(epochs=3),
        masks=MasksConfig(epochs=2, decoder_lr=0.0),
        dtype="bfloat16",
    )
    save_config(config, tmp_path / "recipe.yaml")
    assert load_config(SlimConfig, tmp_path / "recipe.yaml") == config
    assert validate(SlimConfig()) == SlimConfig()


@pytest.mark.parametrize("name", ["channel-fisher", "disturbed-taylor", "taylor", "magnitude", "random"])
def test_every_criterion_is_known(name: str) -> None:
    validate(ScoreConfig(criterion=name))


def test_an_unknown_criterion_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"one of channel-fisher, .*did you mean 'magnitude'"):
        validate(ScoreConfig(criterion="magnitudes"))
    with pytest.raises(ConfigError, match="normalizer"):
        validate(ScoreConfig(normalizer="median"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("criterion", "normalizer", "by"),
    [
        ("channel-fisher", "auto", "none"),
        ("taylor", "auto", "gaussian"),
        ("channel-fisher", "max", "max"),
        ("taylor", "none", "none"),
    ],
)
def test_blocks_are_compared_by_losses_as_they_are_or_as_published(
    criterion: str, normalizer: str, by: str
) -> None:
    config = ScoreConfig(criterion=criterion, normalizer=normalizer)  # type: ignore[arg-type]
    assert validate(config).compares_by == by


def test_mistakes_of_all_parts_are_listed_at_once() -> None:
    wrong = SlimConfig(
        ratio=1.0,
        mlp_ratio=-0.5,
        limit=1,
        heads=0,
        held_out=0,
        score=ScoreConfig(photos=0, draws=0),
        align=AlignConfig(epochs=0),
        start="random",
    )
    with pytest.raises(ConfigError) as caught:
        validate(wrong)
    for told in (
        "ratio: expected a share",
        "mlp_ratio: expected a share",
        "limit: expected 2 or more",
        "heads: expected 1 or more",
        "held_out: expected 1 or more",
        "score: photos: expected 1 or more",
        "score: draws: expected 1 or more",
        "align: epochs: expected a number above 0",
        "start: expected random with the method one-step only",
    ):
        assert f"- {told}" in str(caught.value), told


def test_what_is_kept_back_must_leave_photos_to_learn_from() -> None:
    with pytest.raises(ConfigError, match=r"held_out: expected fewer than limit \(16\); got 16"):
        validate(SlimConfig(limit=16))
    validate(SlimConfig(limit=17))


@pytest.mark.parametrize("ranking", ["mlp", "global"])
def test_blocks_that_compete_need_the_flex_layout(ranking: str) -> None:
    score = ScoreConfig(ranking=ranking)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=f"expected local for the stock layout.*got {ranking}"):
        validate(SlimConfig(score=score))
    assert validate(SlimConfig(score=score, layout="flex")).ranks_by == ranking


def test_blocks_compete_where_the_layout_lets_them() -> None:
    assert SlimConfig().ranks_by == "local"
    assert SlimConfig(layout="flex").ranks_by == "global"
    assert SlimConfig(layout="flex", score=ScoreConfig(ranking="local")).ranks_by == "local"

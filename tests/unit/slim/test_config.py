"""Settings say what is wrong with them, all at once, and survive being written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from aerogel.core.config import load_config, save_config, validate
from aerogel.errors import ConfigError
from aerogel.slim.config import AlignConfig


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


def test_values_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ConfigError, match="schedule"):
        validate(replace(AlignConfig(), schedule="plateau"))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="adamw"):
        validate(AlignConfig(weight_decay=0.1))
    validate(AlignConfig(weight_decay=0.1, optimiser="adamw"))

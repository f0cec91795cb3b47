"""Flags become a request, a config and a pipeline."""

from __future__ import annotations

from pathlib import Path

import pytest

from aerogel.cli.sampling import SampleSettings, make_config, make_request, name_folder, open_model
from aerogel.errors import ConfigError, UnknownNameError
from tests.unit.parallel.pictures import build_pipeline


def test_devices_are_components_and_copies_of_the_last() -> None:
    assert make_config(SampleSettings()).components is None
    assert make_config(SampleSettings(devices=3)).components == 3
    assert make_config(SampleSettings(devices=3, stride=2)).components == 2


def test_unequal_devices_and_shifted_times() -> None:
    assert make_config(SampleSettings()).speeds is None
    config = make_config(SampleSettings(devices=3, stride=2, speeds=(2.0, 1.0), time_shift=True))
    assert (config.speeds, config.time_shift) == ((2.0, 1.0), True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (SampleSettings(devices=2, speeds=(1.0,)), "speeds: expected a number above 0 for each"),
        (SampleSettings(devices=1, stride=2), "2 devices or more"),
        (SampleSettings(devices=0), "1 devices or more"),
        (SampleSettings(warmup=0), "warmup"),
        (SampleSettings(stride=3), "stride"),
        (SampleSettings(timeout=0), "timeout_s"),
    ],
)
def test_what_is_out_of_range_is_refused(settings: SampleSettings, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_config(settings)


@pytest.mark.parametrize("settings", [SampleSettings(count=0), SampleSettings(steps=0)])
def test_nothing_to_sample_is_refused(settings: SampleSettings) -> None:
    with pytest.raises(ConfigError, match="1 or more"):
        make_request(settings)


def test_a_request_says_what_the_flags_say() -> None:
    request = make_request(SampleSettings(prompt="a", guidance=2.0, frames=3, seed=5))
    assert (request.prompt, request.guidance, request.frames, request.seed) == ("a", 2.0, 3, 5)


def test_a_model_is_opened_if_it_can_do_what_is_asked(tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    build_pipeline().save_pretrained(saved)
    pipe = open_model(str(saved), SampleSettings(classes=("bee",), device="cpu"))
    assert pipe.unet.dtype.is_floating_point
    with pytest.raises(UnknownNameError, match="ape, bee, cat"):
        open_model(str(saved), SampleSettings(classes=("dog",), device="cpu"))


def test_the_folder_is_called_like_the_model() -> None:
    assert name_folder("owner/model", None) == Path("samples-model")
    assert name_folder("owner/model", Path("x")) == Path("x")

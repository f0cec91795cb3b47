"""Any pipeline is asked for pictures in the same words."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from aerogel.errors import ConfigError, DataError, UnknownNameError
from aerogel.parallel.sampling import (
    Request,
    draw,
    find_arguments,
    open_pipeline,
    save_pictures,
    tile,
    to_bytes,
)
from tests.unit.parallel.pictures import build_pipeline


class TextPipeline:
    """Take what a text-to-image pipeline takes, and remember it."""

    def __call__(
        self,
        prompt: Any,
        negative_prompt: str | None = None,
        num_images_per_prompt: int = 1,
        num_inference_steps: int = 50,
        guidance_scale: float = 7.5,
        height: int | None = None,
        generator: torch.Generator | None = None,
        output_type: str = "pil",
    ) -> Any:
        """Return grey pictures, one for each that was asked for."""
        self.asked = {"prompt": prompt, "steps": num_inference_steps, "guidance": guidance_scale}
        assert generator is not None
        self.noise = torch.rand(1, generator=generator).item()
        return SimpleNamespace(images=np.full((num_images_per_prompt, 4, 4, 3), 0.5))


class VideoPipeline:
    """Take a prompt and a number of frames."""

    def __call__(
        self,
        prompt: str | list[str],
        num_frames: int = 2,
        num_inference_steps: int = 50,
        generator: torch.Generator | None = None,
        output_type: str = "pil",
    ) -> Any:
        """Return videos as a list of arrays."""
        count = len(prompt) if isinstance(prompt, list) else 1
        return SimpleNamespace(frames=[np.zeros((num_frames, 4, 6, 3)) for _ in range(count)])


def test_a_prompt_is_asked_for_as_often_as_said() -> None:
    pipe = TextPipeline()
    assert draw(pipe, Request(prompt="a", count=3, steps=7, guidance=2.0)).shape == (3, 4, 4, 3)
    assert pipe.asked == {"prompt": "a", "steps": 7, "guidance": 2.0}


def test_noise_depends_on_the_seed_alone() -> None:
    pipe = TextPipeline()
    noise = []
    for seed in (1, 1, 2):
        draw(pipe, Request(prompt="a", seed=seed))
        noise.append(pipe.noise)
    assert noise[0] == noise[1] != noise[2]


def test_videos_are_stacked() -> None:
    found = draw(VideoPipeline(), Request(prompt="a", frames=3, count=2))
    assert found.shape == (2, 3, 4, 6, 3)


def test_what_the_pipeline_does_not_take_is_refused() -> None:
    with pytest.raises(ConfigError, match="got num_frames"):
        find_arguments(TextPipeline(), Request(prompt="a", frames=3))
    with pytest.raises(ConfigError, match="got prompt"):
        find_arguments(build_pipeline(), Request(prompt="a"))


def test_a_pipeline_that_needs_a_prompt_or_a_class_says_so() -> None:
    with pytest.raises(ConfigError, match="pass --prompt"):
        find_arguments(TextPipeline(), Request())
    with pytest.raises(ConfigError, match="pass --class"):
        find_arguments(build_pipeline(), Request())


def test_classes_are_named_or_numbered() -> None:
    pipe = build_pipeline()
    assert find_arguments(pipe, Request(classes=("bee", "2"), count=2))["class_labels"] == [1, 2, 1, 2]
    with pytest.raises(UnknownNameError, match="did you mean 'bee'"):
        find_arguments(pipe, Request(classes=("beee",)))


def test_class_pictures_come_as_arrays() -> None:
    found = draw(build_pipeline(), Request(classes=("ape", "cat"), steps=2))
    assert found.shape == (2, 16, 16, 1)
    assert found.dtype == np.float32
    assert 0 <= found.min() < found.max() <= 1


def test_a_saved_pipeline_is_opened(tmp_path: Path) -> None:
    build_pipeline().save_pretrained(tmp_path / "saved")
    pipe = open_pipeline(str(tmp_path / "saved"), dtype=torch.float32, device="cpu")
    request = Request(classes=("ape",), steps=2)
    assert np.array_equal(draw(pipe, request), draw(build_pipeline(), request))


def test_what_is_no_pipeline_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text("[]")
    with pytest.raises(UnknownNameError):
        open_pipeline("aerogel/none-such", dtype=torch.float32, device="cpu")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"model_index\.json"):
        open_pipeline(str(tmp_path / "empty"), dtype=torch.float32, device="cpu")


def test_pictures_are_rounded_to_bytes() -> None:
    assert to_bytes(np.array([-1.0, 0.0, 0.5, 1.0, 2.0], dtype=np.float32)).tolist() == [0, 0, 128, 255, 255]


def test_pictures_and_videos_are_written(tmp_path: Path) -> None:
    grey = np.linspace(0, 1, 2 * 3 * 5, dtype=np.float32).reshape(2, 3, 5, 1)
    assert save_pictures(grey, tmp_path) == ["0000.png", "0001.png"]
    with Image.open(tmp_path / "0001.png") as picture:
        assert np.array_equal(np.asarray(picture), to_bytes(grey)[1, :, :, 0])
    (tmp_path / "videos").mkdir()
    videos = np.random.default_rng(0).random((1, 3, 4, 4, 3), dtype=np.float32)
    assert save_pictures(videos, tmp_path / "videos") == ["0000.gif"]
    with Image.open(tmp_path / "videos" / "0000.gif") as video:
        assert video.n_frames == 3


def test_a_sheet_has_rows_of_columns() -> None:
    pictures = np.stack([np.full((2, 3, 1), each / 10, dtype=np.float32) for each in range(3)])
    sheet = tile(pictures, 2)
    assert sheet.shape == (4, 6)
    assert (sheet[0, 0], sheet[0, 3], sheet[2, 0], sheet[2, 3]) == (0, 26, 51, 255)

"""The pipeline for named classes: its parts, its steps, its errors, and the folder it is kept in."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    UNet2DModel,
)

from aerogel.core.randomness import seed_torch
from aerogel.errors import ConfigError, MismatchError, UnknownNameError
from aerogel.zoo.diffusion import ClassConditionalPipeline, load_pipeline

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

NAMES = ["Coat", "Bag", "Sneaker"]


def build_unet(classes: int = 3, channels: int = 4) -> UNet2DModel:
    with seed_torch(0):
        return UNet2DModel(
            sample_size=8,
            in_channels=channels,
            out_channels=channels,
            layers_per_block=1,
            block_out_channels=(8, 16),
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=8,
            norm_num_groups=4,
            num_class_embeds=classes + 1,
        )


@pytest.fixture
def pipe() -> ClassConditionalPipeline:
    scheduler = DDIMScheduler(prediction_type="v_prediction", timestep_spacing="trailing")
    pipe = ClassConditionalPipeline(build_unet(), scheduler, NAMES, patch_size=2)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(pipe: ClassConditionalPipeline, labels: Any = (0, 1), **options: Any) -> torch.Tensor:
    options = {"num_inference_steps": 3, "generator": seeded(), "output_type": "pt", **options}
    images = pipe(labels, **options).images
    assert isinstance(images, torch.Tensor)
    return images


def test_output_types_hold_the_same_pictures(pipe: ClassConditionalPipeline) -> None:
    tensor = draw(pipe)
    assert tensor.shape == (2, 1, 16, 16)
    assert tensor.min() >= 0
    assert tensor.max() <= 1
    array = pipe([0, 1], 3, generator=seeded(), output_type="np").images
    assert np.array_equal(array, tensor.permute(0, 2, 3, 1).numpy())
    pictures = pipe([0, 1], 3, generator=seeded()).images
    assert [(picture.mode, picture.size) for picture in pictures] == [("L", (16, 16))] * 2
    assert np.array_equal(np.asarray(pictures[1]), (array[1, :, :, 0] * 255).round())
    assert torch.equal(pipe([0, 1], 3, generator=seeded(), output_type="pt", return_dict=False)[0], tensor)


def test_colours_and_whole_pixels_are_drawn_too() -> None:
    pipe = ClassConditionalPipeline(build_unet(channels=3), DDIMScheduler(), NAMES)
    pipe.set_progress_bar_config(disable=True)
    (picture,) = pipe("bag", 2).images
    assert (picture.mode, picture.size) == ("RGB", (8, 8))


def test_labels_are_numbers_or_names(pipe: ClassConditionalPipeline) -> None:
    assert pipe.get_label_ids("Bag") == [1]
    assert pipe.get_label_ids(["sneaker", 0, "BAG"]) == [2, 0, 1]
    assert pipe.get_label_ids(2) == [2]
    assert torch.equal(draw(pipe, ["coat", "bag"]), draw(pipe, [0, 1]))


@pytest.mark.parametrize("labels", [3, -1, True, [], [0, 1.5], [None]])
def test_labels_that_no_class_has_are_refused(pipe: ClassConditionalPipeline, labels: Any) -> None:
    with pytest.raises(ConfigError, match="choose of 0 'Coat', 1 'Bag', 2 'Sneaker'"):
        pipe(labels, 2)


def test_a_mistyped_name_is_answered_with_the_nearest(pipe: ClassConditionalPipeline) -> None:
    with pytest.raises(UnknownNameError, match=r"got 'sneeker'; what to do: did you mean 'Sneaker'\?"):
        pipe(["bag", "sneeker"], 2)
    with pytest.raises(UnknownNameError, match="choose one of the list"):
        pipe("xyz", 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_type": "pill"}, "output_type of pil, np, pt; got 'pill'"),
        ({"num_inference_steps": 0}, "one step or more; got 0"),
        ({"latents": torch.zeros(1, 4, 8, 8)}, r"latents \[2, 4, 8, 8\]; got \[1, 4, 8, 8\]"),
        ({"callback_on_step_end_tensor_inputs": ["prompt"]}, "tensor inputs of latents; got prompt"),
    ],
)
def test_other_mistakes_are_refused(
    pipe: ClassConditionalPipeline, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        draw(pipe, **options)


def test_a_network_without_a_row_for_no_class_is_refused() -> None:
    with pytest.raises(MismatchError, match=r"num_class_embeds=4 .*; got num_class_embeds=3"):
        ClassConditionalPipeline(build_unet(classes=2), DDIMScheduler(), NAMES)
    with pytest.raises(MismatchError, match=r"a multiple of 9 channels; .* 4 channels"):
        ClassConditionalPipeline(build_unet(), DDIMScheduler(), NAMES, patch_size=3)
    with pytest.raises(MismatchError, match="got num_class_embeds=None"):
        ClassConditionalPipeline(UNet2DModel.from_config({"in_channels": 1}), DDIMScheduler(), NAMES)


def test_classes_without_names_are_numbers() -> None:
    pipe = ClassConditionalPipeline(build_unet(), DDIMScheduler())
    assert pipe.get_label_ids(["0", 2]) == [0, 2]


def test_guidance_asks_once_in_a_step_for_both(pipe: ClassConditionalPipeline) -> None:
    asked: list[list[int]] = []
    hook = pipe.unet.register_forward_pre_hook(
        lambda _, __, given: asked.append(given["class_labels"].tolist()), with_kwargs=True
    )
    guided = draw(pipe, guidance_scale=3.0)
    assert pipe.do_classifier_free_guidance
    assert asked == [[3, 3, 0, 1]] * 3
    plain = draw(pipe, guidance_scale=1.0)
    assert not pipe.do_classifier_free_guidance
    assert asked[3:] == [[0, 1]] * 3
    hook.remove()
    assert not torch.equal(guided, plain)


def test_a_guided_step_is_the_published_sum(pipe: ClassConditionalPipeline) -> None:
    """Against the step written out with two calls of the network."""
    latents = torch.randn(2, 4, 8, 8, generator=seeded())
    pipe.scheduler.set_timesteps(1)
    (time,) = pipe.scheduler.timesteps
    with torch.no_grad():
        without = pipe.unet(latents, time, class_labels=torch.tensor([3, 3])).sample
        given = pipe.unet(latents, time, class_labels=torch.tensor([0, 1])).sample
    final = pipe.scheduler.step(2.5 * given - 1.5 * without, time, latents).prev_sample
    expected = (torch.nn.functional.pixel_shuffle(final, 2) / 2 + 0.5).clamp(0, 1)
    found = draw(pipe, num_inference_steps=1, guidance_scale=2.5, latents=latents)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_noise_answers_to_the_clipped_picture(
    pipe: ClassConditionalPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else guidance, which leaves -1 to 1, brightens what is black: each step's parts make up its input."""
    step, faults = pipe.scheduler.step, []

    @wraps(step)
    def watch(found: torch.Tensor, time: torch.Tensor, latents: torch.Tensor, **options: Any) -> Any:
        made = step(found, time, latents, **{**options, "return_dict": True})
        then = pipe.scheduler.alphas_cumprod[max(int(time) - 500, 0)] if time > 499 else torch.tensor(1.0)
        now, clean = pipe.scheduler.alphas_cumprod[time], made.pred_original_sample
        noise = (latents - now.sqrt() * clean) / (1 - now).sqrt()
        faults.append((then.sqrt() * clean + (1 - then).sqrt() * noise - made.prev_sample).abs().max())
        return (made.prev_sample,)

    monkeypatch.setattr(pipe.scheduler, "step", watch)
    draw(pipe, num_inference_steps=2, guidance_scale=50.0)
    assert len(faults) == 2
    assert max(faults) < 1e-4


@pytest.mark.parametrize(
    "kind", [DDPMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, HeunDiscreteScheduler]
)
def test_other_schedulers_draw(pipe: ClassConditionalPipeline, kind: Any) -> None:
    pipe.scheduler = kind.from_config(pipe.scheduler.config)
    first = draw(pipe, "bag", num_inference_steps=4)
    assert torch.isfinite(first).all()
    assert torch.equal(first, draw(pipe, "bag", num_inference_steps=4))
    assert pipe.num_timesteps == len(pipe.scheduler.timesteps)


def test_a_generator_for_each_picture_makes_them_independent(pipe: ClassConditionalPipeline) -> None:
    both = draw(pipe, [0, 1], generator=[seeded(5), seeded(6)])
    alone = draw(pipe, [1], generator=seeded(6))
    torch.testing.assert_close(both[1:], alone, rtol=1e-5, atol=1e-5)


def test_a_callback_sees_and_changes_the_latents_and_stops(pipe: ClassConditionalPipeline) -> None:
    seen: list[tuple[int, int]] = []

    def replace(
        found: ClassConditionalPipeline, number: int, time: torch.Tensor, given: dict[str, Any]
    ) -> dict[str, Any]:
        seen.append((number, int(time)))
        found._interrupt = number == 1
        return {"latents": torch.zeros_like(given["latents"])}

    images = draw(pipe, num_inference_steps=4, callback_on_step_end=replace)
    assert seen == [(0, 999), (1, 749)]
    assert pipe.interrupt
    assert torch.equal(images, torch.full_like(images, 0.5))
    draw(pipe, callback_on_step_end=lambda *_: None)
    assert not pipe.interrupt


def test_a_saved_pipeline_draws_the_same(pipe: ClassConditionalPipeline, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["class_names"] == NAMES
    assert index["unet"] == ["diffusers", "UNet2DModel"]
    again = ClassConditionalPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert torch.equal(draw(again, ["coat", 1]), draw(pipe))


def test_another_number_format_is_kept_to(pipe: ClassConditionalPipeline) -> None:
    pipe.to(torch.bfloat16)
    times: list[torch.dtype] = []
    pipe.unet.register_forward_pre_hook(lambda _, given: times.append(given[0].dtype))
    assert draw(pipe).dtype == torch.float32
    assert set(times) == {torch.bfloat16}


def test_a_missing_diffusers_is_named_with_its_extra() -> None:
    code = (
        "import sys; sys.modules['diffusers'] = None\n"
        "try:\n    import aerogel.zoo.diffusion\nexcept ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 'pip install "aerogel[parallel]"' in done.stdout


def test_the_shipped_pipeline_draws_what_is_asked_for() -> None:
    """Few steps are enough to tell trousers from a bag: dark against bright between the legs."""
    pipe = load_pipeline()
    pipe.set_progress_bar_config(disable=True)
    assert pipe.unet.dtype == torch.float32
    assert pipe.config.class_names[7] == "Sneaker"
    trousers, bags = draw(pipe, ["trouser"] * 4 + ["bag"] * 4, num_inference_steps=6).split(4)
    assert trousers.shape == (4, 1, 32, 32)
    assert bags[:, :, 16:26, 6:26].mean() > 2 * trousers[:, :, 16:26, 6:26].mean()
    assert trousers.mean(0)[0, :2].max() < 0.2


def test_a_shipped_pipeline_comes_in_the_number_format_asked_for() -> None:
    assert load_pipeline(dtype=torch.bfloat16).unet.dtype == torch.bfloat16


def test_a_backbone_is_no_pipeline() -> None:
    with pytest.raises(MismatchError, match="name of a pipeline; got aerogel/shapes-resnet8, a backbone"):
        load_pipeline("aerogel/shapes-resnet8")

"""What users add to a denoiser works on the simulator, has its effect, and can be taken off again.

The suite over all denoisers holds the same models to the bit: see denoisers.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from aerogel.parallel.layout import Layout, lay_out
from aerogel.parallel.rounds import plan_rounds
from aerogel.parallel.simulator import Simulator
from aerogel.parallel.trace import trace_calls
from aerogel.parallel.wiring import Wiring
from tests.parallel import tiny_adapters
from tests.parallel.tiny import Denoiser
from tests.parallel.tiny_unets import build_conditional_unet, build_controlled_unet

STEPS = 3


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def sample_in_turn(denoiser: Denoiser) -> Tensor:
    sample = denoiser.noise
    for step in range(STEPS):
        sample = sample - 0.1 * denoiser.predict(sample, step)
    return sample


def divide(denoiser: Denoiser, components: int = 2) -> Layout:
    return lay_out(trace_calls(denoiser.model, *denoiser.inputs(denoiser.noise, 0)), components)


def simulate(denoiser: Denoiser, layout: Layout, warmup: int = 1, *, poisoned: bool = False) -> Tensor:
    """Sample as a group of devices would."""
    wiring = Wiring(denoiser.model)
    simulator = Simulator(wiring, layout, 1, poisoned=poisoned)
    sample = denoiser.noise
    try:
        for planned in plan_rounds(STEPS, warmup=warmup, stride=1):
            for noise in simulator.run(planned, partial(denoiser.predict, sample)):
                sample = sample - 0.1 * noise
    finally:
        wiring.remove()
    return sample


def check(denoiser: Denoiser) -> Tensor:
    """Hold the simulator to what it promises of the denoiser as it is; return what it gives."""
    layout = divide(denoiser)
    exact = sample_in_turn(denoiser)
    assert torch.equal(simulate(denoiser, layout, STEPS), exact)
    result = simulate(denoiser, layout)
    assert torch.equal(simulate(denoiser, layout, poisoned=True), result)
    assert torch.equal(sample_in_turn(denoiser), exact)
    assert (result - exact).norm() < 0.2 * exact.norm()
    return result


def distance(left: Tensor, right: Tensor) -> float:
    return float((left - right).norm() / right.norm())


def scaled(denoiser: Denoiser, scale: float) -> Denoiser:
    return replace(
        denoiser, conditioning={**denoiser.conditioning, "cross_attention_kwargs": {"scale": scale}}
    )


def test_a_lora_adapter_comes_at_any_strength_and_goes() -> None:
    plain = build_conditional_unet()
    before = check(plain)
    adapted = tiny_adapters.add_lora(plain)
    model: Any = adapted.model
    none, half, full = (check(scaled(adapted, scale)) for scale in (0.0, 0.5, 1.0))
    assert distance(none, before) < 1e-5
    assert 0.01 < distance(half, before) < distance(full, before)
    model.disable_adapters()
    assert torch.equal(check(plain), before)
    model.enable_adapters()
    assert torch.equal(check(scaled(adapted, 1.0)), full)
    model.fuse_lora()
    assert distance(check(plain), full) < 0.01
    model.unfuse_lora()
    model.unload_lora()
    assert distance(check(plain), before) < 1e-5


def test_an_adapter_that_comes_between_images_is_part_of_the_next() -> None:
    """The wiring stands before blocks, and peft replaces the layers inside them."""
    plain = build_conditional_unet()
    wiring = Wiring(plain.model)
    simulator = Simulator(wiring, divide(plain), 1)
    (whole,) = plan_rounds(1, warmup=1, stride=1)
    (before,) = simulator.run(whole, lambda step: plain.predict(plain.noise, step))
    adapted = tiny_adapters.add_lora(plain)
    (after,) = simulator.run(whole, lambda step: adapted.predict(plain.noise, step))
    wiring.remove()
    assert distance(after, before) > 0.01
    assert torch.equal(after, adapted.predict(plain.noise, 0))


def test_freeu_changes_the_sample_and_can_be_switched_off() -> None:
    plain = build_conditional_unet()
    before = check(plain)
    freed = tiny_adapters.build_freeu_unet()
    model: Any = freed.model
    assert distance(check(freed), before) > 0.01
    model.disable_freeu()
    assert torch.equal(check(freed), before)


def test_image_prompts_change_the_sample() -> None:
    prompted = tiny_adapters.build_image_prompted_unet()
    embeds = prompted.conditioning["added_cond_kwargs"]["image_embeds"]
    other = {"image_embeds": [each.flip(-1) for each in embeds]}
    result = check(prompted)
    turned = check(replace(prompted, conditioning={**prompted.conditioning, "added_cond_kwargs": other}))
    assert distance(turned, result) > 0.01
    model: Any = prompted.model
    for processor in model.attn_processors.values():
        if hasattr(processor, "scale"):
            processor.scale = [0.0]
    assert distance(check(prompted), result) > 0.01


def test_a_control_net_changes_the_sample() -> None:
    assert distance(check(build_controlled_unet()), check(build_conditional_unet())) > 0.01


def cast_layers(model: Any) -> None:
    model.enable_layerwise_casting(storage_dtype=torch.bfloat16, compute_dtype=torch.float32)


def compile_parts(model: Any) -> None:
    model.mid_block.compile(backend="eager")
    model.down_blocks[0].resnets[0].compile(backend="eager")


def slice_attention(model: Any) -> None:
    model.set_attention_slice("max")


def fuse_projections(model: Any) -> None:
    model.fuse_qkv_projections()


def order_channels_last(model: Any) -> None:
    model.to(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "change", [cast_layers, compile_parts, slice_attention, fuse_projections, order_channels_last]
)
def test_other_settings_of_diffusers_go_on(change: Callable[[Any], None]) -> None:
    denoiser = build_conditional_unet()
    before = check(denoiser)
    change(denoiser.model)
    assert distance(check(denoiser), before) < 0.05

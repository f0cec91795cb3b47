"""Denoisers are found among real pipelines' components, and refused where something else steers them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import accelerate
import diffusers
import pytest
import torch
from diffusers import hooks, models
from torch import nn

from aerogel.errors import AerogelError, DataError, MismatchError
from aerogel.parallel import families
from aerogel.parallel.families import find_denoisers, require_parallel
from aerogel.parallel.times import TIME_NAMES
from tests.parallel.tiny_transformers import build_flux, build_wan
from tests.parallel.tiny_unets import build_conditional_unet, build_unet


def sd_unet() -> Any:
    return build_conditional_unet().model


def flux() -> Any:
    return build_flux().model


def vae() -> Any:
    return diffusers.AutoencoderKL(block_out_channels=(4,), norm_num_groups=2)


def without_texts(kind: Any, *absent: str, **components: Any) -> Any:
    """Return a pipeline of ``kind`` that has no text encoder, nor the ``absent``."""
    return kind(**dict.fromkeys(("text_encoder", "tokenizer", *absent)), **components)


def sd_pipeline(kind: str, **more: Any) -> Any:
    absent = ("safety_checker", "feature_extractor")
    scheduler = diffusers.EulerDiscreteScheduler(steps_offset=1)
    return without_texts(
        getattr(diffusers, kind),
        *absent,
        vae=vae(),
        scheduler=scheduler,
        requires_safety_checker=False,
        **more,
    )


def test_a_unet_is_found_and_its_neighbours_are_not() -> None:
    unet = sd_unet()
    pipe = sd_pipeline("StableDiffusionPipeline", unet=unet)
    assert isinstance(pipe.components["vae"], nn.Module)
    assert find_denoisers(pipe) == {"unet": unet}


@pytest.mark.parametrize("count", [1, 2])
def test_a_control_net_is_no_denoiser(count: int) -> None:
    unet = sd_unet()
    nets = [diffusers.ControlNetModel.from_unet(unet) for _ in range(count)]
    control = nets if count > 1 else nets[0]
    pipe = sd_pipeline("StableDiffusionControlNetPipeline", unet=unet, controlnet=control)
    assert "timestep" in inspect.signature(pipe.controlnet.forward).parameters
    assert find_denoisers(pipe) == {"unet": unet}


def test_a_subclass_of_a_control_net_is_none_either() -> None:
    class Mine(diffusers.ControlNetModel):
        pass

    unet = sd_unet()
    pipe = sd_pipeline("StableDiffusionControlNetPipeline", unet=unet, controlnet=Mine.from_unet(unet))
    assert find_denoisers(pipe) == {"unet": unet}


def test_a_unet_with_a_control_net_inside_is_a_denoiser() -> None:
    both = diffusers.UNetControlNetXSModel(
        sample_size=8,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        block_out_channels=(8,),
        norm_num_groups=4,
        ctrl_block_out_channels=(8,),
    )
    assert find_denoisers(SimpleNamespace(components={"unet": both})) == {"unet": both}


def test_both_transformers_of_wan_come_in_the_order_of_their_calls() -> None:
    early, late = build_wan().model, build_wan().model
    pipe = without_texts(
        diffusers.WanPipeline,
        vae=None,
        scheduler=diffusers.UniPCMultistepScheduler(),
        transformer_2=late,
        transformer=early,
    )
    assert list(find_denoisers(pipe).items()) == [("transformer", early), ("transformer_2", late)]


def test_a_cascade_begins_with_its_prior_wherever_it_is_listed() -> None:
    pipe = SimpleNamespace(
        components={"image_encoder": nn.Identity(), "decoder": build_unet().model, "prior": sd_unet()},
        model_cpu_offload_seq="text_encoder->prior->decoder",
    )
    assert list(find_denoisers(pipe)) == ["prior", "decoder"]


def test_what_the_pipeline_gives_no_order_comes_last_as_listed() -> None:
    parts = {name: build_unet().model for name in ("b", "a", "unet")}
    pipe = SimpleNamespace(components=parts, model_cpu_offload_seq="unet")
    assert list(find_denoisers(pipe)) == ["unet", "b", "a"]
    pipe.model_cpu_offload_seq = None
    assert list(find_denoisers(pipe)) == ["b", "a", "unet"]


def test_a_denoiser_of_two_names_is_found_once() -> None:
    unet = build_unet().model
    assert find_denoisers(SimpleNamespace(components={"unet": unet, "again": unet})) == {"unet": unet}


def test_a_compiled_denoiser_is_found_to_be_refused_by_name() -> None:
    unet = sd_unet()
    compiled = torch.compile(unet, backend="eager")
    assert find_denoisers(SimpleNamespace(components={"unet": compiled})) == {"unet": compiled}


def test_a_pipeline_without_denoiser_is_refused_with_what_it_has() -> None:
    pipe = SimpleNamespace(components={"vae": vae(), "scheduler": object(), "upsampler": nn.Identity()})
    had = r"SimpleNamespace with vae \(AutoencoderKL\), upsampler \(Identity\)"
    with pytest.raises(DataError, match=rf"takes the time of a step \(timestep, .*\); got {had};"):
        find_denoisers(pipe)
    with pytest.raises(DataError, match="with no modules at all"):
        find_denoisers(SimpleNamespace(components={}))


def test_a_denoiser_in_the_place_of_its_pipeline_is_refused() -> None:
    with pytest.raises(DataError, match="expected a diffusers pipeline; got UNet2DModel; what to do: pass"):
        find_denoisers(build_unet().model)


# Masked image models fill in tokens and have no time; the others are no models of images or videos.
TIMELESS = {
    "MiniMaxMusic3RVQDepthDecoder",
    "MotionAdapter",
    "RFD4ProteinaTransformer",
    "T5FilmDecoder",
    "UVit2DModel",
}


def test_every_denoiser_of_diffusers_takes_a_time_by_a_known_name() -> None:
    timeless = {
        name
        for home in (models.transformers, models.unets)
        for name, kind in vars(home).items()
        if inspect.isclass(kind)
        and issubclass(kind, models.ModelMixin)
        and not set(TIME_NAMES) & set(inspect.signature(kind.forward).parameters)
    }
    assert timeless <= TIMELESS


def offload_model(unet: Any) -> None:
    accelerate.cpu_offload_with_hook(unet, torch.device("cpu"))


def offload_after_another_hook(unet: Any) -> None:
    accelerate.hooks.add_hook_to_module(unet, accelerate.hooks.ModelHook())
    accelerate.hooks.add_hook_to_module(unet, accelerate.hooks.CpuOffload("cpu"), append=True)


def offload_layers(unet: Any) -> None:
    accelerate.cpu_offload(unet, torch.device("cpu"), offload_buffers=True)


def offload_groups(unet: Any) -> None:
    unet.enable_group_offload(torch.device("cpu"), offload_type="leaf_level")


def compile_in_place(unet: Any) -> None:
    unet.compile(backend="eager")


def compile_forward(unet: Any) -> None:
    unet.forward = torch.compile(unet.forward, backend="eager")


def train_with_checkpoints(unet: Any) -> None:
    unet.enable_gradient_checkpointing()
    unet.train()


def put_a_part_elsewhere(unet: Any) -> None:
    unet.mid_block.to("meta")


def cache_first_block(transformer: Any) -> None:
    transformer.enable_cache(hooks.FirstBlockCacheConfig())


def cache_attention(transformer: Any) -> None:
    config = hooks.PyramidAttentionBroadcastConfig(spatial_attention_block_skip_range=2)
    config.current_timestep_callback = lambda: 500
    transformer.enable_cache(config)


def cache_faster(transformer: Any) -> None:
    config = hooks.FasterCacheConfig(spatial_attention_block_skip_range=2)
    config.current_timestep_callback = lambda: 500
    transformer.enable_cache(config)


def cache_magnitudes(transformer: Any) -> None:
    transformer.enable_cache(hooks.MagCacheConfig(num_inference_steps=4, mag_ratios=[1.0] * 4))


def cache_taylor_series(transformer: Any) -> None:
    transformer.enable_cache(hooks.TaylorSeerCacheConfig())


def cache_without_the_mixin(transformer: Any) -> None:
    hooks.apply_first_block_cache(transformer, hooks.FirstBlockCacheConfig())


def parallelize_contexts(transformer: Any) -> None:
    # Its own call asks for a process group and an accelerator, and keeps this.
    transformer._parallel_config = diffusers.ContextParallelConfig(ring_degree=2)


Check = tuple[Callable[[], Any], Callable[[Any], None], str, str]

OBSTACLES: tuple[Check, ...] = (
    (
        sd_unet,
        offload_model,
        r"the hook CpuOffload on UNet2D.*enable_model_cpu",
        r"pipe\.remove_all_hooks\(\)",
    ),
    (sd_unet, offload_after_another_hook, "the hook CpuOffload on UNet2D", r"pipe\.remove_all_hooks\(\)"),
    (sd_unet, offload_layers, "AlignDevicesHook on .*enable_sequential", r"pipe\.remove_all_hooks\(\)"),
    (sd_unet, offload_groups, "group offloading on", r"load it again without enable_group_offload\(\)"),
    (sd_unet, compile_in_place, r"pipe\.net\.compile\(\) of the whole", "load it again and do not"),
    (sd_unet, compile_forward, r"torch\.compile of pipe\.net\.forward", r"del pipe\.net\.forward"),
    (sd_unet, train_with_checkpoints, "training mode with gradient", r"pipe\.net\.eval\(\)"),
    (sd_unet, put_a_part_elsewhere, "weights on cpu and meta", r"call pipe\.net\.to\(device\)"),
    (flux, cache_first_block, r"enable_cache\(FirstBlockCacheConfig\)", r"pipe\.net\.disable_cache\(\)"),
    (flux, cache_attention, r"enable_cache\(PyramidAttention", r"pipe\.net\.disable_cache\(\)"),
    (flux, cache_faster, r"enable_cache\(FasterCacheConfig", r"pipe\.net\.disable_cache\(\)"),
    (flux, cache_magnitudes, r"enable_cache\(MagCacheConfig", r"pipe\.net\.disable_cache\(\)"),
    (flux, cache_taylor_series, r"enable_cache\(TaylorSeer", r"pipe\.net\.disable_cache\(\)"),
    (flux, cache_without_the_mixin, "the hook '.*' on Flux", "load it again without that hook"),
    (flux, parallelize_contexts, r"enable_parallelism\(ContextParallel", "load it again without parallel_c"),
)


@pytest.mark.parametrize(
    ("build", "interfere", "found", "remedy"), OBSTACLES, ids=[each[1].__name__ for each in OBSTACLES]
)
def test_a_denoiser_that_something_else_steers_is_refused(
    build: Callable[[], Any], interfere: Callable[[Any], None], found: str, remedy: str
) -> None:
    denoiser = build()
    require_parallel("net", denoiser)
    interfere(denoiser)
    with pytest.raises(MismatchError, match=rf"pipe\.net .*: .*; got .*{found}.*; what to do: .*{remedy}"):
        require_parallel("net", denoiser)


def undo_offload(unet: Any) -> None:
    accelerate.hooks.remove_hook_from_module(unet, recurse=True)
    unet.to("cpu")


def undo_compile_of_forward(unet: Any) -> None:
    del unet.forward


@pytest.mark.parametrize(
    ("build", "interfere", "undo"),
    [
        (sd_unet, offload_model, undo_offload),
        (sd_unet, offload_layers, undo_offload),
        (sd_unet, compile_forward, undo_compile_of_forward),
        (sd_unet, train_with_checkpoints, lambda unet: unet.eval()),
        (sd_unet, train_with_checkpoints, lambda unet: unet.disable_gradient_checkpointing()),
        (flux, cache_first_block, lambda transformer: transformer.disable_cache()),
        (flux, cache_taylor_series, lambda transformer: transformer.disable_cache()),
    ],
)
def test_what_the_error_says_undoes_it(
    build: Callable[[], Any], interfere: Callable[[Any], None], undo: Callable[[Any], None]
) -> None:
    denoiser = build()
    interfere(denoiser)
    with pytest.raises(AerogelError):
        require_parallel("net", denoiser)
    undo(denoiser)
    require_parallel("net", denoiser)


def test_a_compiled_whole_is_refused() -> None:
    compiled: Any = torch.compile(sd_unet(), backend="eager")
    with pytest.raises(
        MismatchError, match=r"torch\.compile of the whole; .* set pipe\.unet = pipe\.unet\._orig_mod"
    ):
        require_parallel("unet", compiled)
    require_parallel("unet", compiled._orig_mod)


def test_a_device_map_is_refused_before_the_offloading_that_comes_with_it(tmp_path: Path) -> None:
    unet = sd_unet()
    parts = {name: "cpu" for name, _ in unet.named_children()}
    accelerate.dispatch_model(
        unet, {**parts, "mid_block": "disk"}, offload_dir=str(tmp_path), force_hooks=True
    )
    with pytest.raises(
        MismatchError, match=r"device_map that spreads it over cpu and disk; .* without device_map"
    ):
        require_parallel("unet", unet)


def test_a_device_map_of_one_device_is_no_obstacle() -> None:
    unet = sd_unet()
    accelerate.dispatch_model(unet, {"": "cpu"}, force_hooks=True)
    assert hasattr(unet, "_hf_hook")
    require_parallel("unet", unet)


def cast_layers(unet: Any) -> None:
    unet.enable_layerwise_casting(storage_dtype=torch.bfloat16, compute_dtype=torch.float32)


@pytest.mark.parametrize(
    "harmless",
    [
        cast_layers,
        lambda unet: unet.train(),
        lambda unet: unet.enable_gradient_checkpointing(),
        lambda unet: unet.mid_block.compile(backend="eager"),
        lambda unet: unet.register_forward_hook(lambda *_: None),
    ],
    ids=["layerwise casting", "training", "checkpointing", "a compiled part", "hook"],
)
def test_what_does_no_harm_is_let_through(harmless: Callable[[Any], None]) -> None:
    unet = sd_unet()
    harmless(unet)
    require_parallel("unet", unet)


def test_the_package_lists_what_is_public() -> None:
    assert set(families.__all__) <= set(dir(families))
    assert families.find_denoisers.__doc__
    with pytest.raises(AttributeError, match="has no attribute 'find'"):
        families.find  # noqa: B018

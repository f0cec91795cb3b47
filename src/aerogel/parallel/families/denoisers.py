"""Find the denoisers of a diffusers pipeline, and refuse those that others already steer."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

from torch import nn

from aerogel.errors import DataError, MismatchError, compose
from aerogel.parallel.times import TIME_NAMES

# A ControlNet takes the time as well, but gives additions to a denoiser's hidden states; a
# UNetControlNetXSModel is a denoiser with one inside.
_CONTROL = re.compile(r"ControlNet(Union)?Model$")

# What is wrong: (what was expected and why, what was found, the call that undoes it).
_Obstacle = tuple[str, str, str]


def find_denoisers(pipe: Any) -> dict[str, nn.Module]:
    """Return the denoisers among the components of ``pipe`` by name, in the order of their calls.

    A denoiser is a module whose ``forward`` takes the time of a step, and is no ControlNet. Most pipelines
    have one; Wan 2.2 has one for early and one for late steps, cascades have one for each stage.

    Raises:
        DataError: ``pipe`` is no pipeline, or none of its components is a denoiser.
    """
    components = getattr(pipe, "components", None)
    if not isinstance(components, dict):
        raise DataError(
            compose("a diffusers pipeline", f"{type(pipe).__name__}", "pass the pipeline, not a part of it")
        )
    modules = {name: each for name, each in components.items() if isinstance(each, nn.Module)}
    found: dict[str, nn.Module] = {}
    for name in _in_call_order(pipe, list(modules)):
        if _denoises(modules[name]) and not any(modules[name] is each for each in found.values()):
            found[name] = modules[name]
    if not found:
        had = ", ".join(f"{name} ({type(each).__name__})" for name, each in modules.items())
        raise DataError(
            compose(
                f"a component whose forward takes the time of a step ({', '.join(TIME_NAMES)})",
                f"{type(pipe).__name__} with {had or 'no modules at all'}",
                "pass a pipeline that denoises step by step, its denoiser in no wrapper",
            )
        )
    return found


def _in_call_order(pipe: Any, names: list[str]) -> list[str]:
    order = re.split(r"\W+", getattr(pipe, "model_cpu_offload_seq", None) or "")
    return sorted(names, key=lambda name: order.index(name) if name in order else len(order))


def _denoises(module: nn.Module) -> bool:
    inner = getattr(module, "_orig_mod", module)
    if any(_CONTROL.search(kind.__name__) for kind in type(inner).__mro__):
        return False
    return any(name in inspect.signature(inner.forward).parameters for name in TIME_NAMES)


def require_parallel(name: str, denoiser: nn.Module) -> None:
    """Check that nothing else moves, compiles, reuses or spreads the parts of ``pipe.<name>``.

    Raises:
        MismatchError: something does.
    """
    for find in (
        _find_device_map,
        _find_offload,
        _find_group_offload,
        _find_several_devices,
        _find_compiled,
        _find_cache,
        _find_parallelism,
        _find_checkpointing,
    ):
        obstacle = find(f"pipe.{name}", denoiser)
        if obstacle is not None:
            raise MismatchError(compose(*obstacle))


def _find_device_map(name: str, denoiser: nn.Module) -> _Obstacle | None:
    places = getattr(denoiser, "hf_device_map", None) or {}
    if len({str(place) for place in places.values()}) < 2:
        return None
    return (
        _on_one_device(name),
        f"a device_map that spreads it over {_list(places.values())}",
        "load it without device_map and move it with .to(device)",
    )


def _find_offload(name: str, denoiser: nn.Module) -> _Obstacle | None:
    for module in denoiser.modules():
        for hook in _accelerate_hooks(getattr(module, "_hf_hook", None)):
            kinds = {kind.__name__ for kind in type(hook).__mro__}
            if "CpuOffload" in kinds:
                call = "enable_model_cpu_offload"
            elif "AlignDevicesHook" in kinds and hook.offload:
                call = "enable_sequential_cpu_offload"
            else:
                continue
            return (
                _in_place(name),
                f"the hook {type(hook).__name__} on {type(module).__name__}, as {call}() leaves it",
                "call pipe.remove_all_hooks() and pipe.to(device)",
            )
    return None


def _accelerate_hooks(hook: Any) -> list[Any]:
    return [part for each in getattr(hook, "hooks", ()) for part in _accelerate_hooks(each)] or [hook]


def _find_group_offload(name: str, denoiser: nn.Module) -> _Obstacle | None:
    for module, key, _ in _diffusers_hooks(denoiser):
        if "group_offloading" in key:
            return (
                _in_place(name),
                f"group offloading on {type(module).__name__}",
                "load it again without enable_group_offload() and move it with .to(device)",
            )
    return None


def _diffusers_hooks(denoiser: nn.Module) -> Iterator[tuple[nn.Module, str, Any]]:
    for module in denoiser.modules():
        registry = getattr(module, "_diffusers_hook", None)
        for key, hook in getattr(registry, "hooks", {}).items():
            yield module, key, hook


def _find_several_devices(name: str, denoiser: nn.Module) -> _Obstacle | None:
    places = {each.device for each in (*denoiser.parameters(), *denoiser.buffers())}
    if len(places) < 2:
        return None
    return _on_one_device(name), f"weights on {_list(places)}", f"call {name}.to(device)"


def _find_compiled(name: str, denoiser: nn.Module) -> _Obstacle | None:
    expected = f"{name} as plain modules: a compiled whole runs its parts without asking who owns them"
    if hasattr(denoiser, "_orig_mod"):
        return expected, "torch.compile of the whole", f"set {name} = {name}._orig_mod"
    if hasattr(vars(denoiser).get("forward"), "_torchdynamo_orig_callable"):
        return expected, f"torch.compile of {name}.forward", f"call del {name}.forward"
    if getattr(denoiser, "_compiled_call_impl", None) is not None:
        return expected, f"{name}.compile() of the whole", "load it again and do not compile it"
    return None


def _find_cache(name: str, denoiser: nn.Module) -> _Obstacle | None:
    expected = f"{name} without a cache of its own: it would reuse outputs that are a step old already"
    if getattr(denoiser, "is_cache_enabled", False):
        config = getattr(denoiser, "_cache_config", None)
        return expected, f"enable_cache({type(config).__name__})", f"call {name}.disable_cache()"
    for module, key, hook in _diffusers_hooks(denoiser):
        # A hook with a state keeps what one step gave for the next.
        if getattr(hook, "_is_stateful", False):
            return (
                expected,
                f"the hook {key!r} on {type(module).__name__}",
                f"call {name}._diffusers_hook.remove_hook({key!r})"
                if module is denoiser
                else "load it again without that hook",
            )
    return None


def _find_parallelism(name: str, denoiser: nn.Module) -> _Obstacle | None:
    config = getattr(denoiser, "_parallel_config", None)
    if config is None:
        return None
    return (
        f"{name} whole in every process: another scheme has the processes share each part of it already",
        f"enable_parallelism({type(config).__name__})",
        "load it again without parallel_config and enable_parallelism()",
    )


def _find_checkpointing(name: str, denoiser: nn.Module) -> _Obstacle | None:
    kept = [each for each in denoiser.modules() if getattr(each, "gradient_checkpointing", False)]
    if not (denoiser.training and kept):
        return None
    return (
        f"{name} ready to sample: checkpointing runs its parts again in a backward pass, rounds later",
        "training mode with gradient checkpointing",
        f"call {name}.eval(), or {name}.disable_gradient_checkpointing()",
    )


def _on_one_device(name: str) -> str:
    return f"{name} on one device: each process runs its share of the parts on its own"


def _in_place(name: str) -> str:
    return f"the weights of {name} to stay where they are: each device keeps the parts it owns at hand"


def _list(places: Any) -> str:
    return " and ".join(sorted({str(place) for place in places}))

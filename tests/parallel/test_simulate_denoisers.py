"""The simulator on all kinds of denoisers: exact in the warm-up, then one round behind."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from aerogel.parallel.flow import connect
from aerogel.parallel.layout import Layout, lay_out
from aerogel.parallel.partition import weigh
from aerogel.parallel.rounds import plan_rounds
from aerogel.parallel.simulator import Simulator
from aerogel.parallel.trace import Call, trace_calls
from aerogel.parallel.wiring import Wiring
from tests.parallel.denoisers import CASES, Case
from tests.parallel.tiny import Denoiser

STEPS = 5
MORE_STEPS = 9  # what one device gives goes round all others and comes back, two steps at a time
BY_NAME = {case.name: case for case in CASES}

# Mochi switches autocast off in a way of its own.
pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast:UserWarning")
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@cache
def build(case: Case) -> Denoiser:
    return case.build()


@cache
def trace(case: Case) -> Call:
    denoiser = build(case)
    return trace_calls(denoiser.model, *denoiser.inputs(denoiser.noise, 0))


@cache
def layout_of(case: Case, components: int) -> Layout:
    return lay_out(trace(case), components)


def advance(sample: Tensor, noise: Tensor) -> Tensor:
    return sample - 0.1 * noise


@cache
def sample_in_turn(case: Case) -> Tensor:
    """Sample as everybody does, one call after the other."""
    denoiser = build(case)
    sample = denoiser.noise
    for step in range(STEPS):
        sample = advance(sample, denoiser.predict(sample, step))
    return sample


def run_rounds(
    denoiser: Denoiser, simulator: Simulator, stride: int = 1, *, warmup: int = 1, steps: int = STEPS
) -> Tensor:
    sample = denoiser.noise
    for planned in plan_rounds(steps, warmup=warmup, stride=stride):
        for noise in simulator.run(planned, partial(denoiser.predict, sample)):
            sample = advance(sample, noise)
    return sample


@contextmanager
def simulating(case: Case, layout: Layout, stride: int = 1, *, poisoned: bool = False) -> Iterator[Simulator]:
    wiring = Wiring(build(case).model)
    try:
        yield Simulator(wiring, layout, stride, poisoned=poisoned)
    finally:
        wiring.remove()


def simulate(
    case: Case,
    layout: Layout,
    stride: int = 1,
    *,
    warmup: int = 1,
    steps: int = STEPS,
    poisoned: bool = False,
) -> Tensor:
    """Sample as a group of devices would."""
    with simulating(case, layout, stride, poisoned=poisoned) as simulator:
        return run_rounds(build(case), simulator, stride, warmup=warmup, steps=steps)


@each_case
def test_the_denoiser_depends_on_its_sample_and_on_the_time(case: Case) -> None:
    denoiser = build(case)
    output = denoiser.predict(denoiser.noise, 0)
    other_time = denoiser.predict(denoiser.noise, -1)
    other_sample = denoiser.predict(denoiser.noise.flip(-1), 0)
    assert output.shape == denoiser.noise.shape
    assert 0.1 < output.std() < 10
    assert (other_time - output).std() > 0.1 * output.std()
    assert (other_sample - output).std() > 0.1 * output.std()


@pytest.mark.parametrize("components", [2, 4])
@each_case
def test_a_warm_up_to_the_end_changes_no_bit(case: Case, components: int) -> None:
    result = simulate(case, layout_of(case, components), warmup=STEPS)
    assert torch.equal(result, sample_in_turn(case))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("components", [2, 3, 4])
@each_case
def test_nothing_is_read_but_what_travels(case: Case, components: int, stride: int) -> None:
    layout = layout_of(case, components)
    result = simulate(case, layout, stride)
    poisoned = simulate(case, layout, stride, poisoned=True)
    assert result.isfinite().all()
    assert torch.equal(poisoned, result)
    exact = sample_in_turn(case)
    assert (result - exact).norm() > 1e-3 * exact.norm()


@each_case
def test_all_that_travels_is_read(case: Case) -> None:
    layout = layout_of(case, 2)
    with simulating(case, layout, poisoned=True) as simulator:
        seating = simulator.seating
        for device, read in enumerate(seating.read):
            for source in read:
                less = [
                    each - {source} if place == device else each for place, each in enumerate(seating.read)
                ]
                simulator.seating = replace(seating, read=tuple(less))
                assert run_rounds(build(case), simulator, steps=3).isnan().any(), source


@each_case
def test_the_wiring_leaves_the_model_as_it_was(case: Case) -> None:
    denoiser = build(case)
    before = denoiser.predict(denoiser.noise, 0)
    simulate(case, layout_of(case, 2), 2)
    assert not any("forward" in vars(module) for module in denoiser.model.modules())
    assert torch.equal(denoiser.predict(denoiser.noise, 0), before)


class Devices:
    """Run a whole pass for every component; what the others' modules give is what they gave before."""

    def __init__(self, denoiser: Denoiser, layout: Layout) -> None:
        self._denoiser = denoiser
        self._component: int | None = None
        self._keeps = True
        self._old: dict[str, Any] = {}
        self._new: dict[str, Any] = {}
        owners = zip(layout.flow.names, layout.partition.owners, strict=True)
        self.hooks = [
            denoiser.model.get_submodule(name).register_forward_hook(self._exchange(name, owner))
            for name, owner in owners
        ]

    def _exchange(self, name: str, owner: int) -> Any:
        def exchange(module: nn.Module, args: Any, output: Any) -> Any:
            if self._component not in (None, owner):
                return copy.deepcopy(self._old[name])
            if self._keeps:
                self._new[name] = copy.deepcopy(output)
            return None

        return exchange

    def begin_round(self) -> None:
        self._old, self._new = self._new, {}

    def call(self, sample: Tensor, step: int, component: int | None, *, keeps: bool = True) -> Tensor:
        self._component, self._keeps = component, keeps
        return self._denoiser.predict(sample, step)


@contextmanager
def removing(hooks: Sequence[RemovableHandle]) -> Iterator[None]:
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def sample_by_definition(case: Case, layout: Layout, stride: int, steps: int) -> Tensor:
    """Sample with every component on the newest sample and on what the others gave one round ago."""
    denoiser, partition = build(case), layout.partition
    devices = Devices(denoiser, layout)
    with removing(devices.hooks):
        sample = advance(denoiser.noise, devices.call(denoiser.noise, 0, None))
        for first in range(1, steps, stride):
            devices.begin_round()
            *early, last = range(first, min(first + stride, steps))
            noises = [devices.call(sample, step, partition.tail, keeps=False) for step in early]
            answers = [devices.call(sample, last, component) for component in range(partition.components)]
            for noise in (*noises, answers[partition.tail]):
                sample = advance(sample, noise)
    return sample


@each_case
def test_every_component_reads_what_the_others_gave_one_round_ago(case: Case) -> None:
    layout = layout_of(case, 3)
    assert torch.equal(simulate(case, layout), sample_by_definition(case, layout, 1, STEPS))


@pytest.mark.parametrize("components", [2, 4])
@pytest.mark.parametrize("name", ["unet", "dit", "hunyuan-dit"])
def test_a_stride_of_two_gives_a_copy_of_the_last_component_the_earlier_time(
    name: str, components: int
) -> None:
    case = BY_NAME[name]
    layout = layout_of(case, components)
    expected = sample_by_definition(case, layout, 2, MORE_STEPS)
    assert torch.equal(simulate(case, layout, 2, steps=MORE_STEPS), expected)


def lay_out_by_hand(case: Case, owner_of: Mapping[str, int]) -> Layout:
    root = trace(case)
    flow = connect(root, [call for call in root.walk() if call.name in owner_of])
    owners = [owner_of[name] for name in flow.names]
    costs = [float(unit.macs) for unit in flow.units]
    return Layout(flow, weigh(flow, owners, costs, [1.0] * len(set(owners))))


@pytest.mark.parametrize("owners", [(0, 0, 1, 1, 1), (0, 1, 1, 2, 3), (0, 1, 1, 2, 0)], ids=str)
def test_a_chain_of_blocks_runs_as_the_paper_says(owners: tuple[int, ...]) -> None:
    """Component n of round t takes what component n - 1 gave in round t - 1; the first, the newest sample."""
    case = BY_NAME["dit"]
    denoiser = build(case)
    blocks = list(denoiser.model.get_submodule("transformer_blocks").children())
    given: list[dict[int, Tensor]] = [{}]

    def take(place: int) -> Any:
        def replace_input(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (given[-2][place - 1], *args[1:]) if len(given) > 2 else args

        return replace_input

    def give(place: int) -> Any:
        def store_output(module: nn.Module, args: Any, output: Tensor) -> None:
            given[-1][place] = output

        return store_output

    hooks = [block.register_forward_hook(give(place)) for place, block in enumerate(blocks)]
    for place in range(1, len(owners)):
        if owners[place] != owners[place - 1]:
            hooks.append(blocks[place].register_forward_pre_hook(take(place)))
    sample = denoiser.noise
    with removing(hooks):
        for step in range(STEPS):
            given.append({})
            sample = advance(sample, denoiser.predict(sample, step))
    layout = lay_out_by_hand(
        case, {f"transformer_blocks.{place}": owner for place, owner in enumerate(owners)}
    )
    assert torch.equal(simulate(case, layout), sample)


UNET_PARTS = ("down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.0", "up_blocks.1")


@pytest.mark.parametrize(
    "owners", [(0, 1, 1, 1, 1), (0, 0, 1, 1, 0), (0, 1, 2, 3, 0), (0, 1, 2, 3, 4)], ids=str
)
def test_skip_connections_are_as_old_as_what_else_travels(owners: tuple[int, ...]) -> None:
    case = BY_NAME["unet"]
    denoiser = build(case)
    owner_of = dict(zip(UNET_PARTS, owners, strict=True))
    sample = denoiser.noise
    old: dict[str, tuple[Tensor, ...]] = {}
    for step in range(STEPS):
        noise, old = call_unet(denoiser, sample, step, owner_of, old)
        sample = advance(sample, noise)
    assert torch.equal(simulate(case, lay_out_by_hand(case, owner_of)), sample)


def call_unet(
    denoiser: Denoiser,
    sample: Tensor,
    step: int,
    owner_of: Mapping[str, int],
    old: Mapping[str, tuple[Tensor, ...]],
) -> tuple[Tensor, dict[str, tuple[Tensor, ...]]]:
    """Write the UNet's call out: each part reads its owner's new outputs and the others' ``old`` ones."""
    unet: Any = denoiser.model
    new: dict[str, tuple[Tensor, ...]] = {}

    def read(reader: str, name: str) -> tuple[Tensor, ...]:
        return new[name] if not old or owner_of[name] == owner_of[reader] else old[name]

    time = torch.tensor([denoiser.times[step]] * len(sample))
    embedding = unet.time_embedding(unet.time_proj(time))
    stem = unet.conv_in(sample)
    _, skips = unet.down_blocks[0](stem, embedding)
    new["down_blocks.0"] = skips
    _, skips = unet.down_blocks[1](read("down_blocks.1", "down_blocks.0")[-1], embedding)
    new["down_blocks.1"] = skips
    new["mid_block"] = (unet.mid_block(read("mid_block", "down_blocks.1")[-1], embedding),)
    low = (read("up_blocks.0", "down_blocks.0")[-1], *read("up_blocks.0", "down_blocks.1"))
    new["up_blocks.0"] = (unet.up_blocks[0](read("up_blocks.0", "mid_block")[0], low, embedding),)
    high = (stem, read("up_blocks.1", "down_blocks.0")[0])
    new["up_blocks.1"] = (unet.up_blocks[1](read("up_blocks.1", "up_blocks.0")[0], high, embedding),)
    return unet.conv_out(unet.conv_act(unet.conv_norm_out(new["up_blocks.1"][0]))), new

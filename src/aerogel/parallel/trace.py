"""Follow the tensors of one denoiser call through its sub-modules, on shapes alone."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from aerogel.errors import DeviceError, compose
from aerogel.measure.replica import copy_model

Source = tuple[str, int]


@dataclass(frozen=True)
class TensorSpec:
    """Give a tensor's shape, strides and dtype.

    Strides belong to it: kernels may round differently on the same values laid out otherwise.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: Tensor) -> TensorSpec:
        """Return the spec of ``tensor``, as its clone would be: without holes or overlaps."""
        like = torch.empty_like(tensor, device="meta")
        return cls(tuple(like.shape), like.stride(), like.dtype)

    @property
    def order(self) -> tuple[int, ...]:
        """Return the dimensions from the outermost in memory to the innermost."""
        return tuple(sorted(range(len(self.shape)), key=lambda each: -self.strides[each]))

    def arrange(self, order: Sequence[int]) -> TensorSpec:
        """Return the spec of the same tensor with its dimensions in memory in ``order``."""
        strides, step = [0] * len(order), 1
        for dimension in reversed(order):
            strides[dimension] = step
            step *= self.shape[dimension]
        return TensorSpec(self.shape, tuple(strides), self.dtype)

    @property
    def size_bytes(self) -> int:
        """Return what the tensor weighs."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize

    def view(self, flat: Tensor) -> Tensor:
        """Return ``flat``, a one-dimensional tensor of as many values, in shape."""
        return flat.as_strided(self.shape, self.strides)

    def copy(self, tensor: Tensor) -> Tensor:
        """Return a copy of ``tensor``, laid out as the spec says."""
        made = torch.empty_strided(self.shape, self.strides, dtype=self.dtype, device=tensor.device)
        return made.copy_(tensor.detach())


@dataclass(frozen=True)
class Slot:
    """Hold the place of a tensor: the one with this ``number`` among the distinct ones."""

    number: int


@dataclass(frozen=True)
class Call:
    """Describe one call of a sub-module of a denoiser in one forward pass, the denoiser itself included.

    ``name`` is the sub-module's; a second call is named "name#2" and counts no multiply-accumulates.
    ``macs`` are its multiply-accumulates, attention products included. ``movable`` tells whether another
    device could run it: it is called once, gives tensors only, and leaves those it is given as they are.
    ``inside`` are the calls it makes in turn, in order. ``outputs`` are its distinct tensors; ``shape`` is
    what it returns, with a :class:`Slot` in the place of each. ``reads`` names the (call, output) pairs that
    its inputs were made of, each by the outermost call that had ended; ``made_of`` the same for each output,
    as seen from inside.
    """

    name: str
    macs: int
    movable: bool
    inside: tuple[Call, ...]
    outputs: tuple[TensorSpec, ...]
    shape: Any
    reads: frozenset[Source]
    made_of: tuple[frozenset[Source], ...]

    def walk(self) -> list[Call]:
        """Return this call and all those inside, in the order in which they begin."""
        return [self, *(each for part in self.inside for each in part.walk())]


def distinct_tensors(values: Any) -> list[Tensor]:
    """Return the tensors in ``values`` in order, one that occurs twice once."""
    return list({id(each): each for each in tree_leaves(values) if isinstance(each, Tensor)}.values())


def find_tensors(values: Any) -> list[Tensor]:
    """Return the tensors in ``values``, also those that objects of unknown classes hold."""
    found: list[Tensor] = []
    seen: set[int] = set()
    stack = [values]
    while stack:
        for leaf in tree_leaves(stack.pop()):
            if isinstance(leaf, Tensor):
                found.append(leaf)
            elif (
                hasattr(leaf, "__dict__") and not isinstance(leaf, (nn.Module, type)) and id(leaf) not in seen
            ):
                seen.add(id(leaf))
                stack.append(list(vars(leaf).values()))
    return found


def replace_tensors(values: Any, tensors: Sequence[Tensor]) -> Any:
    """Return ``values`` with ``tensors`` in the places of its :func:`distinct_tensors`."""
    stand_ins = {id(old): new for old, new in zip(distinct_tensors(values), tensors, strict=True)}
    return tree_map_only(Tensor, lambda each: stand_ins[id(each)], values)


def fill_slots(shape: Any, tensors: Sequence[Tensor]) -> Any:
    """Return ``shape`` with ``tensors`` in the places of its slots."""
    return tree_map_only(Slot, lambda each: tensors[each.number], shape)


def trace_calls(denoiser: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    """Run a copy of ``denoiser`` that has no memory on the shapes of its arguments; return the calls it made.

    Values pass from call to call directly or through glue, the operations between them; what a storage
    depends on is followed operation by operation.

    Raises:
        DeviceError: what it computes depends on values, which shapes alone do not have.
        DataError: the denoiser cannot be copied.
    """
    # Tensors of inference mode count no versions, which tell what is changed in place.
    with torch.inference_mode(False):
        return _trace(denoiser, args, kwargs)


def _trace(denoiser: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    replica = copy_model(denoiser, "meta")
    args, kwargs = tree_map_only(Tensor, lambda each: torch.empty_like(each, device="meta"), (args, kwargs))
    tracer, counter = _Tracer(), FlopCounterMode(display=False)
    for name, module in replica.named_modules():
        # An instance attribute shadows the method; the copy is thrown away.
        module.forward = tracer.watch(name, module.forward)
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(counter)
        stack.enter_context(_Follow(tracer))
        try:
            replica(*args, **kwargs)
        except (RuntimeError, NotImplementedError, TypeError) as error:
            if isinstance(error, TypeError) and "meta" not in str(error):
                raise
            raise _refused(replica, error) from error
    root = type(replica).__name__
    macs = {
        name.removeprefix(root).removeprefix("."): sum(each.values()) // 2
        for name, each in counter.get_flop_counts().items()
    }
    return tracer.finish(macs)


def _refused(denoiser: nn.Module, error: Exception) -> DeviceError:
    said = str(error).splitlines() or [type(error).__name__]
    return DeviceError(
        compose(
            "a denoiser whose operations depend on shapes alone",
            f"{type(denoiser).__name__}: {said[0]}",
            "use one that makes no decisions on values",
        )
    )


@dataclass
class _Open:
    name: str
    reads: frozenset[Source]
    inside: list[_Open] = field(default_factory=list)
    movable: bool = False
    outputs: tuple[TensorSpec, ...] = ()
    shape: Any = None
    made_of: tuple[frozenset[Source], ...] = ()


class _Tracer:
    """Give every storage the set of call outputs that its values depend on."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._stack: list[_Open] = [_Open("", frozenset())]
        self._sources: dict[int, set[Source]] = {}
        self._alive: list[Any] = []

    def watch(self, name: str, forward: Any) -> Any:
        """Return ``forward`` with a record of what it reads and gives."""

        def watched(*args: Any, **kwargs: Any) -> Any:
            given = find_tensors((args, kwargs))
            versions = [each._version for each in given]
            count = self._counts[name] = self._counts.get(name, 0) + 1
            opened = _Open(name if count == 1 else f"{name}#{count}", self.sources_of(given))
            self._stack[-1].inside.append(opened)
            self._stack.append(opened)
            output = forward(*args, **kwargs)
            self._stack.pop()
            untouched = versions == [each._version for each in given]
            return self._close(opened, output, untouched)

        return watched

    def _close(self, opened: _Open, output: Any, untouched: bool) -> Any:
        tensors = distinct_tensors(output)
        leaves = [each for each in tree_leaves(output) if each is not None]
        opened.movable = untouched and bool(tensors) and all(isinstance(each, Tensor) for each in leaves)
        opened.outputs = tuple(map(TensorSpec.of, tensors))
        slots: Sequence[Any] = [Slot(number) for number in range(len(tensors))]
        opened.shape = replace_tensors(output, slots) if opened.movable else None
        opened.made_of = tuple(self.sources_of([each]) for each in tensors)
        # Fresh storages, made of nothing: an output may be a view of an input, which others read as well.
        fresh = [
            torch.empty_strided(each.shape, each.stride(), dtype=each.dtype, device=each.device)
            for each in tensors
        ]
        for number, each in enumerate(fresh):
            self.add([each], {(opened.name, number)})
        return replace_tensors(output, fresh)

    def sources_of(self, tensors: Sequence[Tensor]) -> frozenset[Source]:
        """Return what ``tensors`` depend on."""
        return frozenset().union(*(self._sources.get(_identity(each), set()) for each in tensors))

    def add(self, tensors: Sequence[Tensor], sources: Any) -> None:
        """Note that ``tensors`` depend on ``sources``."""
        for each in tensors:
            # Kept alive: a freed storage's number is given to the next one.
            self._alive.append(each.untyped_storage())
            self._sources.setdefault(_identity(each), set()).update(sources)

    def finish(self, macs: dict[str, int]) -> Call:
        """Return the call of the denoiser itself."""
        root = self._stack[0].inside[0]
        self._refuse_leaks(root)
        return self._freeze(root, macs)

    def _refuse_leaks(self, root: _Open) -> None:
        """Note that a call may not move if what was made inside is read outside, past what it returns."""
        above: dict[str, tuple[_Open, ...]] = {}

        def climb(opened: _Open, callers: tuple[_Open, ...]) -> None:
            above[opened.name] = callers
            for part in opened.inside:
                climb(part, (*callers, opened))

        climb(root, ())
        for name, callers in above.items():
            own = callers[-1].inside if callers else [root]
            reader = next(each for each in own if each.name == name)
            for source, around in [
                *((source, callers) for source in reader.reads),
                *((source, (*callers, reader)) for made in reader.made_of for source in made),
            ]:
                for caller in above[source[0]]:
                    caller.movable &= any(caller is each for each in around)

    def _freeze(self, opened: _Open, macs: dict[str, int]) -> Call:
        return Call(
            name=opened.name,
            macs=macs.get(opened.name, 0),
            movable=opened.movable and self._counts.get(opened.name) == 1,
            inside=tuple(self._freeze(each, macs) for each in opened.inside),
            outputs=opened.outputs,
            shape=opened.shape,
            reads=opened.reads,
            made_of=opened.made_of,
        )


class _Follow(TorchDispatchMode):
    """Pass what the inputs of every operation depend on to its outputs."""

    def __init__(self, tracer: _Tracer) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tracer = tracer

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        sources = self._tracer.sources_of(distinct_tensors((args, kwargs)))
        if sources:
            self._tracer.add(distinct_tensors(output), sources)
        return output


def _identity(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)

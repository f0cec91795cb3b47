"""Follow the tensors of one denoiser call through its sub-modules, on shapes alone where these suffice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves, tree_map_only

from aerogel.errors import DeviceError, compose
from aerogel.measure.replica import copy_model
from aerogel.parallel.observer import observe

Source = tuple[str, int]
# What a value may come from: an output of a call, or the argument of the denoiser that has this number.
_Origin = Source | int


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
    as seen from inside. ``decisive`` are the numbers of the denoiser's arguments, among the leaves of (args,
    kwargs), whose values shapes or branches inside depend on: other values make other calls.
    """

    name: str
    macs: int
    movable: bool
    inside: tuple[Call, ...]
    outputs: tuple[TensorSpec, ...]
    shape: Any
    reads: frozenset[Source]
    made_of: tuple[frozenset[Source], ...]
    decisive: tuple[int, ...] = ()

    def walk(self) -> list[Call]:
        """Return this call and all those inside, in the order in which they begin."""
        found, left = [], [self]
        while left:
            found.append(left.pop())
            left.extend(reversed(found[-1].inside))
        return found


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
    """Run a copy of ``denoiser`` on its arguments; return the calls it made.

    The copy has no memory and runs on the shapes of the arguments alone. Where that fails because shapes
    inside depend on values (the length of a text, for one), a copy that shares the weights runs on the
    arguments themselves. Values pass from call to call directly or through glue, the operations between
    them; what a storage depends on is followed operation by operation.

    Raises:
        DeviceError: the denoiser looks at values that are not there, or at what its own parts compute.
        DataError: the denoiser cannot be copied.
    """
    # Tensors of inference mode count no versions, which tell what is changed in place.
    with torch.inference_mode(False):
        try:
            return _trace_shapes(denoiser, args, kwargs)
        except (RuntimeError, NotImplementedError, TypeError) as error:
            if isinstance(error, TypeError) and "meta" not in str(error):
                raise
            if any(each.is_meta for each in (*denoiser.parameters(), *find_tensors((args, kwargs)))):
                raise _refused(denoiser, str(error)) from error
        return _trace_values(denoiser, args, kwargs)


def _trace_shapes(denoiser: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    given = tree_map_only(Tensor, lambda each: torch.empty_like(each, device="meta"), (args, kwargs))
    # Only this way to attend says on meta what it multiplies.
    with sdpa_kernel(SDPBackend.MATH):
        return _trace(copy_model(denoiser, "meta"), *given)


def _trace_values(denoiser: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    given = tree_map_only(Tensor, lambda each: each.detach().clone(), (args, kwargs))
    devices = {each.device for each in denoiser.parameters() if each.device.index is not None}
    kind = next(iter(devices)).type if devices else "cuda"
    # What it draws, if anything, the caller's run will draw again.
    with torch.random.fork_rng([each.index for each in devices], device_type=kind):
        return _trace(copy_model(denoiser, None), *given)


def _trace(replica: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    tracer = _Tracer(tree_leaves((args, kwargs)))
    observed = observe(tracer.pass_on, tracer.decide, tracer.count)
    with torch.no_grad(), tracer.watching(replica), observed:
        replica(*args, **kwargs)
    call = tracer.finish()
    if call is None:
        raise _refused(replica, "decisions on what its own parts compute")
    return call


def _refused(denoiser: nn.Module, found: str) -> DeviceError:
    said = (found.splitlines() or ["an error without a message"])[0]
    return DeviceError(
        compose(
            "a denoiser whose operations depend on shapes and on its arguments alone",
            f"{type(denoiser).__name__}: {said}",
            "load its weights if they are on the meta device, or use one that decides on no values",
        )
    )


@dataclass
class _Open:
    name: str
    module: str
    reads: frozenset[Source]
    inside: list[_Open] = field(default_factory=list)
    movable: bool = False
    decides: bool = False
    outputs: tuple[TensorSpec, ...] = ()
    shape: Any = None
    made_of: tuple[frozenset[Source], ...] = ()


class _Tracer:
    """Give every storage the set of call outputs, and of arguments, that its values depend on."""

    def __init__(self, given: Sequence[Any]) -> None:
        self._counts: dict[str, int] = {}
        self._macs: dict[str, int] = {}
        self._stack: list[_Open] = [_Open("", "", frozenset())]
        self._origins: dict[int, set[_Origin]] = {}
        # A freed storage's number is given to the next one, but not as long as this points to it.
        self._known: list[StorageWeakRef] = []
        self._decisive: set[int] = set()
        for number, each in enumerate(given):
            if isinstance(each, Tensor):
                self._add(each, {number})

    @contextmanager
    def watching(self, replica: nn.Module) -> Iterator[None]:
        """Record the calls of the modules of ``replica``, which is of no use to anyone afterwards."""
        modules = dict(replica.named_modules())
        for name, module in modules.items():
            # An instance attribute shadows the method.
            module.forward = self._watch(name, module.forward)
        try:
            yield
        finally:
            # A class that remembers calls by instance would keep the copy, and all that it holds, for good.
            for module in modules.values():
                module.__dict__.clear()
                nn.Module.__init__(module)

    def _watch(self, name: str, forward: Any) -> Any:
        def watched(*args: Any, **kwargs: Any) -> Any:
            given = find_tensors((args, kwargs))
            versions = [each._version for each in given]
            count = self._counts[name] = self._counts.get(name, 0) + 1
            opened = _Open(name if count == 1 else f"{name}#{count}", name, self._sources_of(given))
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
        opened.made_of = tuple(self._sources_of([each]) for each in tensors)
        # Fresh storages, made of nothing: an output may be a view of an input, which others read as well.
        fresh = list(map(_copy_storage, tensors))
        for number, each in enumerate(fresh):
            self._origins.pop(_identity(each), None)
            self._add(each, {(opened.name, number)})
        return replace_tensors(output, fresh)

    def count(self, macs: int) -> None:
        """Note that the calls under way multiply and add so often."""
        for module in {each.module for each in self._stack}:
            self._macs[module] = self._macs.get(module, 0) + macs

    def pass_on(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Note that ``outputs`` depend on what ``inputs`` depend on."""
        origins = self._origins_of(inputs)
        for each in outputs if origins else ():
            self._add(each, origins)

    def decide(self, tensors: Sequence[Tensor]) -> None:
        """Note that the call under way looks at the values of ``tensors``."""
        origins = self._origins_of(tensors)
        self._decisive |= {each for each in origins if isinstance(each, int)}
        self._stack[-1].decides |= any(isinstance(each, tuple) for each in origins)

    def _origins_of(self, tensors: Sequence[Tensor]) -> set[_Origin]:
        return set().union(*(self._origins.get(_identity(each), set()) for each in tensors))

    def _sources_of(self, tensors: Sequence[Tensor]) -> frozenset[Source]:
        return frozenset(each for each in self._origins_of(tensors) if isinstance(each, tuple))

    def _add(self, tensor: Tensor, origins: set[_Origin]) -> None:
        if _identity(tensor) not in self._origins:
            self._known.append(StorageWeakRef(tensor.untyped_storage()))
        self._origins.setdefault(_identity(tensor), set()).update(origins)

    def finish(self) -> Call | None:
        """Return the call of the denoiser itself, or None if it looks at what its parts gave."""
        root = self._stack[0].inside[0]
        if root.decides:
            return None
        self._refuse_leaks(root)
        return replace(self._freeze(root, free=True), decisive=tuple(sorted(self._decisive)))

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

    def _freeze(self, opened: _Open, *, free: bool) -> Call:
        # Who looks at what its parts give needs all of them where it is.
        inside = free and not opened.decides
        return Call(
            name=opened.name,
            macs=self._macs.get(opened.name, 0),
            movable=free and opened.movable and self._counts.get(opened.name) == 1,
            inside=tuple(self._freeze(each, free=inside) for each in opened.inside),
            outputs=opened.outputs,
            shape=opened.shape,
            reads=opened.reads,
            made_of=opened.made_of,
        )


def _copy_storage(tensor: Tensor) -> Tensor:
    """Return a copy of ``tensor`` with the same strides, of memory that is its own."""
    like = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device)
    if not tensor.is_meta:
        held = (like.untyped_storage().nbytes() // like.itemsize,)
        like.as_strided(held, (1,)).copy_(tensor.as_strided(held, (1,)))
    return like


def _identity(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)

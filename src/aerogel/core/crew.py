"""The processes that work together: how many there are, which this is, and what they tell each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from aerogel.errors import MismatchError, RankError, compose

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["ALONE", "Crew"]

Item = TypeVar("Item")


@dataclass(frozen=True)
class Crew:
    """Say how many processes there are and which this is, from 0.

    Every method that passes something between processes is called by all of them, in the same order.

    Raises:
        RankError: in those methods, when another process has ended.
    """

    size: int = 1
    rank: int = 0

    @property
    def leads(self) -> bool:
        """Tell whether this is the first process, which alone writes what stays."""
        return self.rank == 0

    def take_share(self, batch: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return this process's part of a batch: consecutive items, as many as others or one more."""
        import numpy as np

        share: NDArray[np.int64] = np.array_split(batch, self.size)[self.rank]
        return share

    def take_turns(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return this process's part of a list: every ``size``-th item, from its own number on."""
        return items[self.rank :: self.size]

    def add_gradients_(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace each gradient by its sum over all processes; a missing one counts as zero."""
        if self.size == 1:
            return
        import torch

        groups: dict[torch.dtype, list[torch.nn.Parameter]] = {}
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            groups.setdefault(parameter.dtype, []).append(parameter)
        for group in groups.values():
            gradients = [parameter.grad for parameter in group if parameter.grad is not None]
            flat = self.add(torch.cat([gradient.reshape(-1) for gradient in gradients]))
            for gradient, part in zip(
                gradients, flat.split([each.numel() for each in gradients]), strict=True
            ):
                gradient.copy_(part.view_as(gradient))

    def add(self, values: Tensor) -> Tensor:
        """Return the sum of ``values`` over all processes; each must give the same shape."""
        if self.size == 1:
            return values
        from torch import distributed

        # NCCL adds up on GPUs alone.
        here = values.detach().cuda() if distributed.get_backend() == "nccl" else values.detach().clone()
        with _answering():
            distributed.all_reduce(here)
        return here.to(values.device)

    def gather(self, items: Sequence[Item]) -> list[Item]:
        """Return the items of all processes, those of the first one first."""
        if self.size == 1:
            return list(items)
        from torch import distributed

        found: list[Any] = [None] * self.size
        with _answering():
            distributed.all_gather_object(found, list(items))
        return [item for part in found for item in part]

    def gather_sums(self, values: Mapping[str, float]) -> dict[str, float]:
        """Return the sums of numbers over all processes, by name; some may have none."""
        if self.size == 1:
            return dict(values)
        total: dict[str, float] = {}
        for each in self.gather([dict(values)]):
            for name, value in each.items():
                total[name] = total.get(name, 0.0) + value
        return total

    def tell(self, word: Any) -> Any:
        """Return, in every process, what the first one passes; the others wait for it."""
        if self.size == 1:
            return word
        from torch import distributed

        box = [word]
        with _answering():
            distributed.broadcast_object_list(box, src=0)
        return box[0]

    def require_agreement(self, identity: str) -> None:
        """Check that all processes pass the same text.

        Raises:
            MismatchError: they do not.
        """
        if len(set(self.gather([identity]))) > 1:
            remedy = "pass the same models, data, settings and seed, and a work folder that all see"
            raise MismatchError(compose("processes that train the same", "different ones", remedy))


ALONE = Crew()


@contextmanager
def _answering() -> Iterator[None]:
    """Say which error to look at where the connection to another process breaks."""
    try:
        yield
    except RuntimeError as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        remedy = "look at the error of the process that ended first; the same command goes on"
        raise RankError(compose("an answer of every process", reason, remedy)) from error

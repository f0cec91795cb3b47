"""The processes that train together, as Hugging Face accelerate started them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aerogel.errors import MismatchError, MissingDependencyError, compose

_PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class Crew:
    """Say how many processes there are and which this is, from 0."""

    size: int = 1
    rank: int = 0

    def take_share(self, batch: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return this process's part of a batch: consecutive photos, as many as others or one more."""
        share: NDArray[np.int64] = np.array_split(batch, self.size)[self.rank]
        return share

    def add_gradients_(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace each gradient by its sum over all processes; a missing one counts as zero."""
        if self.size == 1:
            return
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
        from accelerate.utils import reduce

        total: Tensor = reduce(values, reduction="sum")
        return total

    def gather_sums(self, values: Mapping[str, float]) -> dict[str, float]:
        """Return the sums of numbers over all processes, by name; some may have none."""
        if self.size == 1:
            return dict(values)
        from accelerate.utils import gather_object

        total: dict[str, float] = {}
        for each in gather_object([dict(values)]):
            for name, value in each.items():
                total[name] = total.get(name, 0.0) + value
        return total

    def tell(self, word: Any) -> Any:
        """Return, in every process, what the first one passes; the others wait for it."""
        if self.size == 1:
            return word
        from accelerate.utils import broadcast_object_list

        box = [word]
        broadcast_object_list(box, from_process=0)
        return box[0]

    def require_agreement(self, identity: str) -> None:
        """Check that all processes pass the same text.

        Raises:
            MismatchError: they do not.
        """
        if self.size == 1:
            return
        from accelerate.utils import gather_object

        found: Sequence[str] = gather_object([identity])
        if len(set(found)) > 1:
            remedy = "pass the same models, photos, settings and seed, and a work folder that all see"
            raise MismatchError(compose("processes that train the same", "different ones", remedy))


def join_crew(device: str) -> Crew:
    """Return the processes that ``accelerate launch`` or ``torchrun`` started, or this one alone.

    Raises:
        MissingDependencyError: accelerate is not installed.
    """
    try:
        from accelerate import PartialState
    except ImportError as missing:
        remedy = 'pip install "aerogel[slim]"'
        raise MissingDependencyError(
            compose("accelerate, to train with", "no such package", remedy)
        ) from missing
    # The others wait for hours where the first ranks channels alone; a dead one is the launcher's to notice.
    state = PartialState(cpu=device == "cpu", timeout=_PATIENCE)
    return Crew(int(state.num_processes), int(state.process_index))

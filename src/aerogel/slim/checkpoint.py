"""The state of an aligning that a killed run continues from: safetensors, with its facts as JSON inside."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from aerogel.core.canonical import canonical_json, parse_json
from aerogel.core.documents import digest_tensors, read_tensors
from aerogel.core.files import write_bytes_atomic
from aerogel.errors import IntegrityError, MismatchError, compose

_FILE = "align.safetensors"
_FACTS = "align"


@dataclass
class Ledger:
    """Hold how far a run is: steps done, and the sums of the losses of the epoch that it is in.

    ``epochs`` are the means of those that are over, a mapping of names to numbers each. ``sums`` are
    weighted by the number of photos, ``photos`` how many these are.
    """

    step: int = 0
    photos: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    epochs: list[dict[str, float]] = field(default_factory=list)

    def add(self, values: Mapping[str, float], photos: int) -> None:
        """Count a step's mean losses over so many photos."""
        self.step += 1
        self.photos += photos
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value * photos

    def close_epoch(self) -> dict[str, float]:
        """Return the means of the epoch, and begin the next."""
        means = {name: value / self.photos for name, value in self.sums.items()}
        self.epochs.append(means)
        self.photos, self.sums = 0, {}
        return means


def save_checkpoint(
    folder: Path, identity: Mapping[str, Any], ledger: Ledger, tensors: Mapping[str, Tensor]
) -> None:
    """Write the state of a run, whole or not at all.

    Raises:
        StorageFullError: the disk is full; what was written before stays.
    """
    clones = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    facts = {"identity": dict(identity), "ledger": vars(ledger), "check": digest_tensors(clones)}
    write_bytes_atomic(folder / _FILE, save(clones, metadata={_FACTS: canonical_json(facts)}))


def load_checkpoint(folder: Path, identity: Mapping[str, Any]) -> tuple[Ledger, dict[str, Tensor]] | None:
    """Return what :func:`save_checkpoint` wrote last; None if it wrote nothing.

    Raises:
        MismatchError: it was written by a run of another ``identity``.
        IntegrityError: the file is damaged.
    """
    path = folder / _FILE
    if not os.path.lexists(path):
        return None
    facts, tensors = _read(path)
    theirs = facts["identity"]
    if canonical_json(theirs) != canonical_json(identity):
        odd = sorted(_find_odd(theirs, dict(identity)))
        remedy = "use the same, choose another folder, or delete this checkpoint"
        got = f"one where {', '.join(odd)} differ"
        raise MismatchError(compose(f"a checkpoint of this very run in {folder}", got, remedy))
    return Ledger(**facts["ledger"]), tensors


def read_epochs(folder: Path) -> list[dict[str, float]]:
    """Return the mean losses, by name, of each epoch of the run that saved to ``folder``, resumed or not.

    Raises:
        IntegrityError: the file is damaged.
    """
    path = folder / _FILE
    if not os.path.lexists(path):
        return []
    return list(_read(path)[0]["ledger"]["epochs"])


def measure_checkpoint(trained: Mapping[str, Tensor], *, ema: bool) -> int:
    """Return about how many bytes a checkpoint takes: these parameters and Adam's two moments of each."""
    weights = sum(each.numel() * each.element_size() for each in trained.values())
    return weights * (4 if ema else 3) + 2**16 + 512 * len(trained)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        tensors, texts = read_tensors(path)
        facts = parse_json(texts[_FACTS].encode())
        if not isinstance(facts["identity"], dict):
            raise ValueError("no identity")
        _check_ledger(Ledger(**facts["ledger"]))
        # Those written before there were check sums have none.
        if facts.get("check", digest_tensors(tensors)) != digest_tensors(tensors):
            raise ValueError("other tensors than were saved")
    except (LookupError, ValueError, TypeError, AttributeError) as failure:
        remedy = "delete it, to begin anew"
        raise IntegrityError(compose(f"a whole checkpoint at {path}", repr(failure), remedy)) from failure
    return facts, tensors


def _check_ledger(ledger: Ledger) -> None:
    """Raise ValueError unless the ledger holds counts and sums."""
    means = [ledger.sums, *ledger.epochs]
    whole = all(type(count) is int and count >= 0 for count in (ledger.step, ledger.photos))
    if not whole or not all(type(value) in (int, float) for each in means for value in each.values()):
        raise ValueError("a ledger of other things than counts and sums")


def _find_odd(theirs: Any, ours: Any, name: str = "") -> set[str]:
    if isinstance(theirs, dict) and isinstance(ours, dict):
        found: set[str] = set()
        for key in {*theirs, *ours}:
            found |= _find_odd(theirs.get(key), ours.get(key), f"{name}.{key}" if name else key)
        return found
    return set() if theirs == ours else {name}


def pack_optimiser(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the moments of an optimiser under names of their own."""
    return {
        f"optimiser.{index}.{name}": value
        for index, moments in optimiser.state_dict()["state"].items()
        for name, value in moments.items()
    }


def unpack_optimiser_(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser back the moments that :func:`pack_optimiser` returned."""
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        if part == "optimiser":
            index, _, moment = rest.partition(".")
            moments.setdefault(int(index), {})[moment] = value
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": moments, "param_groups": groups})

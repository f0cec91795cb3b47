"""Plans: which channels stay, as a file that can be read, replayed and composed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from aerogel.core.canonical import canonical_sha256, parse_json
from aerogel.core.config import config, from_dict, to_dict
from aerogel.core.files import open_regular, write_text_atomic
from aerogel.errors import ConfigError, IntegrityError, MismatchError, compose
from aerogel.slim.channels import KINDS, Channels, kind_of, name_group

Layout = Literal["stock", "flex"]

# Room for SAM's largest encoder many times over.
_MAX_BYTES = 1 << 24


@config("slim_plan", version=1)
@dataclass(frozen=True)
class Plan:
    """Hold the channels that stay, in the numbering of the model that the plan is for.

    ``sizes`` are that model's numbers of channels by group, ``kept`` the indices of those that stay,
    ascending. With the layout "stock" the result is what its family's own config can say: the same number of
    heads, head dimensions and MLP channels in every block, heads times dimensions as wide as the embedding.
    "flex" leaves each block its own widths.
    """

    family: str
    layout: Layout
    sizes: dict[str, int]
    kept: dict[str, tuple[int, ...]]

    def check(self) -> list[str]:
        """Return what is wrong with the values, a sentence each."""
        mistakes = [
            f"kept: expected the groups of sizes; got one without the other in {name!r}"
            for name in sorted(self.sizes.keys() ^ self.kept.keys())
        ]
        for name in self.sizes.keys() | self.kept.keys():
            if name.rpartition(".")[2] not in KINDS:
                mistakes.append(f"sizes: expected names that end in {', '.join(KINDS)}; got {name!r}")
        for name, indices in self.kept.items():
            size = self.sizes.get(name, 0)
            if not indices:
                mistakes.append(f"kept.{name}: expected at least one channel; got none")
            elif list(indices) != sorted(set(indices)):
                mistakes.append(f"kept.{name}: expected ascending indices, each once; got others")
            elif indices[0] < 0 or indices[-1] >= size:
                mistakes.append(
                    f"kept.{name}: expected indices below {size}; got {indices[0]}..{indices[-1]}"
                )
        if not mistakes and self.layout == "stock":
            mistakes += [f"layout: {fault}" for fault in find_stock_faults(self.widths)]
        return mistakes

    @property
    def widths(self) -> dict[str, int]:
        """Return how many channels stay in each group."""
        return {name: len(indices) for name, indices in self.kept.items()}

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the plan's content, however its file is spaced."""
        return canonical_sha256(to_dict(self))

    @property
    def is_identity(self) -> bool:
        """Tell whether every channel stays."""
        return self.widths == self.sizes

    def then(self, later: Plan) -> Plan:
        """Return the one plan that does what this one and after it ``later`` do.

        Raises:
            MismatchError: ``later`` is for another family, or for other widths than this plan leaves.
        """
        if later.family != self.family or later.sizes != self.widths:
            raise MismatchError(
                compose(
                    f"a plan for the {self.family} model that this plan leaves",
                    f"one for {later.family} with {_first_difference(self.widths, later.sizes)}",
                    "make the second plan from the slimmed model",
                )
            )
        kept = {name: tuple(self.kept[name][index] for index in later.kept[name]) for name in self.kept}
        return Plan(self.family, later.layout, dict(self.sizes), kept)

    def require_fit(self, channels: Channels) -> None:
        """Check that the plan is for a model with these channels.

        Raises:
            ConfigError: the plan itself has mistakes.
            MismatchError: it is for another family or other widths.
        """
        to_dict(self)
        if channels.family != self.family or channels.sizes != self.sizes:
            raise MismatchError(
                compose(
                    f"a model of the family {self.family!r} with the widths that the plan is for",
                    f"{channels.family!r} with {_first_difference(self.sizes, channels.sizes)}",
                    "pass the model that the plan was made from, or make a plan of this one",
                )
            )

    def save(self, path: str | Path) -> None:
        """Write the plan as JSON, a line for each group.

        Raises:
            ConfigError: the plan has mistakes.
            StorageFullError: the disk is full.
        """
        data = to_dict(self)
        kept = ",\n".join(f"    {json.dumps(name)}: {_inline(data['kept'][name])}" for name in data["kept"])
        rest = "".join(f"  {json.dumps(key)}: {_inline(data[key])},\n" for key in data if key != "kept")
        write_text_atomic(path, f'{{\n{rest}  "kept": {{\n{kept}\n  }}\n}}\n')


def load_plan(path: str | Path) -> Plan:
    """Read a plan that :meth:`Plan.save` wrote.

    Raises:
        IntegrityError: there is no such file, it is larger than 16 MiB, or not JSON.
        ConfigError: it is not a plan, or has mistakes, all of them listed.
    """
    with os.fdopen(open_regular(os.path.realpath(path)), "rb") as file:
        raw = file.read(_MAX_BYTES + 1)
    try:
        if len(raw) > _MAX_BYTES:
            raise ValueError(f"more than {_MAX_BYTES:,} bytes")
        data = parse_json(raw)
    except ValueError as error:
        raise IntegrityError(compose(f"the JSON of a plan in {path}", str(error), "make it anew")) from error
    if not isinstance(data, dict):
        raise ConfigError(compose(f"a plan in {path}", type(data).__name__, "make it anew"))
    return from_dict(Plan, data, where=str(path))


def identity_plan(channels: Channels) -> Plan:
    """Return the plan that keeps everything."""
    kept = {name: tuple(range(size)) for name, size in channels.sizes.items()}
    layout: Layout = "flex" if find_stock_faults(channels.sizes) else "stock"
    return Plan(channels.family, layout, channels.sizes, kept)


def find_stock_faults(widths: Mapping[str, int]) -> list[str]:
    """Return why a family's own config cannot say these widths, a sentence each; nothing if it can."""
    faults = []
    found: dict[str, set[int]] = {kind: set() for kind in KINDS}
    for name, width in widths.items():
        found[kind_of(name)].add(width)
    for kind in ("heads", "head_dims", "mlp"):
        if len(found[kind]) > 1:
            shown = ", ".join(map(str, sorted(found[kind])))
            faults.append(f"expected the same number of {kind} in every block for stock; got {shown}")
    if not faults and found["heads"]:
        heads, dims = min(found["heads"]), min(found["head_dims"])
        if {heads * dims} != found["embedding"]:
            embedding = min(found["embedding"], default=0)
            faults.append(
                f"expected heads times head dimensions to be the embedding's width for stock; got {heads} x "
                f"{dims} and {embedding}"
            )
    return faults


def _first_difference(expected: Mapping[str, int], got: Mapping[str, int]) -> str:
    for name in [*expected, *got]:
        if expected.get(name) != got.get(name):
            return f"{got.get(name, 'no')} channels in {name}, not {expected.get(name, 'any')}"
    return f"the same {len(expected)} widths, {name_group('embedding')} first"


def _inline(value: Any) -> str:
    return json.dumps(value, separators=(", ", ": "))

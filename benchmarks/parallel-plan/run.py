"""Balance and traffic of published denoisers divided among 2 to 8 devices, from shapes alone.

    python benchmarks/parallel-plan/run.py [--denoiser NAME ...]

Every denoiser is built from its published configuration without memory, its parameters are counted against
the published number, and one call in fp16 at the native size is traced and laid out. Balance is the largest
share of the multiply-accumulates over the ideal one; traffic is what has to pass between the parts in every
step, in MB of 1e6 bytes, the denoiser's result not counted. For the Stable Diffusion U-Nets both are held
against a limit: 1.03, and the traffic of the best division known before, whatever its balance. Exits with 1
if a parameter count is off. Writes results.json beside this file and ends its output with that JSON on one
line. --denoiser lays out some of them only and writes no results.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

# What it casts here has no weights to lose, which diffusers warns of.
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")

from shapes import SHAPES, Shape

from aerogel.core.environment import environment
from aerogel.core.folders import write_text_atomic
from aerogel.parallel import Layout, lay_out, trace_calls
from aerogel.parallel.trace import Call

BALANCE_LIMIT = 1.03


def describe(layout: Layout) -> dict[str, Any]:
    """Return the figures of one layout; ``owners`` are its runs of units in the order of execution."""
    partition = layout.partition
    owners = []
    pairs = zip(partition.owners, layout.flow.names, strict=True)
    for owner, group in groupby(pairs, key=lambda pair: pair[0]):
        names = [name for _, name in group]
        owners.append({"component": owner, "first": names[0], "last": names[-1], "units": len(names)})
    return {
        "balance": round(partition.balance, 4),
        "traffic_mb": round(partition.traffic_bytes / 1e6, 4),
        "shares": [round(load, 4) for load in partition.loads],
        "folded": partition.folded,
        "owners": owners,
    }


def hold_against(known: tuple[float, float], figures: dict[str, Any]) -> str:
    """Add the limits and whether they are kept; return that for people.

    The known traffic is rounded to a tenth, so ours is too.
    """
    limit_mb, known_balance = known
    figures["limit_mb"], figures["known_balance"] = limit_mb, known_balance
    figures["balance_ok"] = figures["balance"] <= BALANCE_LIMIT
    figures["traffic_ok"] = round(figures["traffic_mb"], 1) <= limit_mb
    kept = "kept" if figures["balance_ok"] and figures["traffic_ok"] else "MISSED"
    return f"; limits {BALANCE_LIMIT}, {limit_mb:.1f} MB (known at {known_balance:.3f}): {kept}"


def divide_shape(shape: Shape, root: Call) -> dict[str, Any]:
    """Lay out one traced denoiser for every number of components."""
    found = {}
    for components in shape.components:
        figures = describe(lay_out(root, components))
        line = f"  {components} components: balance {figures['balance']:.3f}, {figures['traffic_mb']:.2f} MB"
        if components in shape.known:
            line += hold_against(shape.known[components], figures)
        if components in shape.published_mb:
            figures["published_mb"] = shape.published_mb[components]
        print(line, flush=True)
        found[f"n{components}"] = figures
    return found


def plan_shape(shape: Shape) -> dict[str, Any]:
    """Trace and lay out one denoiser.

    Raises:
        SystemExit: it has not the parameters that the published one has.
    """
    model = shape.model()
    counted = sum(each.numel() for each in model.parameters()) / 1e6
    print(f"{shape.title}, {shape.size}: {counted:,.1f} M parameters", flush=True)
    if round(counted, 1) != shape.parameters_m:
        raise SystemExit(f"expected {shape.parameters_m:,.1f} M parameters; got {counted:,.1f} M")
    root = trace_calls(model, (), shape.inputs())
    about = {"title": shape.title, "size": shape.size, "parameters_m": round(counted, 1), "macs": root.macs}
    return {**about, **divide_shape(shape, root)}


def sum_up(figures: dict[str, Any]) -> dict[str, Any]:
    """Return how many of the layouts that have limits keep them, and those that do not."""
    held = [
        (f"{name} {key}", each)
        for name, found in figures.items()
        for key, each in found.items()
        if isinstance(each, dict) and "limit_mb" in each
    ]
    missed = [label for label, each in held if not (each["balance_ok"] and each["traffic_ok"])]
    return {"layouts": len(held), "missed": missed}


def main() -> int:
    """Run the benchmark from the command line."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--denoiser", nargs="+", default=list(SHAPES), choices=list(SHAPES), metavar="NAME")
    names = parser.parse_args().denoiser
    figures = {name: plan_shape(SHAPES[name]) for name in names}
    results = {"figures": figures, "limits": sum_up(figures), "environment": environment()}
    if set(names) == set(SHAPES):
        text = json.dumps(results, indent=2, sort_keys=True)
        write_text_atomic(Path(__file__).parent / "results.json", text + "\n")
    print(json.dumps(results, sort_keys=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())

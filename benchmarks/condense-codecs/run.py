"""What the label generator loses when its adapter is stored in fewer bits, on real digits.

    python benchmarks/condense-codecs/run.py

Trains the teacher and the label generator of the recipe "digits" once, kept in float32. The adapter is then
stored in every codec, opened again, and compared with the one in float32 and with the teacher, on the views
that a generator's fidelity is always measured on: held-out images, augmented and with CutMix, and views of
the condensed images. Bytes are those of the adapter's files, by stat. Exits with 1 if a codec is not smaller
than the one before, or int8 changes the first choice on more than one view in a hundred. Writes results.json
beside this file and ends its output with that JSON on one line. Needs two minutes of one core.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from aerogel.condense import CondenseConfig, Pipeline, Sources
from aerogel.condense.adapters import store_adapter
from aerogel.condense.config import ADAPTER_CODECS, AdapterCodec
from aerogel.condense.generator import measure_fidelity
from aerogel.condense.projector import load_adapter
from aerogel.core.config import load_config
from aerogel.core.environment import environment
from aerogel.core.folders import write_text_atomic
from aerogel.zoo import load_splits

HERE = Path(__file__).parent
RECIPE = HERE.parents[1] / "src" / "aerogel" / "recipes" / "digits.yaml"
MOST_CHANGED = 0.01


def measure_codec(pipeline: Pipeline, codec: AdapterCodec, folder: Path) -> dict[str, Any]:
    """Store the trained adapter in one codec; return its bytes and how its labels differ."""
    size = store_adapter(pipeline.generator, pipeline.plain_projector(), folder, codec)
    stored = load_adapter(pipeline.plain_projector(), folder)
    figures: dict[str, Any] = {"bytes": size}
    for name, other in (("float32", pipeline.generator), ("teacher", pipeline.teacher.classifier)):
        found = measure_fidelity(
            stored,
            other.eval(),
            pipeline.held_out,
            pipeline.training_set,
            pipeline.config.views,
            seed=pipeline.config.seed,
            device="cpu",
        )
        figures[f"against_{name}"] = {each.views: asdict(each) for each in found}
    changed = 1.0 - figures["against_float32"]["condensed"]["agreement"]
    print(f"{codec}: {size:,} bytes, first choice changed on {changed:.2%} of condensed views", flush=True)
    return figures


def find_missed(figures: dict[str, Any]) -> list[str]:
    """Return what does not hold."""
    sizes = [figures[codec]["bytes"] for codec in ADAPTER_CODECS]
    missed = [] if sizes == sorted(sizes, reverse=True) else ["a codec is not smaller than the one before"]
    worst = min(each["agreement"] for each in figures["int8"]["against_float32"].values())
    return missed if 1.0 - worst <= MOST_CHANGED else [*missed, "int8 changes the first choice too often"]


def main() -> int:
    """Run the benchmark from the command line."""
    layout = argparse.RawDescriptionHelpFormatter
    argparse.ArgumentParser(description=__doc__, formatter_class=layout).parse_args()
    torch.set_num_threads(1)
    config = load_config(CondenseConfig, RECIPE)
    config = replace(config, device="cpu", projector=replace(config.projector, dtype="float32"))
    sources = Sources(*load_splits(config.dataset))
    with TemporaryDirectory() as place:
        work = Path(place)
        pipeline = Pipeline(config, sources, work / "run")
        figures = {codec: measure_codec(pipeline, codec, work / codec) for codec in ADAPTER_CODECS}
    missed = find_missed(figures)
    results = {"figures": figures, "missed": missed, "environment": environment()}
    text = json.dumps(results, indent=2, sort_keys=True)
    write_text_atomic(HERE / "results.json", text + "\n")
    print(json.dumps(results, sort_keys=True))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

"""What a slimmed segmenter keeps of its teacher's masks, at equal training cost for every way of slimming.

    python benchmarks/slim-retention/run.py --model runs/sam-small/model [--data FOLDER] [--work FOLDER]
        [--rows slim random ...] [--ratios 50 77] [--device auto] [--dtype float32] [--finished] [--out FILE]

--model is what recipes/zoo/train_sam_small.py wrote, or another segmenter. FOLDER, by default $AEROGEL_DATA,
holds photos/imagenet-samples.parquet to align on, and coco-panoptic-train.parquet and
bsds500-trainval.parquet to evaluate on; nobody saw those. Rows: slim (ours, settings.yaml), slim_flex (the
same with as many channels in all, for which the blocks compete), slim_mosaic (the same on views half of which
are mosaics), slim_long (for ten times as many epochs, which go round four crops of each photo),
slim_long_mosaic (for nine times as many, most of them in the end, round eight views with mosaics),
slim_long_mosaic_masks (that, and then two epochs of learning masks), slim_longest (as that, with one epoch of
the first aligning in place of four, and four of masks), slim_as_published (the published code's faults put
back, with its criterion, neither rotated nor fitted), one_step_rotated (ours cut once, then aligned to the
final embedding), one_step (the same on the channels as they were trained), taylor, magnitude and random (as
that, by these criteria; all are fitted), scratch (the same shape from random weights). But for the long ones,
every row sees as many photos in as many steps of the same optimiser; those that are not fitted at a higher
rate.

Every object of 1 % of its photo or more is asked for by four random points of it, one by one, and by its box;
the score is the mean intersection over union over objects. "kept" is the share of the teacher's,
"behind_slim" how far a row lies below ours; both paired, with 95 % intervals that draw whole photos again.
Writes --out, by default results.json beside this file, and ends its output with that JSON on one line. A
killed run goes on where it was; rows can be shared between processes, and --finished sums up those that have
scores and runs no other. Scores are kept in --work with their settings and machine, so that those of another
machine can be put together here: copy its --work/*.json.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from aerogel.core.allocation import keep_memory
from aerogel.core.config import from_dict, load_config, to_dict
from aerogel.core.devices import choose_device
from aerogel.core.environment import environment
from aerogel.core.folders import write_text_atomic
from aerogel.slim import Evaluation, SlimConfig, compare, evaluate, open_model, slim
from aerogel.slim.digest import digest_model
from aerogel.zoo import open_photos, open_segments

HERE = Path(__file__).parent
LEAST_AREA = 0.01
PROMPTS = ("point", "box")
POINTS = 4
_ONE_STEP = {"method": "one-step"}
_AS_TRAINED = {"photos": 0}
# What no least squares prepared has much to learn, and nothing that large steps could spoil.
_FAST = {"lr": 7e-4, "relative_steps": False}
_LONG = {"epochs": 20, "views": 4, "warmup": 0.1, "ema": 0.98}
# Most of it after the last cut.
_MOSAIC = {"bottleneck_epochs": 4, "align": {**_LONG, "epochs": 32, "views": 8, "augment": "mosaic"}}
# What differs from settings.yaml; epochs are of each aligning, of which one step has one instead of two.
ROWS: dict[str, dict[str, Any]] = {
    "slim": {},
    "slim_flex": {"layout": "flex"},
    "slim_mosaic": {"align": {"augment": "mosaic"}},
    "slim_long": {"align": _LONG},
    "slim_long_mosaic": _MOSAIC,
    "slim_long_mosaic_masks": {**_MOSAIC, "masks": {"epochs": 2}},
    "slim_longest": {**_MOSAIC, "bottleneck_epochs": 1, "masks": {"epochs": 4}},
    "slim_as_published": {
        "score": {"criterion": "disturbed-taylor-as-coded", "rescore": False},
        "surgery": {"positions": False, "temperature": False},
        "rotate": _AS_TRAINED,
        "reconstruct": {"photos": 0},
        "align": {"repair_qkv": False, "mask_padding": "none", "relative": False, **_FAST},
    },
    "one_step_rotated": _ONE_STEP,
    "one_step": {**_ONE_STEP, "rotate": _AS_TRAINED},
    "taylor": {**_ONE_STEP, "rotate": _AS_TRAINED, "score": {"criterion": "taylor"}},
    "magnitude": {**_ONE_STEP, "rotate": _AS_TRAINED, "score": {"criterion": "magnitude"}},
    "random": {**_ONE_STEP, "rotate": _AS_TRAINED, "score": {"criterion": "random"}},
    "scratch": {**_ONE_STEP, "start": "random", "score": {"criterion": "random"}, "align": _FAST},
}


def make_config(row: str, ratio: int, device: str, dtype: str | None = None) -> SlimConfig:
    """Return the settings of a row."""
    plain = to_dict(load_config(SlimConfig, HERE / "settings.yaml"))
    for key, value in ROWS[row].items():
        plain[key] = {**plain[key], **value} if isinstance(value, dict) else value
    if plain["method"] == "one-step":
        plain["align"]["epochs"] *= 2
    if dtype is not None:
        plain["align"]["dtype"] = dtype
    plain |= {"ratio": ratio / 100, "device": device}
    return from_dict(SlimConfig, plain, row)


def obtain(path: Path, identity: dict[str, Any], make: Callable[[], Any]) -> tuple[Any, dict[str, str]]:
    """Return the scores stored at ``path``, of this identity, and their machine; make them if there are none.

    ``make`` returns the model to score, and the photos by set.
    """
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if stored.get("identity") != identity:
        model, sets = make()
        scores = {
            key: evaluate(
                model, photos, prompts=PROMPTS, points=POINTS, boundary=False, name=path.stem
            ).to_dict()
            for key, photos in sets.items()
        }
        stored = {"identity": identity, "environment": environment(), "scores": scores}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomic(path, json.dumps(stored))
    return {key: Evaluation.from_dict(each) for key, each in stored["scores"].items()}, stored["environment"]


def sum_up(ours: dict[str, Evaluation], others: dict[str, dict[str, Evaluation]]) -> dict[str, Any]:
    """Return means, and comparisons with the other evaluations: {name: {set: {prompt: ...}}}."""
    found: dict[str, Any] = {}
    for key, evaluation in ours.items():
        place = found.setdefault(key, {})
        for prompt in PROMPTS:
            place[prompt] = evaluation.interval(evaluation.row(prompt)).to_dict()
        place["filled_box"] = evaluation.interval(evaluation.row("box", predictor="filled box")).to_dict()
        for name, other in others.items():
            contrasts = compare(evaluation, other[key])
            place[name] = {
                prompt: contrast.kept.to_dict()
                if name == "kept" and contrast.kept is not None
                else {**contrast.difference.to_dict(), "excludes_zero": contrast.difference.excludes_zero}
                for prompt, contrast in zip(PROMPTS, contrasts.rows, strict=True)
            }
    return found


@dataclass
class Bench:
    """The teacher and all photos, opened when a row needs them."""

    arguments: argparse.Namespace
    device: str

    @cached_property
    def teacher(self) -> Any:
        """Return the model that is slimmed, on the CPU."""
        return open_model(self.arguments.model)

    @cached_property
    def weights(self) -> str:
        """Return the digest of the teacher's weights."""
        return digest_model(self.teacher)

    @cached_property
    def photos(self) -> Any:
        """Return the photos to align on."""
        path = self.arguments.data / "photos" / "imagenet-samples.parquet"
        return open_photos(path, image_column="image", check="header")

    @cached_property
    def sets(self) -> dict[str, Any]:
        """Return the photos with masks, by set."""
        place = self.arguments.data / "photos"
        return {
            "coco": open_segments(place / "coco-panoptic-train.parquet", smallest_share=LEAST_AREA),
            "bsds": open_segments(place / "bsds500-trainval.parquet", smallest_share=LEAST_AREA, annotator=0),
        }

    def score_teacher(self) -> tuple[dict[str, Evaluation], dict[str, str]]:
        """Return the teacher's scores, and the machine that they are from."""

        def make() -> tuple[Any, Any]:
            return copy.deepcopy(self.teacher).to(self.device), self.sets

        identity = {"teacher": self.weights, "points": POINTS}
        return obtain(self.arguments.work / "teacher.json", identity, make)

    def is_wanted(self, row: str, ratio: int) -> bool:
        """Tell whether a row is to be run, or opened."""
        return not self.arguments.finished or self._place(row, ratio).exists()

    def _place(self, row: str, ratio: int) -> Path:
        return self.arguments.work / f"r{ratio}-{row}.json"

    def score(self, row: str, ratio: int) -> tuple[dict[str, Evaluation], dict[str, str]]:
        """Return a row's scores, and the machine that they are from."""
        config = make_config(row, ratio, self.device, self.arguments.dtype)
        settings = {key: value for key, value in to_dict(config).items() if key != "device"}
        path = self._place(row, ratio)

        def make() -> tuple[Any, Any]:
            # Rows of one way of pruning are shown the same views.
            cache = self.arguments.work / "teacher"
            found = slim(
                self.teacher, self.photos, config=config, out=path.with_suffix(""), teacher_cache=cache
            )
            return found.model.to(self.device), self.sets

        identity = {"teacher": self.weights, "settings": settings, "points": POINTS}
        return obtain(path, identity, make)


def main() -> None:
    """Run the benchmark from the command line."""
    keep_memory()
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("AEROGEL_DATA", ".")))
    parser.add_argument("--work", type=Path, default=Path("runs/slim-retention"))
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--ratios", nargs="*", type=int, default=[50, 77], help="none: the teacher alone")
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto (default)")
    parser.add_argument("--dtype", help="to compute in where the processor has no bfloat16: float32")
    parser.add_argument("--finished", action="store_true", help="sum up the rows with scores, run no other")
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench(arguments, choose_device(arguments.device).value)
    found = {
        ratio: {row: bench.score(row, ratio) for row in arguments.rows if bench.is_wanted(row, ratio)}
        for ratio in arguments.ratios
    }
    # Last, so that rows of several processes need not wait for it.
    known, machine = bench.score_teacher()
    if not found:
        return
    figures: dict[str, Any] = {}
    machines = [machine]
    for ratio, rows in found.items():
        figures[f"r{ratio}"] = {"teacher": sum_up(known, {})}
        for row, (ours, machine) in rows.items():
            others = {"kept": known}
            if row != "slim" and "slim" in rows:
                others["behind_slim"] = rows["slim"][0]
            figures[f"r{ratio}"][row] = sum_up(ours, others)
            machines += [] if machine in machines else [machine]
            print(ratio, row, json.dumps(figures[f"r{ratio}"][row]), flush=True)
    result = {"figures": figures, "environments": machines}
    write_text_atomic(arguments.out, json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()

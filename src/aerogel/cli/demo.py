"""`aerogel demo`: the three methods on what is installed: a diffusion model, a segmenter, an image set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from aerogel.cli.condense import show_condensing
from aerogel.cli.failures import OK
from aerogel.cli.invocation import read_command
from aerogel.cli.screen import Screen
from aerogel.cli.settings import Flag, Settings, choose_folder, gather_config
from aerogel.cli.slim import show_slimming
from aerogel.cli.slimming import SlimSettings, choose_slim_folder, gather_slim_config

if TYPE_CHECKING:
    from aerogel.parallel.sampling import Request

MODEL = "aerogel/fashion-unet"
_FIGURES = ("exact", "paid", "saved", "lost")

EXAMPLES = """Examples:
  aerogel demo
  aerogel demo --out my-demo
"""


def demo_command(
    *,
    out: Annotated[Path, Parameter(help="Folder of the run.")] = Path("aerogel-demo"),
    overwrite: Annotated[
        bool, Flag, Parameter(help="Replace stages that other settings made in that folder.")
    ] = False,
    json: Annotated[
        bool, Flag, Parameter(help="End with one line of JSON on stdout: sample, slim and condense.")
    ] = False,
) -> int:
    """Sample on two processes, slim a segmenter, condense real digits; minutes.

    The diffusion model, the segmenter and its photos come with Aerogel, the digits
    with scikit-learn: neither a network nor a GPU is needed. Each part writes a
    report. A run that was stopped goes on when the same command is given again.
    """
    from aerogel.core.devices import limit_threads
    from aerogel.core.progress import announce

    config = gather_config(None, Settings(recipe="digits", device="cpu"))
    slimming = gather_slim_config(None, SlimSettings(recipe="sam-nano-r10", device="cpu"))
    folder, screen = choose_folder(config, out), Screen(json_wanted=json)
    slim_folder = choose_slim_folder(slimming, folder / "slim")
    # Networks this small gain nothing from threads, and lose a lot where other work keeps the cores busy.
    with limit_threads(1):
        announce(f"sampling {MODEL} in turn and on two processes, into {folder / 'sample'}")
        sampled = show_sampling(folder / "sample", screen, overwrite=overwrite)
        announce(f"slimming {slimming.model} by {slimming.ratio:.0%} into {slim_folder}: minutes")
        slimmed = show_slimming(slimming, slim_folder, screen, overwrite=overwrite)
        announce(f"condensing {config.dataset} to {config.ipc} images per class in {folder}: minutes")
        condensed = show_condensing(config, folder, screen, overwrite=overwrite)
    screen.end({"sample": sampled, "slim": slimmed, "condense": condensed})
    return OK


def choose_request() -> Request:
    """Return what the demo samples: a picture of each class."""
    from aerogel.parallel.sampling import Request

    return Request(classes=tuple(str(number) for number in range(10)), steps=50, guidance=None)


def show_sampling(folder: Path, screen: Screen, *, overwrite: bool) -> dict[str, Any]:
    """Sample in turn and on two processes; show the receipt and return it; a finished ``folder`` is kept."""
    from aerogel.core.stages import Stage, run_stage
    from aerogel.parallel.config import ParallelConfig

    request = choose_request()
    config = ParallelConfig(components=2, threads=1)
    settings = {"model": MODEL, "request": asdict(request), "parallel": asdict(config)}
    stage = Stage(folder, "trial", settings, {}, request.seed, read_command())

    def build(work: Path) -> Mapping[str, Any]:
        return run_trial(work, request, config)

    facts = run_stage(stage, build, overwrite=overwrite).facts
    rows = [(group, *line) for group in _FIGURES[1:] for line in facts[group]]
    screen.show_table(f"{MODEL}: the receipt", ("", "what", "value", "note"), rows, right=("value",))
    page = (folder / "report.html").resolve()
    screen.say(f"pictures and report  {page}\n")
    return {**{name: facts[name] for name in _FIGURES}, "folder": str(folder), "report": str(page)}


def run_trial(work: Path, request: Request, config: Any) -> dict[str, Any]:
    """Write pictures and report of a trial into ``work``; return its figures."""
    from aerogel.parallel.account import describe
    from aerogel.parallel.sampling import draw, save_pictures
    from aerogel.parallel.trial import measure_speed, verify
    from aerogel.report import write_report
    from aerogel.zoo.diffusion import load_pipeline

    pipe = load_pipeline(MODEL)
    pipe.set_progress_bar_config(disable=True)
    trial = verify(pipe, lambda: draw(pipe, request), config)
    speed, _ = measure_speed(pipe, lambda: draw(pipe, request), config, repeats=3)
    report = describe(MODEL, request, trial, speed, command=read_command())
    save_pictures(trial.parallel, work)
    write_report(report, work / "report.html")
    receipt = report.receipt
    groups = {"paid": receipt.paid, "saved": receipt.saved, "lost": receipt.lost}
    return {
        "exact": trial.exact,
        **{name: [[each.label, each.value, each.note] for each in lines] for name, lines in groups.items()},
    }

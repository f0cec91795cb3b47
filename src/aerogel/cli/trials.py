"""`aerogel sample plan`, `simulate`, `verify`, `bench`: what several devices would do, and if it pays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Annotated, Any

from cyclopts import Parameter

from aerogel.cli.failures import OK, PROBLEM
from aerogel.cli.invocation import read_command
from aerogel.cli.sampling import Model, SampleSettings, make_config, make_request, name_folder, open_model
from aerogel.cli.screen import Screen
from aerogel.cli.settings import Flag

PLAN_EXAMPLES = """Examples:
  aerogel sample plan aerogel/fashion-unet --class bag --devices 3
"""
SIMULATE_EXAMPLES = """Examples:
  aerogel sample simulate aerogel/fashion-unet --class bag --devices 4
"""
VERIFY_EXAMPLES = """Examples:
  aerogel sample verify aerogel/fashion-unet --class bag --class coat --count 4 --devices 2
"""
BENCH_EXAMPLES = """Examples:
  aerogel sample bench aerogel/fashion-unet --class bag --devices 2 --repeats 5
"""

Out = Annotated[Path | None, Parameter(help="Folder for the result; samples-MODEL if not given.")]
Overwrite = Annotated[bool, Flag, Parameter(help="Replace an earlier result in that folder.")]
Json = Annotated[bool, Flag, Parameter(help="End with one line of JSON on stdout.")]


def plan_command(
    model: Model,
    /,
    *,
    settings: SampleSettings | None = None,
    units: Annotated[bool, Flag, Parameter(help="List every unit and its device.")] = False,
    json: Json = False,
) -> int:
    """Show who would run what, how much would travel, and how much sooner it would end.

    One denoising step is run, here alone, to see the shapes.
    """
    from aerogel.parallel.api import simulate
    from aerogel.parallel.rounds import plan_rounds, predict_speedup
    from aerogel.parallel.sampling import draw

    settings = settings or SampleSettings()
    config = replace_components(make_config(settings))
    pipe = open_model(model, settings)
    with simulate(pipe, config=config) as run:
        draw(pipe, replace(make_request(settings), steps=1))
    screen, plan = Screen(json_wanted=json), run.plan
    screen.say(str(plan))
    rounds = plan_rounds(settings.steps, warmup=config.warmup, stride=config.stride)
    shares = [max(layout.partition.loads) for layouts in plan.layouts.values() for layout in layouts]
    predicted = predict_speedup(
        settings.steps, warmup=config.warmup, stride=config.stride, slowest_share=max(shares)
    )
    screen.say(
        f"{settings.steps} steps in {len(rounds)} rounds, {min(config.warmup, settings.steps)} of them "
        f"warm-up; predicted to end {predicted:.2f} times sooner, traffic left out"
    )
    if units:
        for name, layouts in plan.to_dict().items():
            for layout in layouts:
                rows = [(unit, str(owner)) for unit, owner in layout["units"].items()]
                screen.show_table(name, ("unit", "device"), rows, right=("device",))
    screen.end({"plan": plan.to_dict(), "rounds": len(rounds), "predicted_speedup": predicted})
    return OK


def replace_components(config: Any) -> Any:
    """Return the config with two components where it leaves the number open."""
    return config if config.components else replace(config, components=2)


def simulate_command(
    model: Model,
    /,
    *,
    settings: SampleSettings | None = None,
    out: Out = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> int:
    """Sample in one process exactly what several devices would give.

    A preview of the quality; nothing is faster.
    """
    from aerogel.core.folders import create_folder
    from aerogel.parallel.api import simulate
    from aerogel.parallel.sampling import draw

    settings = settings or SampleSettings()
    config, request = replace_components(make_config(settings)), make_request(settings)
    folder, screen = name_folder(model, out), Screen(json_wanted=json)
    with create_folder(folder, overwrite=overwrite) as place:
        pipe = open_model(model, settings)
        with simulate(pipe, config=config) as run:
            pictures = draw(pipe, request)
        names = seal_pictures(place, pictures, model, request, config, {"plan": run.plan.to_dict()})
    screen.say(str(run.plan))
    screen.say(f"{len(names)} files in {folder}")
    screen.end({"folder": str(folder), "files": names, "plan": run.plan.to_dict()})
    return OK


def seal_pictures(
    place: Path, pictures: Any, model: str, request: Any, config: Any, facts: dict[str, Any]
) -> list[str]:
    """Write pictures and the manifest of their folder; return the files' names."""
    from dataclasses import asdict

    from aerogel.core.folders import seal_folder
    from aerogel.parallel.sampling import save_pictures

    names = save_pictures(pictures, place)
    seal_folder(
        place,
        kind="samples",
        config={"request": asdict(request), "parallel": asdict(config)},
        facts={"model": model, **facts},
        seed=request.seed,
        command=read_command(),
    )
    return names


def verify_command(
    model: Model,
    /,
    *,
    settings: SampleSettings | None = None,
    out: Out = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> int:
    """Sample in turn, in parallel and simulated; compare, with pictures and a report.

    Exit code 1: the parallel pictures are not those of the simulator.
    """
    from aerogel.core.folders import create_folder
    from aerogel.parallel.account import describe, measure_likeness, write_likeness
    from aerogel.parallel.sampling import draw
    from aerogel.parallel.trial import verify
    from aerogel.report import write_report

    settings = settings or SampleSettings()
    config, request = make_config(settings), make_request(settings)
    folder, screen = name_folder(model, out), Screen(json_wanted=json)
    with create_folder(folder, overwrite=overwrite) as place:
        pipe = open_model(model, settings)
        trial = verify(pipe, lambda: draw(pipe, request), config)
        likeness = measure_likeness(trial)
        facts = {
            "exact": trial.exact,
            "largest_difference": trial.difference,
            "likeness": {name: found.to_dict() for name, found in likeness.items()},
            "stats": trial.stats.to_dict(),
        }
        write_report(describe(model, request, trial, command=read_command()), place / "report.html")
        seal_pictures(place, trial.parallel, model, request, config, facts)
    screen.say(str(trial.stats))
    for name, found in likeness.items():
        screen.say(f"against sampling in turn: {name} {write_likeness(found)}")
    screen.say(
        "the parallel pictures are those of the simulator, bit for bit"
        if trial.exact
        else f"the parallel pictures differ from the simulator's by up to {trial.difference:.3g}"
    )
    screen.say(f"report  {folder / 'report.html'}")
    screen.end({"folder": str(folder), **facts})
    return OK if trial.exact else PROBLEM


def bench_command(
    model: Model,
    /,
    *,
    settings: SampleSettings | None = None,
    repeats: Annotated[int, Parameter(help="Timed calls of each kind.")] = 5,
    json: Json = False,
) -> int:
    """Time the pipeline in turn and in parallel, alternating, and show the medians."""
    from aerogel.parallel.sampling import draw
    from aerogel.parallel.trial import measure_speed

    settings = settings or SampleSettings()
    config, request = make_config(settings), make_request(settings)
    pipe = open_model(model, settings)
    speed, run = measure_speed(pipe, lambda: draw(pipe, request), config, repeats=repeats)
    screen = Screen(json_wanted=json)
    kinds = (
        ("one process, a parallel one's threads", speed.alone),
        ("one process, all threads", speed.all_threads),
        ("in parallel", speed.parallel),
    )
    rows = [
        (
            name,
            f"{median(seconds):.3f} s",
            f"{min(seconds):.3f} to {max(seconds):.3f} s",
            f"{median(seconds) / median(speed.parallel):.2f}",
        )
        for name, seconds in kinds
    ]
    header = ("", "median", "spread", "times as long")
    screen.show_table(f"{repeats} calls of each kind, {settings.steps} steps", header, rows, header[1:])
    screen.say(str(run.stats))
    screen.end(
        {
            "seconds": {name: list(getattr(speed, name)) for name in ("alone", "all_threads", "parallel")},
            "speedup_vs_same_threads": speed.over_alone,
            "speedup_vs_all_threads": speed.over_all_threads,
            "stats": run.stats.to_dict(),
        }
    )
    return OK

"""`aerogel sample`: pictures or videos from a diffusion pipeline, its denoiser on several devices at once."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from aerogel.cli.failures import OK
from aerogel.cli.sampling import Model, SampleSettings, make_config, make_request, name_folder, open_model
from aerogel.cli.screen import Screen
from aerogel.cli.settings import Flag
from aerogel.cli.trials import seal_pictures

if TYPE_CHECKING:
    from aerogel.parallel.plan import Plan
    from aerogel.parallel.stats import Stats

EXAMPLES = """Examples:
  aerogel sample aerogel/fashion-unet --class sneaker --class bag --count 4
  aerogel sample owner/model --prompt kitten --devices 4 --warmup 3
  aerogel sample plan owner/model --prompt kitten --devices 4
  torchrun --nproc-per-node 2 -m aerogel sample owner/model --prompt kitten
"""


def sample_command(
    model: Model,
    /,
    *,
    settings: SampleSettings | None = None,
    out: Annotated[Path | None, Parameter(help="Folder to write; samples-MODEL if not given.")] = None,
    overwrite: Annotated[bool, Flag, Parameter(help="Replace an earlier result in that folder.")] = False,
    json: Annotated[bool, Flag, Parameter(help="End with one line of JSON on stdout.")] = False,
) -> int:
    """Sample with the parts of the denoiser on several devices (AsyncDiff).

    Worker processes are started on this machine, on the next CUDA devices or on
    the CPU. Under torchrun every process takes a part. The pictures go to --out.
    """
    from aerogel.core.folders import create_folder
    from aerogel.core.progress import announce, is_first_process

    settings = settings or SampleSettings()
    config, request = make_config(settings), make_request(settings)
    folder, screen = name_folder(model, out), Screen(json_wanted=json)
    if not is_first_process():
        _draw(model, settings)
        return OK
    with create_folder(folder, overwrite=overwrite) as place:
        pictures, seconds, plan, stats = _draw(model, settings)
        announce(str(plan))
        facts = {"seconds": seconds, "plan": plan.to_dict(), "stats": stats.to_dict()}
        names = seal_pictures(place, pictures, model, request, config, facts)
    screen.say(str(stats))
    screen.say(f"{len(names)} files in {folder}, sampled in {seconds:.1f} s")
    screen.end({"model": model, "folder": str(folder), "files": names, **facts})
    return OK


def _draw(model: str, settings: SampleSettings) -> tuple[Any, float, Plan, Stats]:
    """Return the pictures, the seconds they took, who ran what, and the figures."""
    from aerogel.parallel.api import parallelize
    from aerogel.parallel.sampling import draw

    pipe, request = open_model(model, settings), make_request(settings)
    with parallelize(pipe, config=make_config(settings)) as run:
        begin = time.perf_counter()
        pictures = draw(pipe, request)
        return pictures, time.perf_counter() - begin, run.plan, run.stats

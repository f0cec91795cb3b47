"""`aerogel condense teacher | select | generator | pack`: one stage of a condensation, and those it needs."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from aerogel.cli.failures import OK
from aerogel.cli.invocation import read_command
from aerogel.cli.screen import Screen
from aerogel.cli.settings import Flag, Settings, choose_folder, gather_config

Data = Annotated[str | None, Parameter(help="Images, as for `aerogel condense`.")]
Json = Annotated[bool, Flag, Parameter(help="End with one line of JSON on stdout.")]


def examples_of(verb: str) -> str:
    """Return the examples that stand below a stage's help."""
    return f"""Examples:
  aerogel condense {verb} digits --out digits-10
  aerogel condense {verb} --recipe digits --out digits-10

Stages that are finished in --out are opened, not run again. `aerogel condense`
with the same settings goes on from there.
"""


def teacher_command(data: Data = None, /, *, settings: Settings | None = None, json: Json = False) -> int:
    """Train the classifier whose soft labels are condensed, or import one.

    Writes --out/teacher: snapshots along the run, what is needed to build the network
    again, its accuracy. --teacher imports a trained one.
    """
    return run_stages("teacher", data, settings, json)


def select_command(data: Data = None, /, *, settings: Settings | None = None, json: Json = False) -> int:
    """Choose the images: of every class, the crops that the teacher is surest of.

    Writes --out/selection: the images, and for each the source and the box it was
    cut from.
    """
    return run_stages("selection", data, settings, json)


def generator_command(data: Data = None, /, *, settings: Settings | None = None, json: Json = False) -> int:
    """Train the label generator: a low-rank change to a public backbone.

    Writes --out/generator: the change alone, and how often it agrees with the teacher
    on images that neither was trained on.
    """
    return run_stages("generator", data, settings, json)


def pack_command(data: Data = None, /, *, settings: Settings | None = None, json: Json = False) -> int:
    """Pack images and label generator into the folder that is shipped.

    Writes --out/archive: parquet images that Hugging Face datasets opens, a safetensors
    adapter that peft opens, and a manifest with the size and SHA-256 of every file.
    """
    return run_stages("archive", data, settings, json)


def run_stages(name: str, data: str | None, settings: Settings | None, json: bool) -> int:
    """Run the stages up to ``name`` and tell what its folder holds."""
    settings = settings or Settings()
    config = gather_config(data, settings)
    folder = choose_folder(config, settings.out)
    from aerogel.condense.api import open_sources
    from aerogel.condense.pipeline import Pipeline
    from aerogel.measure import format_bytes

    sources = open_sources(config, config.dataset, None)
    pipeline = Pipeline(config, sources, folder, overwrite=settings.overwrite, command=read_command())
    manifest = pipeline.manifest(name)
    if not pipeline.leads:
        return OK
    screen = Screen(json_wanted=json)
    rows = [(file, format_bytes(entry.bytes)) for file, entry in sorted(manifest.files.items())]
    screen.show_table(f"{folder / name}: {manifest.kind}", ("file", "size"), rows, right=("size",))
    for line in tell_figures(manifest.facts):
        screen.say(line)
    facts = {key: value for key, value in manifest.facts.items() if key not in ("fingerprint", "probe")}
    screen.end({"stage": name, "folder": str(folder / name), "digest": manifest.digest, "facts": facts})
    return OK


def tell_figures(facts: dict[str, object]) -> list[str]:
    """Return the measurements among a stage's facts, one line each."""
    from aerogel.measure import Measurement

    lines = [
        str(Measurement.from_dict(value))
        for value in facts.values()
        if isinstance(value, dict) and {"name", "value", "unit"} <= value.keys()
    ]
    fidelity = facts.get("fidelity")
    for each in fidelity if isinstance(fidelity, list) else []:
        share = f"{each['agreement']:.1%} of {each['samples']:,}"
        lines.append(f"{each['views']} views: the teacher's first choice on {share}")
    return lines

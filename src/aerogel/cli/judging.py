"""`aerogel slim eval` and `compare`: how well a segmenter does on photos with masks."""

from __future__ import annotations

import json as notation  # the flag --json has the name
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from aerogel.cli.failures import OK
from aerogel.cli.screen import Screen
from aerogel.cli.settings import Flag
from aerogel.errors import ConfigError, DataError, IntegrityError, compose

if TYPE_CHECKING:
    from aerogel.slim.scores import Comparison, Evaluation

EVAL_EXAMPLES = """Examples:
  aerogel slim eval slim-run/model sa1b/ --limit 200
  aerogel slim eval slim-run/model photos.parquet --teacher sam/ --out slim.json
  aerogel slim eval sam/ instances.json --images val2017/ --prompt box
"""
COMPARE_EXAMPLES = """Examples:
  aerogel slim compare slim-run/model sam/ --data sa1b/ --limit 200
  aerogel slim compare slim.json sam.json
"""

PromptKind = Literal["point", "centre", "stored", "box"]
JUDGED = Group("What to judge on", sort_key=1)


@Parameter(name="*")
@dataclass(frozen=True)
class JudgeSettings:
    """Hold the flags of both verbs."""

    images: Annotated[
        Path | None, Parameter(group=JUDGED, help="Folder of the photos, where DATA holds only the masks.")
    ] = None
    limit: Annotated[
        int | None, Parameter(group=JUDGED, help="How many photos to take; all if not given.")
    ] = None
    smallest: Annotated[
        float, Parameter(group=JUDGED, help="Leave out objects below this share of their photo.")
    ] = 0.0
    prompts: Annotated[
        tuple[PromptKind, ...],
        Parameter(
            name="--prompt",
            group=JUDGED,
            negative="",
            show_default=False,
            help="What the model is shown: point, centre, stored or box; may be repeated. All but stored.",
        ),
    ] = ("point", "centre", "box")
    points: Annotated[
        int, Parameter(group=JUDGED, help="Random points asked about each object, whose scores are averaged.")
    ] = 1
    no_boundary: Annotated[bool, Flag, Parameter(group=JUDGED, help="Do not measure boundary IoU.")] = False
    seed: Annotated[int, Parameter(group=JUDGED, help="What the random points depend on.")] = 0
    device: Annotated[str, Parameter(group=JUDGED, help='"auto", "cpu", "cuda" or "cuda:1".')] = "auto"


def eval_command(
    model: Annotated[str, Parameter(help="A segmenter, as for `aerogel slim`, or MobileSAM's checkpoint.")],
    data: Annotated[
        str, Parameter(help="Photos with masks: a folder of SA-1B, COCO's JSON, parquet with label maps.")
    ],
    /,
    *,
    settings: JudgeSettings | None = None,
    teacher: Annotated[
        str | None, Parameter(help="A second model, whose masks ours are also compared with.")
    ] = None,
    out: Annotated[Path | None, Parameter(help="Write every object's scores to this JSON file.")] = None,
    overwrite: Annotated[bool, Flag, Parameter(help="Replace the file at --out.")] = False,
    json: Annotated[bool, Flag, Parameter(help="End with one line of JSON on stdout.")] = False,
) -> int:
    """Score a segmenter's masks: mIoU by point and box prompts, with 95 % intervals.

    Every photo is encoded once. The box filled in is the control that a box prompt
    has to beat.
    """
    from aerogel.core.files import require_file_place, write_text_atomic

    if out is not None:
        require_file_place(out, overwrite=overwrite)
    found = judge(model, data, settings or JudgeSettings(), teacher)
    screen = Screen(json_wanted=json)
    show_scores(found, screen)
    if out is not None:
        write_text_atomic(out, notation.dumps(found.to_dict()) + "\n")
        screen.say(f"scores  {out}")
    screen.end(found.to_dict(per_object=False))
    return OK


def compare_command(
    one: Annotated[str, Parameter(help="A segmenter, or a JSON file that `aerogel slim eval --out` wrote.")],
    other: Annotated[str, Parameter(help="The one to compare it with, either way.")],
    /,
    *,
    data: Annotated[str | None, Parameter(help="Photos with masks, as for `aerogel slim eval`.")] = None,
    settings: JudgeSettings | None = None,
    json: Annotated[bool, Flag, Parameter(help="End with one line of JSON on stdout.")] = False,
) -> int:
    """Compare two segmenters on the same objects and prompts, by pairs.

    Differences come with 95 % intervals that draw whole photos again; one that does
    not contain zero is a difference.
    """
    from aerogel.slim.scores import compare

    settings = settings or JudgeSettings()
    found = compare(*(_read_or_judge(name, data, settings) for name in (one, other)))
    screen = Screen(json_wanted=json)
    show_differences(found, screen)
    screen.end(found.to_dict())
    return OK


def judge(model: str, data: str, settings: JudgeSettings, teacher: str | None = None) -> Evaluation:
    """Evaluate the segmenter called ``model`` on the photos at ``data``."""
    from aerogel.core.devices import choose_device
    from aerogel.core.progress import announce
    from aerogel.slim import evaluate
    from aerogel.zoo import open_segments

    photos = open_segments(
        data, images=settings.images, limit=settings.limit, smallest_share=settings.smallest
    )
    device = choose_device(settings.device)
    announce(f"device: {device.value} ({device.reason})")
    return evaluate(
        open_segmenter(model).to(device.value),
        photos,
        prompts=settings.prompts,
        teacher=None if teacher is None else open_segmenter(teacher).to(device.value),
        boundary=not settings.no_boundary,
        points=settings.points,
        seed=settings.seed,
        name=model,
    )


def show_scores(found: Evaluation, screen: Screen) -> None:
    """Show means over objects with 95 % intervals, a line for each kind of prompt."""
    data = found.to_dict(per_object=False)
    rows = [
        (row["title"], *_show_mean(row.get("iou")), *_show_mean(row.get("boundary_iou")))
        for row in data["rows"]
    ]
    header = ("masks", "mIoU", "95 % interval", "boundary IoU", "95 % interval ")
    title = f"{found.model}: {data['object_count']:,} objects in {data['image_count']:,} photos"
    screen.show_table(title, header, rows, right=header[1:])


def show_differences(found: Comparison, screen: Screen) -> None:
    """Show paired differences and the shares that are kept, with 95 % intervals."""
    names = {"iou": "mIoU", "boundary_iou": "boundary IoU"}
    rows = [
        (
            f"{row['title']}, {names[row['metric']]}",
            *_show_interval(row["difference"], "+"),
            *_show_interval(row["kept"], ""),
        )
        for row in found.to_dict()["rows"]
    ]
    header = ("masks", "difference", "95 % interval", "kept share", "95 % interval ")
    screen.show_table(f"{found.model} against {found.reference}, by pairs", header, rows, right=header[1:])


def _show_mean(found: dict[str, Any] | None) -> tuple[str, str]:
    """Write a mean and its interval, which a single photo does not give."""
    if found is None:
        return "", ""
    return f"{found['mean']:.3f}", _show_interval(found.get("by_object"), "")[1]


def _show_interval(found: dict[str, Any] | None, sign: str) -> tuple[str, str]:
    if found is None:
        return "", ""
    value, low, high = (f"{found[key]:{sign}.3f}" for key in ("value", "low", "high"))
    return value, f"{low} to {high}"


def open_segmenter(name: str) -> Any:
    """Open a model that answers prompts with masks.

    Raises:
        DataError: it is an image encoder alone, or cannot be opened.
    """
    from aerogel.slim import open_model

    model = open_model(name)
    if not hasattr(model, "get_image_embeddings"):
        raise DataError(
            compose(
                "a whole segmenter, with its mask decoder",
                f"{type(model).__name__} in {name!r}, an image encoder",
                "choose a model that gives masks",
            )
        )
    return model


def _read_or_judge(name: str, data: str | None, settings: JudgeSettings) -> Evaluation:
    from aerogel.slim.scores import Evaluation

    if name.endswith(".json") and Path(name).is_file():
        try:
            return Evaluation.from_dict(notation.loads(Path(name).read_text(encoding="utf-8")))
        except ValueError as error:
            raise IntegrityError(
                compose(f"the JSON of an evaluation in {name}", str(error), "write it anew")
            ) from error
    if data is None:
        raise ConfigError(
            compose(
                f"--data, to evaluate {name} on", "none", "name photos with masks, or give two JSON files"
            )
        )
    return judge(name, data, settings)

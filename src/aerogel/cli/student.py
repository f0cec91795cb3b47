"""`aerogel condense student`: train a network on a condensed set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from aerogel.cli.failures import OK
from aerogel.cli.invocation import read_command
from aerogel.cli.screen import Screen
from aerogel.cli.settings import Flag, assign, assign_all
from aerogel.cli.size import find_archive
from aerogel.errors import ConfigError, compose

if TYPE_CHECKING:
    from aerogel.condense.config import StudentConfig
    from aerogel.condense.labels import LabelSource

EXAMPLES = """Examples:
  aerogel condense student tiny-set --out student
  aerogel condense student tiny-set --out student --epochs 100 --set width=64
  aerogel condense student tiny-set --out taught --labels teacher --teacher t

`aerogel condense eval` scores the result. A run that was stopped continues when
the same command is given again.
"""


def student_command(
    folder: Annotated[Path, Parameter(help="A condensed set, or the folder of a run.")],
    /,
    *,
    out: Annotated[Path, Parameter(help="Folder for the trained network.")],
    labels: Annotated[
        Literal["generator", "hard", "teacher"], Parameter(help="Where the labels of every view come from.")
    ] = "generator",
    teacher: Annotated[Path | None, Parameter(help="Folder of the teacher, for --labels teacher.")] = None,
    backbone: Annotated[
        str | None, Parameter(help="Where the label generator's backbone lies, if not where the set says.")
    ] = None,
    epochs: Annotated[int | None, Parameter(help="Passes over the set.")] = None,
    seed: Annotated[int, Parameter(help="What first weights and order depend on.")] = 0,
    device: Annotated[str, Parameter(help='"auto", "cpu", "cuda" or "cuda:1".')] = "auto",
    sets: Annotated[
        tuple[str, ...],
        Parameter(
            name="--set",
            negative="",
            show_default=False,
            help="Any other setting of the student, as width=64 or fit.lr=2e-3; may be repeated.",
        ),
    ] = (),
    overwrite: Annotated[
        bool, Flag, Parameter(help="Replace a student that other settings made at --out.")
    ] = False,
    json: Annotated[bool, Flag, Parameter(help="End with one line of JSON on stdout.")] = False,
) -> int:
    """Train a network on a condensed set with labels of one kind.

    "generator" makes them with the set's label generator, "hard" takes the classes
    alone, "teacher" asks the one that --teacher names.
    """
    config = gather_student(sets, epochs)
    if (labels == "teacher") != (teacher is not None):
        raise ConfigError(
            compose(
                "--labels teacher together with --teacher FOLDER, or neither",
                "one of them",
                "give the folder of the teacher stage, or leave both out",
            )
        )
    facts = train(
        folder,
        config,
        out,
        labels=labels,
        teacher=teacher,
        backbone=backbone,
        seed=seed,
        device=device,
        overwrite=overwrite,
    )
    screen = Screen(json_wanted=json)
    screen.say(f"student  {out}  ({facts['parameters']:,} parameters, last loss {facts['loss']:.4g})")
    screen.end({"student": str(out), "labels": labels, "epochs": config.fit.epochs, **facts})
    return OK


def gather_student(sets: tuple[str, ...], epochs: int | None) -> StudentConfig:
    """Make the student's config of flags.

    Raises:
        ConfigError: there are mistakes, all of them listed.
    """
    from aerogel.condense.config import StudentConfig
    from aerogel.core.config import from_dict, to_dict

    merged: dict[str, Any] = to_dict(StudentConfig())
    assign_all(merged, sets)
    if epochs is not None:
        assign(merged, "fit.epochs", epochs)
    return from_dict(StudentConfig, merged, "the student's settings")


def train(
    folder: Path,
    config: StudentConfig,
    out: Path,
    *,
    labels: str,
    teacher: Path | None,
    backbone: str | None,
    seed: int,
    device: str,
    overwrite: bool,
) -> dict[str, Any]:
    """Train one student into ``out``, or open the finished one; return parameters and last loss."""
    from aerogel.condense.condensed import load_condensed
    from aerogel.condense.fit import read_losses
    from aerogel.condense.graduate import save_student
    from aerogel.condense.identity import identify
    from aerogel.condense.student import build_student, train_student
    from aerogel.core.devices import choose_device
    from aerogel.core.progress import announce, track
    from aerogel.core.stages import CHECKPOINT_NAME, Stage, run_stage

    chosen = choose_device(device)
    announce(f"device: {chosen.value} ({chosen.reason})")
    data = load_condensed(find_archive(folder), backbone=backbone)
    source, inputs = open_labels(data, labels, teacher, chosen.value)

    def build(work: Path) -> Mapping[str, Any]:
        student = build_student(data.training_set(), config, seed)
        run = train_student(
            student,
            data.training_set(),
            source,
            config,
            seed=seed,
            device=chosen.value,
            checkpoint=work / CHECKPOINT_NAME,
            view_epochs=data.view_epochs if labels == "generator" else None,
        )
        for _ in track(run, total=config.fit.epochs, label="student", unit="epoch"):
            pass
        save_student(student, data.training_set(), config, work)
        count = sum(parameter.numel() for parameter in student.parameters())
        return {"parameters": count, "loss": read_losses(work / CHECKPOINT_NAME)[-1]}

    settings = {"student": identify(config), "labels": labels}
    stage = Stage(out, "trained-student", settings, inputs, seed, read_command())
    facts = run_stage(stage, build, overwrite=overwrite).facts
    return {"parameters": facts["parameters"], "loss": facts["loss"]}


def open_labels(
    data: Any, labels: str, teacher: Path | None, device: str
) -> tuple[LabelSource, dict[str, str]]:
    """Return the source of labels, and the digests of what it and the images are read from."""
    from aerogel.condense.labels import HardLabels, NetworkLabels
    from aerogel.condense.teacher import load_teacher
    from aerogel.core.folders import verify_folder

    inputs = {"archive": data.manifest.digest}
    if labels == "hard":
        return HardLabels(), inputs
    if teacher is None:
        return data.correct(NetworkLabels("generator", data.generator.to(device))), inputs
    found = load_teacher(teacher)
    if found.class_names != data.class_names:
        from aerogel.errors import MismatchError

        raise MismatchError(
            compose(
                f"a teacher of the classes {', '.join(data.class_names[:10])}, in this order",
                f"one of {', '.join(found.class_names[:10])}",
                "pass the teacher that the set was condensed with",
            )
        )
    inputs["teacher"] = verify_folder(teacher).digest
    return NetworkLabels("teacher", found.classifier.to(device)), inputs

"""A trained student on disk: its weights, its classes, and what builds the network again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from aerogel.condense.config import StudentConfig
from aerogel.condense.description import read_description, rebuild
from aerogel.condense.student import TrainingSet, score
from aerogel.condense.teacher import TEACHER_DESCRIPTION, load_teacher, save_weights
from aerogel.core.folders import write_text_atomic
from aerogel.errors import DataError, MismatchError, compose
from aerogel.measure import Measurement
from aerogel.zoo.imageset import ImageSet

STUDENT_WEIGHTS = "student.safetensors"
STUDENT_DESCRIPTION = "student.json"


@dataclass(frozen=True)
class Trained:
    """Hold a trained classifier and the images it expects."""

    classifier: nn.Module
    class_names: tuple[str, ...]
    channels: int
    size: int


def save_student(student: nn.Module, data: TrainingSet, config: StudentConfig, folder: Path) -> None:
    """Write the weights of ``student`` and its description to ``folder``."""
    save_weights(student, folder / STUDENT_WEIGHTS)
    description = {
        "network": config.network,
        "width": config.width,
        "depth": config.depth,
        "channels": int(data.images.shape[1]),
        "size": int(data.images.shape[-1]),
        "mean": list(data.mean),
        "std": list(data.std),
        "class_names": list(data.class_names),
    }
    write_text_atomic(folder / STUDENT_DESCRIPTION, json.dumps(description, indent=2, sort_keys=True) + "\n")


def load_trained(folder: Path) -> Trained:
    """Load what :func:`save_student` wrote, or a teacher's folder.

    Raises:
        DataError: the folder holds neither.
        IntegrityError: a file is damaged or does not fit the network it describes.
    """
    if (folder / TEACHER_DESCRIPTION).is_file():
        teacher = load_teacher(folder)
        return Trained(teacher.classifier, teacher.class_names, teacher.channels, teacher.size)
    if not (folder / STUDENT_DESCRIPTION).is_file():
        raise DataError(
            compose(
                f"a trained classifier, with {STUDENT_DESCRIPTION} or {TEACHER_DESCRIPTION}",
                f"none in {folder}",
                "pass a folder that `aerogel condense student` or `aerogel condense teacher` wrote",
            )
        )
    found = read_description(folder / STUDENT_DESCRIPTION)
    classifier = rebuild(found, folder / STUDENT_WEIGHTS)
    return Trained(classifier, tuple(found["class_names"]), found["channels"], found["size"])


def score_trained(trained: Trained, images: ImageSet, device: str = "cpu") -> Measurement:
    """Return the accuracy on ``images`` in percent with its 95 % interval.

    Raises:
        MismatchError: the images have other classes, channels or another size.
    """
    channels, size, _ = images.shape
    ours = (trained.class_names, trained.channels, trained.size)
    theirs = (images.class_names, channels, size)
    if ours != theirs:
        raise MismatchError(
            compose(
                f"images of {trained.channels} channels and {trained.size} pixels in the classes "
                f"{', '.join(trained.class_names[:10])}",
                f"{channels} channels and {size} pixels in the classes {', '.join(images.class_names[:10])}",
                "score on data of the kind that the classifier was trained on",
            )
        )
    return score(trained.classifier.to(device), images, device)

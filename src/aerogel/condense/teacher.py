"""Stage 1: the classifier whose soft labels are condensed, and snapshots of it along its training."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from aerogel.condense.config import TeacherConfig
from aerogel.condense.description import read_description, rebuild, require_preparation
from aerogel.condense.families.cifar_resnet import load_cifar_resnet
from aerogel.condense.families.classifier import (
    load_classifier,
    reopen_classifier,
    require_channels,
    save_classifier,
)
from aerogel.condense.families.preparation import Preparation
from aerogel.condense.fit import EpochState, fit, fused, share_loss
from aerogel.condense.labels import make_batch
from aerogel.condense.networks import Classifier, build_classifier
from aerogel.condense.views import Views
from aerogel.core.crew import ALONE, Crew
from aerogel.core.folders import (
    read_manifest,
    sha256_file,
    verify_folder,
    write_bytes_atomic,
    write_text_atomic,
)
from aerogel.core.randomness import derive_seed
from aerogel.core.stages import CHECKPOINT_NAME
from aerogel.errors import IntegrityError, MismatchError, compose
from aerogel.zoo.imageset import ImageSet

TEACHER_DESCRIPTION = "teacher.json"
_KIND = "teacher"
_IMPORTED = "transformers"
_CLASSIFIER = "classifier"
_CIFAR_RESNET = "cifar-resnet"
_PUBLISHED = "published.safetensors"
_ASKED = 1000


@dataclass(frozen=True)
class Teacher:
    """Hold a trained classifier, what it expects, and its snapshots from early to late (the last: itself)."""

    classifier: nn.Module
    class_names: tuple[str, ...]
    channels: int
    size: int
    snapshots: tuple[nn.Module, ...]


def snapshot_epochs(epochs: int, count: int) -> list[int]:
    """Return the ``count`` epochs, from 1 and evenly spaced up to the last, that end with a snapshot."""
    return [round((index + 1) * epochs / count) for index in range(count)]


def build_teacher(data: ImageSet, config: TeacherConfig, seed: int) -> Classifier:
    """Build the untrained teacher for ``data``, normalised by the statistics of its channels."""
    channels, size, _ = data.shape
    mean, std = data.statistics()
    return build_classifier(
        config.network,
        channels=channels,
        classes=len(data.class_names),
        size=size,
        width=config.width,
        depth=config.depth,
        mean=mean,
        std=std,
        seed=derive_seed(seed, "teacher"),
    )


def train_teacher(
    classifier: Classifier,
    data: ImageSet,
    config: TeacherConfig,
    *,
    seed: int,
    device: str,
    work: Path,
    crew: Crew = ALONE,
) -> Iterator[EpochState]:
    """Train ``classifier`` on augmented views of ``data`` with hard labels; write snapshots to ``work``.

    Yields after every epoch. A run that was killed continues from ``work/checkpoint``. The processes of a
    ``crew`` share every batch; the first one writes.
    """
    views = Views(config.views, derive_seed(seed, "teacher/views"), len(data))
    forward = fused(classifier.to(device), config.fit)

    def batch_loss(epoch: int, samples: np.ndarray) -> Tensor:
        batch = make_batch(data.images, data.labels, views, epoch, samples, device)
        logits = forward(batch.views)
        loss = batch.hard_loss(logits)
        if config.label_smoothing:
            uniform = -functional.log_softmax(logits, 1).mean()
            loss = (1.0 - config.label_smoothing) * loss + config.label_smoothing * uniform
        return loss

    kept = snapshot_epochs(config.fit.epochs, config.snapshots)
    run = fit(
        classifier,
        share_loss(batch_loss, crew),
        config=config.fit,
        population=len(data),
        seed=derive_seed(seed, "teacher/order"),
        device=device,
        checkpoint=work / CHECKPOINT_NAME,
        save_after=frozenset(kept),
        crew=crew,
    )
    for state in run:
        if state.epoch + 1 in kept and crew.leads:
            save_weights(classifier, work / f"snapshot-{kept.index(state.epoch + 1):02d}.safetensors")
        yield state


def save_weights(module: nn.Module, path: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write the parameters and buffers of ``module`` as one safetensors file, whole or not at all."""
    state = module.state_dict().items()
    weights = {key: (value.to(dtype) if value.is_floating_point() else value) for key, value in state}
    write_bytes_atomic(path, save({key: value.detach().cpu().contiguous() for key, value in weights.items()}))


def describe_teacher(data: ImageSet, config: TeacherConfig, figures: dict[str, Any], work: Path) -> None:
    """Write beside the weights what is needed to build the network again and to know its classes."""
    mean, std = data.statistics()
    network = {"network": config.network, "width": config.width, "depth": config.depth}
    _describe(work, data, {**network, "mean": list(mean), "std": list(std), "figures": figures})


def _describe(work: Path, data: ImageSet, own: dict[str, Any]) -> None:
    channels, size, _ = data.shape
    shared = {"channels": channels, "size": size, "class_names": list(data.class_names)}
    text = json.dumps({**own, **shared}, indent=2, sort_keys=True)
    write_text_atomic(work / TEACHER_DESCRIPTION, text + "\n")


def import_teacher(path: str, data: ImageSet, work: Path) -> Teacher:
    """Copy a trained teacher to ``work``: a teacher stage's folder, a transformers classifier, or weights.

    A transformers classifier may be a folder or a hub name; it is given images of any size, prepared as its
    image processor says, and it has one snapshot, itself. So has a CIFAR ResNet, given by the file of its
    weights; its classes have no names there and are taken to be those of ``data``, which it has to recognise.

    Raises:
        DataError: nothing of that name can be loaded.
        IntegrityError: the stage's folder is damaged.
        MismatchError: its classes are not those of ``data`` in the same order, or its images are of another
            shape.
    """
    source = Path(path)
    if source.is_file():
        return _import_weights(source, data, work)
    if (source / TEACHER_DESCRIPTION).is_file():
        files = verify_folder(source, _KIND).files
        teacher = load_teacher(source)
        require_same_classes(teacher, data)
        for name in files:
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, work / name)
        return teacher
    classifier = load_classifier(path)
    channels, size, _ = data.shape
    teacher = Teacher(classifier, classifier.class_names, channels, size, (classifier,))
    require_same_classes(teacher, data)
    require_channels(classifier, channels)
    require_preparation(source, {"preparation": classifier.preparation.to_dict()})
    save_classifier(classifier, work / _CLASSIFIER)
    _describe(work, data, {"network": _IMPORTED, "preparation": classifier.preparation.to_dict()})
    return teacher


def _import_weights(source: Path, data: ImageSet, work: Path) -> Teacher:
    """Copy a file of published weights, of a network whose classes have no names there.

    Raises:
        DataError: the file holds no network that is known here.
        MismatchError: it is for other images or another number of classes, or it takes most images of
            ``data`` for another class than theirs.
    """
    classifier = load_cifar_resnet(source)
    channels, size, _ = data.shape
    expected, found = (classifier.channels, classifier.shape.classes), (channels, len(data.class_names))
    if expected != found:
        raise MismatchError(
            compose(
                f"images of {expected[0]} channels and {expected[1]} classes, as {source} was trained on",
                f"{found[0]} channels and {found[1]} classes",
                "give the data it was trained on, or train a teacher on these",
            )
        )
    _require_recognition(classifier, data, source)
    work.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, work / _PUBLISHED)
    _describe(work, data, {"network": _CIFAR_RESNET})
    return Teacher(classifier, data.class_names, channels, size, (classifier,))


def _require_recognition(classifier: nn.Module, data: ImageSet, source: Path) -> None:
    """Check on images spread over ``data`` that a classifier without class names has the data's classes.

    Raises:
        MismatchError: most of the images get another class than theirs.
    """
    asked = torch.linspace(0, len(data) - 1, min(_ASKED, len(data))).long()
    right = predict(classifier, data.images[asked], "cpu").argmax(1) == data.labels[asked]
    if right.float().mean() <= 0.5:
        raise MismatchError(
            compose(
                f"the classes that {source} was trained with in its order: {data.class_names[0]!r} first",
                f"{100 * right.float().mean():.0f} % of {len(asked):,} training images recognised",
                "give the data it was trained on, with its classes in that order",
            )
        )


def identify_import(path: str) -> str:
    """Return what tells one importable teacher from another: a hash of its files, or its name on the hub."""
    source = Path(path)
    if source.is_file():
        return sha256_file(source)
    if not source.is_dir():
        return f"hub:{path}"
    if (source / TEACHER_DESCRIPTION).is_file():
        return read_manifest(source).digest
    files = sorted(p for p in source.iterdir() if p.suffix in (".json", ".safetensors") and p.is_file())
    hashes = {file.name: sha256_file(file.resolve()) for file in files}
    return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()


def load_teacher(folder: Path) -> Teacher:
    """Load a teacher that an earlier stage wrote.

    Raises:
        IntegrityError: a file is missing or does not fit the network it describes.
    """
    try:
        found = read_description(folder / TEACHER_DESCRIPTION)
        snapshots: tuple[nn.Module, ...]
        if found["network"] == _IMPORTED:
            require_preparation(folder / TEACHER_DESCRIPTION, found)
            preparation = Preparation.from_dict(found["preparation"])
            snapshots = (_reopen(folder, preparation, len(found["class_names"])),)
        elif found["network"] == _CIFAR_RESNET:
            published = load_cifar_resnet(folder / _PUBLISHED)
            if published.linear.out_features != len(found["class_names"]):
                raise ValueError(f"{len(found['class_names'])} class names for other weights")
            snapshots = (published,)
        else:
            snapshots = tuple(_load_snapshots(folder, found))
    except (OSError, ValueError, KeyError, TypeError) as failure:
        raise IntegrityError(
            compose(
                "a teacher's folder",
                f"{folder}: {failure}",
                "train the teacher again, or fetch the folder again",
            )
        ) from failure
    names = tuple(found["class_names"])
    return Teacher(snapshots[-1], names, found["channels"], found["size"], snapshots)


def _reopen(folder: Path, preparation: Preparation, classes: int) -> nn.Module:
    classifier = reopen_classifier(folder / _CLASSIFIER, preparation)
    if len(classifier.class_names) != classes:
        raise ValueError(f"{classes} class names for a classifier of {len(classifier.class_names)}")
    return classifier


def _load_snapshots(folder: Path, found: dict[str, Any]) -> Iterator[Classifier]:
    paths = sorted(folder.glob("snapshot-*.safetensors"))
    if not paths:
        raise FileNotFoundError(f"no snapshot-*.safetensors in {folder}")
    for path in paths:
        yield rebuild(found, path)


def require_same_classes(teacher: Teacher, data: ImageSet) -> None:
    """Check that teacher and data agree on class names and their order, channels and size.

    Raises:
        MismatchError: they do not; soft labels in another class order are silently wrong, so this is never
            guessed.
    """
    if teacher.class_names != data.class_names:
        pairs = [
            f"{index}: {ours!r} against {theirs!r}"
            for index, (ours, theirs) in enumerate(zip(teacher.class_names, data.class_names, strict=False))
            if ours != theirs
        ]
        differing = "; ".join(pairs[:5]) or f"{len(data.class_names)} classes"
        raise MismatchError(
            compose(
                f"the teacher's {len(teacher.class_names)} classes in its order",
                f"the data's {len(data.class_names)} classes, differing at {differing}",
                "rename or reorder the class folders, or train a teacher on this data",
            )
        )
    channels, size, _ = data.shape
    if (teacher.channels, teacher.size) != (channels, size):
        raise MismatchError(
            compose(
                f"the teacher's images of {teacher.channels} channels and {teacher.size} pixels",
                f"{channels} channels and {size} pixels",
                f"set channels={teacher.channels} and size={teacher.size}",
            )
        )


def predict(classifier: nn.Module, images: Tensor, device: str) -> Tensor:
    """Return the logits [N, classes] of uint8 ``images`` [N, C, S, S], in float32 on the CPU."""
    classifier.eval()
    with torch.no_grad():
        return torch.cat(
            [classifier(part.to(device).float() / 255.0).float().cpu() for part in images.split(250)]
        )

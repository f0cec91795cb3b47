"""Put a condensed set together: its files, and what it says of itself in its manifest."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aerogel.condense import archive as shelf
from aerogel.condense.codecs.shards import list_store
from aerogel.condense.losses import write_loss
from aerogel.core.config import to_dict

if TYPE_CHECKING:
    from aerogel.condense.pipeline import Pipeline


def pack_set(pipeline: Pipeline, work: Path, probe: list[list[float]]) -> Mapping[str, Any]:
    """Write images, label generator, residuals and card into ``work``; return the facts of the manifest."""
    chosen, train = pipeline.refined, pipeline.sources.train
    ids = tuple("+".join(patch.source for patch in patches) for patches in chosen.patches)
    images = shelf.StoredImages(chosen.images, chosen.labels, ids)
    shelf.write_images(work / shelf.IMAGES, images, train.class_names)
    labels = work / shelf.LABELS
    labels.mkdir(exist_ok=True)
    for path in sorted((pipeline.out / "generator").iterdir()):
        if path.name.startswith("adapter_"):
            shutil.copyfile(path, labels / path.name)
    if pipeline.config.projector.residual is not None:
        (labels / shelf.RESIDUAL).mkdir(exist_ok=True)
        for path in list_store(pipeline.out / shelf.RESIDUAL):
            shutil.copyfile(path, labels / shelf.RESIDUAL / path.name)
    facts = describe_set(pipeline, work, probe)
    shelf.write_card(work / "README.md", name=train.name, facts=facts)
    return facts


def describe_set(pipeline: Pipeline, work: Path, probe: list[list[float]]) -> dict[str, Any]:
    """Return the facts of the archive in ``work``: all that loading and honest comparison need."""
    train, config = pipeline.sources.train, pipeline.config
    channels, size, _ = train.shape
    mean, std = pipeline.train.statistics()
    images = (work / shelf.IMAGES).stat().st_size
    delta = shelf.delta_bytes(work)
    return {
        "schema": 1,
        "images": len(pipeline.selection.labels),
        "ipc": config.ipc,
        "class_names": list(train.class_names),
        "channels": channels,
        "size": size,
        "tiles": pipeline.selection.tiles,
        "mean": list(mean),
        "std": list(std),
        "views": to_dict(config.views),
        "view_seed": pipeline.view_seed,
        "random_keys": "Philox-4x32-10 of (seed, stream, epoch, sample)",
        "templates": list(config.projector.templates),
        "backbone": {
            "name": pipeline.backbone.name,
            "sha256": pipeline.backbone.sha256,
            "bytes": pipeline.backbone.size_bytes,
            "grid": pipeline.backbone.grid,
        },
        "projector": {**to_dict(config.projector), **pipeline.manifest("generator").facts},
        "student_loss": write_loss(config.student),
        "teacher": {"digest": pipeline.digest("teacher"), **pipeline.manifest("teacher").facts},
        "probe": probe,
        **({"refined": _tell_update(pipeline)} if config.refine.steps else {}),
        **({shelf.RESIDUAL: _tell_residual(pipeline)} if config.projector.residual else {}),
        "source": {
            "name": train.name,
            "licence": train.licence,
            "images": len(train),
            "fingerprint": pipeline.data_digest["train"],
        },
        "storage": [
            {"name": "images", "bytes": images},
            {"name": "label generator (delta)", "bytes": delta},
            *_weigh_residual(pipeline),
            {"name": "label generator and backbone", "bytes": delta + pipeline.backbone.size_bytes},
        ],
    }


def _tell_residual(pipeline: Pipeline) -> dict[str, Any]:
    facts = pipeline.manifest(shelf.RESIDUAL).facts
    return {name: facts[name] for name in ("codec", "epochs", "bytes", "fidelity")}


def _weigh_residual(pipeline: Pipeline) -> list[dict[str, Any]]:
    if pipeline.config.projector.residual is None:
        return []
    return [{"name": "of it stored residuals", "bytes": pipeline.manifest(shelf.RESIDUAL).facts["bytes"]}]


def _tell_update(pipeline: Pipeline) -> dict[str, Any]:
    facts = pipeline.manifest(pipeline.images_stage).facts
    return {name: facts[name] for name in ("steps", "gap_before", "gap_after")}

"""What a condensed set says of itself: the facts in its manifest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from aerogel.condense import archive as shelf
from aerogel.condense.losses import write_loss
from aerogel.core.config import to_dict

if TYPE_CHECKING:
    from aerogel.condense.pipeline import Pipeline


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
        "source": {
            "name": train.name,
            "licence": train.licence,
            "images": len(train),
            "fingerprint": pipeline.data_digest["train"],
        },
        "storage": [
            {"name": "images", "bytes": images},
            {"name": "label generator (delta)", "bytes": delta},
            {"name": "label generator and backbone", "bytes": delta + pipeline.backbone.size_bytes},
        ],
    }


def _tell_update(pipeline: Pipeline) -> dict[str, Any]:
    facts = pipeline.manifest(pipeline.images_stage).facts
    return {name: facts[name] for name in ("steps", "gap_before", "gap_after")}

"""Store what a label generator leaves out of the teacher's logits, for some views."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from aerogel.condense.archive import RESIDUAL
from aerogel.condense.codecs.naming import parse_codec
from aerogel.condense.codecs.shards import store_bytes
from aerogel.condense.fit import fused
from aerogel.condense.labels import (
    CorrectedLabels,
    LabelSource,
    NetworkLabels,
    ResidualLabels,
    StoredLabels,
    make_batch,
)
from aerogel.condense.merged import Merged
from aerogel.condense.projector import Fidelity, compare_logits
from aerogel.condense.storing import cut_samples, store_views
from aerogel.core.config import to_dict
from aerogel.core.manifests import Manifest

if TYPE_CHECKING:
    from aerogel.condense.pipeline import Pipeline
    from aerogel.condense.student import TrainingSet

_FIDELITY_VIEWS = 2000


def store_residual(pipeline: Pipeline) -> Manifest:
    """Store what the pipeline's finished generator leaves out of its teacher's labels, as a stage of its own.

    The views are those of the condensed images in the first ``projector.residual_epochs`` epochs.
    """
    projector = pipeline.config.projector
    settings = {
        "codec": projector.residual,
        "epochs": projector.residual_epochs,
        "views": to_dict(pipeline.config.views),
    }
    inputs = {name: pipeline.digest(name) for name in ("teacher", pipeline.images_stage, "generator")}

    def build(work: Path) -> Mapping[str, Any]:
        return _build_residual(pipeline, work)

    return pipeline.run(RESIDUAL, "label-residuals", settings, inputs, build, together=True)


def _build_residual(pipeline: Pipeline, work: Path) -> Mapping[str, Any]:
    # Of the generator as it is shipped, so that they also hold what its number format changed.
    config, data, crew = pipeline.config.projector, pipeline.training_set, pipeline.crew
    codec, epochs = str(config.residual), config.residual_epochs
    merged = Merged(pipeline.generator, pipeline.backbone.norms)
    teacher, generator = (
        NetworkLabels(name, fused(network.to(pipeline.device).eval(), config.fit))
        for name, network in (("teacher", pipeline.teacher.classifier), ("generator", merged))
    )
    store_views(
        work,
        ResidualLabels(teacher, generator),
        data,
        data.views,
        epochs=epochs,
        device=pipeline.device,
        title="residuals of the labels",
        codec=codec,
        seed=pipeline.config.seed,
        crew=crew,
    )
    if not pipeline.leads:
        return {}
    stored = StoredLabels(work, RESIDUAL, (len(data), len(data.class_names)), codec=codec, epochs=epochs)
    fidelity = compare_sources(teacher, CorrectedLabels(generator, stored), data, epochs, pipeline.device)
    return {
        "codec": parse_codec(codec).name,
        "epochs": epochs,
        "bytes": store_bytes(work),
        "fidelity": [asdict(fidelity)],
    }


def compare_sources(
    teacher: LabelSource, ours: LabelSource, data: TrainingSet, epochs: int, device: str
) -> Fidelity:
    """Compare two sources on at most 2,000 views of ``data``, from the first of ``epochs`` epochs on."""
    samples = np.tile(np.arange(len(data)), min(epochs, -(-_FIDELITY_VIEWS // len(data))))[:_FIDELITY_VIEWS]
    theirs: list[Tensor] = []
    found: list[Tensor] = []
    for epoch, part in enumerate(np.split(samples, range(len(data), len(samples), len(data)))):
        for few in cut_samples(part):
            batch = make_batch(data.images, data.labels, data.views, epoch, few, device)
            for source, logits in ((teacher, theirs), (ours, found)):
                given = source.logits(batch)
                if given is not None:
                    logits.append(given.cpu())
    return compare_logits("condensed", torch.cat(theirs), torch.cat(found))

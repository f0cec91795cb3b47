"""The public call: condense a labelled image set, and what it gives back."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from aerogel.condense.comparison import Comparison, Row
from aerogel.condense.condensed import CondensedSet, load_condensed
from aerogel.condense.config import CondenseConfig
from aerogel.condense.identity import identify
from aerogel.condense.pipeline import Pipeline
from aerogel.condense.run_folder import RECIPE, RESULT, require_run_folder
from aerogel.condense.sources import Sources
from aerogel.condense.standing import rank_rows
from aerogel.core.config import from_dict, override, save_config, validate
from aerogel.core.folders import create_folder, write_text_atomic
from aerogel.errors import ConfigError, compose
from aerogel.zoo.imageset import ImageSet
from aerogel.zoo.sources import load_splits


@dataclass(frozen=True)
class Condensed:
    """Hold a finished condensation: the set, the comparison of its labels, and the folder of its stages."""

    config: CondenseConfig
    folder: Path
    data: CondensedSet
    rows: tuple[Row, ...]
    pipeline: Pipeline

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Copy the condensed set, images and label generator, to ``path``, whole or not at all.

        Raises:
            FolderExistsError: ``path`` exists and ``overwrite`` is off, or it is no folder of ours.
        """
        target = Path(path)
        with create_folder(target, overwrite=overwrite) as fresh:
            shutil.copytree(self.data.folder, fresh, dirs_exist_ok=True)
        load_condensed(target)
        return target

    def push_to_hub(
        self, repo_id: str, *, private: bool = False, token: str | None = None, revision: str | None = None
    ) -> str:
        """Send the condensed set to a dataset repository ``user/name`` of the hub; return its address.

        Raises:
            ConfigError: ``repo_id`` is no name on the hub.
            DataError: the hub refuses, or cannot be reached.
            IntegrityError: a file is damaged; nothing is sent then.
        """
        return self.data.push_to_hub(repo_id, private=private, token=token, revision=revision)

    def labels(
        self,
        views: Tensor,
        samples: Sequence[int] | np.ndarray | Tensor | None = None,
        *,
        epoch: int | None = None,
    ) -> Tensor:
        """Return soft labels as logits [B, classes] for ``views`` [B, C, S, S] in [0, 1].

        ``samples`` [B] and ``epoch`` are those of :meth:`CondensedSet.labels`.
        """
        return self.data.labels(views, samples, epoch=epoch)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON types: bytes, accuracies and fidelity."""
        facts = self.data.manifest.facts
        return {
            "images": facts["images"],
            "ipc": facts["ipc"],
            "teacher": facts["teacher"],
            "fidelity": facts["projector"]["fidelity"],
            "storage": facts["storage"],
            "rows": [row.to_dict() for row in self.rows],
            "scores": [each.to_dict() for each in rank_rows(self.rows, self.config.student.network)],
            "archive_digest": self.data.manifest.digest,
        }

    def report(self, path: str | Path) -> Path:
        """Write one self-contained HTML page: images, accuracy against bytes, the receipt."""
        from aerogel.condense.account import describe
        from aerogel.report import write_report

        return write_report(describe(self), Path(path))


def condense(
    dataset: str | Path | ImageSet,
    *,
    ipc: int | None = None,
    backbone: str | None = None,
    out: str | Path | None = None,
    config: CondenseConfig | None = None,
    test: ImageSet | None = None,
    overwrite: bool = False,
    command: str | None = None,
    compare: bool = True,
    **settings: Any,
) -> Condensed:
    """Condense labelled images to ``ipc`` per class and a low-rank generator of their soft labels.

    ``dataset`` is a path, a named source, a hub name, or an :class:`~aerogel.zoo.ImageSet` (then ``test`` is
    the set to score on). ``out`` keeps every stage, so that a killed run continues; without it a folder in
    the user's cache, named after the settings and the data, does. ``settings`` are fields of
    :class:`CondenseConfig`, nested ones as dicts. With ``compare``, students are trained with each kind of
    labels in ``student.labels``. Under ``accelerate launch`` or ``torchrun`` the processes share every stage,
    and the first one writes. Implements HeLlO, arXiv 2408.08201.

    Raises:
        ConfigError: a setting is wrong; all mistakes are listed.
        DataError: the data cannot be used; all problems are listed, before any work.
        FolderExistsError: ``out`` holds files that a run would replace and did not write.
        FolderConflictError: ``out`` holds a run with other settings.
        ProjectorError: the label generator came out no better than chance.
    """
    config = gather_config(config, dataset, ipc=ipc, backbone=backbone, settings=settings)
    sources = open_sources(config, dataset, test)
    folder = Path(out) if out is not None else cache_folder(config, sources)
    require_run_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    pipeline = Pipeline(config, sources, folder, overwrite=overwrite, command=command)
    data = pipeline.archive
    rows = tuple(Comparison(pipeline).rows()) if compare else ()
    result = Condensed(config, folder, data, rows, pipeline)
    if not pipeline.leads:
        return result
    save_config(config, folder / RECIPE)
    write_text_atomic(folder / RESULT, json.dumps(result.to_dict(), indent=2, sort_keys=True) + "\n")
    return result


def gather_config(
    config: CondenseConfig | None,
    dataset: str | Path | ImageSet,
    *,
    ipc: int | None,
    backbone: str | None,
    settings: dict[str, Any],
) -> CondenseConfig:
    """Merge a config with single settings into one, checked.

    Raises:
        ConfigError: a name or a value is wrong; all mistakes are listed.
    """
    merged = override(config, settings)
    if ipc is not None:
        merged["ipc"] = ipc
    if backbone is not None:
        merged["projector"] = {**merged.get("projector", {}), "backbone": backbone}
    if isinstance(dataset, ImageSet):
        merged["dataset"] = dataset.name
    elif str(dataset):
        merged["dataset"] = str(dataset)
    return validate(from_dict(CondenseConfig, merged, "condense"))


def open_sources(config: CondenseConfig, dataset: str | Path | ImageSet, test: ImageSet | None) -> Sources:
    """Load the training and the test images, checked.

    Raises:
        ConfigError: no dataset is named, or an image set came without its test set.
        DataError: the data cannot be used.
    """
    if isinstance(dataset, ImageSet):
        if test is None:
            raise ConfigError(
                compose(
                    "a test set beside an ImageSet",
                    "none",
                    "pass test=..., or split one off: dataset.split(0.2, 0)",
                )
            )
        return Sources(dataset.check(), test.check())
    if not config.dataset:
        raise ConfigError(
            compose("a dataset", "none", 'name a folder, a source such as "digits", or a hub data set')
        )
    train, scored = load_splits(
        config.dataset, seed=config.seed, size=config.size, channels=config.channels, skip_bad=config.skip_bad
    )
    return Sources(train, scored)


def cache_folder(config: CondenseConfig, sources: Sources) -> Path:
    """Return the user's cache folder for these settings and data; ``AEROGEL_CACHE`` moves the cache."""
    root = os.environ.get("AEROGEL_CACHE")
    base = Path(root) if root else Path.home() / ".cache" / "aerogel"
    key = json.dumps(
        [identify(config), sources.train.fingerprint(), sources.test.fingerprint()], sort_keys=True
    )
    return base / "condense" / hashlib.sha256(key.encode()).hexdigest()[:16]

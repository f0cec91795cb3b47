"""A condensed set in use: images, addressed views, and soft labels generated as they are needed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from aerogel.condense.archive import (
    IMAGES,
    KIND,
    LABELS,
    RESIDUAL,
    StoredImages,
    open_archive,
    read_images,
)
from aerogel.condense.config import ViewConfig
from aerogel.condense.families import Backbone, load_backbone
from aerogel.condense.labels import CorrectedLabels, LabelSource, NetworkLabels, StoredLabels
from aerogel.condense.projector import build_projector, load_adapter
from aerogel.condense.student import TrainingSet
from aerogel.condense.views import Views
from aerogel.core.config import from_dict
from aerogel.core.manifests import Manifest
from aerogel.errors import ConfigError, DataError, IntegrityError, MismatchError, compose
from aerogel.zoo.publication import fetch_folder, publish_folder

if TYPE_CHECKING:
    from aerogel.condense.collation import DistillationCollator

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_REPLACED = ("data/*", "labels/*")
_PROBE_TOLERANCE = 0.05


class CondensedSet(Dataset[dict[str, Any]]):
    """Serve the augmented views of a condensed set; item i of an epoch is the same whoever asks for it.

    Items are dicts: ``view`` [C, S, S] float32 in [0, 1], ``label`` and ``partner_label`` (class indices of
    the image and of the one that CutMix pasted in), ``weight`` (the image's own share of the pixels) and
    ``sample``. Call :meth:`set_epoch` before each epoch; with worker processes, before the loader's iterator
    is made. Of a set with stored residuals, epochs go round the ``view_epochs`` whose views have them.
    """

    def __init__(
        self, folder: Path, manifest: Manifest, stored: StoredImages, backbone: str | None = None
    ) -> None:
        facts = manifest.facts
        self.folder = folder
        self.backbone = backbone or str(facts["backbone"]["name"])
        self.manifest = manifest
        self.images = stored.images
        self.class_labels = stored.labels
        self.source_ids = stored.source_ids
        self.class_names: tuple[str, ...] = tuple(facts["class_names"])
        self.mean: tuple[float, ...] = tuple(facts["mean"])
        self.std: tuple[float, ...] = tuple(facts["std"])
        config = from_dict(ViewConfig, facts["views"], "views")
        self.views = Views(config, facts["view_seed"], len(stored.labels), facts["tiles"])
        self.residual = _open_residual(folder, facts)
        self.epoch = 0

    def __len__(self) -> int:
        """Return the number of stored images."""
        return len(self.class_labels)

    def set_epoch(self, epoch: int) -> None:
        """Choose whose views are served: epoch 0, 1, 2, ..."""
        self.epoch = epoch

    @property
    def view_epochs(self) -> int | None:
        """Return how many epochs of views there are, shown in turn; None where every epoch has its own."""
        return None if self.residual is None else self.residual.epochs

    def shown_epoch(self, epoch: int) -> int:
        """Return the epoch whose views are shown at ``epoch``: itself, or its place in the round of views."""
        return epoch % self.view_epochs if self.view_epochs else epoch

    def __getitem__(self, sample: int) -> dict[str, Any]:
        """Return the view of ``sample`` at the current epoch."""
        return self.__getitems__([sample])[0]

    def __getitems__(self, samples: Sequence[int]) -> list[dict[str, Any]]:
        """Return the views of ``samples`` at the current epoch, rendered together."""
        shown = self.shown_epoch(self.epoch)
        views, found = self.views.render(self.images, shown, np.asarray(samples))
        weights = found.mixing_weight(int(self.images.shape[-1]))
        own = self.class_labels[torch.from_numpy(found.samples)].tolist()
        partner = self.class_labels[torch.from_numpy(found.partners)].tolist()
        return [
            {
                "view": views[index],
                "label": own[index],
                "partner_label": partner[index],
                "weight": float(weights[index]),
                "sample": int(found.samples[index]),
            }
            for index in range(len(found.samples))
        ]

    @cached_property
    def generator(self) -> nn.Module:
        """Load the label generator: the backbone named in the manifest with the adapter of this folder.

        Raises:
            DataError: the backbone is not where the manifest, or :func:`load_condensed`, says.
            MismatchError: the backbone's weights are not those the adapter was made for, or the generator
                gives other labels here than where it was made.
        """
        return load_generator(self, _open_backbone(self))

    def labels(
        self,
        views: Tensor,
        samples: Sequence[int] | np.ndarray | Tensor | None = None,
        *,
        epoch: int | None = None,
    ) -> Tensor:
        """Return soft labels as logits [B, classes] for ``views`` [B, C, S, S] in [0, 1].

        Where the set has stored residuals, these are added if ``samples`` [B] says whose views they are, at
        ``epoch`` or else the current one. Without ``samples``, or residuals, it is the generator alone.

        Raises:
            MismatchError: there are more or fewer samples than views, or one is no image of the set.
        """
        device = next(self.generator.parameters()).device
        with torch.no_grad():
            found: Tensor = self.generator(views.to(device))
        if self.residual is None or samples is None:
            return found.float()
        shown = self.shown_epoch(self.epoch if epoch is None else epoch)
        rest = self.residual.rows(shown, np.asarray(samples))
        if rest.shape != found.shape:
            raise MismatchError(
                compose(f"a sample for each of {len(views)} views", f"{len(rest)}", "name all of them")
            )
        return found.float() + rest.to(device)

    @property
    def label_source(self) -> LabelSource:
        """Return the source of a student's labels: the generator, corrected where there are residuals."""
        return self.correct(NetworkLabels("generator", self.generator))

    def correct(self, generator: LabelSource) -> LabelSource:
        """Return ``generator`` with the set's stored residuals added, if it has any."""
        return generator if self.residual is None else CorrectedLabels(generator, self.residual)

    def training_set(self) -> TrainingSet:
        """Return what a student is trained on."""
        return TrainingSet(self.images, self.class_labels, self.views, self.class_names, self.mean, self.std)

    def collator(self, processor: Any = None, *, channels: int | None = None) -> DistillationCollator:
        """Return what makes batches for transformers' Trainer from keys of views, soft labels included.

        ``processor`` is the model's image processor; without one, views keep their size and are normalised by
        the set's own statistics. ``channels`` is what the model takes; grey serves as RGB.
        """
        from aerogel.condense.collation import DistillationCollator

        return DistillationCollator(self, processor, channels=channels)

    def push_to_hub(
        self, repo_id: str, *, private: bool = False, token: str | None = None, revision: str | None = None
    ) -> str:
        """Send the set to a dataset repository ``user/name`` of the Hugging Face hub; return its address.

        Every file is verified first, and exactly those of the manifest are sent. ``revision`` is the branch.

        Raises:
            ConfigError: ``repo_id`` is no name on the hub.
            DataError: the hub refuses, or cannot be reached.
            IntegrityError: a file is damaged; nothing is sent then.
        """
        return publish_folder(
            self.folder, repo_id, KIND, private=private, token=token, revision=revision, replaced=_REPLACED
        )

    def to_hf(self) -> Any:
        """Return the images and labels as a Hugging Face ``datasets.Dataset``."""
        from datasets import Dataset as HuggingFaceDataset

        return HuggingFaceDataset.from_parquet(str(self.folder / IMAGES))


def load_condensed(
    path: str | Path,
    *,
    backbone: str | Path | None = None,
    revision: str | None = None,
    token: str | None = None,
) -> CondensedSet:
    """Open a condensed set, refusing it unless every file is as its manifest says.

    ``path`` is a folder, or a dataset repository ``user/name`` of the Hugging Face hub: there, at
    ``revision`` (a branch, tag or commit), exactly the files of its manifest are fetched, once. A folder of
    that name goes before the hub. ``backbone`` says where the backbone lies here, if not under the name in
    the manifest; its weights must be the same. It is opened when labels are asked for.

    Raises:
        DataError: no such folder; or no such repository, or no network.
        IntegrityError: a file is damaged, missing or too many; nothing is loaded then.
    """
    folder = Path(path)
    if isinstance(path, str) and not folder.exists() and HUB_NAME.fullmatch(path):
        folder = fetch_folder(path, KIND, revision=revision, token=token)
    elif revision is not None:
        raise ConfigError(
            compose("a name on the hub beside revision", f"the folder {folder}", "leave revision out")
        )
    manifest = open_archive(folder)
    facts = manifest.facts
    stored = read_images(
        folder / IMAGES,
        channels=facts["channels"],
        size=facts["size"],
        classes=len(facts["class_names"]),
        images=facts["images"],
        class_names=tuple(facts["class_names"]),
    )
    try:
        return CondensedSet(folder, manifest, stored, None if backbone is None else str(backbone))
    except (ConfigError, MismatchError) as failure:
        raise IntegrityError(
            compose(
                f"sound settings of the views and residuals in {folder}",
                str(failure),
                "fetch the folder again",
            )
        ) from failure


def _open_residual(folder: Path, facts: Mapping[str, Any]) -> StoredLabels | None:
    if RESIDUAL not in facts:
        return None
    shape = (facts["images"], len(facts["class_names"]))
    codec, epochs = facts[RESIDUAL]["codec"], facts[RESIDUAL]["epochs"]
    return StoredLabels(folder / LABELS / RESIDUAL, RESIDUAL, shape, codec=codec, epochs=epochs)


def _open_backbone(data: CondensedSet) -> Backbone:
    """Load the backbone of ``data`` from where it is said to lie."""
    facts = data.manifest.facts["backbone"]
    try:
        return load_backbone(data.backbone, facts["grid"])
    except DataError as failure:
        raise DataError(
            compose(
                f"backbone {facts['name']} with weights {facts['sha256']}",
                f"none that can be opened at {data.backbone!r} ({failure})",
                "fetch it, and if it lies elsewhere name the place: load_condensed(..., backbone=PATH), or "
                "--backbone PATH",
            )
        ) from failure


def load_generator(data: CondensedSet, backbone: Backbone) -> nn.Module:
    """Put the set's adapter on ``backbone`` and check it against the logits recorded when it was made.

    Raises:
        MismatchError: the weights differ from the recorded hash, or the logits from the recorded ones.
    """
    facts = data.manifest.facts
    if backbone.sha256 != facts["backbone"]["sha256"]:
        raise MismatchError(
            compose(
                f"backbone {facts['backbone']['name']} with weights {facts['backbone']['sha256'][:12]}",
                f"{backbone.name} with weights {backbone.sha256[:12]}",
                "install the version of the backbone that the set was made with, or name the place of one: "
                "load_condensed(..., backbone=PATH)",
            )
        )
    plain = build_projector(
        backbone, data.images, data.class_labels, data.class_names, tuple(facts["templates"])
    )
    generator: nn.Module = load_adapter(plain, data.folder / LABELS).merge_and_unload()
    probe = torch.tensor(facts["probe"])
    found = probe_logits(generator, data.images, len(probe))
    if found.shape != probe.shape or not bool(
        (found - probe).abs().max() <= _PROBE_TOLERANCE * torch.minimum(probe.abs().max(), found.abs().max())
    ):
        raise MismatchError(
            compose(
                f"the label generator to give the logits recorded in the manifest of {data.folder} (probe)",
                f"logits that differ by up to {float((found - probe).abs().max()):.3g}"
                if found.shape == probe.shape
                else f"logits of shape {tuple(found.shape)}",
                "use the package versions in the manifest, or report it with the output of `aerogel env`",
            )
        )
    return generator


def probe_logits(generator: nn.Module, images: Tensor, count: int) -> Tensor:
    """Return the generator's logits [count, classes] for the first plain ``images`` [N, C, S, S] (uint8)."""
    generator.eval()
    with torch.no_grad():
        logits: Tensor = generator(images[:count].float() / 255.0)
    return logits.float().cpu()

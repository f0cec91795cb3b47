"""The public call: slim a Segment Anything model, and what it gives back."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from aerogel.core.config import from_dict, override, save_config, to_dict, validate
from aerogel.core.devices import choose_device
from aerogel.core.files import make_parents
from aerogel.core.folders import create_folder, write_text_atomic
from aerogel.core.manifests import Manifest
from aerogel.core.randomness import permutation
from aerogel.errors import ConfigError, DataError, compose
from aerogel.slim.config import SlimConfig
from aerogel.slim.families import describe
from aerogel.slim.families.opening import open_model, read_dtype
from aerogel.slim.pipeline import Pipeline
from aerogel.slim.plan import Plan, load_plan
from aerogel.slim.run_folder import MODEL, PLAN, RECIPE, RESULT, require_run_folder
from aerogel.slim.sources import Sources
from aerogel.slim.widths import derive_widths
from aerogel.zoo.photos import Photos, open_photos
from aerogel.zoo.pretrained import quiet

_SMALLEST_PX = 32


@dataclass(frozen=True)
class Slimmed:
    """Hold a finished slimming: the model in evaluation mode, the plan that it followed, and its folder.

    ``model`` is of transformers' own class in the layout "stock", else of ours.
    """

    config: SlimConfig
    folder: Path
    model: Any
    plan: Plan
    manifest: Manifest

    def save_pretrained(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Copy the model's folder, with its image processor, plan and card, to ``path``, whole or not at all.

        Raises:
            FolderExistsError: ``path`` exists and ``overwrite`` is off, or it is no folder of ours.
        """
        target = Path(path)
        with create_folder(target, overwrite=overwrite) as fresh:
            shutil.copytree(self.folder / MODEL, fresh, dirs_exist_ok=True)
        return target

    def report(self, path: str | Path | None = None) -> Path:
        """Write the report as one HTML file, by default into the run's folder; return where it lies.

        Raises:
            MissingDependencyError: the packages for reports are not installed.
        """
        from aerogel.report import write_report
        from aerogel.slim.account import describe_run
        from aerogel.slim.run_folder import REPORT

        return write_report(describe_run(self.folder), Path(path or self.folder / REPORT))

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON types: sizes, multiply-accumulates, agreement with the teacher."""
        facts = {
            key: value for key, value in self.manifest.facts.items() if key not in ("fingerprint", "inputs")
        }
        return {**facts, "plan": self.plan.digest, "method": self.config.method, "ratio": self.config.ratio}


# Callers may have switched gradients off, which aligning lives on.
@torch.inference_mode(mode=False)
@torch.enable_grad()
def slim(
    model: str | Path | nn.Module,
    images: str | Path | Iterable[str | Path] | Photos = "",
    *,
    ratio: float | None = None,
    config: SlimConfig | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    command: str | None = None,
    teacher_cache: str | Path | None = None,
    **settings: Any,
) -> Slimmed:
    """Slim a Segment Anything model: prune its image encoder and align what is left, without labels.

    model: a SAM or SAM-HQ of transformers, as a model, a folder, a hub name, or one that ships. It is not
    changed.
    images: photos without labels: a folder, files, parquet, or a dataset of the hub; or what `open_photos`
    gave.
    ratio: the share of embedding and MLP channels that goes; 0.77 leaves 168 of 768.
    config: all settings; ``settings`` are single ones by name, with mappings for those below, such as
    ``heads=3`` or ``align={"epochs": 20}``, and go ahead of it, as do the arguments above.
    out: the folder of the run; without it one in the user's cache, ``AEROGEL_CACHE``. A killed run goes on
    where it was when the same call is made again.
    overwrite: replace stages that other settings made there.
    teacher_cache: a folder for what the model makes of the photos, so that runs on the same photos, at other
    ratios say, need not compute it again. It is left there.

    Under ``accelerate launch`` or ``torchrun`` the aligning is shared among the processes.

    Implements SlimSAM (arXiv 2312.05284): alternate pruning and aligning.

    Raises:
        ConfigError: a setting is wrong; all mistakes are listed; or a ratio or head count does not fit.
        DataError: the model or the photos cannot be used, or there are too few photos.
        FolderExistsError: ``out`` holds files that a run would replace and did not write.
        FolderConflictError: ``out`` holds a run with other settings.
    """
    if not isinstance(images, str | Path | Photos):
        images = list(images)
    config = gather_config(config, model, images, ratio=ratio, settings=settings)
    cache = None if teacher_cache is None else _make_place(Path(teacher_cache))
    sources = open_sources(config, model, images)
    folder = Path(out) if out is not None else cache_folder(config, sources)
    require_run_folder(folder)
    pipeline = Pipeline(config, sources, folder, overwrite=overwrite, command=command, teacher_cache=cache)
    folder.mkdir(parents=True, exist_ok=True)
    manifest = pipeline.finish()
    pipeline.exhibit()
    with quiet():
        slimmed = open_model(folder / MODEL)
    result = Slimmed(config, folder, slimmed, load_plan(folder / MODEL / PLAN), manifest)
    if not pipeline.leads:
        return result
    save_config(config, folder / RECIPE)
    write_text_atomic(folder / RESULT, json.dumps(result.to_dict(), indent=2, sort_keys=True) + "\n")
    return result


def _make_place(folder: Path) -> Path:
    make_parents(folder / "any")
    return folder


def gather_config(
    config: SlimConfig | None,
    model: str | Path | nn.Module,
    images: str | Path | Sequence[str | Path] | Photos,
    *,
    ratio: float | None,
    settings: dict[str, Any],
) -> SlimConfig:
    """Merge a config with single settings into one, checked.

    Raises:
        ConfigError: a name or a value is wrong; all mistakes are listed.
    """
    merged = override(config, settings)
    if ratio is not None:
        merged["ratio"] = ratio
    if isinstance(model, nn.Module):
        merged["model"] = type(model).__name__
    elif str(model):
        merged["model"] = str(model)
    if isinstance(images, Photos):
        merged["images"] = images.name
    elif isinstance(images, str | Path):
        merged["images"] = str(images) or merged.get("images", "")
    else:
        merged["images"] = f"{len(images)} files"
    return validate(from_dict(SlimConfig, merged, "slim"))


def open_sources(
    config: SlimConfig,
    model: str | Path | nn.Module,
    images: str | Path | Sequence[str | Path] | Photos,
) -> Sources:
    """Open teacher and photos, every photo decoded once, before any work.

    Raises:
        ConfigError: no model or no photos are named, or a ratio or head count does not fit the model.
        DataError: they cannot be used, or there are too few photos; what was left out is listed.
    """
    for name, what in (("model", "a model"), ("images", "photos")):
        if not getattr(config, name):
            remedy = "name a SAM by folder or hub name" if name == "model" else "name a folder of photos"
            raise ConfigError(compose(what, "none", remedy))
    choose_device(config.device)
    teacher = model if isinstance(model, nn.Module) else open_model(config.model)
    # All photos are about to be decoded, which takes long; what cannot be cut is refused before that.
    derive_widths(describe(teacher), config.ratio, mlp_ratio=config.mlp_ratio, heads=config.heads)
    if isinstance(images, Photos):
        photos = _take(images, config.limit, config.seed)
    else:
        place = config.images if images == "" else images
        photos = open_photos(place, limit=config.limit, seed=config.seed, smallest_px=_SMALLEST_PX)
    if not len(photos):
        raise DataError(compose("photos", "none", "name a folder with photos"))
    dtype = None if isinstance(model, nn.Module) else read_dtype(config.model)
    return Sources.split(teacher, photos, config.held_out, config.seed, dtype)


def _take(photos: Photos, limit: int | None, seed: int) -> Photos:
    """Return a random sample of photos that are open already, in their order."""
    if limit is None:
        return photos
    if len(photos) < limit:
        raise DataError(compose(f"{limit:,} photos", f"{len(photos):,}", "add photos, or lower limit"))
    places = sorted(permutation(seed, "limit", 0, len(photos))[:limit].tolist())
    return replace(photos, numbers=tuple(photos.numbers[place] for place in places))


def cache_folder(config: SlimConfig, sources: Sources) -> Path:
    """Return the user's cache folder for these settings and sources; ``AEROGEL_CACHE`` moves the cache."""
    root = os.environ.get("AEROGEL_CACHE")
    base = Path(root) if root else Path.home() / ".cache" / "aerogel"
    settings = {**to_dict(config), "align": config.align.identify()}
    key = json.dumps([settings, sources.digests], sort_keys=True)
    return base / "slim" / hashlib.sha256(key.encode()).hexdigest()[:16]

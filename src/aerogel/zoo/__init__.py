"""Small real models that ship with the package, and labelled, plain or segmented photos by path or name."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aerogel.zoo.diffusion import ClassConditionalPipeline, load_pipeline
    from aerogel.zoo.idx import read_idx, write_idx
    from aerogel.zoo.imageset import ImageSet
    from aerogel.zoo.objects import SegmentedPhoto
    from aerogel.zoo.photos import Photo, Photos, open_photos
    from aerogel.zoo.segments import SegmentedPhotos, open_segments
    from aerogel.zoo.sources import load_images, load_splits, open_images

__all__ = [
    "ClassConditionalPipeline",
    "ImageSet",
    "Photo",
    "Photos",
    "SegmentedPhoto",
    "SegmentedPhotos",
    "load_images",
    "load_pipeline",
    "load_splits",
    "open_images",
    "open_photos",
    "open_segments",
    "read_idx",
    "write_idx",
]

# Public name -> module; resolved on first use, so that importing the package loads no torch.
_HOMES = {
    "ClassConditionalPipeline": "aerogel.zoo.diffusion",
    "ImageSet": "aerogel.zoo.imageset",
    "Photo": "aerogel.zoo.photos",
    "Photos": "aerogel.zoo.photos",
    "SegmentedPhoto": "aerogel.zoo.objects",
    "SegmentedPhotos": "aerogel.zoo.segments",
    "load_images": "aerogel.zoo.sources",
    "load_pipeline": "aerogel.zoo.diffusion",
    "load_splits": "aerogel.zoo.sources",
    "open_images": "aerogel.zoo.sources",
    "open_photos": "aerogel.zoo.photos",
    "open_segments": "aerogel.zoo.segments",
    "read_idx": "aerogel.zoo.idx",
    "write_idx": "aerogel.zoo.idx",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})

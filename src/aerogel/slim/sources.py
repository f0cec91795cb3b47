"""What a slimming starts from: the teacher and the photos, checked and known by their content."""

from __future__ import annotations

import copy
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aerogel.core.ahead import read_ahead
from aerogel.core.files import sha256_file
from aerogel.core.randomness import permutation
from aerogel.errors import DataError, compose
from aerogel.slim.canvas import Canvas
from aerogel.slim.channels import Channels
from aerogel.slim.digest import digest_model
from aerogel.slim.families import describe
from aerogel.zoo.photos import Photos


@dataclass(frozen=True)
class Sources:
    """Hold the teacher, which is never changed, and its photos: most to align with, some kept back.

    ``dtype`` is the type that the teacher is stored in, None for that of its weights.
    """

    teacher: Any
    photos: Photos
    held_out: Photos
    dtype: torch.dtype | None = None

    @classmethod
    def split(
        cls, teacher: nn.Module, photos: Photos, held_out: int, seed: int, dtype: torch.dtype | None = None
    ) -> Sources:
        """Keep some photos back, at random.

        Raises:
            DataError: there are not enough photos, or one is there twice; or no family knows the model.
        """
        describe(teacher)
        twice = [identifier for identifier, count in Counter(photos.ids).items() if count > 1]
        if twice:
            got = f"{twice[0]} twice" + (f", and {len(twice) - 1} others" if len(twice) > 1 else "")
            raise DataError(compose("photos with ids of their own", got, "name each once"))
        if len(photos) <= held_out:
            raise DataError(
                compose(
                    f"more than {held_out} photos, the number that is held out",
                    f"{len(photos)} in {photos.name}",
                    "add photos, or lower held_out",
                )
            )
        order = permutation(seed, "held-out", 0, len(photos))
        kept_back = set(order[:held_out].tolist())
        rest, aside = (
            replace(
                photos,
                numbers=tuple(
                    number for place, number in enumerate(photos.numbers) if (place in kept_back) == wanted
                ),
            )
            for wanted in (False, True)
        )
        return cls(teacher, rest, aside, dtype)

    @property
    def stored_dtype(self) -> torch.dtype:
        """Return the type that the teacher is stored in."""
        first: Tensor = next(self.teacher.parameters())
        return self.dtype or first.dtype

    def place_teacher(self, device: str) -> Any:
        """Return the teacher in float32 on a device: a copy, where it is elsewhere or of another type."""
        parameters = list(self.teacher.parameters())
        if all(each.dtype == torch.float32 and each.device == torch.device(device) for each in parameters):
            return self.teacher
        return copy.deepcopy(self.teacher).to(device, torch.float32)

    @cached_property
    def channels(self) -> Channels:
        """Return the teacher's groups of channels."""
        return describe(self.teacher)

    @cached_property
    def canvas(self) -> Canvas:
        """Return the square that the teacher sees."""
        return Canvas.of(self.teacher)

    @cached_property
    def digests(self) -> dict[str, str]:
        """Return the fingerprints of the teacher and of both parts of the photos."""
        return {
            "teacher": digest_model(self.teacher),
            "photos": fingerprint_photos(self.photos),
            "held_out": fingerprint_photos(self.held_out),
        }

    def draw_images(self, count: int, seed: int, device: str) -> Iterator[Tensor]:
        """Yield ``count`` photos, or all if there are fewer, as prepared pixels [1, 3, S, S]."""
        order = permutation(seed, "score/photos", 0, len(self.photos))

        def place(number: int) -> Tensor:
            return self.canvas.place(self.photos[number].image)[0]

        for pixels in read_ahead(place, np.sort(order[:count]).tolist()):
            yield pixels.to(device)


def fingerprint_photos(photos: Photos) -> str:
    """Hash the ids of photos and the content of their files."""
    digest = hashlib.sha256()
    for number, identifier in zip(photos.numbers, photos.ids, strict=True):
        stored = photos.source.read(number)
        content = (
            sha256_file(stored.resolve())
            if isinstance(stored, Path)
            else hashlib.sha256(stored or b"").hexdigest()
        )
        digest.update(f"{identifier}\0{content}\0".encode())
    return digest.hexdigest()

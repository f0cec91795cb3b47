"""Image sets known by name: digits from scikit-learn, Fashion-MNIST from its Debian package."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from aerogel.core.config import nearest
from aerogel.errors import DataError, MissingDependencyError, compose
from aerogel.zoo.classes import align_classes
from aerogel.zoo.decode import fit_arrays
from aerogel.zoo.idx import find_idx, read_idx_split
from aerogel.zoo.imageset import ImageSet
from aerogel.zoo.request import UNSTATED, Request, Source, require_split

FASHION_MNIST = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
DIGITS = tuple("0123456789")
DIGITS_TOTAL, DIGITS_TEST = 1797, 360
DEBIAN_DATA = Path("/usr/share/datasets")


@dataclass(frozen=True)
class Digits:
    """scikit-learn's copy of 1,797 handwritten digits of 8x8 px (UCI, E. Alpaydin and C. Kaynak, 1998)."""

    name: str = "digits"

    def splits(self) -> tuple[str, ...]:
        """List the splits: both."""
        return ("train", "test")

    def read(self, request: Request) -> ImageSet:
        """Read 1,437 training or 360 test images, values 0..16 scaled to 0..255; the split is fixed.

        Raises:
            MissingDependencyError: scikit-learn is not installed.
        """
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            remedy = 'pip install "aerogel[condense]"'
            raise MissingDependencyError(
                compose("scikit-learn, which holds the digits", "none", remedy)
            ) from error
        bunch = load_digits()
        pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
        whole = ImageSet(
            torch.from_numpy(fit_arrays(pixels, request.size, request.channels)),
            torch.from_numpy(bunch.target.astype(np.int64)),
            DIGITS,
            tuple(f"digits:{row}" for row in range(len(pixels))),
            self.name,
            "CC-BY-4.0",
        )
        train, test = whole.split(DIGITS_TEST / DIGITS_TOTAL, seed=0, stream="digits")
        return _hold_to(train if request.split == "train" else test, request)


@dataclass(frozen=True)
class IdxFolder:
    """A folder with the IDX files of the MNIST family; classes are numbered unless names are given."""

    folder: Path
    name: str
    class_names: tuple[str, ...] | None = None
    licence: str = UNSTATED

    def splits(self) -> tuple[str, ...]:
        """List the splits that have an image file."""
        return tuple(split for split in ("train", "test") if find_idx(self.folder, split, "images"))

    def read(self, request: Request) -> ImageSet:
        """Read one split; ids are "split:index".

        Raises:
            DataError: files missing, damaged or disagreeing, or labels outside the class list.
        """
        require_split(request.split, self.splits(), str(self.folder))
        images, labels = read_idx_split(self.folder, request.split)
        names = self.class_names or request.class_names or self._number(request.split, labels)
        data = ImageSet(
            torch.from_numpy(fit_arrays(images, request.size, request.channels)),
            torch.from_numpy(labels),
            names,
            tuple(f"{request.split}:{row}" for row in range(len(labels))),
            self.name,
            self.licence,
        )
        return _hold_to(data, request)

    def _number(self, split: str, labels: np.ndarray) -> tuple[str, ...]:
        """Number the classes by the training labels, so that both splits have one class list."""
        if split != "train" and "train" in self.splits():
            labels = read_idx_split(self.folder, "train")[1]
        return tuple(str(c) for c in range(int(labels.max(initial=-1)) + 1))


def _hold_to(data: ImageSet, request: Request) -> ImageSet:
    """Give a set the class list asked for, if any, its labels renumbered to match."""
    if request.class_names is None:
        return data
    order = torch.tensor(align_classes(data.class_names, request.class_names, data.name), dtype=torch.int64)
    return replace(data, labels=order[data.labels], class_names=request.class_names)


def find_fashion_mnist() -> IdxFolder:
    """Find Fashion-MNIST in its Debian package's place, then under $AEROGEL_DATA.

    Raises:
        DataError: in neither; the message says how to get it.
    """
    own = os.environ.get("AEROGEL_DATA")
    places = [DEBIAN_DATA / "fashion-mnist", *([Path(own) / "fashion-mnist"] if own else [])]
    for place in places:
        if find_idx(place, "train", "images") or find_idx(place, "test", "images"):
            return name_idx_folder(place)
    raise DataError(
        compose(
            f"Fashion-MNIST's IDX files in {' or '.join(map(str, places))}",
            "none there",
            "apt-get install dataset-fashion-mnist, set AEROGEL_DATA to the folder that holds a "
            "fashion-mnist folder, or give the path of a folder with the four .gz files",
        )
    )


def name_idx_folder(folder: Path) -> IdxFolder:
    """Describe an IDX folder; one called fashion-mnist gets that set's class names and licence."""
    if folder.name == "fashion-mnist":
        return IdxFolder(folder, "fashion-mnist", FASHION_MNIST, "MIT")
    return IdxFolder(folder, folder.name)


NAMED: dict[str, Callable[[], Source]] = {"digits": Digits, "fashion-mnist": find_fashion_mnist}


def suggest_names(source: str | Path) -> str:
    """Say what else a source that was not found could be called."""
    near = nearest(str(source), list(NAMED))
    hint = f"did you mean {near!r}? " if near else ""
    return f"{hint}or name one of {', '.join(NAMED)} or a dataset of the Hugging Face hub"

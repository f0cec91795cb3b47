"""Find the image and the label column of a table, and its class names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aerogel.core.config import nearest
from aerogel.errors import DataError, compose
from aerogel.zoo.request import Request

IMAGE_NAMES = ("image", "img", "images", "picture", "jpg", "png")
LABEL_NAMES = ("label", "labels", "class", "fine_label", "category", "target", "cls")


@dataclass(frozen=True)
class Columns:
    """Name the two columns to read, and the class names that the table declares, if it does."""

    image: str
    label: str
    class_names: tuple[str, ...] | None


@dataclass(frozen=True)
class Table:
    """Describe a table's columns: all names, which may hold images, which may hold labels."""

    where: str
    names: tuple[str, ...]
    images: tuple[str, ...]
    labels: tuple[str, ...]
    classes: dict[str, tuple[str, ...]]

    def choose(self, request: Request) -> Columns:
        """Choose both columns: those asked for, else the usual names, else the only candidates.

        Raises:
            DataError: a column asked for is absent or of a wrong type, or the choice is not clear.
        """
        image = self._pick("image", request.image_column, self.images, IMAGE_NAMES)
        candidates = [name for name in self.labels if name in self.classes] or self.labels
        wanted = self.labels if request.label_column else tuple(candidates)
        label = self._pick("label", request.label_column, wanted, LABEL_NAMES)
        return Columns(image, label, self.classes.get(label))

    def choose_image(self, asked: str | None) -> str:
        """Choose the image column alone, for tables without labels.

        Raises:
            DataError: as for :meth:`choose`.
        """
        return self._pick("image", asked, self.images, IMAGE_NAMES)

    def _pick(self, role: str, asked: str | None, candidates: Sequence[str], usual: Sequence[str]) -> str:
        kind = "image bytes" if role == "image" else "integer or text labels"
        if asked is not None:
            if asked in candidates:
                return asked
            near = nearest(asked, list(candidates))
            hint = f"did you mean {near!r}?" if near else f"pass {role}_column= with one of them"
            got = f"the columns {', '.join(self.names)}"
            raise DataError(compose(f"a column {asked!r} of {kind} in {self.where}", got, hint))
        common = [name for name in usual if name in candidates]
        if common:
            return common[0]
        if len(candidates) == 1:
            return candidates[0]
        got = f"{len(candidates)} candidates among the columns {', '.join(self.names)}"
        remedy = f"pass {role}_column= to say which"
        raise DataError(compose(f"one column of {kind} in {self.where}", got, remedy))

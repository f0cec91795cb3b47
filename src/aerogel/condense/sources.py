"""The data of a condensation: what everything is trained on, and the images that only score."""

from __future__ import annotations

from dataclasses import dataclass

from aerogel.errors import DataError, MismatchError, compose
from aerogel.zoo.imageset import ImageSet


@dataclass(frozen=True)
class Sources:
    """Hold the data of a condensation: what everything is trained on, and the test images that only score."""

    train: ImageSet
    test: ImageSet

    def check(self) -> Sources:
        """Return the sources themselves when a classifier can be trained on one part and scored on the other.

        Raises:
            DataError: there are fewer than two classes.
            MismatchError: the two parts differ in their classes or in the shape of their images.
        """
        names = self.train.class_names
        if len(names) < 2:
            raise DataError(
                compose("images of two classes or more", f"{len(names)}", "add images of another")
            )
        if names != self.test.class_names or self.train.shape != self.test.shape:
            raise MismatchError(
                compose(
                    f"test images of the {len(names)} training classes in the same order, of shape "
                    f"{self.train.shape}",
                    f"{len(self.test.class_names)} classes ({', '.join(self.test.class_names[:5])}, ...) of "
                    f"shape {self.test.shape}",
                    "load both parts with the same class list, size and channels",
                )
            )
        return self

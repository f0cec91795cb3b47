from __future__ import annotations

import pytest

from aerogel.errors import DataError
from aerogel.zoo.columns import Columns, Table
from aerogel.zoo.request import Request


def table(images: tuple[str, ...], labels: tuple[str, ...], **classes: tuple[str, ...]) -> Table:
    return Table("here", images + labels, images, labels, classes)


@pytest.mark.parametrize(
    ("images", "labels", "expected"),
    [
        (("image",), ("label",), ("image", "label")),
        (("mask", "img"), ("id", "fine_label"), ("img", "fine_label")),
        (("scan",), ("grade",), ("scan", "grade")),
    ],
)
def test_chooses_usual_names_then_sole_candidates(
    images: tuple[str, ...], labels: tuple[str, ...], expected: tuple[str, str]
) -> None:
    assert table(images, labels).choose(Request()) == Columns(*expected, None)


def test_declared_classes_go_first() -> None:
    chosen = table(("image",), ("id", "breed"), breed=("pug", "beagle")).choose(Request())
    assert chosen == Columns("image", "breed", ("pug", "beagle"))


def test_a_column_asked_for_goes_before_all() -> None:
    source = table(("image", "crop"), ("label", "breed"), label=("cat", "dog"))
    chosen = source.choose(Request(image_column="crop", label_column="breed"))
    assert chosen == Columns("crop", "breed", None)


def test_refuses_an_unclear_choice() -> None:
    with pytest.raises(DataError, match="pass image_column= to say which"):
        table(("a", "b"), ("label",)).choose(Request())
    with pytest.raises(DataError, match="0 candidates among the columns image"):
        table(("image",), ()).choose(Request())


def test_refuses_an_absent_column_with_the_nearest() -> None:
    with pytest.raises(DataError, match="did you mean 'label'"):
        table(("image",), ("label",)).choose(Request(label_column="labell"))
    with pytest.raises(DataError, match="'label' of image bytes"):
        table(("image",), ("label",)).choose(Request(image_column="label"))


def test_a_picture_column_alone_needs_no_labels() -> None:
    assert table(("image", "crop"), ()).choose_image(None) == "image"
    assert table(("image", "crop"), ()).choose_image("crop") == "crop"
    with pytest.raises(DataError, match="pass image_column="):
        table(("a", "b"), ()).choose_image(None)

from __future__ import annotations

from collections.abc import Callable

import pytest

from aerogel.errors import DataError
from aerogel.zoo.gather import gather
from aerogel.zoo.imageset import ImageSet
from aerogel.zoo.records import SHOWN, Problems, Record
from aerogel.zoo.request import Request

Png = Callable[..., bytes]


def collect(records: list[Record], names: tuple[str, ...] = ("a", "b"), **options: object) -> ImageSet:
    order = options.pop("order", None)
    request = Request(**options)  # type: ignore[arg-type]
    return gather(
        records,
        names,
        request,
        name="toy",
        total=len(records),
        problems=Problems("toy"),
        licence="MIT",
        order=order,  # type: ignore[arg-type]
    )


def test_labels_by_number_and_by_name(png: Png) -> None:
    data = collect([Record("x", 1, png(5)), Record("y", "a", png(9))])
    assert data.labels.tolist() == [1, 0]
    assert data.ids == ("x", "y")
    assert data.images[:, 0, 0, 0].tolist() == [5, 9]
    assert (data.name, data.licence) == ("toy", "MIT")


def test_order_renumbers(png: Png) -> None:
    assert collect([Record("x", 0, png(1)), Record("y", 1, png(1))], order=(1, 0)).labels.tolist() == [1, 0]


def test_one_colour_picture_makes_the_set_colour(png: Png) -> None:
    records = [Record("x", 0, png(1, mode="L")), Record("y", 1, png(2, mode="RGB"))]
    assert collect(records).shape == (3, 10, 10)
    assert collect(records, channels=1).shape == (1, 10, 10)
    assert collect([Record(n, i, png(1, mode="L")) for i, n in enumerate("xy")]).shape == (1, 10, 10)


def test_lists_all_problems_together(png: Png) -> None:
    records = [
        Record("deep", 7, png(1)),
        Record("negative", -1, png(1)),
        Record("unknown", "zebra", png(1)),
        Record("bare", None, png(1)),
        Record("text", 0, b"hello"),
        Record("dot", 0, png(1, size=(1, 1))),
        Record("void", 0, None),
        Record("large", 0, png(1, size=(20, 20))),
        Record("small", 0, png(1)),
    ]
    with pytest.raises(DataError) as caught:
        collect(records)
    message = str(caught.value)
    for words in (
        "deep: label 7 is not in the class list of 2",
        "negative: label -1",
        "unknown: label 'zebra'",
        "bare: no label",
        "text: not an image",
        "dot: 1x1 px",
        "void: no picture stored",
        "class 'b' has no usable images",
        "images of 2 sizes",
        "9 problems",
    ):
        assert words in message


def test_shows_the_first_twenty_and_counts_the_rest() -> None:
    records = [Record(f"picture {row}", 0, b"") for row in range(SHOWN + 5)]
    with pytest.raises(DataError) as caught:
        collect(records, names=("a",))
    assert "picture 19:" in str(caught.value)
    assert "picture 20:" not in str(caught.value)
    assert "and 6 more" in str(caught.value)  # five pictures and the empty class


def test_skips_bad_pictures_when_asked_and_reports_each(png: Png, capsys: pytest.CaptureFixture[str]) -> None:
    records = [Record("x", 0, png(1)), Record("broken", 0, b"junk"), Record("y", 1, png(2))]
    data = collect(records, skip_bad=True)
    assert data.ids == ("x", "y")
    assert "left out 1 unusable pictures: 1 problem: broken: not an image" in capsys.readouterr().err


def test_skipping_covers_neither_labels_nor_a_class_left_empty(png: Png) -> None:
    with pytest.raises(DataError, match="label 5"):
        collect([Record("x", 0, png(1)), Record("y", 1, png(1)), Record("z", 5, png(1))], skip_bad=True)
    with pytest.raises(DataError, match="'b' has no usable images left after skipping"):
        collect([Record("x", 0, png(1)), Record("y", 1, b"junk")], skip_bad=True)


def test_size_brings_pictures_to_one_size(png: Png) -> None:
    data = collect([Record("x", 0, png(1, size=(30, 20))), Record("y", 1, png(2, size=(9, 40)))], size=16)
    assert data.shape == (3, 16, 16)


def test_nothing_at_all_is_refused() -> None:
    with pytest.raises(DataError, match="no classes"):
        collect([], names=())

"""A rich report: real digits, a training curve, accuracy against bytes."""

from __future__ import annotations

import numpy as np
import pytest

from aerogel.report import (
    Comparison,
    Curve,
    Level,
    Picture,
    Pictures,
    Point,
    Receipt,
    ReceiptLine,
    Report,
    Scatter,
    Section,
    Series,
    TableBlock,
)

SOURCES = (
    Point("hard labels", 2e1, 81.6, spread=0.9),
    Point("one soft label per image", 4.1e3, 86.2, spread=0.7),
    Point("label generator (ours)", 8.2e3, 92.8, spread=0.4, emphasis=True),
    Point("full labels, fp16", 1.5e5, 93.1, spread=0.4),
    Point("full labels, fp32", 3e5, 93.2, spread=0.3),
    Point("random real images, full labels", 2.9e5, 90.4, spread=0.8),
)


def draw_digits() -> list[Picture]:
    """Return two rows of scikit-learn's digits, enlarged by the page."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)
    rows = [np.flatnonzero(digits.target == label)[:2] for label in range(10)]
    order = [int(rows[label][turn]) for turn in range(2) for label in range(10)]
    return [
        Picture(255 - pixels[index], str(digits.target[index]), f"a {digits.target[index]}")
        for index in order
    ]


def draw_tiles() -> list[tuple[Picture, Picture]]:
    """Return pairs of a smooth picture and its coarse twin."""
    across, down = np.meshgrid(np.linspace(0, 1, 64), np.linspace(0, 1, 64))
    pairs = []
    for phase in (0.0, 1.5, 3.0):
        waves = [np.sin(6 * across + phase), np.cos(5 * down - phase), np.sin(4 * (across + down))]
        smooth = np.stack([127.5 + 127 * wave for wave in waves], axis=-1).astype(np.uint8)
        coarse = smooth[::8, ::8].repeat(8, axis=0).repeat(8, axis=1)
        pairs.append((Picture(smooth, "64 × 64"), Picture(coarse, "8 × 8")))
    return pairs


def draw_training() -> Curve:
    """Return accuracy over 60 epochs for four label sources."""
    epochs = list(range(1, 61))
    made = []
    for name, top, speed in (
        ("full labels", 93.2, 9.0),
        ("label generator", 92.8, 9.5),
        ("one per image", 86.2, 7.0),
        ("hard labels", 81.6, 5.0),
    ):
        y = [
            top - (top - 10) * float(np.exp(-epoch / speed)) + 0.6 * float(np.sin(epoch)) for epoch in epochs
        ]
        made.append(Series(name, epochs, y, [1.6 - epoch / 50 for epoch in epochs]))
    return Curve(
        "Student accuracy while training",
        "epoch",
        "test accuracy",
        made,
        y_unit="%",
        levels=(Level("teacher", 97.5),),
        text="Mean of three seeds; the band is one standard deviation.",
    )


def build_sections() -> tuple[Section, ...]:
    """Return the parts of the sample."""
    scatter = Scatter(
        "Accuracy against bytes on disk",
        "labels on disk",
        "test accuracy",
        SOURCES,
        x_unit="B",
        y_unit="%",
        levels=(Level("teacher, all 1,437 images", 97.5),),
        text="Three seeds; bars are one standard deviation. Further left is lighter, further up is better.",
    )
    table = TableBlock(
        ("labels", "bytes", "accuracy (%)", "seeds"),
        [(point.name, int(point.x), f"{point.y} ± {point.spread}", 3) for point in SOURCES],
        title="The same in numbers",
        highlight=(2,),
    )
    text = "Each picture is one of the condensed images.\n\nThey were chosen by the teacher's confidence."
    return (
        Section(
            "The images", text, [Pictures(draw_digits(), columns=10, pixelated=True, title="Two per class")]
        ),
        Section(
            "Accuracy against bytes", "What a student reaches, and what its labels weigh.", [scatter, table]
        ),
        Section("Training", "", [draw_training()]),
        Section("Before and after", "", [Comparison(draw_tiles(), pixelated=True)]),
    )


def build_sample() -> Report:
    """Return the whole report."""
    receipt = Receipt(
        paid=(
            ReceiptLine("teacher", "41 s"),
            ReceiptLine("selection", "3 s"),
            ReceiptLine("label generator", "1 min 12 s", "rank 8, 30 epochs, two cores"),
            ReceiptLine("peak memory", "612 MB"),
        ),
        saved=(
            ReceiptLine("images", "1,417 of 1,437"),
            ReceiptLine("label bytes", "291.8 kB", "8.2 kB instead of 300 kB of fp32 labels"),
            ReceiptLine("training time", "38 s"),
        ),
        lost=(
            ReceiptLine("to full labels", "0.4 points", "92.8 ± 0.4 % against 93.2 ± 0.3 %"),
            ReceiptLine("to all images", "4.7 points"),
        ),
        total="99.6 % of the accuracy in 2.7 % of the bytes",
        number="sha256 3f9a41c07be2d815",
    )
    return Report(
        title="Condensed digits: 20 images and a label generator",
        lede="1,437 handwritten digits became 20 images and 8.2 kB of low-rank label generator. "
        "A fresh student trained from them reads unseen digits nearly as well.",
        receipt=receipt,
        sections=build_sections(),
        config={
            "type": "condense",
            "version": 1,
            "ipc": 2,
            "source": "digits",
            "teacher": {"network": "convnet-3", "epochs": 60, "snapshots": [20, 40, 60]},
            "projector": {"rank": 8, "alpha": 16.0, "epochs": 30, "cross_entropy": True, "text_tower": None},
            "seed": 0,
        },
        environment={
            "python": "3.11.7",
            "platform": "Linux-6.1-x86_64",
            "cpu": "2 cores of a server processor",
            "torch": "2.13.0",
            "numpy": "2.4.6",
            "aerogel": "0.1.0",
        },
        command="aerogel condense digits --ipc 2 --seed 0 --out digits-2",
    )


@pytest.fixture(scope="session")
def sample() -> Report:
    """Return the rich report that several tests render."""
    return build_sample()

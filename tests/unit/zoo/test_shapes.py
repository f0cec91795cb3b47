"""Drawn images depend on (seed, id) alone, cover every label, and show the outline that their label names."""

from __future__ import annotations

import math

import numpy as np
import pytest

from aerogel.zoo.shapes import OUTLINES, TEXTURES, draw_shapes

PARAMETERS = [
    (symmetry, *exponents)
    for symmetry in (0, 1, 2, 3, 4, 5, 6, 8)
    for exponents in ((0.3, 0.3, 0.3), (1, 1, 1), (2, 6, 6), (6, 12, 4))
]


def test_images_are_small_floats_with_labels() -> None:
    batch = draw_shapes(np.arange(20), size=12, seed=3)
    assert batch.images.shape == (20, 3, 12, 12)
    assert batch.images.dtype == np.float32
    assert 0.0 <= batch.images.min() < 0.2
    assert 0.8 < batch.images.max() <= 1.0
    assert batch.outlines.shape == batch.textures.shape == (20,)


def test_an_image_depends_on_seed_and_id_alone() -> None:
    together = draw_shapes(np.arange(30), size=10, seed=1)
    order = [17, 3, 29, 3]
    apart = draw_shapes(np.array(order), size=10, seed=1)
    assert apart.images.tobytes() == together.images[order].tobytes()
    assert apart.outlines.tolist() == together.outlines[order].tolist()
    assert apart.textures.tolist() == together.textures[order].tolist()
    other = draw_shapes(np.arange(30), size=10, seed=2)
    assert len({image.tobytes() for image in np.concatenate([together.images, other.images])}) == 60


def test_labels_are_uniform_and_independent() -> None:
    batch = draw_shapes(np.arange(8000), size=2)
    outlines = np.bincount(batch.outlines, minlength=OUTLINES)
    textures = np.bincount(batch.textures, minlength=TEXTURES)
    assert len(outlines) == OUTLINES == len(PARAMETERS)
    assert len(textures) == TEXTURES
    assert np.all(np.abs(outlines - 250) < 5 * math.sqrt(250))
    assert np.all(np.abs(textures - 1000) < 5 * math.sqrt(1000))
    joint = np.bincount(batch.outlines * TEXTURES + batch.textures, minlength=OUTLINES * TEXTURES)
    assert abs(((joint - 31.25) ** 2 / 31.25).sum() - 255) < 5 * math.sqrt(2 * 255)


def radius(angle: float, parameters: tuple[float, ...]) -> float:
    """Evaluate the superformula, with a = b = 1."""
    m, n1, n2, n3 = parameters
    inner = abs(math.cos(m * angle / 4)) ** n2 + abs(math.sin(m * angle / 4)) ** n3
    return float(max(inner, 1e-6) ** (-1 / n1))


@pytest.mark.parametrize("outline", range(OUTLINES))
def test_the_table_and_the_curve_are_the_superformula(outline: int) -> None:
    from aerogel.zoo.shapes import _outline_table, _radius

    assert _outline_table()[outline].tolist() == pytest.approx(list(PARAMETERS[outline]))
    angles = np.linspace(-math.pi, math.pi, 64).reshape(1, 8, 8)
    curve = _radius(angles, _outline_table()[outline : outline + 1]).flatten()
    expected = np.array([radius(angle, PARAMETERS[outline]) for angle in angles.flatten()])
    assert curve == pytest.approx(expected / expected.max(), rel=1e-9)
    assert curve.max() == pytest.approx(1.0)


def test_a_shape_stands_out_from_its_background() -> None:
    """Around a circle the corners may have one colour, up to the noise; the middle mostly has another."""
    batch = draw_shapes(np.arange(600), size=24)
    circles = batch.images[batch.outlines < 4]
    corners = np.stack(
        [circles[:, :, 0, 0], circles[:, :, 0, -1], circles[:, :, -1, 0], circles[:, :, -1, -1]]
    )
    plain = np.abs(corners - corners[:1]).max(axis=(0, 2)) < 0.06
    assert 10 < plain.sum() < len(circles)
    middle = circles[plain][:, :, 8:16, 8:16].mean(axis=(2, 3))
    apart = np.abs(middle - corners[0][plain]).max(axis=1) > 0.06
    assert apart.mean() > 0.8

"""Draw labelled shapes procedurally: training data that needs no download and no licence.

Each image shows one outline of the superformula family (J. Gielis, American Journal of Botany 90(3), 2003,
eq. 3) under a random affine map, filled with one texture over a background of another. The outline and the
filling are the two labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aerogel.core.randomness import uniforms

OUTLINES = 32
TEXTURES = 8
_DRAWS = 40


@dataclass(frozen=True)
class ShapeBatch:
    """Hold drawn images [N, 3, S, S] (float32 in [0, 1]) and their outline and texture labels [N]."""

    images: np.ndarray
    outlines: np.ndarray
    textures: np.ndarray


def _outline_table() -> np.ndarray:
    """Return the parameters [OUTLINES, 4] (symmetry m, exponents n1, n2, n3) of each outline class."""
    symmetry = np.repeat([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0], 4)
    exponents = np.tile([[0.3, 0.3, 0.3], [1.0, 1.0, 1.0], [2.0, 6.0, 6.0], [6.0, 12.0, 4.0]], (8, 1))
    return np.concatenate([symmetry[:, None], exponents], axis=1)


def _radius(angle: np.ndarray, parameters: np.ndarray) -> np.ndarray:
    """Evaluate the superformula at ``angle`` [N, S, S], scaled so that its largest radius is 1."""
    m, n1, n2, n3 = (column[:, None, None] for column in parameters.T)
    inner = np.abs(np.cos(m * angle / 4.0)) ** n2 + np.abs(np.sin(m * angle / 4.0)) ** n3
    radius = np.maximum(inner, 1e-6) ** (-1.0 / n1)
    scaled: np.ndarray = radius / radius.max(axis=(1, 2), keepdims=True)
    return scaled


def _texture(
    kind: np.ndarray, draws: np.ndarray, x: np.ndarray, y: np.ndarray, noise: np.ndarray
) -> np.ndarray:
    """Return grey patterns [N, S, S] in [0, 1] of the texture classes ``kind`` [N]."""
    frequency = (2.0 + 5.0 * draws[:, 0])[:, None, None] * np.pi
    phase = 2.0 * np.pi * draws[:, 1][:, None, None]
    turn = np.pi * draws[:, 2][:, None, None]
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    patterns = np.stack(
        [
            np.zeros_like(u) + draws[:, 3][:, None, None],
            0.5 + 0.5 * np.sin(frequency * u + phase),
            (np.sin(frequency * u + phase) > 0).astype(np.float64),
            (np.sin(frequency * u + phase) * np.sin(frequency * v) > 0).astype(np.float64),
            (np.sin(frequency * u) * np.sin(frequency * v) > 0.5).astype(np.float64),
            noise,
            np.clip(0.5 + 0.6 * u, 0.0, 1.0),
            0.5 + 0.5 * np.sin(frequency * np.sqrt(u * u + v * v) + phase),
        ]
    )
    chosen: np.ndarray = patterns[kind, np.arange(len(kind))]
    return chosen


def _pick(draw: np.ndarray, count: int) -> np.ndarray:
    picked: np.ndarray = np.minimum((draw * count).astype(np.int64), count - 1)
    return picked


def draw_shapes(samples: np.ndarray, *, size: int = 32, seed: int = 0) -> ShapeBatch:
    """Draw the images with the given sample ids [N]; each depends on (seed, id) alone."""
    samples = np.asarray(samples, dtype=np.int64)
    draws = uniforms(seed, "shapes", 0, samples, _DRAWS)
    noise = uniforms(seed, "shapes/noise", 0, samples, size * size).reshape(-1, size, size)
    outlines, textures = _pick(draws[:, 0], OUTLINES), _pick(draws[:, 1], TEXTURES)
    line = (np.arange(size) + 0.5) / size * 2.0 - 1.0
    y, x = np.meshgrid(line, line, indexing="ij")
    x, y = np.broadcast_to(x, noise.shape), np.broadcast_to(y, noise.shape)
    turn = 2.0 * np.pi * draws[:, 2][:, None, None]
    wide = (0.5 + 0.5 * draws[:, 3])[:, None, None]
    tall = (0.5 + 0.5 * draws[:, 4])[:, None, None]
    px, py = x - (0.5 * draws[:, 5] - 0.25)[:, None, None], y - (0.5 * draws[:, 6] - 0.25)[:, None, None]
    px, py = (px * np.cos(turn) + py * np.sin(turn)) / wide, (py * np.cos(turn) - px * np.sin(turn)) / tall
    inside = np.hypot(px, py) < _radius(np.arctan2(py, px), _outline_table()[outlines])
    front = _texture(textures, draws[:, 7:11], px, py, noise)
    back = _texture(_pick(draws[:, 11], TEXTURES), draws[:, 12:16], x, y, noise)
    colours = draws[:, 16:28].reshape(-1, 4, 3, 1, 1)
    grey = (draws[:, 28] < 0.3)[:, None, None, None, None]
    colours = np.where(grey, colours.mean(axis=2, keepdims=True), colours)
    first = colours[:, 0] + (colours[:, 1] - colours[:, 0]) * front[:, None]
    second = colours[:, 2] + (colours[:, 3] - colours[:, 2]) * back[:, None]
    plain = (draws[:, 29] < 0.3)[:, None, None, None]
    second = np.where(plain, colours[:, 2], second)
    images = np.where(inside[:, None], first, second)
    images = images + 0.05 * (noise[:, None] - 0.5)
    return ShapeBatch(np.clip(images, 0.0, 1.0).astype(np.float32), outlines, textures)

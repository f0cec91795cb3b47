"""PSNR, SSIM and the Fréchet distance against implementations of their definitions with numpy and scipy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.ndimage import correlate1d

from aerogel.measure import frechet_distance, psnr, ssim


def blur(image: np.ndarray) -> np.ndarray:
    """Weigh each pixel's surroundings with the Gaussian window; mirror what lies outside."""
    window = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window /= window.sum()
    once = correlate1d(image, window, axis=0, mode="mirror")
    return np.asarray(correlate1d(once, window, axis=1, mode="mirror"))


def ssim_of(x: np.ndarray, y: np.ndarray) -> float:
    """Return equation 13 of Wang et al. (2004), averaged over one channel [H, W]."""
    mx, my = blur(x), blur(y)
    vx, vy, vxy = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    index = (2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    return float(index.mean())


def draw_pair(*shape: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    rows, columns = np.indices(shape[2:])
    smooth = 0.5 + 0.3 * np.sin(0.3 * rows + 0.2 * columns + generator.uniform(0, 6, (*shape[:2], 1, 1)))
    return np.clip(smooth + 0.1 * generator.normal(size=shape), 0, 1), smooth


def test_ssim_equals_its_definition() -> None:
    images, reference = draw_pair(3, 3, 20, 27)
    each = [
        np.mean([ssim_of(*channels) for channels in zip(one, other, strict=True)])
        for one, other in zip(images, reference, strict=True)
    ]
    found = ssim(images, reference)
    assert 0.2 < found.value < 0.9
    assert found.value == pytest.approx(np.mean(each), abs=1e-9)
    assert found.spread == pytest.approx(np.std(each, ddof=1), abs=1e-9)


def test_psnr_equals_its_definition() -> None:
    images, reference = draw_pair(4, 3, 9, 7)
    each = [-10 * np.log10(np.mean((a - b) ** 2)) for a, b in zip(images, reference, strict=True)]
    found = psnr(images, reference)
    assert found.value == pytest.approx(np.mean(each), abs=1e-4)
    assert found.spread == pytest.approx(np.std(each, ddof=1), abs=1e-4)


def frechet_of(ours: np.ndarray, theirs: np.ndarray) -> Any:
    """Return equation 6 of arXiv 1706.08500 with scipy's root of a matrix."""
    c1, c2 = np.cov(ours, rowvar=False), np.cov(theirs, rowvar=False)
    shift = ours.mean(axis=0) - theirs.mean(axis=0)
    return shift @ shift + np.trace(c1 + c2 - 2 * sqrtm(c1 @ c2)).real


@pytest.mark.parametrize(("width", "count", "others"), [(2, 10, 30), (16, 60, 40), (64, 200, 300)])
def test_frechet_distance_equals_its_definition(width: int, count: int, others: int) -> None:
    generator = np.random.default_rng(0)
    ours = generator.normal(size=(count, width)) @ generator.normal(size=(width, width))
    theirs = 0.3 + generator.normal(size=(others, width)) @ generator.normal(size=(width, width))
    found = frechet_distance(ours, theirs, features_name="noise")
    assert found.value == pytest.approx(frechet_of(ours, theirs), rel=1e-8)

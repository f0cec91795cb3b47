from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from math import log10, nan, sqrt
from typing import Any

import numpy as np
import pytest
import torch

from aerogel.errors import DataError, MissingDependencyError
from aerogel.measure import Measurement
from aerogel.measure.fidelity import frechet_distance, psnr, ssim

CEILING_DB = 20 * log10(2**24)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return images that stay in 0 to 1 when a tenth is added or taken away."""
    return 0.1 + 0.8 * torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def draw_gaussian(count: int, mean: Any, root: Any, seed: int = 0) -> np.ndarray:
    """Return samples [count, D] whose mean is ``mean`` and whose covariance is root^T root, exactly."""
    noise = np.random.default_rng(seed).normal(size=(count, len(root)))
    basis, _ = np.linalg.qr(noise - noise.mean(axis=0))
    return np.asarray(mean) + sqrt(count - 1) * basis @ np.asarray(root)


def test_psnr_of_constant_differences_is_known_in_db() -> None:
    reference = draw(3, 1, 8, 8)
    offsets = torch.tensor([0.1, 0.01, 0.001])
    found = psnr(reference + offsets[:, None, None, None], reference)
    assert found.name == "PSNR"
    assert found.unit == "dB"
    assert found.value == pytest.approx((20 + 40 + 60) / 3, abs=1e-3)
    assert found.spread == pytest.approx(20, abs=1e-3)
    assert (found.spread_kind, found.samples) == ("std", 3)


def test_psnr_is_that_of_each_image_not_of_all_together() -> None:
    reference = torch.full((2, 1, 4, 4), 0.5)
    images = torch.stack([reference[0] + 0.5, reference[1] + 0.005])
    assert psnr(images, reference).value == pytest.approx((20 * log10(2) + 20 * log10(200)) / 2, abs=1e-4)


def test_psnr_counts_all_values_of_an_image() -> None:
    """One value in 48 off by a half: the error is spread over channels, rows and columns."""
    reference = torch.zeros(1, 3, 4, 4)
    image = reference.clone()
    image[0, 1, 2, 3] = 0.5
    assert psnr(image, reference).value == pytest.approx(10 * log10(4 * 48), abs=1e-4)


def test_identical_images_have_infinite_psnr_and_say_so() -> None:
    images = draw(4, 3, 8, 8)
    found = psnr(images, images.clone())
    assert found.value == pytest.approx(CEILING_DB)
    assert (found.spread, found.samples) == (0.0, 4)
    assert "identical" in found.name
    assert found.note == "infinite: every image is its reference; 144.5 dB is the resolution of float32"
    assert str(found) == "PSNR (all identical): 144.5 dB ± 0 dB"
    assert Measurement.from_dict(found.to_dict()) == found


def test_identical_images_among_others_are_left_out_and_counted() -> None:
    reference = draw(5, 1, 8, 8)
    images = reference.clone()
    images[1] += 0.1
    images[4] += 0.01
    found = psnr(images, reference)
    assert found.value == pytest.approx(30, abs=1e-3)
    assert found.spread == pytest.approx(20 / sqrt(2), abs=1e-3)
    assert found.samples == 2
    assert found.name == "PSNR (2 of 5 images, the others are identical)"
    assert found.note == "3 identical images, whose PSNR is infinite, left out"


@pytest.mark.parametrize(("difference", "identical"), [(2.0**-25, True), (2.0**-23, False)])
def test_what_float32_cannot_tell_apart_is_identical(difference: float, identical: bool) -> None:
    reference = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64)
    found = psnr(reference + difference, reference)
    assert ("identical" in found.name) == identical
    assert found.value == pytest.approx(CEILING_DB if identical else 20 * log10(2**23))


def test_ssim_of_constant_images_is_known() -> None:
    """Without structure only the luminance term is left: (2 a b + c1) / (a^2 + b^2 + c1), c1 = 0.01^2."""
    light, dark = torch.full((1, 3, 16, 16), 0.8), torch.full((1, 3, 16, 16), 0.2)
    expected = (2 * 0.8 * 0.2 + 1e-4) / (0.8**2 + 0.2**2 + 1e-4)
    found = ssim(light, dark)
    assert found.value == pytest.approx(expected, abs=1e-6)
    assert (found.name, found.unit, found.spread, found.samples) == ("SSIM", "", None, 1)


def test_ssim_of_identical_images_is_one() -> None:
    images = draw(2, 3, 11, 13)
    found = ssim(images, images)
    assert found.value == pytest.approx(1.0, abs=1e-12)
    assert found.spread == pytest.approx(0.0, abs=1e-12)


def test_ssim_of_an_inverted_image_is_negative_and_falls_with_noise() -> None:
    reference = draw(4, 1, 24, 24)
    assert ssim(1 - reference, reference).value < 0
    noise = draw(4, 1, 24, 24, seed=1) - 0.5
    values = [ssim(reference + scale * noise, reference).value for scale in (0.05, 0.1, 0.2)]
    assert values == sorted(values, reverse=True)
    assert 0 < values[-1] < values[0] < 1


def test_ssim_is_that_of_each_image() -> None:
    reference, other = draw(2, 1, 16, 16), draw(2, 1, 16, 16, seed=1)
    each = [ssim(one[None], two[None]).value for one, two in zip(reference, other, strict=True)]
    found = ssim(reference, other)
    assert found.value == pytest.approx(sum(each) / 2)
    assert found.spread == pytest.approx(abs(each[0] - each[1]) / sqrt(2))


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_arrays_gradients_and_half_precision_are_taken(measure: Callable[..., Measurement]) -> None:
    images, reference = draw(2, 1, 16, 16), draw(2, 1, 16, 16, seed=1)
    expected = measure(images, reference).value
    assert measure(images.numpy(), reference.numpy()).value == expected
    backwards = images.numpy()[..., ::-1]
    backwards.flags.writeable = False
    assert measure(backwards, reference.flip(-1)).value == pytest.approx(expected)
    assert measure(images.tolist(), reference).value == expected
    assert measure(images.clone().requires_grad_(), reference.double()).value == expected
    assert measure(images.half(), reference.half()).value == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("measure", [psnr, ssim])
@pytest.mark.parametrize(
    ("images", "reference", "said"),
    [
        (draw(2, 1, 16, 16), draw(3, 1, 16, 16), r"\[2, 1, 16, 16\] and \[3, 1, 16, 16\]"),
        (draw(2, 1, 16, 16), draw(2, 3, 16, 16), "same shape"),
        (["photo.png"], draw(1, 1, 16, 16), "images as a tensor or an array"),
        ([[0.5], [0.5, 0.5]], draw(1, 1, 16, 16), "stack them"),
        (draw(1, 16, 16), draw(1, 16, 16), r"\[N, C, H, W\]"),
        (draw(0, 1, 16, 16), draw(0, 1, 16, 16), "at least one"),
        ((255 * draw(1, 1, 16, 16)).byte(), draw(1, 1, 16, 16), "divide 8-bit values by 255"),
        (draw(1, 1, 16, 16), 255 * draw(1, 1, 16, 16), "reference images in 0 to 1"),
        (2 * draw(1, 1, 16, 16) - 1, draw(1, 1, 16, 16), "expected images in 0 to 1"),
        (draw(1, 1, 16, 16), torch.full((1, 1, 16, 16), nan), "reference images of finite values"),
        (draw(1, 1, 16, 16) / 0, draw(1, 1, 16, 16), "expected images of finite values"),
    ],
)
def test_images_that_cannot_be_compared_are_refused(
    measure: Callable[..., Measurement], images: Any, reference: Any, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        measure(images, reference)


@pytest.mark.parametrize("size", [(10, 16), (16, 10)])
def test_images_below_the_window_have_no_ssim(size: tuple[int, int]) -> None:
    small = draw(1, 1, *size)
    with pytest.raises(DataError, match=r"at least 11 x 11 .* got 1\d x 1\d"):
        ssim(small, small)
    assert psnr(small, small).samples == 1


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_a_missing_library_names_the_extra(
    measure: Callable[..., Measurement], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    monkeypatch.setitem(sys.modules, "torchmetrics.functional.image", None)
    with pytest.raises(MissingDependencyError, match=r"aerogel\[parallel\]"):
        measure(draw(1, 1, 16, 16), draw(1, 1, 16, 16))


def test_the_library_is_imported_when_it_is_needed() -> None:
    code = "import sys, aerogel.measure.fidelity as each; print('torchmetrics' in sys.modules, each.psnr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("False <function psnr")


def test_equal_sets_are_at_distance_zero_in_any_order_and_never_below() -> None:
    values = []
    for seed in range(20):
        features = np.random.default_rng(seed).normal(size=(50, 8))
        values.append(frechet_distance(features, features[::-1], features_name="noise").value)
    assert values == pytest.approx([0.0] * 20, abs=1e-12)
    assert min(values) == 0.0


def test_a_shifted_set_is_at_the_squared_length_of_the_shift() -> None:
    features = np.random.default_rng(0).normal(size=(50, 3))
    found = frechet_distance(features + np.array([1.0, -2.0, 2.0]), features, features_name="noise")
    assert found.value == pytest.approx(9.0)


def test_covariances_of_the_same_axes_differ_by_their_standard_deviations() -> None:
    ours = draw_gaussian(40, [1.0, 0.0, 0.0], np.diag([1.0, 2.0, 3.0]))
    theirs = draw_gaussian(60, [0.0, 0.0, 0.0], np.diag([3.0, 2.0, 0.5]), seed=1)
    found = frechet_distance(ours, theirs, features_name="noise")
    assert found.value == pytest.approx(1.0 + 2.0**2 + 2.5**2)


def test_turned_covariances_have_the_distance_of_two_by_two_matrices() -> None:
    """tr((C1 C2)^(1/2))^2 = tr(C1 C2) + 2 det(C1 C2)^(1/2) for two by two matrices."""
    first, second = np.array([[2.0, 1.0], [0.0, 1.0]]), np.array([[1.0, -1.0], [0.5, 2.0]])
    c1, c2 = first.T @ first, second.T @ second
    shared = sqrt(np.trace(c1 @ c2) + 2 * sqrt(np.linalg.det(c1 @ c2)))
    ours, theirs = draw_gaussian(30, [0, 0], first), draw_gaussian(30, [0, 0], second, seed=1)
    expected = np.trace(c1) + np.trace(c2) - 2 * shared
    assert expected > 0.1
    assert frechet_distance(ours, theirs, features_name="noise").value == pytest.approx(expected)
    assert frechet_distance(theirs, ours, features_name="noise").value == pytest.approx(expected)


def test_large_means_leave_small_distances_alone() -> None:
    features = np.random.default_rng(0).normal(size=(50, 4))
    far = features + 1e6
    moved = far + np.array([0.5, 0, 0, 0])
    assert frechet_distance(moved, far, features_name="noise").value == pytest.approx(0.25)


def test_samples_of_one_distribution_come_near() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 5000, 4, generator=generator)
    found = frechet_distance(first, second, features_name="noise")
    assert 0 < found.value < 0.01
    assert frechet_distance(first[:50], second[:50], features_name="noise").value > 5 * found.value


def test_the_distance_names_its_features_and_samples() -> None:
    features = draw(40, 16)
    found = frechet_distance(features, features[:30], features_name="zoo classifier")
    assert found.name == "Fréchet distance (zoo classifier)"
    assert (found.unit, found.samples, found.spread) == ("", 40, None)
    assert found.note == "16 features; 30 reference samples"


def test_few_samples_are_noted() -> None:
    features = draw(40, 16)
    found = frechet_distance(features, features[:16], features_name="noise")
    assert "16 samples are too few for covariances of 16 features" in found.note
    assert "too few" not in frechet_distance(features, features[:17], features_name="noise").note


@pytest.mark.parametrize(
    ("features", "reference", "said"),
    [
        (draw(5, 3), draw(5, 4), "got 3 and 4"),
        (draw(1, 3), draw(5, 3), "at least 2 rows of features"),
        (draw(5, 3), draw(1, 3), "at least 2 rows of reference ones"),
        (draw(5), draw(5, 3), r"\[N, D\]"),
        (draw(5, 3, 1), draw(5, 3), r"\[5, 3, 1\]"),
        (draw(5, 0), draw(5, 0), r"\[5, 0\]"),
        (draw(5, 3) > 0.5, draw(5, 3), "bool"),
        (draw(5, 3), draw(5, 3) * nan, "reference ones that are finite"),
    ],
)
def test_features_that_cannot_be_compared_are_refused(
    features: torch.Tensor, reference: torch.Tensor, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        frechet_distance(features, reference, features_name="noise")


@pytest.mark.parametrize("name", ["", "  "])
def test_features_without_a_name_are_refused(name: str) -> None:
    with pytest.raises(DataError, match="the name of the features"):
        frechet_distance(draw(5, 3), draw(5, 3), features_name=name)

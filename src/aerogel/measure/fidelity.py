"""Measure how close images come to reference images, one by one and as sets."""

from __future__ import annotations

from math import log10
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from aerogel.errors import DataError, MissingDependencyError, compose
from aerogel.measure.accuracy import mean_std
from aerogel.measure.results import Measurement

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WINDOW = 11
_CEILING_DB = 20 * log10(2**24)


def psnr(images: Any, reference: Any) -> Measurement:
    """Measure the peak signal-to-noise ratio of each image in dB: mean and sample standard deviation.

    ``images`` and ``reference`` are floating point [N, C, H, W] in 0 to 1, image by image of the same
    content; tensors on any device and arrays are taken. An image that differs from its reference by less
    than 2**-24 (root mean square), the resolution of float32, counts as identical. Its ratio is infinite:
    identical images are left out of mean and spread, and the result's name and note say how many. If all
    are, the value is that resolution's, 144.5 dB, and the name says so.

    Raises:
        DataError: images of different shapes, none, not floating point, not finite or outside 0 to 1.
        MissingDependencyError: torchmetrics is not installed.
    """
    ours, theirs = _read_images(images, reference)
    ratio = _import_metrics().peak_signal_noise_ratio
    found = [
        float(ratio(*_pair(one, other), data_range=1.0)) for one, other in zip(ours, theirs, strict=True)
    ]
    different = [each for each in found if each < _CEILING_DB]
    if not different:
        note = f"infinite: every image is its reference; {_CEILING_DB:.1f} dB is the resolution of float32"
        return mean_std([_CEILING_DB] * len(found), name="PSNR (all identical)", unit="dB", note=note)
    if len(different) == len(found):
        return mean_std(different, name="PSNR", unit="dB")
    name = f"PSNR ({len(different)} of {len(found)} images, the others are identical)"
    note = f"{len(found) - len(different)} identical images, whose PSNR is infinite, left out"
    return mean_std(different, name=name, unit="dB", note=note)


def ssim(images: Any, reference: Any) -> Measurement:
    """Measure the structural similarity of each image, at most 1: mean and sample standard deviation.

    ``images`` and ``reference`` are as in :func:`psnr`, at least 11 x 11 pixels: the window is Gaussian, with
    a standard deviation of 1.5 pixels. Channels are averaged.
    Implements Z. Wang et al., "Image quality assessment: from error visibility to structural similarity",
    IEEE Transactions on Image Processing 13 (2004), through torchmetrics.

    Raises:
        DataError: as in :func:`psnr`, or images smaller than the window.
        MissingDependencyError: torchmetrics is not installed.
    """
    ours, theirs = _read_images(images, reference)
    if min(ours.shape[2:]) < _WINDOW:
        raise DataError(
            compose(
                f"images of at least {_WINDOW} x {_WINDOW} pixels, the window of SSIM",
                f"{ours.shape[2]} x {ours.shape[3]}",
                "compare larger images, or use psnr",
            )
        )
    similarity = _import_metrics().structural_similarity_index_measure
    found = [
        float(similarity(*_pair(one, other), data_range=1.0)) for one, other in zip(ours, theirs, strict=True)
    ]
    return mean_std(found, name="SSIM", unit="")


def frechet_distance(features: Any, reference_features: Any, *, features_name: str) -> Measurement:
    """Measure the distance between two sets of images as Gaussians of their features; 0 for equal ones.

    ``features`` [N, D] and ``reference_features`` [M, D] are what one network gives for each image of either
    set; ``features_name`` names that network, for distances in different features do not compare, least of
    all with the FID of Inception features. The estimate is too high by an amount that falls with N and M, so
    compare only distances of as many samples; the note warns where there are too few for a full covariance.

    The value is ``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))`` of means and covariances (n - 1): equation 6
    of arXiv 1706.08500. With centred features A and B the trace of the root is the sum of the singular values
    of A B^T, which needs no root of a matrix.

    Raises:
        DataError: matrices of different widths, fewer than two rows, not numbers or not finite, no name.
    """
    ours, theirs = _read_features(features, "features"), _read_features(reference_features, "reference ones")
    if ours.shape[1] != theirs.shape[1]:
        raise DataError(
            compose(
                "features of one width", f"{ours.shape[1]} and {theirs.shape[1]}", "use one network for both"
            )
        )
    if not (isinstance(features_name, str) and features_name.strip()):
        raise DataError(
            compose("the name of the features", repr(features_name), "pass for example 'zoo classifier'")
        )
    shift = ours.mean(axis=0) - theirs.mean(axis=0)
    first, second = _triangle(ours), _triangle(theirs)
    shared = np.linalg.norm(first @ second.T, "nuc")
    value = float(shift @ shift + np.sum(first**2) + np.sum(second**2) - 2 * shared)
    width, least = ours.shape[1], min(len(ours), len(theirs))
    note = f"{width} features; {len(theirs):,} reference samples"
    if least <= width:
        note += f"; {least:,} samples are too few for covariances of {width} features: an overestimate"
    # Rounding may leave equal sets a hair below zero.
    return Measurement(
        f"Fréchet distance ({features_name})", max(0.0, value), "", samples=len(ours), note=note
    )


def _triangle(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return R [min(N, D), D] with R^T R the covariance of ``features`` [N, D]."""
    centred = features - features.mean(axis=0)
    return np.asarray(np.linalg.qr(centred / np.sqrt(len(features) - 1), mode="r"))


def _import_metrics() -> Any:
    try:
        # Imported here: it takes seconds.
        import torchmetrics.functional.image as metrics
    except ImportError as error:
        raise MissingDependencyError(
            compose("torchmetrics", str(error), 'pip install "aerogel[parallel]"')
        ) from error
    return metrics


def _pair(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Return two images as batches of one, in the precision that variances of flat areas need."""
    return one[None].double(), other[None].double()


def _read_images(images: Any, reference: Any) -> tuple[Tensor, Tensor]:
    ours, theirs = _as_tensor(images, "images"), _as_tensor(reference, "reference images")
    for each, what in ((ours, "images"), (theirs, "reference images")):
        if each.ndim != 4 or not each.is_floating_point() or not each.numel():
            raise DataError(
                compose(
                    f"floating-point {what} [N, C, H, W], at least one",
                    f"{each.dtype} {list(each.shape)}",
                    "stack them; divide 8-bit values by 255",
                )
            )
        if not torch.isfinite(each).all():
            raise DataError(compose(f"{what} of finite values", "NaN or infinity", "check what made them"))
        if each.min() < 0 or each.max() > 1:
            raise DataError(
                compose(
                    f"{what} in 0 to 1",
                    f"{float(each.min()):.4g} to {float(each.max()):.4g}",
                    "rescale them, or clamp what overshoots",
                )
            )
    if ours.shape != theirs.shape:
        raise DataError(
            compose(
                "a reference of the same shape for each image",
                f"{list(ours.shape)} and {list(theirs.shape)}",
                "pass the images in the same order and size",
            )
        )
    return ours, theirs


def _read_features(features: Any, what: str) -> NDArray[np.float64]:
    given = _as_tensor(features, what)
    if given.ndim != 2 or given.is_complex() or given.dtype == torch.bool or not given.numel():
        raise DataError(
            compose(
                f"{what} as a matrix of numbers [N, D]",
                f"{given.dtype} {list(given.shape)}",
                "pass one row of features for each image",
            )
        )
    if len(given) < 2:
        raise DataError(
            compose(f"at least 2 rows of {what}, for a covariance", f"{len(given)}", "pass more images")
        )
    if not torch.isfinite(given).all():
        raise DataError(compose(f"{what} that are finite", "NaN or infinity", "check the network's input"))
    return given.double().numpy()


def _as_tensor(values: Any, what: str) -> Tensor:
    try:
        # A copy: torch takes no reversed arrays, and warns of read-only ones.
        given = values if isinstance(values, Tensor) else torch.from_numpy(np.array(values))
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            compose(f"{what} as a tensor or an array", f"{type(values).__name__}: {error}", "stack them")
        ) from error
    return given.detach().cpu()

"""How close reconstructions are to their images (PSNR, SSIM, MS-SSIM), and how the codebook is used."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from scaling.networks import in_batches, in_double

PSNR_CEILING = 100.0
"""Decibels given to an image that is reproduced exactly, whose ratio is infinite, so that means stay finite."""

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
SSIM_CONSTANTS = ((0.01 * 255) ** 2, (0.03 * 255) ** 2)
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the scales, finest first (Wang, Simoncelli and Bovik 2003, section 4)."""


def psnr(images: Tensor, references: Tensor) -> Tensor:
    """Peak signal-to-noise ratio float64 [n] in dB of each image, peak 255, at most 100; inputs as `ssim`'s."""
    values, targets = _eight_bit_range(images, references)
    error = (values - targets).square().mean(dim=(1, 2, 3))
    return (10 * torch.log10(255**2 / error)).clamp(max=PSNR_CEILING)


def ssim(images: Tensor, references: Tensor, batch: int = 500) -> Tensor:
    """Structural similarity float64 [n] of each image, mean over positions and channels.

    Wang et al. 2004: Gaussian window of 11 with sigma 1.5, K = (0.01, 0.03), dynamic range 255, only positions where
    the window lies inside the image, no downsampling before. Inputs are [n, c, h, w]: uint8, or float in [-1, 1],
    which is taken to [0, 255] without rounding. Raises ValueError for shapes that differ, or sides below 11.
    """
    if min(images.shape[-2:]) < SSIM_WINDOW:
        raise ValueError(f"SSIM needs sides of at least {SSIM_WINDOW} pixels, not {list(images.shape[-2:])}")
    if images.shape != references.shape:
        raise ValueError(f"images {list(images.shape)} and references {list(references.shape)} do not match")
    return in_batches(_ssim, images, references, batch=batch)


def _ssim(images: Tensor, references: Tensor) -> Tensor:
    a, b = _eight_bit_range(images, references)
    rows, columns = (_window_matrix(side).to(a.device) for side in a.shape[-2:])

    similarity, _ = _similarity(a, b, rows, columns)
    return similarity.mean(dim=(1, 2, 3))


def ms_ssim(images: Tensor, references: Tensor, batch: int = 500) -> Tensor:
    """Structural similarity over five scales, float64 [n] of each image (Wang, Simoncelli and Bovik 2003).

    As pytorch-msssim: contrast and structure at scales 1 to 4, and SSIM at scale 5, each the mean over positions, cut
    at 0, to the power of its weight; between scales a 2x2 mean, of odd sides with a row of zeros around. The product is
    taken of each channel; the mean over channels is the value. Inputs and errors as of `ssim`, sides above 160.
    """
    if min(images.shape[-2:]) <= (SSIM_WINDOW - 1) * 2 ** (len(MS_SSIM_WEIGHTS) - 1):
        raise ValueError(f"MS-SSIM needs sides of at least 161 pixels, not {list(images.shape[-2:])}")
    if images.shape != references.shape:
        raise ValueError(f"images {list(images.shape)} and references {list(references.shape)} do not match")
    return in_batches(_ms_ssim, images, references, batch=batch)


def _ms_ssim(images: Tensor, references: Tensor) -> Tensor:
    a, b = _eight_bit_range(images, references)
    product = torch.ones(a.shape[:2], dtype=a.dtype, device=a.device)
    for scale, weight in enumerate(MS_SSIM_WEIGHTS):
        if scale:
            # Zeros around count in the mean, on both sides alike: what the package does with odd sides.
            margins = [side % 2 for side in a.shape[-2:]]
            a, b = (functional.avg_pool2d(values, 2, padding=margins) for values in (a, b))
        rows, columns = (_window_matrix(side).to(a.device) for side in a.shape[-2:])
        similarity, structure = _similarity(a, b, rows, columns)
        chosen = similarity if scale == len(MS_SSIM_WEIGHTS) - 1 else structure
        product = product * chosen.mean(dim=(2, 3)).clamp(min=0) ** weight
    return product.mean(dim=1)


def _similarity(a: Tensor, b: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """SSIM at each position of a and b, and its factor of contrast and structure."""

    def local_mean(values: Tensor) -> Tensor:
        return rows @ values @ columns.T

    mean_a, mean_b = local_mean(a), local_mean(b)
    variance_a = local_mean(a * a) - mean_a * mean_a
    variance_b = local_mean(b * b) - mean_b * mean_b
    covariance = local_mean(a * b) - mean_a * mean_b
    c1, c2 = SSIM_CONSTANTS
    similarity = ((2 * mean_a * mean_b + c1) * (2 * covariance + c2)) / (
        (mean_a.square() + mean_b.square() + c1) * (variance_a + variance_b + c2)
    )
    return similarity, (2 * covariance + c2) / (variance_a + variance_b + c2)


def _window_matrix(side: int) -> Tensor:
    """Banded [side - 10, side]: multiplying by it averages under the window at every position inside."""
    offsets = torch.arange(SSIM_WINDOW, dtype=torch.float64) - SSIM_WINDOW // 2
    window = torch.exp(-offsets.square() / (2 * SSIM_SIGMA**2))
    window = window / window.sum()
    positions = torch.arange(side - SSIM_WINDOW + 1)[:, None]
    matrix = torch.zeros(len(positions), side, dtype=torch.float64)
    return matrix.scatter_(1, positions + torch.arange(SSIM_WINDOW), window.expand(len(positions), -1))


def _eight_bit_range(images: Tensor, references: Tensor) -> tuple[Tensor, Tensor]:
    if images.shape != references.shape or images.ndim != 4:
        raise ValueError(
            f"images {list(images.shape)} and references {list(references.shape)} must be equal [n, c, h, w]"
        )

    def scaled(values: Tensor) -> Tensor:
        return in_double(values) if values.dtype == torch.uint8 else (in_double(values) + 1) * 127.5

    return scaled(images), scaled(references)


@dataclass(frozen=True)
class CodebookUse:
    """How tokens spread over the codes: share of codes used, entropy in nats per token, perplexity exp(entropy)."""

    utilisation: float
    entropy: float
    perplexity: float


def codebook_use(counts: Tensor) -> CodebookUse:
    """From how often each code was used, int [codebook size]. Raises ValueError if there is no token."""
    total = int(counts.sum())
    if counts.ndim != 1 or total <= 0 or int(counts.min()) < 0:
        raise ValueError(
            f"counts must be a vector of non-negative numbers with a positive sum, not {counts.tolist()[:8]}"
        )
    shares = counts.to(torch.float64) / total
    # + 0.0: a single code in use has entropy 0, not -0.
    entropy = float(-torch.xlogy(shares, shares).sum()) + 0.0
    return CodebookUse(float((counts > 0).double().mean()), entropy, math.exp(entropy))


def codebook_use_by_position(tokens: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """At each position, the share of the `size` codes that are used there, and the perplexity: float64 [T] of tokens
    int [n, T] (paper Fig. 9: how much a position alone says of its token). Raises ValueError if there is no token."""
    uses = [codebook_use(torch.bincount(column.long(), minlength=size)) for column in tokens.unbind(1)]
    columns = [(use.utilisation, use.perplexity) for use in uses]
    utilisation, perplexity = torch.tensor(columns, dtype=torch.float64).unbind(1)
    return utilisation, perplexity

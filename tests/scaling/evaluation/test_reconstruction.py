"""PSNR and SSIM against direct implementations from the definitions; use of the codebook."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from scaling.data.images import to_float
from scaling.evaluation.reconstruction import codebook_use, psnr, ssim


def random_pixels(seed: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def direct_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Wang et al. 2004 of one channel, window by window, from the definitions."""
    offsets = np.arange(11) - 5
    weights = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for top in range(a.shape[0] - 10):
        for left in range(a.shape[1] - 10):
            x, y = (image[top : top + 11, left : left + 11].astype(float) for image in (a, b))
            mean_x, mean_y = (weights * x).sum(), (weights * y).sum()
            variance_x = (weights * (x - mean_x) ** 2).sum()
            variance_y = (weights * (y - mean_y) ** 2).sum()
            covariance = (weights * (x - mean_x) * (y - mean_y)).sum()
            values.append(
                (2 * mean_x * mean_y + c1)
                * (2 * covariance + c2)
                / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))
            )
    return float(np.mean(values))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31), st.integers(11, 16), st.integers(11, 16), st.integers(1, 3), st.floats(0, 1))
def test_ssim_is_the_definition(seed: int, height: int, width: int, channels: int, likeness: float) -> None:
    a = random_pixels(seed, (2, channels, height, width))
    b = (likeness * a + (1 - likeness) * random_pixels(seed + 1, a.shape)).to(torch.uint8)
    expected = [
        np.mean([direct_ssim(x.numpy(), y.numpy()) for x, y in zip(i, j, strict=True)])
        for i, j in zip(a, b, strict=True)
    ]
    np.testing.assert_allclose(ssim(a, b), expected, rtol=1e-9, atol=1e-12)


def test_ssim_of_constants_by_hand() -> None:
    """No variance: only the term of the means is left."""
    a, b = torch.full((1, 1, 16, 16), 50, dtype=torch.uint8), torch.full((1, 1, 16, 16), 100, dtype=torch.uint8)
    c1 = (0.01 * 255) ** 2
    assert ssim(a, b).item() == pytest.approx((2 * 50 * 100 + c1) / (50**2 + 100**2 + c1), rel=1e-9)


def test_ssim_properties() -> None:
    a, b = random_pixels(0, (4, 1, 32, 32)), random_pixels(1, (4, 1, 32, 32))
    assert torch.allclose(ssim(a, a), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(ssim(a, b), ssim(b, a))
    assert ssim(a, 255 - a).max() < 0
    torch.testing.assert_close(ssim(a, b, batch=3), ssim(a, b))


def test_psnr_by_hand() -> None:
    a = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    b = a.clone()
    b[0] = 5
    b[1, 0, 0, 0] = 255
    expected = [20 * math.log10(255 / 5), 10 * math.log10(16)]
    np.testing.assert_allclose(psnr(a, b), expected, rtol=1e-12)


def test_psnr_of_equal_images_is_finite() -> None:
    a = random_pixels(0, (3, 1, 8, 8))
    assert psnr(a, a).tolist() == [100.0] * 3


def test_uint8_does_not_wrap_around() -> None:
    a, b = torch.full((1, 1, 16, 16), 0, dtype=torch.uint8), torch.full((1, 1, 16, 16), 255, dtype=torch.uint8)
    assert psnr(a, b).item() == psnr(b, a).item() == 0


def test_floats_are_taken_to_the_same_range() -> None:
    a, b = random_pixels(0, (3, 1, 16, 16)), random_pixels(1, (3, 1, 16, 16))
    torch.testing.assert_close(psnr(to_float(a), to_float(b)), psnr(a, b), rtol=1e-5, atol=0)
    torch.testing.assert_close(ssim(to_float(a), b), ssim(a, b), rtol=1e-4, atol=1e-6)


def test_shapes_are_checked() -> None:
    small, other = torch.zeros(1, 1, 10, 12), torch.zeros(1, 1, 12, 12)
    with pytest.raises(ValueError, match="at least 11 pixels"):
        ssim(small, small)
    with pytest.raises(ValueError, match="do not match"):
        ssim(other, torch.zeros(2, 1, 12, 12))
    with pytest.raises(ValueError, match="must be equal"):
        psnr(small, other)


# --- codebook


def test_uniform_use() -> None:
    use = codebook_use(torch.full((64,), 7))
    assert use.utilisation == 1
    assert use.entropy == pytest.approx(math.log(64)) and use.perplexity == pytest.approx(64)


def test_one_code() -> None:
    counts = torch.zeros(10, dtype=torch.int64)
    counts[3] = 99
    use = codebook_use(counts)
    assert (use.utilisation, use.entropy, use.perplexity) == (0.1, 0.0, 1.0)
    assert math.copysign(1, use.entropy) == 1


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=50).filter(any))
def test_entropy_of_the_definition(counts: list[int]) -> None:
    use = codebook_use(torch.tensor(counts))
    shares = [count / sum(counts) for count in counts if count]
    assert use.entropy == pytest.approx(-sum(p * math.log(p) for p in shares), abs=1e-12)
    assert use.perplexity == pytest.approx(math.exp(use.entropy))
    assert use.utilisation == len(shares) / len(counts)
    assert 1 - 1e-9 <= use.perplexity <= len(shares) * (1 + 1e-9)


@pytest.mark.parametrize("counts", [[0, 0], [-1, 3], [[1]]])
def test_unusable_counts(counts: list[int]) -> None:
    with pytest.raises(ValueError, match="counts must be"):
        codebook_use(torch.tensor(counts))

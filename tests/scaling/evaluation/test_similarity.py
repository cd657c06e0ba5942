"""SSIM, MS-SSIM and LPIPS against the packages people use; values pinned where the packages are not installed."""

from __future__ import annotations

import importlib
import sys
import types

import numpy as np
import pytest
import torch
from torch import Tensor

from results.errors import DataError
from scaling.evaluation.measuring.measure_tokenizer import distances_of
from scaling.evaluation.networks import lpips as lpips_module
from scaling.evaluation.reconstruction import ms_ssim, ssim
from scaling.specification.evaluation import OF_RECONSTRUCTIONS, EvaluationSpec
from scaling.specification.spec import TokenizerRun


def pair(side: int) -> tuple[Tensor, Tensor]:
    """uint8 [1, 3, s, s]: waves, and the same with noise."""
    rows, columns = np.mgrid[:side, :side]
    waves = [127 + 60 * np.sin(rows / (5 + c)) + 60 * np.cos(columns / (9 - c)) for c in range(3)]
    image = np.clip(np.stack(waves), 0, 255).astype(np.uint8)
    noise = (rows * 7919 + columns * 104_729) % 41 - 20
    spoilt = np.clip(image.astype(int) + noise, 0, 255).astype(np.uint8)
    return torch.from_numpy(spoilt)[None], torch.from_numpy(image)[None]


# scikit-image 0.26.0: structural_similarity(a, b, channel_axis=2, data_range=255, gaussian_weights=True, sigma=1.5,
# use_sample_covariance=False) of pair(side) as [s, s, 3]; pytorch-msssim 1.0.0: ms_ssim(a.double(), b.double()).
SSIM_BY_SIDE = {16: 0.672915683, 64: 0.711990816, 176: 0.716215763}
MS_SSIM_BY_SIDE = {176: 0.97974673, 191: 0.97959279}


@pytest.mark.parametrize("side", sorted(SSIM_BY_SIDE))
def test_ssim_is_scikit_images(side: int) -> None:
    assert float(ssim(*pair(side))) == pytest.approx(SSIM_BY_SIDE[side], abs=1e-6)


@pytest.mark.parametrize("side", sorted(MS_SSIM_BY_SIDE))
def test_ms_ssim_is_its_packages(side: int) -> None:
    assert float(ms_ssim(*pair(side))) == pytest.approx(MS_SSIM_BY_SIDE[side], abs=1e-5)


def test_equal_images_and_small_ones() -> None:
    _, image = pair(176)
    assert float(ms_ssim(image, image)) == pytest.approx(1)
    with pytest.raises(ValueError, match="at least 161 pixels"):
        ms_ssim(image[..., :160], image[..., :160])
    with pytest.raises(ValueError, match="do not match"):
        ms_ssim(image, image[:, :1])


def test_lpips_without_its_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    lpips_module._shared.cache_clear()
    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(DataError, match=r"pip install 'tokenlaw\[lpips\]'"):
        lpips_module.lpips(*pair(32))
    with pytest.raises(ValueError, match="must be equal"):
        lpips_module.lpips(torch.ones(1, 3, 8, 8), torch.ones(1, 3, 9, 8))


class ByPixels(torch.nn.Module):
    """As LPIPS in shape: two batches in [-1, 1] to [n, 1, 1, 1]."""

    def __init__(self, net: str, verbose: bool) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(2.0 if net == "alex" else 3.0))

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return self.weight * (a - b).square().mean(dim=(1, 2, 3), keepdim=True)


def test_distances_that_a_study_names(monkeypatch: pytest.MonkeyPatch) -> None:
    package = types.ModuleType("lpips")
    package.LPIPS = ByPixels  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lpips", package)
    lpips_module._shared.cache_clear()
    chosen = distances_of(EvaluationSpec(metrics=("ms-ssim", "kid", "lpips-alex", "lpips-vgg")))
    assert [distance.metric for distance in chosen] == ["psnr", "ssim", "ms_ssim", "lpips", "lpips"]
    assert [distance.metric for distance in distances_of(EvaluationSpec())] == ["psnr", "ssim"]
    a, b = pair(176)
    values = [float(distance.of(a, b)) for distance in chosen]
    assert values[2] == pytest.approx(MS_SSIM_BY_SIDE[176], abs=1e-5)
    assert values[4] == pytest.approx(1.5 * values[3]) and values[3] > 0
    protocols = [distance.protocol() for distance in chosen]
    assert protocols[:3] == [{}, {}, {}]
    assert [protocol["extractor"] for protocol in protocols[3:]] == ["lpips-alex", "lpips-vgg"]
    # Of other weights another protocol: their values are never compared.
    assert protocols[3]["extractor_hash"] != protocols[4]["extractor_hash"]
    lpips_module._shared.cache_clear()


def test_small_images_cannot_have_them_and_the_error_says_so() -> None:
    for name, least in OF_RECONSTRUCTIONS.items():
        named = EvaluationSpec.model_validate({"metrics": [name]})
        named.check_side(least)
        with pytest.raises(ValueError, match=f"'{name}' is defined for images of at least {least} pixels a side"):
            named.check_side(least - 1)
    with pytest.raises(ValueError, match=r"at least 161 pixels a side; data\.image_size = 32"):
        TokenizerRun.model_validate({"evaluation": {"metrics": ["ms-ssim"]}})
    a, b = pair(161)
    assert ms_ssim(a, b) > 0

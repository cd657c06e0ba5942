"""Perceptual losses besides the shipped one: EfficientNet-Lite0's early features, and LPIPS with VGG."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn

from results.errors import DataError
from scaling.networks import channels_last
from scaling.specification.catalogue import PERCEPTUAL_WEIGHTS
from scaling.specification.feature_networks import EFFICIENTNET_DEPTHS

from .extractors import load_efficientnet
from .lpips import load_lpips


class EfficientNetLoss(nn.Module):
    """Distance of two batches of images in features of EfficientNet-Lite0 at 1/2, 1/4 and 1/8 of their side.

    As features.PerceptualLoss: unit norm over channels at each position, squared differences summed over channels, mean
    over positions, images and depths (LPIPS, arXiv 1801.03924, eq. 1, with equal weights). 0 for equal images, at most
    4. Images keep their own side; grey is repeated for colour. Raises DataError where the weights are missing.
    """

    epsilon = 1e-6
    """Under the root of the norm: keeps the gradient finite where all features vanish."""

    def __init__(self) -> None:
        super().__init__()
        network, _ = load_efficientnet()
        self.network = channels_last(network.eval().requires_grad_(False))

    def forward(self, reconstruction: Tensor, target: Tensor) -> Tensor:
        """Scalar loss; both inputs are float [n, c, s, s] in [-1, 1], c 1 or 3; gradients flow to `reconstruction`."""
        with torch.no_grad():
            wanted = self._features(target)
        pairs = zip(self._features(reconstruction), wanted, strict=True)
        return torch.stack([(a - b).square().sum(dim=1).mean() for a, b in pairs]).mean()

    def _features(self, images: Tensor) -> list[Tensor]:
        inputs = (images.expand(-1, 3, -1, -1) * 127.5 + 0.5) / 128
        maps = self.network.early_maps(inputs, EFFICIENTNET_DEPTHS)
        return [m * torch.rsqrt(m.square().sum(dim=1, keepdim=True) + self.epsilon) for m in maps]

    def train(self, mode: bool = True) -> EfficientNetLoss:
        """The network stays frozen in evaluation mode whatever its owner does."""
        super().train(mode)
        self.network.eval()
        return self


class LpipsLoss(nn.Module):
    """LPIPS v0.1 with VGG-16, mean over images, from its authors' package (extra `lpips`).

    Raises DataError where the package or its weights are missing, or its calibration is not the pinned one.
    """

    def __init__(self) -> None:
        super().__init__()
        package = importlib.util.find_spec("lpips")
        if package is None or package.origin is None:
            raise DataError("losses.perceptual_network = 'lpips-vgg' needs its package: pip install 'tokenlaw[lpips]'")
        calibration = Path(package.origin).parent / "weights" / "v0.1" / "vgg.pth"
        if hashlib.sha256(calibration.read_bytes()).hexdigest() != PERCEPTUAL_WEIGHTS["lpips-vgg"]:
            raise DataError(f"weights {calibration} are not those of LPIPS v0.1 with VGG")
        self.network = load_lpips("vgg")

    def forward(self, reconstruction: Tensor, target: Tensor) -> Tensor:
        """Scalar loss; both inputs are float [n, c, s, s] in [-1, 1], c 1 or 3; gradients flow to `reconstruction`."""
        distance: Tensor = self.network(*(images.expand(-1, 3, -1, -1) for images in (reconstruction, target)))
        return distance.mean()

    def train(self, mode: bool = True) -> LpipsLoss:
        """The network stays frozen in evaluation mode whatever its owner does."""
        super().train(mode)
        self.network.eval()
        return self

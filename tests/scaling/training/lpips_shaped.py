"""A loss network of the shape of LPIPS on VGG16 (arXiv 1801.03924), with drawn weights in place of the published."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEVELS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Channels and convolutions between two poolings of VGG16; features are compared at the end of each."""
MEAN, DEVIATION = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Of the scaling of images in [-1, 1] (LPIPS, version 0.1)."""


class LpipsShaped(nn.Module):
    """(reconstruction, target), both [n, 3, s, s] in [-1, 1], to a scalar; `narrower` divides all widths."""

    def __init__(self, narrower: int = 1) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None])
        self.register_buffer("deviation", torch.tensor(DEVIATION)[:, None, None])
        generator = torch.Generator().manual_seed(7)
        levels, weights, incoming = [], [], 3
        for number, (width, count) in enumerate(LEVELS):
            layers: list[nn.Module] = [nn.MaxPool2d(2)] if number else []
            for _ in range(count):
                layers += [nn.Conv2d(incoming, width // narrower, 3, padding=1), nn.ReLU()]
                incoming = width // narrower
            levels.append(nn.Sequential(*layers))
            weights.append(nn.Conv2d(incoming, 1, 1, bias=False))
        self.levels, self.weights = nn.ModuleList(levels), nn.ModuleList(weights)
        for parameter in self.parameters():
            fan = parameter[0].numel() if parameter.ndim > 1 else 1
            nn.init.normal_(parameter, 0.0, (2 / fan) ** 0.5 if parameter.ndim > 1 else 0.0, generator=generator)
        for layer in weights:
            # Calibrated weights are not negative.
            nn.init.uniform_(layer.weight, 0.0, 2 / incoming, generator=generator)
        self.eval().requires_grad_(False)

    def forward(self, reconstruction: Tensor, target: Tensor) -> Tensor:
        """The mean over images and positions of weighted squared differences of features of length 1."""
        a, b = ((images - self.mean) / self.deviation for images in (reconstruction, target))
        total = reconstruction.new_zeros(())
        for level, weight in zip(self.levels, self.weights, strict=True):
            a, b = level(a), level(b)
            difference = nn.functional.normalize(a, dim=1) - nn.functional.normalize(b, dim=1)
            total = total + weight(difference.square()).mean()
        return total

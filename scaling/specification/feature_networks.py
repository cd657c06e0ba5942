"""The shapes of the two shipped feature networks, and from them their FLOPs and parameters; free of torch.

FLOPs are those of one forward pass of one image: two for each multiply-add of convolutions and linear layers. Biases,
activations, normalisations and pooling are left out, which is also the convention of torch's FlopCounterMode.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["fid", "perceptual"]


@dataclass(frozen=True)
class Convolution:
    """A square convolution with bias: channels in and out, kernel side and stride; padded by (kernel - 1) // 2."""

    inputs: int
    outputs: int
    kernel: int = 3
    stride: int = 1

    @property
    def padding(self) -> int:
        """Zeros added on each side."""
        return (self.kernel - 1) // 2

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return self.outputs * (self.inputs * self.kernel**2 + 1)

    def output_side(self, side: int) -> int:
        """Side of the output for a square input of `side` pixels."""
        return (side + 2 * self.padding - self.kernel) // self.stride + 1

    def flops(self, side: int) -> int:
        """FLOPs of one image with an input of `side` pixels."""
        return 2 * self.output_side(side) ** 2 * self.kernel**2 * self.inputs * self.outputs


FID_CHANNELS = (16, 32, 96)
FID_CLASSES = 10
FID_DIMENSIONS = FID_CHANNELS[-1]
"""Length of the feature vector behind every Frechet distance."""

FID_DOWN = (
    Convolution(1, FID_CHANNELS[0], kernel=5, stride=2),
    Convolution(FID_CHANNELS[0], FID_CHANNELS[1], stride=2),
    Convolution(FID_CHANNELS[1], FID_CHANNELS[2], stride=2),
)
"""The strided convolution that opens each stage; a residual block of two 3x3 convolutions follows each."""

FID_CONVOLUTIONS: tuple[Convolution, ...] = tuple(
    layer
    for down in FID_DOWN
    for layer in (down, Convolution(down.outputs, down.outputs), Convolution(down.outputs, down.outputs))
)

PERCEPTUAL_CONVOLUTIONS: tuple[Convolution, ...] = (
    Convolution(1, 16, kernel=4, stride=2),
    Convolution(16, 32, kernel=4, stride=2),
    Convolution(32, 32),
    Convolution(32, 64, kernel=4, stride=2),
)
"""A plain chain; kernels of strided layers are multiples of the stride, so that gradients have no checkerboard."""

PERCEPTUAL_DEPTHS = (0, 2, 3)
"""Indices of PERCEPTUAL_CONVOLUTIONS after which features are compared: sides 16, 8 and 4 for images of 32."""


_CONVOLUTIONS: dict[Role, tuple[Convolution, ...]] = {"fid": FID_CONVOLUTIONS, "perceptual": PERCEPTUAL_CONVOLUTIONS}


def forward_flops(role: Role, image_size: int) -> int:
    """FLOPs of the features of one square image with a side of `image_size` pixels (the classifier's head left out).

    Raises ValueError for an unknown role.
    """
    if role not in _CONVOLUTIONS:
        raise ValueError(f"role = {role!r} is unknown; allowed: {', '.join(map(repr, _CONVOLUTIONS))}")
    total, side = 0, image_size
    for layer in _CONVOLUTIONS[role]:
        total, side = total + layer.flops(side), layer.output_side(side)
    return total


def parameter_count(role: Role) -> int:
    """Parameters of the shipped network: for `fid` with the linear head that only its accuracy needs."""
    head = (FID_DIMENSIONS + 1) * FID_CLASSES if role == "fid" else 0
    return sum(layer.parameters for layer in _CONVOLUTIONS[role]) + head

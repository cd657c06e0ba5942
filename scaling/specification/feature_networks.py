"""The shapes of feature networks and of loss networks, and from them their FLOPs and parameters; free of torch.

FLOPs are those of one forward pass of one image: two for each multiply-add of convolutions and linear layers. Biases,
activations, normalisations and pooling are left out, which is also the convention of torch's FlopCounterMode.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["fid", "perceptual"]


@dataclass(frozen=True)
class Convolution:
    """A square convolution with bias: channels in and out, kernel side and stride; padded by (kernel - 1) // 2.

    groups: of channels that do not mix.
    """

    inputs: int
    outputs: int
    kernel: int = 3
    stride: int = 1
    groups: int = 1

    @property
    def padding(self) -> int:
        """Zeros added on each side."""
        return (self.kernel - 1) // 2

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return self.outputs * (self.inputs // self.groups * self.kernel**2 + 1)

    def output_side(self, side: int) -> int:
        """Side of the output for a square input of `side` pixels."""
        return (side + 2 * self.padding - self.kernel) // self.stride + 1

    def flops(self, side: int) -> int:
        """FLOPs of one image with an input of `side` pixels."""
        return 2 * self.output_side(side) ** 2 * self.kernel**2 * (self.inputs // self.groups) * self.outputs


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


# --- other networks behind the perceptual loss -----------------------------------------------------------------------

EFFICIENTNET_DEPTHS = 3
"""Feature maps of EfficientNet-Lite0 that the loss compares: before the second, third and fourth halving."""


def _bottleneck(inputs: int, outputs: int, kernel: int, stride: int, expansion: int = 6) -> list[Convolution]:
    wide = inputs * expansion
    expand = [Convolution(inputs, wide, 1)] if expansion > 1 else []
    depthwise = Convolution(wide, wide, kernel, stride, groups=wide)
    return [*expand, depthwise, Convolution(wide, outputs, 1)]


_EFFICIENTNET_EARLY = [
    Convolution(3, 32, 3, 2),
    *_bottleneck(32, 16, 3, 1, expansion=1),
    *_bottleneck(16, 24, 3, 2),
    *_bottleneck(24, 24, 3, 1),
    *_bottleneck(24, 40, 5, 2),
    *_bottleneck(40, 40, 5, 1),
]
"""Stem and five blocks: what the features at 1/2, 1/4 and 1/8 of the side need."""

_VGG_STAGES = ((3, 64, 2), (64, 128, 2), (128, 256, 3), (256, 512, 3), (512, 512, 3))
"""Of VGG-16: channels in and out, convolutions; the side is halved after each."""


@dataclass(frozen=True)
class LossCost:
    """Of a perceptual loss on one image: FLOPs forward and backward to the reconstruction, parameters, all frozen."""

    flops: int
    parameters: int


def perceptual_cost(network: str, side: int, channels: int) -> LossCost:
    """The cost of a network of catalogue.PERCEPTUAL_WEIGHTS on images of `side` pixels.

    The target goes forward, the reconstruction forward and back to its input: three passes. LPIPS weighs squared
    differences once more, forward and back. Raises ValueError for an unknown network.
    """
    if network == "builtin":
        # Each colour channel is compared as a grey image.
        return LossCost(3 * channels * forward_flops("perceptual", side), parameter_count("perceptual"))
    if network == "efficientnet-lite0":
        total, reached = 0, side
        for layer in _EFFICIENTNET_EARLY:
            total, reached = total + layer.flops(reached), layer.output_side(reached)
        return LossCost(3 * total, sum(layer.parameters for layer in _EFFICIENTNET_EARLY))
    if network == "lpips-vgg":
        total, weighed, parameters, reached = 0, 0, 0, side
        for inputs, outputs, count in _VGG_STAGES:
            layers = [Convolution(outputs if again else inputs, outputs) for again in range(count)]
            total += sum(layer.flops(reached) for layer in layers)
            weighed += 2 * reached**2 * outputs
            parameters += sum(layer.parameters for layer in layers) + outputs
            reached //= 2
        return LossCost(3 * total + 2 * weighed, parameters)
    raise ValueError(f"network = {network!r} is unknown; allowed: builtin, efficientnet-lite0, lpips-vgg")

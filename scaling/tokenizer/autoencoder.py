"""The small convolutional encoder and decoder of the demonstration: images to latent grids and back."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from scaling.networks import Compilable, RecomputedSequential
from scaling.specification.models.autoencoders import AutoencoderSpec


def _groups(channels: int) -> int:
    """Groups of 16 channels, or one group where 16 does not divide."""
    return channels // 16 if channels % 16 == 0 else 1


class ResidualBlock(nn.Module):
    """GroupNorm, SiLU, 3x3 convolution, twice, plus the input; the second convolution starts at zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(_groups(channels), channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(_groups(channels), channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, h, w] to the same shape."""
        y = self.conv1(functional.silu(self.norm1(x)))
        return x + self.conv2(functional.silu(self.norm2(y)))


class Encoder(Compilable, nn.Module):
    """Images [n, c, S, S] in [-1, 1] to latents [n, width x last multiplier, S / f, S / f].

    Each level halves the side by a 4x4 convolution of stride 2 and applies its residual blocks, so that no
    convolution runs at full resolution: on a CPU that is most of the cost and little of the quality.
    """

    def __init__(self, spec: AutoencoderSpec, channels: int) -> None:
        super().__init__()
        levels: list[nn.Module] = []
        incoming = channels
        for outgoing, blocks in zip(spec.widths, spec.residual_blocks, strict=True):
            levels.append(nn.Conv2d(incoming, outgoing, 4, stride=2, padding=1))
            levels += [ResidualBlock(outgoing) for _ in range(blocks)]
            incoming = outgoing
        self.levels = RecomputedSequential(*levels)
        self.norm = nn.GroupNorm(_groups(incoming), incoming)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        return functional.silu(self.norm(self.levels(images)))


class Decoder(Compilable, nn.Module):
    """Latents [n, width x last multiplier, h, w] to images [n, c, h f, w f]; the mirror of the encoder.

    Sides are doubled by a 1x1 convolution to four times the channels and a pixel shuffle.
    """

    def __init__(self, spec: AutoencoderSpec, channels: int) -> None:
        super().__init__()
        levels: list[nn.Module] = []
        for level in reversed(range(spec.levels)):
            incoming = spec.widths[level]
            levels += [ResidualBlock(incoming) for _ in range(spec.residual_blocks[level])]
            if level == 0:
                levels += [nn.GroupNorm(_groups(incoming), incoming), nn.SiLU()]
                levels += [nn.Conv2d(incoming, 4 * channels, 3, padding=1), nn.PixelShuffle(2)]
            else:
                levels += [nn.Conv2d(incoming, 4 * spec.widths[level - 1], 1), nn.PixelShuffle(2)]
        self.levels = RecomputedSequential(*levels)

    def forward(self, latents: Tensor) -> Tensor:
        """See the class."""
        return self.levels(latents)

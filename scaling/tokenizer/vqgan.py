"""The encoder and decoder of VQGAN (taming-transformers; LlamaGen's f8 and f16): convolutions, and attention where the
grid is smallest.

Layers have names, `level0` being the finest, so that weights of others can be mapped to them (importing/).
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional

from scaling.networks import Compilable, RecomputedSequential
from scaling.specification.models.autoencoders import VqganSpec

from .convolution import Convolution

EPSILON = 1e-6
"""Of the group norms, as taming-transformers."""


class VqganBlock(nn.Module):
    """GroupNorm, SiLU, 3x3 convolution, twice, plus the input, by a 1x1 convolution where the channels change."""

    def __init__(self, incoming: int, outgoing: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, incoming, eps=EPSILON)
        self.conv1 = Convolution(incoming, outgoing, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, outgoing, eps=EPSILON)
        self.conv2 = Convolution(outgoing, outgoing, 3, padding=1)
        if incoming != outgoing:
            self.shortcut = nn.Conv2d(incoming, outgoing, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[n, incoming, h, w] to [n, outgoing, h, w]."""
        y = self.conv1(functional.silu(self.norm1(x)))
        y = self.conv2(functional.silu(self.norm2(y)))
        return (self.shortcut(x) if hasattr(self, "shortcut") else x) + y


class GridAttention(nn.Module):
    """Self-attention of one head over all positions of a grid, plus the input."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=EPSILON)
        self.query = nn.Conv2d(channels, channels, 1)
        self.key = nn.Conv2d(channels, channels, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.output = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, h, w] to the same shape."""
        normed = self.norm(x)
        query, key, value = (
            layer(normed).flatten(2).transpose(1, 2)[:, None] for layer in (self.query, self.key, self.value)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return x + self.output(mixed[:, 0].transpose(1, 2).reshape(x.shape))


class Halve(nn.Module):
    """A 3x3 convolution of stride 2, padded on the right and at the bottom alone."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Convolution(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, h, w] to [n, channels, h / 2, w / 2]."""
        return self.conv(functional.pad(x, (0, 1, 0, 1)))


class Double(nn.Module):
    """Each pixel four times, then a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Convolution(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, h, w] to [n, channels, 2 h, 2 w]."""
        return self.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))


def _middle(channels: int, groups: int) -> list[tuple[str, nn.Module]]:
    return [
        ("middle_block0", VqganBlock(channels, channels, groups)),
        ("middle_attention", GridAttention(channels, groups)),
        ("middle_block1", VqganBlock(channels, channels, groups)),
    ]


def _level(spec: VqganSpec, level: int, incoming: int, outgoing: int, blocks: int) -> list[tuple[str, nn.Module]]:
    """The blocks of a level, each followed by attention at the lowest where the spec says so."""
    attends = spec.attention == "lowest-and-middle" and level == len(spec.channel_multipliers) - 1
    layers: list[tuple[str, nn.Module]] = []
    for block in range(blocks):
        layers.append((f"level{level}_block{block}", VqganBlock(incoming, outgoing, spec.norm_groups)))
        if attends:
            layers.append((f"level{level}_attention{block}", GridAttention(outgoing, spec.norm_groups)))
        incoming = outgoing
    return layers


def _end(incoming: int, outgoing: int, groups: int) -> list[tuple[str, nn.Module]]:
    return [
        ("norm_out", nn.GroupNorm(groups, incoming, eps=EPSILON)),
        ("activation", nn.SiLU()),
        ("conv_out", Convolution(incoming, outgoing, 3, padding=1)),
    ]


class VqganEncoder(Compilable, nn.Module):
    """Images [n, c, S, S] in [-1, 1] to latents [n, latent_channels, S / f, S / f]."""

    def __init__(self, spec: VqganSpec, channels: int) -> None:
        super().__init__()
        width, widths = spec.width, spec.widths
        layers: list[tuple[str, nn.Module]] = [("conv_in", Convolution(channels, width, 3, padding=1))]
        for level, outgoing in enumerate(widths):
            layers += _level(spec, level, width, outgoing, spec.residual_blocks)
            if level + 1 < len(widths):
                layers.append((f"level{level}_down", Halve(outgoing)))
            width = outgoing
        layers += _middle(width, spec.norm_groups) + _end(width, spec.latent_channels, spec.norm_groups)
        self.layers = RecomputedSequential(OrderedDict(layers))

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        return self.layers(images)


class VqganDecoder(Compilable, nn.Module):
    """Latents [n, latent_channels, h, w] to images [n, c, h f, w f]; the mirror of the encoder."""

    def __init__(self, spec: VqganSpec, channels: int) -> None:
        super().__init__()
        widths = spec.decoder_widths
        width = widths[-1]
        layers: list[tuple[str, nn.Module]] = [("conv_in", Convolution(spec.latent_channels, width, 3, padding=1))]
        layers += _middle(width, spec.norm_groups)
        for level in reversed(range(len(widths))):
            layers += _level(spec, level, width, widths[level], spec.decoder_blocks)
            width = widths[level]
            if level:
                layers.append((f"level{level}_up", Double(width)))
        layers += _end(width, channels, spec.norm_groups)
        self.layers = RecomputedSequential(OrderedDict(layers))

    def forward(self, latents: Tensor) -> Tensor:
        """See the class."""
        return self.layers(latents)

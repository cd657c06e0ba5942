"""Parameters and forward FLOPs of both kinds of autoencoder, layer by layer; conventions as in `flops`. No torch."""

from __future__ import annotations

from typing import NamedTuple

from ..feature_networks import Convolution
from ..models.autoencoders import AutoencoderSpec, VqganSpec
from ..spec import TokenizerRun


class Layer(NamedTuple):
    """Trained parameters of a layer, and its forward FLOPs for one image."""

    parameters: int
    flops: int


def autoencoder_layers(run: TokenizerRun) -> list[Layer]:
    """Encoder and decoder in order, the projections to and from the code dimension between them."""
    spec, channels, side = run.autoencoder, run.data.channels, run.encoded_size
    latent, dim = spec.latent_channels, run.quantizer.code_dim
    if isinstance(spec, VqganSpec):
        encoder, decoder = _vqgan_encoder(spec, channels, side), _vqgan_decoder(spec, channels, side)
    else:
        encoder, decoder = _small_encoder(spec, channels, side), _small_decoder(spec, channels, side)
    projections = [
        _convolution(latent, dim, run.grid_size, kernel=1),
        _convolution(dim, latent, run.grid_size, kernel=1),
    ]
    return [*encoder, *projections, *decoder]


def forward_flops(run: TokenizerRun) -> int:
    """FLOPs of encoding and decoding one image, without the lookup."""
    return sum(layer.flops for layer in autoencoder_layers(run))


def _convolution(incoming: int, outgoing: int, side: int, kernel: int = 3, stride: int = 1) -> Layer:
    convolution = Convolution(incoming, outgoing, kernel, stride)
    return Layer(convolution.parameters, convolution.flops(side))


def _norm(channels: int) -> Layer:
    return Layer(2 * channels, 0)


# --- the small autoencoder ---


def _small_block(width: int, side: int) -> list[Layer]:
    return [_norm(width), _convolution(width, width, side)] * 2


def _small_encoder(spec: AutoencoderSpec, channels: int, side: int) -> list[Layer]:
    layers: list[Layer] = []
    for width, blocks in zip(spec.widths, spec.residual_blocks, strict=True):
        layers.append(_convolution(channels, width, side, kernel=4, stride=2))
        channels, side = width, side // 2
        layers += _small_block(width, side) * blocks
    return [*layers, _norm(channels)]


def _small_decoder(spec: AutoencoderSpec, channels: int, side: int) -> list[Layer]:
    layers: list[Layer] = []
    for level in reversed(range(spec.levels)):
        width, inner = spec.widths[level], side // 2 ** (level + 1)
        layers += _small_block(width, inner) * spec.residual_blocks[level]
        if level:
            layers.append(_convolution(width, 4 * spec.widths[level - 1], inner, kernel=1))
        else:
            layers += [_norm(width), _convolution(width, 4 * channels, inner)]
    return layers


# --- VQGAN ---


def _vqgan_block(incoming: int, outgoing: int, side: int) -> list[Layer]:
    layers = [_norm(incoming), _convolution(incoming, outgoing, side)]
    layers += [_norm(outgoing), _convolution(outgoing, outgoing, side)]
    return layers if incoming == outgoing else [*layers, _convolution(incoming, outgoing, side, kernel=1)]


def _attention(channels: int, side: int) -> list[Layer]:
    """Four 1x1 convolutions; scores and mixture are 2 T^2 c each, T = side^2."""
    mixing = Layer(0, 4 * side**4 * channels)
    return [_norm(channels), *[_convolution(channels, channels, side, kernel=1)] * 4, mixing]


def _middle(channels: int, side: int) -> list[Layer]:
    block = _vqgan_block(channels, channels, side)
    return [*block, *_attention(channels, side), *block]


def _vqgan_level(spec: VqganSpec, level: int, incoming: int, outgoing: int, blocks: int, side: int) -> list[Layer]:
    attends = spec.attention == "lowest-and-middle" and level == len(spec.channel_multipliers) - 1
    layers: list[Layer] = []
    for _ in range(blocks):
        layers += _vqgan_block(incoming, outgoing, side)
        layers += _attention(outgoing, side) if attends else []
        incoming = outgoing
    return layers


def _vqgan_encoder(spec: VqganSpec, channels: int, side: int) -> list[Layer]:
    width, widths = spec.width, spec.widths
    layers = [_convolution(channels, width, side)]
    for level, outgoing in enumerate(widths):
        layers += _vqgan_level(spec, level, width, outgoing, spec.residual_blocks, side)
        width = outgoing
        if level + 1 < len(widths):
            layers.append(_convolution(width, width, side, stride=2))
            side //= 2
    return [*layers, *_middle(width, side), _norm(width), _convolution(width, spec.latent_channels, side)]


def _vqgan_decoder(spec: VqganSpec, channels: int, side: int) -> list[Layer]:
    widths = spec.decoder_widths
    width, side = widths[-1], side // spec.downsampling
    layers = [_convolution(spec.latent_channels, width, side), *_middle(width, side)]
    for level in reversed(range(len(widths))):
        layers += _vqgan_level(spec, level, width, widths[level], spec.decoder_blocks, side)
        width = widths[level]
        if level:
            side *= 2
            layers.append(_convolution(width, width, side))
    return [*layers, _norm(width), _convolution(width, channels, side)]

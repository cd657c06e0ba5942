"""Closed forms for parameters and training FLOPs of both stages. No torch.

Conventions. A multiply-add is 2 FLOPs. Counted are matrix products, convolutions and attention; left out are norms,
activations, softmax, embedding look-ups, optimiser steps and sampling: the conventions of torch's FlopCounterMode, to
which the tests hold every form exactly. Backward costs each product twice its forward (one for the input's gradient,
one for the weight's), once where one of the two is not needed. Attention is counted in full, T x T; with
`halve_causal` its masked half is left out, which FlopCounterMode does not do.
"""

from __future__ import annotations

from dataclasses import dataclass

from .feature_networks import Convolution, LossCost, perceptual_cost
from .spec import AutoencoderSpec, GeneratorRun, RunSpec, TokenizerRun, TransformerSpec, VectorQuantizerSpec


@dataclass(frozen=True)
class Parameters:
    """Parameters of a run: `embedding` grow with the vocabulary, `other` do not, `frozen` are used but not trained."""

    embedding: int
    other: int
    frozen: int = 0

    @property
    def total(self) -> int:
        """All that is trained."""
        return self.embedding + self.other


# --- transformer blocks, shared by stage 2 and the causal regulariser ---


def block_parameters(shape: TransformerSpec) -> int:
    """Parameters of one block: attention 4 d^2, SwiGLU 3 d h, norms."""
    norms = 2 * shape.width + 2 * shape.head_dim
    return 4 * shape.width**2 + 3 * shape.width * shape.hidden + norms


def blocks_forward_flops(shape: TransformerSpec, length: int, halve_causal: bool = False) -> float:
    """Forward FLOPs of all blocks on one sequence: 2 x weights a position, and 4 T^2 d for the attention scores."""
    weights = 4 * shape.width**2 + 3 * shape.width * shape.hidden
    attention = 4 * length**2 * shape.width * (0.5 if halve_causal else 1.0)
    return shape.layers * (2 * weights * length + attention)


# --- stage 2 ---


def generator_parameters(run: GeneratorRun) -> Parameters:
    """Token embedding and head (one matrix if tied) as `embedding`; classes, blocks and norms as `other`."""
    shape, vocabulary = run.transformer, run.tokenizer.codebook_size
    embedding = vocabulary * shape.width * (1 if shape.tied_embeddings else 2)
    classes = (run.tokenizer.data.classes + 1) * shape.width
    return Parameters(embedding, classes + shape.layers * block_parameters(shape) + shape.width)


def generator_forward_flops(run: GeneratorRun, halve_causal: bool = False) -> float:
    """Forward FLOPs of one image: T positions (the class token replaces the last image token) and the head."""
    length = run.tokenizer.tokens_per_image
    head = 2 * length * run.transformer.width * run.tokenizer.codebook_size
    return blocks_forward_flops(run.transformer, length, halve_causal) + head


def generator_training_flops(run: GeneratorRun, images: int = 1, halve_causal: bool = False) -> float:
    """Forward and backward FLOPs of `images` training images: three times the forward."""
    return 3 * generator_forward_flops(run, halve_causal) * images


# --- stage 1 ---


_Layer = tuple[Convolution, int]
"""A convolution, and the side of its input in pixels."""


def _encoder_convolutions(spec: AutoencoderSpec, channels: int, side: int) -> list[_Layer]:
    layers: list[_Layer] = []
    for width, blocks in zip(spec.widths, spec.residual_blocks, strict=True):
        layers.append((Convolution(channels, width, kernel=4, stride=2), side))
        channels, side = width, side // 2
        layers += [(Convolution(width, width), side)] * (2 * blocks)
    return layers


def _decoder_convolutions(spec: AutoencoderSpec, channels: int, side: int) -> list[_Layer]:
    layers: list[_Layer] = []
    for level in reversed(range(spec.levels)):
        width, inner = spec.widths[level], side // 2 ** (level + 1)
        layers += [(Convolution(width, width), inner)] * (2 * spec.residual_blocks[level])
        opened = Convolution(width, 4 * spec.widths[level - 1], kernel=1) if level else Convolution(width, 4 * channels)
        layers.append((opened, inner))
    return layers


def _norm_parameters(spec: AutoencoderSpec) -> int:
    blocks = sum(4 * width * count for width, count in zip(spec.widths, spec.residual_blocks, strict=True))
    return 2 * blocks + 2 * spec.widths[-1] + 2 * spec.widths[0]


def _convolutions(run: TokenizerRun) -> tuple[list[_Layer], list[_Layer]]:
    """Encoder and decoder, the projections to and from the code dimension included."""
    spec, dim, channels, side = run.autoencoder, run.quantizer.code_dim, run.data.channels, run.encoded_size
    top = spec.widths[-1]
    encoder = [*_encoder_convolutions(spec, channels, side), (Convolution(top, dim, kernel=1), run.grid_size)]
    decoder = [(Convolution(dim, top, kernel=1), run.grid_size), *_decoder_convolutions(spec, channels, side)]
    return encoder, decoder


def regulariser_latent_dim(run: TokenizerRun) -> int:
    """Dimension of the latents that the causal regulariser predicts."""
    if run.regulariser is not None and run.regulariser.latents == "encoder":
        return run.autoencoder.widths[-1]
    return run.quantizer.code_dim


def tokenizer_parameters(run: TokenizerRun) -> Parameters:
    """Codebook as `embedding`, autoencoder as `other`; the causal model and the loss network as `frozen`, since
    neither is part of the tokenizer that results."""
    encoder, decoder = _convolutions(run)
    embedding = run.codebook_size * run.quantizer.code_dim if isinstance(run.quantizer, VectorQuantizerSpec) else 0
    helpers = _perceptual(run).parameters
    if run.regulariser is not None:
        shape, dim = run.regulariser.transformer, regulariser_latent_dim(run)
        helpers += 2 * shape.width + 2 * dim * shape.width + shape.layers * block_parameters(shape)
    other = sum(layer.parameters for layer, _ in encoder + decoder) + _norm_parameters(run.autoencoder)
    return Parameters(embedding, other, helpers)


def causal_forward_flops(run: TokenizerRun) -> float:
    """Forward FLOPs of the causal regulariser on one image; 0 without one."""
    if run.regulariser is None:
        return 0.0
    shape, length, dim = run.regulariser.transformer, run.tokens_per_image, regulariser_latent_dim(run)
    embed, predict = 2 * (length - 1) * dim * shape.width, 2 * length * dim * shape.width
    return blocks_forward_flops(shape, length) + embed + predict


def tokenizer_training_flops(run: TokenizerRun, images: int = 1) -> float:
    """Forward and backward FLOPs of `images` images: autoencoder, code lookup, loss network and regulariser.

    The images need no gradient (the first convolution costs 2, not 3), the lookup none at all, and the frozen loss
    network sees the target forward, the reconstruction forward and back to its input.
    """
    encoder, decoder = _convolutions(run)
    costs = [layer.flops(side) for layer, side in encoder + decoder]
    autoencoder = 3 * sum(costs) - costs[0]
    searched = isinstance(run.quantizer, VectorQuantizerSpec)
    lookup = 2 * run.tokens_per_image * run.codebook_size * run.quantizer.code_dim if searched else 0
    return (autoencoder + lookup + _perceptual(run).flops + 3 * causal_forward_flops(run)) * images


def _perceptual(run: TokenizerRun) -> LossCost:
    if not run.losses.perceptual_weight:
        return LossCost(0, 0)
    return perceptual_cost(run.losses.network_name, run.encoded_size, run.data.channels)


def parameters(run: RunSpec) -> Parameters:
    """Parameters of either stage."""
    return tokenizer_parameters(run) if isinstance(run, TokenizerRun) else generator_parameters(run)


def flops_per_image(run: RunSpec) -> float:
    """Training FLOPs of one image, either stage."""
    return tokenizer_training_flops(run) if isinstance(run, TokenizerRun) else generator_training_flops(run)

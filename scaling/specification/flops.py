"""Closed forms for parameters and training FLOPs of both stages. No torch.

Conventions. A multiply-add is 2 FLOPs. Counted are matrix products, convolutions and attention; left out are norms,
activations, softmax, embedding look-ups, optimiser steps and sampling: the conventions of torch's FlopCounterMode, to
which the tests hold every form exactly. Backward costs each product twice its forward (one for the input's gradient,
one for the weight's), once where one of the two is not needed. Attention is counted in full, T x T; with
`halve_causal` its masked half is left out, which FlopCounterMode does not do.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import feature_networks
from .autoencoder_flops import autoencoder_layers
from .quantizer_flops import quantizer_parameters, quantizer_training_flops
from .spec import GeneratorRun, RunSpec, TokenizerRun, TransformerSpec


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


def regulariser_latent_dim(run: TokenizerRun) -> int:
    """Dimension of the latents that the causal regulariser predicts."""
    if run.regulariser is not None and run.regulariser.latents == "encoder":
        return run.autoencoder.latent_channels
    return run.quantizer.code_dim


def tokenizer_parameters(run: TokenizerRun) -> Parameters:
    """Codebook as `embedding`, autoencoder and other weights of the quantizer as `other`; the causal model, the loss
    network and a codebook that is never trained as `frozen`, since none is trained as part of the tokenizer."""
    quantizer = quantizer_parameters(run.quantizer)
    helpers = feature_networks.parameter_count("perceptual") if run.losses.perceptual_weight else 0
    if run.regulariser is not None:
        shape, dim = run.regulariser.transformer, regulariser_latent_dim(run)
        helpers += 2 * shape.width + 2 * dim * shape.width + shape.layers * block_parameters(shape)
    other = sum(layer.parameters for layer in autoencoder_layers(run)) + quantizer.other
    return Parameters(quantizer.codebook, other, helpers + quantizer.frozen)


def causal_forward_flops(run: TokenizerRun) -> float:
    """Forward FLOPs of the causal regulariser on one image; 0 without one."""
    if run.regulariser is None:
        return 0.0
    shape, length, dim = run.regulariser.transformer, run.tokens_per_image, regulariser_latent_dim(run)
    embed, predict = 2 * (length - 1) * dim * shape.width, 2 * length * dim * shape.width
    return blocks_forward_flops(shape, length) + embed + predict


@dataclass(frozen=True)
class TokenizerCosts:
    """Training FLOPs of one image of stage 1 by what they are spent on."""

    autoencoder: float
    quantizer: float
    perceptual: float
    """The frozen loss network: the target forward, the reconstruction forward and back to its input."""
    causal: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.autoencoder + self.quantizer + self.perceptual + self.causal


def tokenizer_costs(run: TokenizerRun) -> TokenizerCosts:
    """Forward and backward FLOPs of one image. The images need no gradient: the first convolution costs 2, not 3."""
    costs = [layer.flops for layer in autoencoder_layers(run)]
    # Each colour channel is compared as a grey image.
    compared = 3 * run.data.channels if run.losses.perceptual_weight else 0
    return TokenizerCosts(
        autoencoder=3 * sum(costs) - costs[0],
        quantizer=quantizer_training_flops(run.quantizer, run.tokens_per_image, run.batch_size),
        perceptual=compared * feature_networks.forward_flops("perceptual", run.encoded_size),
        causal=3 * causal_forward_flops(run),
    )


def tokenizer_training_flops(run: TokenizerRun, images: int = 1) -> float:
    """Forward and backward FLOPs of `images` images: autoencoder, code lookup, loss network and regulariser."""
    return tokenizer_costs(run).total * images


def parameters(run: RunSpec) -> Parameters:
    """Parameters of either stage."""
    return tokenizer_parameters(run) if isinstance(run, TokenizerRun) else generator_parameters(run)


def flops_per_image(run: RunSpec) -> float:
    """Training FLOPs of one image, either stage."""
    return tokenizer_training_flops(run) if isinstance(run, TokenizerRun) else generator_training_flops(run)

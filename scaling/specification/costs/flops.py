"""Closed forms for parameters and training FLOPs of both stages. No torch.

Conventions. A multiply-add is 2 FLOPs. Counted are matrix products, convolutions and attention; left out are norms,
activations, softmax, embedding look-ups, optimiser steps and sampling: the conventions of torch's FlopCounterMode, to
which the tests hold every form exactly. Backward costs each product twice its forward (one for the input's gradient,
one for the weight's), once where one of the two is not needed. Attention is counted in full, T x T; with
`halve_causal` its masked half is left out, which FlopCounterMode does not do.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..feature_networks import LossCost, perceptual_cost
from ..spec import GeneratorRun, RunSpec, TokenizerRun
from .autoencoder_flops import autoencoder_layers
from .discriminator_flops import discriminator_layers, discriminator_training_flops
from .generator_counts import (
    Parameters,
    block_parameters,
    blocks_forward_flops,
    generator_forward_flops,
    generator_parameters,
    generator_training_flops,
)
from .quantizer_flops import quantizer_parameters, quantizer_training_flops
from .regulariser_flops import causal_forward_flops, regulariser_latent_dim, regulariser_parameters

__all__ = [
    "Parameters", "amortised_flops", "block_parameters", "blocks_forward_flops", "causal_forward_flops",
    "flops_per_image",
    "generator_forward_flops", "generator_parameters", "generator_training_flops", "parameters",
    "regulariser_latent_dim", "regulariser_overhead", "tokenizer_parameters", "tokenizer_training_flops",
]  # fmt: skip

# --- stage 1 ---


def tokenizer_parameters(run: TokenizerRun) -> Parameters:
    """Codebook as `embedding`, autoencoder and other weights of the quantizer as `other`; the causal model, the
    discriminator, the loss network and a codebook that is never trained as `frozen`: none is trained as part of the
    tokenizer."""
    quantizer = quantizer_parameters(run.quantizer)
    helpers = _perceptual(run).parameters
    helpers += regulariser_parameters(run) + sum(layer.parameters for layer in discriminator_layers(run))
    other = sum(layer.parameters for layer in autoencoder_layers(run)) + quantizer.other
    return Parameters(quantizer.codebook, other, helpers + quantizer.frozen)


@dataclass(frozen=True)
class TokenizerCosts:
    """Training FLOPs of one image of stage 1 by what they are spent on."""

    autoencoder: float
    quantizer: float
    perceptual: float
    """The frozen loss network: the target forward, the reconstruction forward and back to its input."""
    causal: float
    adversarial: float = 0.0
    """The discriminator, in the tokenizer's step and in its own: the mean over a training, before its start 0."""

    @property
    def total(self) -> float:
        """All of them."""
        return self.autoencoder + self.quantizer + self.perceptual + self.causal + self.adversarial


def tokenizer_costs(run: TokenizerRun) -> TokenizerCosts:
    """Forward and backward FLOPs of one image. The images need no gradient: the first convolution costs 2, not 3."""
    costs = [layer.flops for layer in autoencoder_layers(run)]
    return TokenizerCosts(
        autoencoder=3 * sum(costs) - costs[0],
        quantizer=quantizer_training_flops(run.quantizer, run.tokens_per_image, run.batch_size),
        perceptual=_perceptual(run).flops,
        causal=3 * causal_forward_flops(run),
        adversarial=discriminator_training_flops(run),
    )


def regulariser_overhead(run: TokenizerRun) -> float:
    """What the regulariser costs in training, as a share of all else (the paper's: about 5 %)."""
    costs = tokenizer_costs(run)
    return costs.causal / (costs.total - costs.causal)


def tokenizer_training_flops(run: TokenizerRun, images: int = 1) -> float:
    """Forward and backward FLOPs of `images` images: all of TokenizerCosts; 0 with pretrained weights."""
    return 0.0 if run.pretrained is not None else tokenizer_costs(run).total * images


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


def amortised_flops(run: GeneratorRun, images: int, generators: int) -> float:
    """Training FLOPs of both stages when `generators` generators share the tokenizer. Raises ValueError below 1."""
    if generators < 1:
        raise ValueError(f"generators = {generators} is not allowed; allowed: 1 or more")
    shared = tokenizer_training_flops(run.tokenizer, run.tokenizer.train_images) / generators
    return shared + generator_training_flops(run, images)

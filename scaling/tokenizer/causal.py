"""The causal regulariser CRT: next-token prediction in l2 on the tokenizer's own latents (paper Sec. 3.6, App. A.1).

A small causal transformer, built of the blocks of stage 2, predicts each position's latent from those before it. The
squared error flows back into the encoder with weight lambda, and into the causal model with weight 1 ("divided by the
annealed weight"), so that its own training does not depend on lambda.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional

from scaling.generator.transformer import CausalBlocks, initialise
from scaling.specification.spec import CausalRegulariserSpec


class _ScaleGradient(Function):
    """Identity whose gradient is multiplied by a number."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.scale, None


def scale_gradient(x: Tensor, scale: float) -> Tensor:
    """x, with its gradient multiplied by `scale`."""
    return _ScaleGradient.apply(x, scale)


class CausalModel(nn.Module):
    """Latent sequences [n, T, d] to predictions of the same shape; position t sees positions before t.

    One linear layer replaces the token embedding and one the classification head (paper App. A.1). Position 0 is
    predicted from a learnable start vector, for which the paper gives no rule.
    """

    def __init__(self, spec: CausalRegulariserSpec, latent_dim: int, grid: int) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.zeros(spec.width))
        self.embed = nn.Linear(latent_dim, spec.width, bias=False)
        self.trunk = CausalBlocks(spec.transformer, grid, prefix=1)
        self.predict = nn.Linear(spec.width, latent_dim, bias=False)
        initialise(self, spec.layers)
        nn.init.normal_(self.embed.weight, std=latent_dim**-0.5)

    def forward(self, latents: Tensor) -> Tensor:
        """See the class."""
        start = self.start.expand(len(latents), 1, -1)
        return self.predict(self.trunk(torch.cat([start, self.embed(latents[:, :-1])], dim=1)))


class CausalRegulariser(nn.Module):
    """The loss around the causal model."""

    def __init__(self, spec: CausalRegulariserSpec, latent_dim: int, grid: int) -> None:
        super().__init__()
        self.spec = spec
        self.model = CausalModel(spec, latent_dim, grid)

    def annealed_weight(self, images: int) -> float:
        """lambda after `images` training images: linear from 0 over spec.anneal_images (paper: 1k iterations)."""
        if not self.spec.anneal_images:
            return self.spec.weight
        return self.spec.weight * min(1.0, images / self.spec.anneal_images)

    def sequence(self, latents: Tensor) -> Tensor:
        """Latent grids [n, d, h, w] as raster-order sequences [n, h w, d], of unit norm where the spec says so."""
        flat = latents.flatten(2).transpose(1, 2)
        return functional.normalize(flat, dim=-1) if self.spec.normalised else flat

    def forward(self, latents: Tensor, weight: float) -> tuple[Tensor, Tensor]:
        """The loss to add to the tokenizer's (its gradient is already weighted: lambda into the encoder, 1 into the
        causal model), and the share of latent variance that the model predicts, detached."""
        loss, squared, target = self.terms(latents, weight)
        with torch.no_grad():
            variance = target.flatten(0, 1).var(dim=0, correction=0).mean()
            explained = 1 - squared.mean() / variance.clamp_min(1e-12)
        return loss, explained

    def terms(self, latents: Tensor, weight: float) -> tuple[Tensor, Tensor, Tensor]:
        """The loss of `forward`, the squared errors and the targets, both [n, T, d]: for a part of a batch, whose
        share of variance would not be that of the batch."""
        sequence = scale_gradient(self.sequence(latents), weight)
        prediction = self.model(sequence)
        target = sequence.detach() if self.spec.detach_targets else sequence
        squared = (prediction - target).square()
        loss = squared.sum(-1).mean() if self.spec.reduction == "sum" else squared.mean()
        return loss, squared, target

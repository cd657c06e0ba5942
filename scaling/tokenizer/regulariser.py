"""What every regulariser of the latents is: one pass of the encoder in, a penalty out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from scaling.networks import in_double

from .model import Encoded


@dataclass
class Penalty:
    """What a regulariser makes of a part of a batch.

    loss     added to the tokenizer's loss; its gradient already has weight lambda into the latents and 1 into the
             regulariser's own weights (paper App. A.1: "divided by the annealed weight")
    terms    further columns of `curves`, means over the part
    moments  sums or means from which `of_moments` makes further columns of the whole batch; None where there are none
    """

    loss: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)
    moments: Tensor | None = None


class Regulariser(nn.Module, ABC):
    """The protocol: `penalty`, and `of_moments` where a column is no mean over images.

    `spec` has kind, weight, anneal_images, learning_rate and weight_decay. The training gives it an AdamW of its own,
    saves and resumes it, and records `penalty.loss` in the column of the spec's kind.
    """

    def __init__(self, spec: Any) -> None:
        super().__init__()
        self.spec = spec

    @abstractmethod
    def penalty(self, encoded: Encoded, weight: float, whole: bool) -> Penalty:
        """The penalty at lambda = `weight`; `whole` says whether these are all images of the batch."""

    def of_moments(self, moments: Tensor) -> dict[str, Tensor]:
        """Columns of a whole batch, from the mean over its parts of Penalty.moments."""
        raise NotImplementedError(f"{type(self).__name__} gives moments and makes nothing of them: {len(moments)}")

    def annealed_weight(self, images: int) -> float:
        """lambda after `images` training images: linear from 0 over spec.anneal_images (paper: 1k iterations)."""
        if not self.spec.anneal_images:
            return float(self.spec.weight)
        return float(self.spec.weight * min(1.0, images / self.spec.anneal_images))


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


def latents_of(encoded: Encoded, which: str) -> Tensor:
    """The latents float32 [n, d, h, w] that a specification names: projected, encoder or quantised."""
    latents = {"projected": encoded.projected, "encoder": encoded.encoder, "quantised": encoded.quantised.codes}
    return latents[which].float()


def raster(latents: Tensor) -> Tensor:
    """Latent grids [n, d, h, w] as raster-order sequences [n, h w, d]."""
    return latents.flatten(2).transpose(1, 2)


def explained_variance(squared: Tensor, target: Tensor) -> Tensor:
    """Share of the variance of targets [n, T, d] that predictions with these squared errors explain, detached."""
    with torch.no_grad():
        variance = target.flatten(0, 1).var(dim=0, correction=0).mean()
        return 1 - squared.mean() / variance.clamp_min(1e-12)


@torch.no_grad()
def variance_moments(squared: Tensor, target: Tensor) -> Tensor:
    """Means of squared errors, of targets and of their squares by dimension, float64 [1 + 2 d], of [n, T, d] each."""
    flat = in_double(target.flatten(0, 1))
    return torch.cat([in_double(squared).mean()[None], flat.mean(0), flat.square().mean(0)])


def explained_by_moments(moments: Tensor) -> Tensor:
    """`explained_variance` of a whole batch, from the mean over its parts of `variance_moments`."""
    squared, mean, square = moments.tensor_split([1, 1 + (len(moments) - 1) // 2])
    return 1 - squared[0] / (square - mean.square()).mean().clamp_min(1e-12)

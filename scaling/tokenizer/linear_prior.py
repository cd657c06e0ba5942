"""The smallest prior on latents: each is a learnt linear map of the one before it. An example of a regulariser."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from scaling.specification.costs.regulariser_flops import regulariser_latent_dim
from scaling.specification.models.regularisers import LinearPriorSpec
from scaling.specification.spec import TokenizerRun

from .model import Encoded
from .regulariser import (
    Penalty,
    Regulariser,
    explained_by_moments,
    explained_variance,
    latents_of,
    raster,
    scale_gradient,
    variance_moments,
)


class LinearPrior(Regulariser):
    """Mean squared error of the prediction A z + b of the next latent in raster order; A starts as the identity."""

    spec: LinearPriorSpec

    def __init__(self, run: TokenizerRun) -> None:
        super().__init__(run.regulariser)
        dim = regulariser_latent_dim(run)
        self.map = nn.Linear(dim, dim)
        nn.init.eye_(self.map.weight)
        nn.init.zeros_(self.map.bias)

    def penalty(self, encoded: Encoded, weight: float, whole: bool) -> Penalty:
        """See Regulariser."""
        sequence = raster(latents_of(encoded, self.spec.latents))
        if self.spec.normalised:
            sequence = functional.normalize(sequence, dim=-1)
        sequence = scale_gradient(sequence, weight)
        before, target = sequence[:, :-1], sequence[:, 1:]
        squared = (self.map(before) - target).square()
        explained = explained_variance(squared, target) if whole else squared.new_zeros(())
        moments = None if whole else variance_moments(squared, target)
        return Penalty(squared.mean(), {"linear_explained_variance": explained}, moments)

    def of_moments(self, moments: Tensor) -> dict[str, Tensor]:
        """See Regulariser."""
        return {"linear_explained_variance": explained_by_moments(moments)}

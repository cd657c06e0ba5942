"""The causal regulariser CRT: next-token prediction on the tokenizer's own latents (paper Sec. 3.6, App. A.1).

A small causal transformer, built of the blocks of stage 2, predicts each position's latent from those before it. The
error flows back into the encoder with weight lambda, and into the causal model with weight 1 ("divided by the annealed
weight"), so that its own training does not depend on lambda.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from results.errors import UsageError
from scaling.generator.transformer import CausalBlocks, initialise
from scaling.specification.costs.regulariser_flops import regulariser_latent_dim, regulariser_outputs
from scaling.specification.spec import CausalRegulariserSpec, TokenizerRun

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


class CausalModel(nn.Module):
    """Latent sequences [n, T, d] to predictions [n, T, outputs]; position t sees positions before t.

    One linear layer replaces the token embedding and one the classification head (paper App. A.1). Position 0 is
    predicted from a learnable start vector, for which the paper gives no rule, or left out: [n, T - 1, outputs].
    """

    def __init__(self, spec: CausalRegulariserSpec, latent_dim: int, grid: int, outputs: int | None = None) -> None:
        super().__init__()
        self.skipped = int(spec.first_position == "skipped")
        self.start = nn.Parameter(torch.zeros(spec.width))
        self.embed = nn.Linear(latent_dim, spec.width, bias=False)
        self.trunk = CausalBlocks(spec.transformer, grid, prefix=1)
        self.predict = nn.Linear(spec.width, outputs or latent_dim, bias=False)
        initialise(self, spec.layers)
        nn.init.normal_(self.embed.weight, std=latent_dim**-0.5)

    def forward(self, latents: Tensor) -> Tensor:
        """See the class."""
        start = self.start.expand(len(latents), 1, -1)
        hidden = self.trunk(torch.cat([start, self.embed(latents[:, :-1])], dim=1))
        return self.predict(hidden[:, self.skipped :])


class CausalRegulariser(Regulariser):
    """The loss around the causal model: l2 on latents, or cross-entropy on tokens.

    Cross-entropy (paper Table 4) takes the quantised codes as inputs and the tokens, which have no gradient, as
    targets: the encoder is reached through the straight-through codes that the model reads, and asked for codes that
    tell more of the next ones, not for next ones that are told more easily.
    """

    spec: CausalRegulariserSpec

    def __init__(self, spec: CausalRegulariserSpec, latent_dim: int, grid: int, outputs: int | None = None) -> None:
        """`outputs` are the codes that logits are of; None for l2. Raises UsageError where nothing is predicted."""
        super().__init__(spec)
        if spec.first_position == "skipped" and grid == 1:
            raise UsageError("regulariser.first_position = 'skipped' leaves nothing to predict of 1 token an image")
        self.model = CausalModel(spec, latent_dim, grid, outputs)

    @classmethod
    def of(cls, run: TokenizerRun) -> CausalRegulariser:
        """That of a run."""
        assert isinstance(run.regulariser, CausalRegulariserSpec)
        return cls(run.regulariser, regulariser_latent_dim(run), run.grid_size, regulariser_outputs(run))

    def penalty(self, encoded: Encoded, weight: float, whole: bool) -> Penalty:
        """See Regulariser."""
        latents = latents_of(encoded, self.spec.latents)
        if self.spec.objective == "cross-entropy":
            return self._of_tokens(latents, encoded.quantised.tokens, weight)
        terms = {"causal_latent_norm": latents.detach().norm(dim=1).mean()} if self.spec.can_shrink else {}
        if whole:
            loss, explained = self(latents, weight)
            return Penalty(loss, {"causal_explained_variance": explained, **terms})
        loss, squared, target = self.terms(latents, weight)
        # The share of variance follows from the moments of the whole batch.
        terms = {"causal_explained_variance": loss.new_zeros(()), **terms}
        return Penalty(loss, terms, variance_moments(squared, target))

    def of_moments(self, moments: Tensor) -> dict[str, Tensor]:
        """See Regulariser."""
        return {"causal_explained_variance": explained_by_moments(moments)}

    def sequence(self, latents: Tensor) -> Tensor:
        """Latent grids [n, d, h, w] as raster-order sequences [n, h w, d], of unit norm where the spec says so."""
        flat = raster(latents)
        return functional.normalize(flat, dim=-1) if self.spec.normalised else flat

    def forward(self, latents: Tensor, weight: float) -> tuple[Tensor, Tensor]:
        """The l2 loss to add to the tokenizer's (its gradient is already weighted: lambda into the encoder, 1 into the
        causal model), and the share of latent variance that the model predicts, detached."""
        loss, squared, target = self.terms(latents, weight)
        return loss, explained_variance(squared, target)

    def terms(self, latents: Tensor, weight: float) -> tuple[Tensor, Tensor, Tensor]:
        """The loss of `forward`, the squared errors and the targets, both [n, T, d]: for a part of a batch, whose
        share of variance would not be that of the batch."""
        sequence = scale_gradient(self.sequence(latents), weight)
        prediction = self.model(sequence)
        target = sequence.detach() if self.spec.detach_targets else sequence
        target = target[:, self.model.skipped :]
        squared = (prediction - target).square()
        loss = squared.sum(-1).mean() if self.spec.reduction == "sum" else squared.mean()
        return loss, squared, target

    def _of_tokens(self, codes: Tensor, tokens: Tensor, weight: float) -> Penalty:
        """Cross-entropy in nats a token, and the share of tokens that are the most likely one."""
        logits = self.model(scale_gradient(self.sequence(codes), weight))
        targets = tokens[:, self.model.skipped :].long()
        loss = functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())
        right = (logits.detach().argmax(-1) == targets).float().mean()
        return Penalty(loss, {"causal_accuracy": right})

"""IBQ (arXiv 2412.02692): the gradient of a choice reaches every code of the codebook."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional

from scaling.specification.models.quantizers import IndexBackpropagationSpec

from .base import CodebookQuantizer, squared_distances
from .entropy import codebook_entropies
from .nearest import nearest_codes

ELEMENTS = 2**22
"""Most entries of an assignment matrix that exist at once."""


class _SoftChoice(Function):
    """The mixture softmax(x c^T) v of values [K, d], for gradients to x and c alone; a chunk of rows at a time, and
    assignments are made again in the backward pass, so that the whole matrix never exists."""

    @staticmethod
    def forward(ctx: Any, latents: Tensor, codes: Tensor, values: Tensor) -> Tensor:
        ctx.save_for_backward(latents, codes, values)
        return torch.cat([(rows @ codes.t()).softmax(1) @ values for rows in _chunks(latents, len(codes))])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        latents, codes, values = ctx.saved_tensors
        by_codes, by_latents = torch.zeros_like(codes), []
        size = len(codes)
        for rows, upstream in zip(_chunks(latents, size), _chunks(gradients[0], size), strict=True):
            shares = (rows @ codes.t()).softmax(1)
            by_share = upstream @ values.t()
            by_score = shares * (by_share - (shares * by_share).sum(1, keepdim=True))
            by_codes += by_score.t() @ rows
            by_latents.append(by_score @ codes)
        return torch.cat(by_latents), by_codes, None


def _chunks(rows: Tensor, codes: int) -> tuple[Tensor, ...]:
    return rows.split(max(1, ELEMENTS // codes))


class IndexBackpropagationQuantizer(CodebookQuantizer):
    """The code of the largest inner product; the one-hot choice has the gradient of the softmax over all codes.

    Loss terms: see IndexBackpropagationSpec.
    """

    spec: IndexBackpropagationSpec

    def __init__(self, spec: IndexBackpropagationSpec) -> None:
        super().__init__(spec)
        bound = 1.0 / spec.codebook_size
        self.codebook = nn.Parameter(torch.empty(spec.codebook_size, spec.code_dim).uniform_(-bound, bound))
        self.count_choices()

    def codes(self) -> Tensor:
        """The codebook as it is compared: [codebook size, code_dim]."""
        return functional.normalize(self.codebook, dim=1) if self.spec.l2_normalised else self.codebook

    def nearest(self, flat: Tensor, codes: Tensor) -> Tensor:
        """Index of the largest inner product for each row of `flat` [m, d]; lengths count, as published."""
        return nearest_codes(flat, codes, by_product=True)

    def quantise(self, flat: Tensor, codes: Tensor, tokens: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """See CodebookQuantizer."""
        spec, chosen = self.spec, codes[tokens]
        # The one-hot choice times the codebook: its value is the chosen code; its gradient reaches the chosen code
        # directly, and latents and all codes through the softmax.
        mixture = _SoftChoice.apply(flat, codes, codes.detach())
        through = chosen + (mixture - mixture.detach())
        losses = {"joint": functional.mse_loss(through, flat), **squared_distances(chosen, flat)}
        weighted = (
            spec.joint_weight * losses["joint"]
            + spec.commitment_weight * losses["commitment"]
            + spec.codebook_weight * losses["codebook"]
        )
        if spec.entropy_weight:
            sample, batch = codebook_entropies(flat, codes, spec.entropy_temperature, self.total)
            losses |= {"sample_entropy": sample, "batch_entropy": batch}
            weighted = weighted + spec.entropy_weight * (sample - batch)
        return through, losses, weighted

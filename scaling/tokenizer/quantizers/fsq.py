"""FSQ: finite scalar quantisation, without a codebook and without losses."""

from __future__ import annotations

import torch
from torch import Tensor

from scaling.specification.models.quantizers import FiniteScalarQuantizerSpec

from .base import Quantised, Quantizer


class FiniteScalarQuantizer(Quantizer):
    """Rounds each bounded latent dimension to one of its levels (arXiv 2309.15505, Sec. 3); no codebook, no loss."""

    def __init__(self, spec: FiniteScalarQuantizerSpec) -> None:
        super().__init__(spec)
        levels = torch.tensor(spec.levels)
        self.register_buffer("levels", levels, persistent=False)
        self.register_buffer("basis", torch.cumprod(torch.tensor([1, *spec.levels[:-1]]), 0), persistent=False)
        self.levels: Tensor
        self.basis: Tensor

    def prepare(self, latents: Tensor) -> Tensor:
        """Bound dimension i to (-1, 1) x half its width, with the paper's offset for even levels."""
        half = ((self.levels - 1) * (1 + 1e-3) / 2).to(latents)[:, None, None]
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0).to(latents)[:, None, None]
        shift = torch.atanh(offset / half)
        return torch.tanh(latents + shift) * half - offset

    def forward(self, prepared: Tensor) -> Quantised:
        """Quantise the result of `prepare`; codes are scaled to [-1, 1]."""
        n, _, h, w = prepared.shape
        rounded = prepared + (prepared.round() - prepared).detach()
        half = (self.levels // 2).to(prepared)[:, None, None]
        digits = (rounded.detach() + half).round().long()
        tokens = (digits * self.basis[:, None, None]).sum(1).reshape(n, h * w)
        zero = prepared.new_zeros(())
        return Quantised(rounded / half, tokens, {}, zero)

    def decode(self, tokens: Tensor, grid: int) -> Tensor:
        """Tokens [n, grid^2] to codes [n, d, grid, grid]."""
        digits = (tokens[..., None] // self.basis) % self.levels
        half = self.levels // 2
        codes = (digits - half) / half
        return codes.reshape(-1, grid, grid, len(self.spec.levels)).permute(0, 3, 1, 2).float()

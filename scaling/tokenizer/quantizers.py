"""From latents to tokens and back: nearest-code vector quantisation and finite scalar quantisation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from scaling.networks import in_batches
from scaling.specification.spec import FiniteScalarQuantizerSpec, VectorQuantizerSpec

LOOKUP_ELEMENTS = 2**20
"""Most entries of the latent-code similarity matrix that exist at once: 4 MiB in float32."""

LOOKUP_GROUP = 64
"""Codes a group in the two-level maximum of `largest`."""


def largest(scores: Tensor) -> Tensor:
    """Index of the largest of each row of scores [m, K]: argmax, three times faster on a CPU for large K.

    The maximum of each group of codes is a vectorised reduction; the scalar search for an index then runs over the
    group maxima and within one group only.
    """
    m, size = scores.shape
    if size % LOOKUP_GROUP or size == LOOKUP_GROUP:
        return scores.argmax(1)
    groups = scores.view(m, -1, LOOKUP_GROUP)
    best = groups.amax(2).argmax(1)
    return best * LOOKUP_GROUP + groups[torch.arange(m, device=scores.device), best].argmax(1)


@dataclass
class Quantised:
    """What a quantizer makes of latents [n, d, h, w]: `codes` of that shape (gradients pass straight through to the
    latents), `tokens` [n, h w] in raster order, and loss terms by name, unweighted and weighted."""

    codes: Tensor
    tokens: Tensor
    losses: dict[str, Tensor]
    weighted: Tensor


class VectorQuantizer(nn.Module):
    """Nearest-code lookup with codebook and commitment losses (VQ-VAE), cosine distance where l2-normalised.

    Both latents and codes are projected to the unit sphere if `spec.l2_normalised` (ViT-VQGAN; paper App. A.1). The
    losses are means over dimensions of squared differences, as in LlamaGen's code.
    """

    def __init__(self, spec: VectorQuantizerSpec) -> None:
        super().__init__()
        self.spec = spec
        bound = 1.0 / spec.codebook_size
        self.codebook = nn.Parameter(torch.empty(spec.codebook_size, spec.code_dim).uniform_(-bound, bound))
        self.register_buffer("chosen", torch.zeros(spec.codebook_size, dtype=torch.int64))
        self.chosen: Tensor

    def prepare(self, latents: Tensor) -> Tensor:
        """The latents that are compared with codes: unit norm over dimension 1 where the spec says so."""
        return functional.normalize(latents, dim=1) if self.spec.l2_normalised else latents

    def codes(self) -> Tensor:
        """The codebook as it is compared: [codebook size, code_dim]."""
        return functional.normalize(self.codebook, dim=1) if self.spec.l2_normalised else self.codebook

    @torch.no_grad()
    def nearest(self, flat: Tensor, codes: Tensor) -> Tensor:
        """Index of the nearest code for each row of `flat` [m, d]; chunked so that memory does not grow with K."""
        rows = max(1, LOOKUP_ELEMENTS // codes.shape[0])
        half_norm = None if self.spec.l2_normalised else codes.square().sum(1) / 2
        transposed = codes.t().contiguous()

        def nearest(chunk: Tensor) -> Tensor:
            similarity = chunk @ transposed
            return largest(similarity if half_norm is None else similarity - half_norm)

        return in_batches(nearest, flat, batch=rows)

    def forward(self, prepared: Tensor) -> Quantised:
        """Quantise the result of `prepare`."""
        n, d, h, w = prepared.shape
        flat = prepared.permute(0, 2, 3, 1).reshape(-1, d)
        codes = self.codes()
        tokens = self.nearest(flat, codes)
        if self.training:
            self.chosen += torch.bincount(tokens, minlength=self.spec.codebook_size)
        chosen = codes[tokens]
        losses = {
            "codebook": functional.mse_loss(chosen, flat.detach()),
            "commitment": functional.mse_loss(flat, chosen.detach()),
        }
        weighted = self.spec.codebook_weight * losses["codebook"] + self.spec.commitment_weight * losses["commitment"]
        through = flat + (chosen - flat).detach()
        grid = through.reshape(n, h, w, d).permute(0, 3, 1, 2)
        return Quantised(grid, tokens.reshape(n, h * w), losses, weighted)

    def decode(self, tokens: Tensor, grid: int) -> Tensor:
        """Tokens [n, grid^2] to codes [n, d, grid, grid]."""
        return self.codes()[tokens].reshape(-1, grid, grid, self.spec.code_dim).permute(0, 3, 1, 2)

    @torch.no_grad()
    def revive(self, prepared: Tensor, generator: Generator) -> Tensor:
        """Move codes that nothing chose since the last call onto random latents of the batch; returns their mask.

        Dead codes would never return: only chosen codes receive gradients.
        """
        dead = self.chosen == 0
        self.chosen.zero_()
        flat = prepared.detach().permute(0, 2, 3, 1).reshape(-1, self.spec.code_dim)
        picks = torch.randint(len(flat), (self.spec.codebook_size,), generator=generator)
        self.codebook.copy_(torch.where(dead[:, None], flat[picks].float(), self.codebook))
        return dead


class FiniteScalarQuantizer(nn.Module):
    """Rounds each bounded latent dimension to one of its levels (arXiv 2309.15505, Sec. 3); no codebook, no loss."""

    def __init__(self, spec: FiniteScalarQuantizerSpec) -> None:
        super().__init__()
        self.spec = spec
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


QuantizerModule = VectorQuantizer | FiniteScalarQuantizer


def build_quantizer(spec: VectorQuantizerSpec | FiniteScalarQuantizerSpec) -> QuantizerModule:
    """The module behind a quantizer's specification."""
    return VectorQuantizer(spec) if isinstance(spec, VectorQuantizerSpec) else FiniteScalarQuantizer(spec)

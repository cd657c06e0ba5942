"""What every quantizer is: latents in, codes, tokens and loss terms out; tokens back to codes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from ..totals import Total
from .nearest import nearest_codes


@dataclass
class Quantised:
    """What a quantizer makes of latents [n, d, h, w]: `codes` of that shape (gradients pass straight through to the
    latents), `tokens` [n, h w] in raster order, and loss terms by name, unweighted and weighted."""

    codes: Tensor
    tokens: Tensor
    losses: dict[str, Tensor] = field(default_factory=dict)
    weighted: Tensor = field(default_factory=lambda: torch.zeros(()))


class Quantizer(nn.Module, ABC):
    """The protocol: `prepare`, `forward`, `decode`, and the number of codes. `spec` has codebook_size and code_dim."""

    def __init__(self, spec: Any) -> None:
        super().__init__()
        self.spec = spec
        self.processes: Total | None = None
        """Sums over the processes that train together; None: there is one."""

    @property
    def total(self) -> Total | None:
        """What adds up over the processes of a step; a measurement is one process's own."""
        return self.processes if self.training else None

    @property
    def size(self) -> int:
        """Number of codes."""
        return self.spec.codebook_size

    def prepare(self, latents: Tensor) -> Tensor:
        """The latents [n, d, h, w] as they are compared with codes."""
        return latents

    @abstractmethod
    def forward(self, prepared: Tensor) -> Quantised:
        """Quantise the result of `prepare`."""

    @abstractmethod
    def decode(self, tokens: Tensor, grid: int) -> Tensor:
        """Tokens [n, grid^2] to codes [n, d, grid, grid]."""


class CodebookQuantizer(Quantizer):
    """A quantizer with a table of codes: exact search, and counts of the codes that were chosen.

    `chosen` int64 [codebook size] counts choices in training since `revive` was called last, in all processes: the
    training adds up what each process counts.
    """

    chosen: Tensor

    def __init__(self, spec: Any) -> None:
        super().__init__(spec)

    def count_choices(self) -> None:
        """Have the counts, once the codebook is there: the order of names in stored weights is kept."""
        self.register_buffer("chosen", torch.zeros(self.size, dtype=torch.int64))

    def prepare(self, latents: Tensor) -> Tensor:
        """The latents that are compared with codes: unit norm over dimension 1 where the spec says so."""
        return functional.normalize(latents, dim=1) if self.spec.l2_normalised else latents

    @abstractmethod
    def codes(self) -> Tensor:
        """The codebook as it is compared: [codebook size, code_dim]."""

    def nearest(self, flat: Tensor, codes: Tensor) -> Tensor:
        """Index of the nearest code for each row of `flat` [m, d]."""
        return nearest_codes(flat, codes, by_product=self.spec.l2_normalised)

    @abstractmethod
    def quantise(self, flat: Tensor, codes: Tensor, tokens: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Of latents [m, d] and the tokens chosen for them: codes [m, d] with gradients through, loss terms by name,
        and their weighted sum."""

    def forward(self, prepared: Tensor) -> Quantised:
        """Quantise the result of `prepare`."""
        n, d, h, w = prepared.shape
        flat = prepared.permute(0, 2, 3, 1).reshape(-1, d)
        codes = self.codes()
        tokens = self.nearest(flat, codes)
        if self.training:
            self.chosen += torch.bincount(tokens, minlength=self.size)
        through, losses, weighted = self.quantise(flat, codes, tokens)
        grid = through.reshape(n, h, w, d).permute(0, 3, 1, 2)
        return Quantised(grid, tokens.reshape(n, h * w), losses, weighted)

    def decode(self, tokens: Tensor, grid: int) -> Tensor:
        """Tokens [n, grid^2] to codes [n, d, grid, grid]."""
        return self.codes()[tokens].reshape(-1, grid, grid, self.spec.code_dim).permute(0, 3, 1, 2)


class Revivable(CodebookQuantizer):
    """A codebook whose dead codes can be moved; `spec` has revive_every and revive_until."""

    codebook: nn.Parameter

    @torch.no_grad()
    def revive(self, prepared: Tensor, generator: Generator) -> Tensor:
        """Move codes that nothing chose since the last call onto random latents of the batch; returns their mask.

        Dead codes would never return: only chosen codes receive gradients.
        """
        dead = self.chosen == 0
        self.chosen.zero_()
        flat = prepared.detach().permute(0, 2, 3, 1).reshape(-1, self.spec.code_dim)
        picks = torch.randint(len(flat), (self.size,), generator=generator)
        self.codebook.copy_(torch.where(dead[:, None], flat[picks].float(), self.codebook))
        return dead


def squared_distances(chosen: Tensor, flat: Tensor) -> dict[str, Tensor]:
    """The two losses of VQ-VAE, means over dimensions: `codebook` moves codes alone, `commitment` latents alone."""
    return {
        "codebook": functional.mse_loss(chosen, flat.detach()),
        "commitment": functional.mse_loss(flat, chosen.detach()),
    }

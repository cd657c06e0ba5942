"""What LFQ and BSQ share: the sign of each dimension is one bit of the token."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .base import Quantised, Quantizer
from .entropy import bit_entropies


class BinaryQuantizer(Quantizer):
    """Each latent dimension becomes +-`magnitude`, the first the lowest bit; zero counts as negative.

    `logit_scale` x latent is the log-odds of +1 against -1 in the soft assignment behind the entropies.
    """

    magnitude = 1.0
    logit_scale = 1.0
    joint = True
    """Whether the batch's entropy is over whole codes, or bit by bit."""
    basis: Tensor

    def powers(self) -> None:
        """Have the value of each bit as a buffer that is not stored."""
        self.register_buffer("basis", 2 ** torch.arange(self.spec.bits), persistent=False)

    def forward(self, prepared: Tensor) -> Quantised:
        """Quantise the result of `prepare`."""
        spec, raised = self.spec, prepared > 0
        tokens = (raised * self.basis[:, None, None]).sum(1).flatten(1)
        signs = torch.where(raised, self.magnitude, -self.magnitude).to(prepared)
        losses = {"commitment": functional.mse_loss(prepared, signs)}
        weighted = spec.commitment_weight * losses["commitment"]
        if spec.entropy_weight:
            flat = prepared.permute(0, 2, 3, 1).reshape(-1, spec.bits)
            sample, batch = bit_entropies(flat, self.logit_scale, self.joint, self.total)
            losses |= {"sample_entropy": sample, "batch_entropy": batch}
            weighted = weighted + spec.entropy_weight * (sample - spec.diversity_weight * batch)
        return Quantised(prepared + (signs - prepared).detach(), tokens, losses, weighted)

    def decode(self, tokens: Tensor, grid: int) -> Tensor:
        """Tokens [n, grid^2] to codes [n, d, grid, grid]."""
        bits = (tokens[:, None] & self.basis[:, None]) > 0
        codes = torch.where(bits, self.magnitude, -self.magnitude)
        return codes.reshape(-1, self.spec.bits, grid, grid).float()

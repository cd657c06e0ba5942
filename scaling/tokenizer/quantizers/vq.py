"""VQ: nearest-code vector quantisation with codebook and commitment losses."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from scaling.specification.models.quantizers import VectorQuantizerSpec

from .base import Revivable, squared_distances
from .entropy import codebook_entropies


class VectorQuantizer(Revivable):
    """Nearest-code lookup with codebook and commitment losses (VQ-VAE), cosine distance where l2-normalised.

    Both latents and codes are projected to the unit sphere if `spec.l2_normalised` (ViT-VQGAN; paper App. A.1). The
    losses are means over dimensions of squared differences, as in LlamaGen's code.
    """

    spec: VectorQuantizerSpec

    def __init__(self, spec: VectorQuantizerSpec) -> None:
        super().__init__(spec)
        bound = 1.0 / spec.codebook_size
        codebook = torch.empty(spec.codebook_size, spec.code_dim).uniform_(-bound, bound)
        if spec.initialisation == "unit-norm":
            codebook = functional.normalize(codebook, dim=1)
        self.codebook = nn.Parameter(codebook)
        self.count_choices()

    def codes(self) -> Tensor:
        """The codebook as it is compared: [codebook size, code_dim]."""
        return functional.normalize(self.codebook, dim=1) if self.spec.l2_normalised else self.codebook

    def quantise(self, flat: Tensor, codes: Tensor, tokens: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """See CodebookQuantizer."""
        chosen = codes[tokens]
        losses = squared_distances(chosen, flat)
        weighted = self.spec.codebook_weight * losses["codebook"] + self.spec.commitment_weight * losses["commitment"]
        if self.spec.entropy_weight:
            # -|z - c|^2 = 2 z c - |c|^2 up to the latent's own norm, which is the same for every code.
            ones = flat.new_ones(len(flat), 1)
            latents, table = torch.cat([2 * flat, ones], 1), torch.cat([codes, -codes.square().sum(1, True)], 1)
            sample, batch = codebook_entropies(latents, table, self.spec.entropy_temperature, self.total)
            losses |= {"sample_entropy": sample, "batch_entropy": batch}
            weighted = weighted + self.spec.entropy_weight * (sample - batch)
        return flat + (chosen - flat).detach(), losses, weighted

"""SimVQ (arXiv 2411.02038): a frozen codebook behind one learnt linear map."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from scaling.specification.models.quantizers import SimVectorQuantizerSpec

from .base import CodebookQuantizer, squared_distances


class SimVectorQuantizer(CodebookQuantizer):
    """Codes are W c + b of frozen Gaussian c (Sec. 4): a step for any code moves the whole codebook, so that none dies.

    The codebook has variance 1 / code_dim, so that its vectors have length 1 on average.
    """

    spec: SimVectorQuantizerSpec
    codebook: Tensor

    def __init__(self, spec: SimVectorQuantizerSpec) -> None:
        super().__init__(spec)
        self.register_buffer("codebook", torch.randn(spec.codebook_size, spec.code_dim) * spec.code_dim**-0.5)
        self.map = nn.Linear(spec.code_dim, spec.code_dim)
        self.count_choices()

    def codes(self) -> Tensor:
        """The codebook as it is compared: [codebook size, code_dim]."""
        mapped = self.map(self.codebook)
        return functional.normalize(mapped, dim=1) if self.spec.l2_normalised else mapped

    def quantise(self, flat: Tensor, codes: Tensor, tokens: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """See CodebookQuantizer."""
        chosen = codes[tokens]
        losses = squared_distances(chosen, flat)
        weighted = self.spec.codebook_weight * losses["codebook"] + self.spec.commitment_weight * losses["commitment"]
        return flat + (chosen - flat).detach(), losses, weighted

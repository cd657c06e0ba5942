"""LFQ (MAGVIT-v2, arXiv 2310.05737, Sec. 3.1): quantisation without lookup, to the signs of the latents."""

from __future__ import annotations

from scaling.specification.models.quantizers import LookupFreeQuantizerSpec

from .binary import BinaryQuantizer


class LookupFreeQuantizer(BinaryQuantizer):
    """Codes are +-1 in each dimension; entropies are of softmax(-squared distance / temperature) over all codes, whose
    bits have log-odds ((z + 1)^2 - (z - 1)^2) / temperature = 4 z / temperature."""

    spec: LookupFreeQuantizerSpec

    def __init__(self, spec: LookupFreeQuantizerSpec) -> None:
        super().__init__(spec)
        self.logit_scale = 4 / spec.entropy_temperature
        self.powers()

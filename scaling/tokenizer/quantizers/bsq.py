"""BSQ (arXiv 2406.07548): binary quantisation on the unit sphere."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from scaling.specification.models.quantizers import BinarySphericalSpec

from .binary import BinaryQuantizer


class BinarySphericalQuantizer(BinaryQuantizer):
    """Latents of unit norm become the nearest corner +-1 / sqrt(bits), also of unit norm; soft assignments are
    softmax(inner product / temperature), whose bits have log-odds 2 z / (sqrt(bits) temperature)."""

    spec: BinarySphericalSpec
    joint = False

    def __init__(self, spec: BinarySphericalSpec) -> None:
        super().__init__(spec)
        self.magnitude = spec.bits**-0.5
        self.logit_scale = 2 * self.magnitude / spec.entropy_temperature
        self.powers()

    def prepare(self, latents: Tensor) -> Tensor:
        """Unit norm over dimension 1."""
        return functional.normalize(latents, dim=1)

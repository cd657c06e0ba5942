"""From latents to tokens and back: one file a quantizer, behind the protocol of `base`."""

from scaling.specification.models import quantizers as specifications

from .base import CodebookQuantizer, Quantised, Quantizer, Revivable
from .bsq import BinarySphericalQuantizer
from .fsq import FiniteScalarQuantizer
from .ibq import IndexBackpropagationQuantizer
from .lfq import LookupFreeQuantizer
from .simvq import SimVectorQuantizer
from .vq import VectorQuantizer

__all__ = [
    "BinarySphericalQuantizer", "CodebookQuantizer", "FiniteScalarQuantizer", "IndexBackpropagationQuantizer",
    "LookupFreeQuantizer", "Quantised", "Quantizer", "Revivable", "SimVectorQuantizer", "VectorQuantizer",
    "build_quantizer",
]  # fmt: skip

_MODULES: dict[str, type[Quantizer]] = {
    "vq": VectorQuantizer,
    "simvq": SimVectorQuantizer,
    "ibq": IndexBackpropagationQuantizer,
    "fsq": FiniteScalarQuantizer,
    "lfq": LookupFreeQuantizer,
    "bsq": BinarySphericalQuantizer,
}


def build_quantizer(spec: specifications.QuantizerSpec) -> Quantizer:
    """The module behind a quantizer's specification."""
    return _MODULES[spec.kind](spec)

"""Parameters and FLOPs of quantizers; conventions as in `flops`. No torch."""

from __future__ import annotations

from typing import NamedTuple

from ..models.quantizers import (
    IndexBackpropagationSpec,
    LookupFreeQuantizerSpec,
    QuantizerSpec,
    SimVectorQuantizerSpec,
    VectorQuantizerSpec,
)


class QuantizerParameters(NamedTuple):
    """Parameters of a quantizer: its codebook where that is trained, what else is trained, and what is not."""

    codebook: int = 0
    other: int = 0
    frozen: int = 0


def quantizer_parameters(spec: QuantizerSpec) -> QuantizerParameters:
    """Parameters of a quantizer; FSQ, LFQ and BSQ have none."""
    table = spec.codebook_size * spec.code_dim
    if isinstance(spec, SimVectorQuantizerSpec):
        return QuantizerParameters(other=spec.code_dim * (spec.code_dim + 1), frozen=table)
    if isinstance(spec, VectorQuantizerSpec | IndexBackpropagationSpec):
        return QuantizerParameters(codebook=table)
    return QuantizerParameters()


def quantizer_training_flops(spec: QuantizerSpec, tokens: int, batch_size: int) -> float:
    """Forward and backward FLOPs of one image of `tokens` tokens, of a batch of `batch_size`.

    A search costs 2 T K d, with no gradient; VQ's entropy terms one product of d + 1 dimensions forward, one again, and
    two backward. SimVQ maps its codebook once a step, and the map's weight alone needs a
    gradient. IBQ's softmax over the codes and the mixture of codes cost two products forward and four backward, the
    first of which makes the softmax again; its entropy terms one forward, one again, and two backward. The entropy of
    LFQ's batch is one product of the two halves of the bits, two backward.
    """
    product = 2 * tokens * spec.codebook_size * spec.code_dim
    if isinstance(spec, VectorQuantizerSpec):
        entropies = 4 * 2 * tokens * spec.codebook_size * (spec.code_dim + 1)
        return product + (entropies if spec.entropy_weight else 0)
    if isinstance(spec, SimVectorQuantizerSpec):
        return product + 4 * spec.codebook_size * spec.code_dim**2 / batch_size
    if isinstance(spec, IndexBackpropagationSpec):
        return product * (1 + 6 + (4 if spec.entropy_weight else 0))
    if isinstance(spec, LookupFreeQuantizerSpec) and spec.entropy_weight:
        return 3 * 2 * tokens * spec.codebook_size
    return 0.0

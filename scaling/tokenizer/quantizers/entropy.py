"""Entropies of soft assignments of latents to codes, for quantizers that train with them; in bounded memory.

`sample_entropy` is the mean entropy of one latent's assignment, to be made small, `batch_entropy` that of the mean
assignment, to be made large (MAGVIT-v2, arXiv 2310.05737, Sec. 3.1). Both in nats. The mean is that of a whole batch:
with `total` over the latents of all processes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ..totals import Total, whole_mean

ELEMENTS = 2**22
"""Most entries of an assignment matrix that exist at once."""


def entropy_of(shares: Tensor) -> Tensor:
    """-sum p ln p of the last dimension; 0 for p = 0, with a finite gradient."""
    return -(shares * shares.clamp_min(torch.finfo(shares.dtype).tiny).log()).sum(-1)


def _assignments(flat: Tensor, codes: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Sums over the rows of `flat` of the assignment [K] and of its entropy."""
    logarithms = functional.log_softmax(flat @ codes.t() / temperature, dim=1)
    shares = logarithms.exp()
    return shares.sum(0), -(shares * logarithms).sum()


def codebook_entropies(
    flat: Tensor, codes: Tensor, temperature: float, total: Total | None = None
) -> tuple[Tensor, Tensor]:
    """(sample_entropy, batch_entropy) of softmax(flat codes^T / temperature) for latents [m, d] and codes [K, d].

    Assignments are made a second time in the backward pass in place of being kept.
    """
    rows = max(1, ELEMENTS // len(codes))
    mean, sample = codes.new_zeros(len(codes)), codes.new_zeros(())
    for chunk in flat.split(rows):
        summed, entropies = checkpoint(
            _assignments, chunk, codes, temperature, use_reentrant=False, preserve_rng_state=False
        )
        mean, sample = mean + summed, sample + entropies
    return sample / len(flat), entropy_of(whole_mean(mean, len(flat), total))


def _bits(flat: Tensor, logit_scale: float) -> Tensor:
    """Of latents [m, d]: the shares of -1 and +1 in each dimension, [m, d, 2]."""
    raised = (flat * logit_scale).sigmoid()
    return torch.stack([(-flat * logit_scale).sigmoid(), raised], dim=-1)


def _half(bits: Tensor) -> Tensor:
    """Shares [m, d, 2] of single bits to those of all their combinations, [m, 2^d]; the first bit counts least."""
    joint = bits.new_ones(len(bits), 1)
    for bit in bits.unbind(1):
        joint = (bit[:, :, None] * joint[:, None, :]).flatten(1)
    return joint


def bit_entropies(flat: Tensor, logit_scale: float, joint: bool, total: Total | None = None) -> tuple[Tensor, Tensor]:
    """(sample_entropy, batch_entropy) of independent bits whose share of +1 is sigmoid(logit_scale x latent).

    joint  whether batch_entropy is that of whole codes, or the sum over bits, its upper bound (BSQ, Sec. 3.2)

    A latent's bits are independent, so that its entropy is the sum over bits, and its assignment to codes the outer
    product of its assignments to their two halves: the mean assignment to all 2^d codes is one matrix product.
    """
    bits = _bits(flat, logit_scale)
    sample = entropy_of(bits).sum(1).mean()
    if not joint:
        return sample, entropy_of(whole_mean(bits.sum(0), len(flat), total)).sum()
    half = bits.shape[1] // 2
    mean = flat.new_zeros(2 ** (bits.shape[1] - half), 2**half)
    for chunk in bits.split(max(1, ELEMENTS // len(mean))):
        mean = mean + checkpoint(_outer, chunk, half, use_reentrant=False, preserve_rng_state=False)
    return sample, entropy_of(whole_mean(mean, len(flat), total).flatten())


def _outer(bits: Tensor, half: int) -> Tensor:
    return _half(bits[:, half:]).t() @ _half(bits[:, :half])

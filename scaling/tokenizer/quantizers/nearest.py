"""Exact nearest-code search in codebooks of up to 2^20 entries, in bounded memory."""

from __future__ import annotations

import torch
from torch import Tensor

from scaling.networks import in_batches

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


@torch.no_grad()
def nearest_codes(flat: Tensor, codes: Tensor, by_product: bool) -> Tensor:
    """Index int64 [m] of the nearest of codes [K, d] for each row of `flat` [m, d]: by the largest inner product, which
    for vectors of length 1 is the nearest, or by Euclidean distance. The first of equals."""
    rows = max(1, LOOKUP_ELEMENTS // codes.shape[0])
    half_norm = None if by_product else codes.square().sum(1) / 2
    transposed = codes.t().contiguous()

    def nearest(chunk: Tensor) -> Tensor:
        similarity = chunk @ transposed
        return largest(similarity if half_norm is None else similarity - half_norm)

    return in_batches(nearest, flat, batch=rows)

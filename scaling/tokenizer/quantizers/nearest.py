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


TILED_FROM = 2**14
"""Larger codebooks are searched a tile of codes at a time: their rows of similarities do not fit into a cache."""

TILE = 512
"""Latents, and codes, of a tile: 1 MiB of similarities."""


@torch.no_grad()
def nearest_codes(flat: Tensor, codes: Tensor, by_product: bool) -> Tensor:
    """Index int64 [m] of the nearest of codes [K, d] for each row of `flat` [m, d]: by the largest inner product, which
    for vectors of length 1 is the nearest, or by Euclidean distance. The first of equals."""
    half_norm = None if by_product else codes.square().sum(1) / 2
    size = codes.shape[0]
    if size > TILED_FROM and size % TILE == 0:
        return in_batches(lambda rows: _nearest_by_tiles(rows, codes, half_norm), flat, batch=TILE)
    transposed = codes.t().contiguous()

    def nearest(chunk: Tensor) -> Tensor:
        similarity = chunk @ transposed
        return largest(similarity if half_norm is None else similarity - half_norm)

    return in_batches(nearest, flat, batch=max(1, LOOKUP_ELEMENTS // size))


def _nearest_by_tiles(rows: Tensor, codes: Tensor, half_norm: Tensor | None) -> Tensor:
    """`nearest_codes` of at most TILE rows. Of each tile only the maxima of its groups of codes are kept; the winning
    group is compared once more. Codes that are nearer than the next by less than rounding may change places."""
    m, groups = len(rows), len(codes) // LOOKUP_GROUP
    maxima = rows.new_empty(m, groups)
    for begin in range(0, len(codes), TILE):
        scores = rows @ codes[begin : begin + TILE].t()
        if half_norm is not None:
            scores -= half_norm[begin : begin + TILE]
        first = begin // LOOKUP_GROUP
        maxima[:, first : first + TILE // LOOKUP_GROUP] = scores.view(m, -1, LOOKUP_GROUP).amax(2)
    best = maxima.argmax(1)
    candidates = torch.bmm(codes.view(groups, LOOKUP_GROUP, -1)[best], rows[:, :, None])[:, :, 0]
    if half_norm is not None:
        candidates -= half_norm.view(groups, LOOKUP_GROUP)[best]
    return best * LOOKUP_GROUP + candidates.argmax(1)

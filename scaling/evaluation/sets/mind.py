"""MIND, the Monge Inception Distance (arXiv 2605.06797): sliced Wasserstein distance of features, on the scale of FID.

MIND = 3 d mean_u W_2^2(u . x, u . y) over random unit vectors u in d dimensions; the distance on a line is that of
sorted values. d mean_u |u . s|^2 = |s|^2, so of two Gaussians that differ in their means alone it is three times the
FID; the factor 3 is the paper's, to bring values of image features near FID's. It has no covariance to estimate, so it
needs fewer samples: 5,000 where FID takes 50,000. Its bias at n samples is about c / n too: compare at equal n.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .kid import check_pair

DIRECTIONS = 1_000
SCALE = 3


def mind(features: Tensor, reference: Tensor, directions: int = DIRECTIONS, seed: int = 0) -> float:
    """Of features [n, d] against [m, d], over directions drawn from a seed; 0 for equal sets, never negative.

    Where n != m, a random min(n, m) of the larger set are used, as the paper's code does. Raises ValueError for
    matrices of different widths, without rows, or with values that are not finite.
    """
    check_pair(features, reference)
    generator = torch.Generator().manual_seed(seed)
    count, width = min(len(features), len(reference)), features.shape[1]
    x, y = (_drawn(rows, count, generator) for rows in (features, reference))
    vectors = torch.randn(directions, width, generator=generator, dtype=torch.float64)
    vectors = (vectors / vectors.norm(dim=1, keepdim=True)).to(x)
    total = 0.0
    # A hundred directions at a time: their projections need 100 x n floats on each side.
    for chosen in vectors.split(100):
        gaps = (chosen @ x.T).sort(dim=1).values - (chosen @ y.T).sort(dim=1).values
        total += float(gaps.to(torch.float64 if gaps.device.type != "mps" else torch.float32).square().mean(1).sum())
    return SCALE * width * total / directions


def _drawn(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    if len(rows) == count:
        return rows
    return rows[torch.randperm(len(rows), generator=generator)[:count].to(rows.device)]

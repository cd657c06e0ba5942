"""The Frechet distance against the number of images, and its limit: how much of a value is bias.

To first order the estimate is d(n) = d + c / n (arXiv 1911.07023), whose line in 1 / n ends in an estimate of d. The
reference is fixed. The limit is itself an extrapolation: it is compared with limits, never with values at an n.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .frechet import distance
from .moments import Moments


@dataclass(frozen=True)
class FrechetCurve:
    """Distances at numbers of images, increasing, the line's end at infinite n, and its slope c in 1 / n."""

    sizes: tuple[int, ...]
    values: tuple[float, ...]
    limit: float
    slope: float


def frechet_curve(
    features: Tensor, reference: Moments, sizes: Sequence[int] | None = None, seed: int = 0
) -> FrechetCurve:
    """Of features [n, d], by random subsets that contain each other; default: 8 sizes from n / 4 to n.

    Raises ValueError for fewer than two sizes, or sizes that are not between 2 and n.
    """
    n = len(features)
    chosen = sorted(set(sizes or [int(n / 4 + (n - n / 4) * step / 7) for step in range(8)]))
    if len(chosen) < 2 or chosen[0] < 2 or chosen[-1] > n:
        raise ValueError(f"sizes = {chosen} are not allowed; allowed: at least two different ones from 2 to {n}")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    moments, start, values = [], 0, []
    for size in chosen:
        moments.append(Moments.of(features[order[start:size]]))
        values.append(distance(Moments.total(moments), reference))
        start = size
    slope, limit = np.polyfit([1 / size for size in chosen], values, 1)
    return FrechetCurve(tuple(chosen), tuple(values), float(limit), float(slope))

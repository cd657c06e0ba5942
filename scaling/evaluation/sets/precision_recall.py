"""Improved precision and recall (arXiv 1904.06991): are samples among the data, is the data among the samples?

A set's manifold is the union of balls around its points, each with the distance to its k-th nearest other point as its
radius (k = 3). Precision is the share of samples inside the data's manifold, recall the share of data inside the
samples'. Both depend on n on either side: with more points balls shrink. Compare at equal n; the field uses 50,000
samples (ADM: 10,000 of the reference).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .kid import check_pair

NEIGHBOUR = 3


@dataclass(frozen=True)
class PrecisionRecall:
    """Shares of samples in the data's manifold, and of the data in the samples'."""

    precision: float
    recall: float


def precision_recall(
    features: Tensor, reference: Tensor, neighbour: int = NEIGHBOUR, chunk: int = 1_024
) -> PrecisionRecall:
    """Of samples' features [n, d] against the data's [m, d], exact, `chunk` rows at a time (chunk x max(n, m) floats).

    Raises ValueError for matrices of different widths, or with no more than `neighbour` rows.
    """
    check_pair(features, reference)
    if min(len(features), len(reference)) <= neighbour:
        raise ValueError(f"precision and recall need more than {neighbour} images on each side")
    # Around the common mean, so that the expanded form of distances cancels less.
    centre = reference.to(torch.float64).mean(dim=0).to(features.dtype)
    x, y = features - centre, reference.to(features) - centre
    return PrecisionRecall(
        precision=_share_inside(x, y, _radii(y, neighbour, chunk), chunk),
        recall=_share_inside(y, x, _radii(x, neighbour, chunk), chunk),
    )


def _radii(points: Tensor, neighbour: int, chunk: int) -> Tensor:
    """Distance [n] of each point to its k-th nearest other; the nearest of all is the point itself."""
    return torch.cat(
        [torch.cdist(rows, points).kthvalue(neighbour + 1, dim=1).values for rows in points.split(chunk)]
    )  # fmt: skip


def _share_inside(queries: Tensor, centres: Tensor, radii: Tensor, chunk: int) -> float:
    inside = [(torch.cdist(rows, centres) <= radii).any(dim=1) for rows in queries.split(chunk)]
    return float(torch.cat(inside).double().mean())

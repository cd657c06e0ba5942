"""Kernel Inception Distance (arXiv 1801.01401): squared maximum mean discrepancy with a cubic kernel, without bias.

k(x, y) = (x . y / d + 1)^3. The estimate of one pair of subsets of m rows is
sum_{i != j} k(x_i, x_j) / m(m - 1) + sum_{i != j} k(y_i, y_j) / m(m - 1) - 2 sum_ij k(x_i, y_j) / m^2,
whose expectation does not depend on m: unlike FID, values of different sample sizes are comparable, and 0 or a little
below is what equal distributions give. As the field does, the mean over random subsets is reported; the draws are those
of torch-fidelity (numpy's RandomState(2020)), so that its values come out again to about 1e-6.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

SUBSETS = 100
SUBSET_SIZE = 1_000
SEED = 2020


@dataclass(frozen=True)
class KidEstimate:
    """`value`: mean over subsets; `spread`: their standard deviation, which the field prints; `standard_error`: of the
    value over the draw of images, None where subsets overlap too much to tell; `size`: rows a subset; `n`: of samples.
    """

    value: float
    spread: float
    standard_error: float | None
    size: int
    n: int


def kid(
    features: Tensor, reference: Tensor, subsets: int = SUBSETS, size: int = SUBSET_SIZE, seed: int = SEED
) -> KidEstimate:
    """Of features [n, d] against [m, d]; subsets of `size` rows of each, or of all where there are fewer.

    The standard error: subsets of s rows scatter by sigma, drawn without repeats from n, so that the scatter of fresh
    ones is sigma / (1 - s / n)^1/2; a value from all n scatters by (s / n)^1/2 of it, to which 1 / subsets is added for
    the draw of subsets. It is given where n >= 2 s, and errs on the wide side near 0, where the estimate varies as 1/n.

    Raises ValueError for matrices of different widths, fewer than two rows, or values that are not finite.
    """
    check_pair(features, reference)
    n, m = len(features), len(reference)
    size = min(size, n, m)
    if size < 2:
        raise ValueError("a KID needs at least 2 images on each side")
    draws = np.random.RandomState(seed)
    values = np.empty(subsets)
    for i in range(subsets):
        x = features[torch.from_numpy(draws.choice(n, size, replace=False)).to(features.device)]
        y = reference[torch.from_numpy(draws.choice(m, size, replace=False)).to(reference.device)]
        values[i] = _discrepancy(x.to(torch.float64), y.to(torch.float64))
    spread, share = float(values.std()), size / min(n, m)
    error = spread * (1 / subsets + share / (1 - share)) ** 0.5 if share <= 0.5 else None
    return KidEstimate(float(values.mean()), spread, error, size, n)


def _discrepancy(x: Tensor, y: Tensor) -> float:
    """Unbiased squared discrepancy of two matrices [m, d]."""
    m = len(x)
    within = sum(float(kernel.sum() - kernel.diagonal().sum()) for kernel in (_kernel(x, x), _kernel(y, y)))
    return within / (m * (m - 1)) - 2 * float(_kernel(x, y).mean())


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def check_pair(features: Tensor, reference: Tensor) -> None:
    """Raises ValueError unless both are finite matrices of one width, with rows."""
    for name, rows in (("features", features), ("reference features", reference)):
        if rows.ndim != 2 or not len(rows):
            raise ValueError(f"{name} must be a matrix with at least one row, not {list(rows.shape)}")
        if not bool(torch.isfinite(rows).all()):
            raise ValueError(f"{name} hold values that are not finite")
    if features.shape[1] != reference.shape[1]:
        raise ValueError(f"features of {features.shape[1]} and of {reference.shape[1]} dimensions cannot be compared")

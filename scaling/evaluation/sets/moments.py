"""Count, mean and scatter of features in float64, by chunks and by ranks: what a Frechet distance needs to know."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Moments:
    """Count, mean [d] and scatter [d, d] (sum of outer products of deviations from the mean) of features, in float64.

    The scatter rather than the covariance is kept, so that parts merge without loss, and one row is a valid part.
    """

    count: int
    mean: Tensor
    scatter: Tensor

    @property
    def covariance(self) -> Tensor:
        """Unbiased covariance [d, d]. Raises ValueError for fewer than two rows."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 rows of features, not {self.count}")
        return self.scatter / (self.count - 1)

    @staticmethod
    def of(features: Tensor) -> Moments:
        """Of float features [n, d]. Raises ValueError if they are not a matrix, empty, or not finite."""
        if features.ndim != 2 or not len(features):
            raise ValueError(f"features must be a matrix with at least one row, not {list(features.shape)}")
        rows = features.to(torch.float64)
        mean = rows.mean(dim=0)
        centred = rows - mean
        scatter = centred.T @ centred
        if not (torch.isfinite(mean).all() and torch.isfinite(scatter).all()):
            raise ValueError("features hold values that are not finite")
        return Moments(len(rows), mean, scatter)

    @staticmethod
    def of_statistics(mean: Tensor, covariance: Tensor, count: int) -> Moments:
        """From a published mean [d] and unbiased covariance [d, d] of `count` rows. Raises ValueError for bad ones."""
        if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
            raise ValueError(f"mean {list(mean.shape)} and covariance {list(covariance.shape)} do not fit together")
        if not (torch.isfinite(mean).all() and torch.isfinite(covariance).all()):
            raise ValueError("mean or covariance holds values that are not finite")
        wide = covariance.to(torch.float64)
        asymmetry, scale = float((wide - wide.T).abs().max()), float(wide.abs().max())
        if asymmetry > 1e-4 * scale or bool((wide.diagonal() < 0).any()):
            raise ValueError("the covariance is not symmetric, or has a negative variance")
        return Moments(count, mean.to(torch.float64), (wide + wide.T) * ((count - 1) / 2))

    def merged(self, other: Moments) -> Moments:
        """Of both sets together (Chan, Golub and LeVeque 1979)."""
        count = self.count + other.count
        shift = other.mean - self.mean
        scatter = self.scatter + other.scatter + torch.outer(shift, shift) * (self.count * other.count / count)
        return Moments(count, self.mean + shift * (other.count / count), scatter)

    @staticmethod
    def total(parts: Iterable[Moments]) -> Moments:
        """Of all parts together. Raises ValueError if there are none."""
        listed = list(parts)
        if not listed:
            raise ValueError("moments of no parts")
        return reduce(Moments.merged, listed)


class MomentsStream:
    """Moments of features that come in chunks, in memory of d^2 and one chunk, whatever their number.

    Sums are of deviations from the first chunk's mean, so nothing cancels where features lie far from 0. Chunks of
    another size, or ranks merged by `Moments.merged`, change the result by rounding alone (about 1e-13).
    """

    ROWS = 4_096
    """Rows that are multiplied at a time: enough for the speed of one large product, 64 MiB at 2,048 dimensions."""

    def __init__(self) -> None:
        self.count = 0
        self._shift = self._sum = self._products = torch.empty(0, dtype=torch.float64)

    def add(self, features: Tensor) -> None:
        """Rows [n, d]. Raises ValueError for another width, no matrix, or values that are not finite."""
        if features.ndim != 2:
            raise ValueError(f"features must be a matrix, not {list(features.shape)}")
        if self.count and features.shape[1] != len(self._shift):
            raise ValueError(f"features of {features.shape[1]} dimensions after ones of {len(self._shift)}")
        for rows in features.split(self.ROWS):
            wide = rows.to("cpu", torch.float64)
            if not self.count:
                self._shift = wide.mean(dim=0)
                self._sum = torch.zeros_like(self._shift)
                self._products = self._shift.new_zeros(len(self._shift), len(self._shift))
            deviations = wide - self._shift
            total = deviations.sum(dim=0)
            # One value that is not finite makes the sum of its column so.
            if not torch.isfinite(total).all():
                raise ValueError("features hold values that are not finite")
            self._sum += total
            self._products.addmm_(deviations.T, deviations)
            self.count += len(rows)

    @property
    def moments(self) -> Moments:
        """Of all rows so far. Raises ValueError if there are none."""
        if not self.count:
            raise ValueError("moments of no features")
        offset = self._sum / self.count
        scatter = self._products - torch.outer(offset, offset) * self.count
        return Moments(self.count, self._shift + offset, scatter)

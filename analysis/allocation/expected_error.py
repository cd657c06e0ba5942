"""How far a least-squares fit is expected to be off at target rows, and how far with one row more: noise and misfit.

ln metric = law + misfit + noise. The law is linear in its coordinates near the fit, with a wide normal prior; the
misfit is a smooth Gaussian process over the logarithms of the columns (Kennedy & O'Hagan 2001, J. R. Stat. Soc. B 63,
sec. 4), of which the fit knows nothing. Variance alone would put rows at the ends of what can be had, where a law that
is not quite right is wrong (Box & Draper 1959, J. Am. Stat. Assoc. 54: a design for bias).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = np.ndarray
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Surroundings:
    """All rows there are, k targets first: `slopes` (p, m) of ln prediction in the law's coordinates, `misfit` (m, m)
    their covariance beside the law, `noise` its variance, `prior` (p,) precisions of the coordinates."""

    slopes: Array
    misfit: Array
    noise: float
    prior: Array
    targets: int

    @property
    def of_target(self) -> Array:
        """Slopes (p, k) of the targets."""
        return self.slopes[:, : self.targets]

    @property
    def weight(self) -> float:
        """Variance by which the fit weighs a row against the prior: misfit and noise."""
        return self.noise + float(self.misfit[0, 0])


def misfit_covariance(logs: Array, variance: float, length: float) -> Array:
    """(m, m) of rows with these logarithms of their columns (m, c), each column over its range; `length` is that over
    which the misfit changes, as a part of the range."""
    span = np.ptp(logs, axis=0)
    unit = logs[:, span > 0] / span[span > 0]
    square = np.square(unit[:, None] - unit[None]).sum(axis=-1)
    return variance * np.exp(-0.5 * square / length**2)


@dataclass(frozen=True)
class Knowledge:
    """What a fit to some `rows` (numbers of `around`) tells: `inverse` (p, p) of the prior's and the rows' precision,
    `smoother` (k, n) by which the fit's prediction at the targets follows the rows' metrics."""

    around: Surroundings
    rows: Numbers
    inverse: Array
    smoother: Array

    @classmethod
    def of(cls, around: Surroundings, rows: Numbers) -> Knowledge:
        """After a fit to these rows."""
        slopes = around.slopes[:, rows]
        inverse = np.linalg.inv(np.diag(around.prior) + slopes @ slopes.T / around.weight)
        return cls(around, rows, inverse, around.of_target.T @ inverse @ slopes / around.weight)

    @property
    def error(self) -> float:
        """Root mean square over the targets of the expected error of ln prediction."""
        return float(np.sqrt(max(self._sum / self.around.targets, 0.0)))

    @property
    def _sum(self) -> float:
        """Expected squared errors, summed over the targets."""
        around, k = self.around, self.around.targets
        misfit, smoother = around.misfit, self.smoother
        of_rows, with_target = misfit[np.ix_(self.rows, self.rows)], misfit[self.rows, :k]
        off = np.sum((smoother @ of_rows) * smoother) - 2 * np.sum(smoother * with_target.T) + np.trace(misfit[:k, :k])
        drawn = np.sum(np.square(self.inverse @ around.of_target) * around.prior[:, None])
        return float(off + around.noise * np.sum(np.square(smoother)) + drawn)

    def gains(self, candidates: Numbers) -> Array:
        """By how much each of these rows alone would lower the sum of expected squared errors; below 0 where a fit with
        it would be further off. (q,)"""
        around, k = self.around, self.around.targets
        misfit, prior, smoother = around.misfit, around.prior[:, None], self.smoother
        of_target, slopes = around.of_target, around.slopes[:, candidates]
        # One row more changes the inverse by an outer product, and the smoother's columns of the others by another.
        moved = self.inverse @ slopes
        change = (of_target.T @ moved) / (around.weight + np.sum(slopes * moved, axis=0))
        others = around.slopes[:, self.rows].T @ moved / around.weight
        size = np.square(change).sum(axis=0)

        of_rows = misfit[np.ix_(self.rows, self.rows)]
        with_new = misfit[np.ix_(self.rows, candidates)]
        with_target = misfit[self.rows, :k]
        smoothed, pulled = smoother @ of_rows, of_rows @ others
        square = size * np.sum(others * pulled, axis=0) - 2 * np.sum(change * (smoothed @ others), axis=0)
        square += 2 * np.sum(change * (smoother @ with_new), axis=0) - 2 * size * np.sum(others * with_new, axis=0)
        square += size * misfit[candidates, candidates]
        across = np.sum(change * misfit[:k, candidates], axis=0)
        across -= np.sum(change * (with_target.T @ others), axis=0)
        noise = size * (1 + np.sum(np.square(others), axis=0)) - 2 * np.sum(change * (smoother @ others), axis=0)
        known = self.inverse @ of_target
        drawn = size * np.sum(np.square(moved) * prior, axis=0)
        drawn -= 2 * np.sum(change * (known.T @ (moved * prior)), axis=0)
        return -(square - 2 * across + around.noise * noise + drawn)

    def after(self, row: int) -> Knowledge:
        """With one more row."""
        around = self.around
        moved = self.inverse @ around.slopes[:, row]
        scale = around.weight + float(around.slopes[:, row] @ moved)
        change = around.of_target.T @ moved / scale
        others = around.slopes[:, self.rows].T @ moved / around.weight
        return replace(
            self,
            rows=np.append(self.rows, row),
            inverse=self.inverse - np.outer(moved, moved) / scale,
            smoother=np.column_stack([self.smoother - np.outer(change, others), change]),
        )

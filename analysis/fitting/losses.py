"""Losses of a residual: least squares, Huber, least absolute deviations, and the asymmetric lower envelope."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from results.errors import UsageError

from .law import Array

KINDS = ("huber", "lad", "squares", "envelope")


@dataclass(frozen=True)
class Loss:
    """rho(r) of a residual r = prediction - observation (or of their logarithms).

    squares: r^2/2. huber: r^2/2 within delta, delta (|r| - delta/2) beyond (Huber 1964), the convention of Hoffmann
    et al. 2022. lad: |r|. envelope: the Huber loss times (1 - quantile) where the law lies above the point and
    quantile where below, so that the law follows the lower edge of the cloud (a smoothed pinball loss).
    """

    kind: str = "huber"
    delta: float = 1e-3
    quantile: float = 0.05

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"loss={self.kind!r} is not one of {', '.join(KINDS)}")
        if not (np.isfinite(self.delta) and self.delta > 0):
            raise UsageError(f"delta={self.delta!r} is not a positive number")
        if not 0 < self.quantile < 1:
            raise UsageError(f"quantile={self.quantile!r} is not between 0 and 1")

    def scaled(self, unit: float) -> Loss:
        """The same loss for residuals divided by `unit`."""
        return Loss(self.kind, self.delta / unit, self.quantile)

    def objective_unit(self, unit: float) -> float:
        """What one unit of the objective of `scaled(unit)` is worth: unit for lad, unit^2 for the others."""
        return unit if self.kind == "lad" else unit**2

    def smoothed(self, delta: float) -> Loss:
        """The Huber loss that stands in for lad while it is minimised."""
        return Loss("huber", delta)

    def terms(self, r: Array) -> tuple[Array, Array, Array, Array]:
        """(rho, its derivative psi, the second derivative, psi / r), each of the shape of r.

        The second derivative makes Newton steps, psi / r those of iteratively reweighted least squares.
        """
        if self.kind == "squares":
            ones = np.ones_like(r)
            return 0.5 * r * r, r, ones, ones
        size = np.abs(r)
        if self.kind == "lad":
            tiny = np.maximum(size, 1e-300)
            return size, np.sign(r), np.zeros_like(r), 1.0 / tiny
        inside = np.minimum(size, self.delta)
        rho = inside * (size - 0.5 * inside)
        psi = np.clip(r, -self.delta, self.delta)
        second = (size < self.delta).astype(float)
        ratio = self.delta / np.maximum(size, self.delta)
        if self.kind == "envelope":
            side = np.where(r > 0, 1.0 - self.quantile, self.quantile)
            return rho * side, psi * side, second * side, ratio * side
        return rho, psi, second, ratio

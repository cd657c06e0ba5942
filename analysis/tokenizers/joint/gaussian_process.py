"""A Gaussian process of log gFID over logs of compute, size and rate: the baseline that assumes no form.

Rasmussen & Williams, Gaussian Processes for Machine Learning (2006), Sec. 2.2 and 5.4.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve, cholesky
from scipy.optimize import minimize

Array = np.ndarray

JITTER = 1e-8
START_LENGTHS = (1.0, 3.0)
"""In standard deviations of each feature."""


@dataclass(frozen=True)
class GaussianProcess:
    """A linear mean, and around it a squared exponential with a length for each feature and noise; all features
    standardised."""

    centre: Array
    scale: Array
    slopes: Array
    x: Array
    solved: Array
    factor: Array
    hyper: Array

    @classmethod
    def of(cls, x: Array, y: Array) -> GaussianProcess:
        """Fitted to features x (n, m) and values y (n,) by the largest marginal likelihood from two starts."""
        centre, scale = x.mean(axis=0), x.std(axis=0)
        z = (x - centre) / np.where(scale > 0, scale, 1.0)
        scale = np.where(scale > 0, scale, 1.0)
        design = np.column_stack([np.ones(len(z)), z])
        slopes, *_ = np.linalg.lstsq(design, y, rcond=None)
        left = y - design @ slopes
        spread = max(float(left.std()), 1e-4)

        apart = (z.T[:, :, None] - z.T[:, None, :]) ** 2

        def loss(hyper: Array) -> tuple[float, Array]:
            """Minus the log likelihood and a weak pull to lengths of two deviations, which keeps those without any
            effect finite; with its slopes (Eq. 5.9)."""
            squares = apart * np.exp(-2 * hyper[2:])[:, None, None]
            kernel = np.exp(2 * hyper[0] - 0.5 * squares.sum(axis=0))
            factor = _factor(kernel, hyper)
            solved = cho_solve((factor, True), left)
            pull = (hyper[2:] - np.log(2.0)) / 1.5
            weights = cho_solve((factor, True), np.eye(len(left))) - np.outer(solved, solved)
            slopes = [np.sum(weights * kernel), np.exp(2 * hyper[1]) * np.trace(weights)]
            slopes += [
                0.5 * np.sum(weights * kernel * square) + p / 1.5 for square, p in zip(squares, pull, strict=True)
            ]
            value = 0.5 * left @ solved + np.log(np.diag(factor)).sum() + 0.5 * pull @ pull
            return float(value), np.array(slopes)

        bounds = [(np.log(spread) - 4, np.log(spread) + 3), (np.log(spread) - 6, np.log(spread) + 1)]
        bounds += [(-2.0, 5.0)] * z.shape[1]
        starts = [np.r_[np.log(spread), np.log(spread) - 1, np.full(z.shape[1], np.log(s))] for s in START_LENGTHS]
        best = min((minimize(loss, s, jac=True, bounds=bounds, method="L-BFGS-B") for s in starts), key=lambda r: r.fun)
        factor = _factor(_kernel(z, z, best.x), best.x)
        return cls(centre, scale, slopes, z, cho_solve((factor, True), left), factor, best.x)

    def predict(self, x: Array) -> tuple[Array, Array]:
        """Mean and standard deviation, each (m,), of the noiseless value at features x (m, features)."""
        z = (x - self.centre) / self.scale
        shared = _kernel(z, self.x, self.hyper)
        mean = np.column_stack([np.ones(len(z)), z]) @ self.slopes + shared @ self.solved
        known = cho_solve((self.factor, True), shared.T)
        variance = np.exp(2 * self.hyper[0]) - np.sum(shared.T * known, axis=0)
        return mean, np.sqrt(np.maximum(variance, 0.0))


def _kernel(a: Array, b: Array, hyper: Array) -> Array:
    length = np.exp(hyper[2:])
    apart = (((a / length)[:, None, :] - (b / length)[None, :, :]) ** 2).sum(axis=2)
    return np.exp(2 * hyper[0] - 0.5 * apart)


def _factor(kernel: Array, hyper: Array) -> Array:
    return cholesky(kernel + (np.exp(2 * hyper[1]) + JITTER) * np.eye(len(kernel)), lower=True)

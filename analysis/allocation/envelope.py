"""Approach 1: power laws along the lower envelope of loss against compute."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.fitting.fit import fit
from analysis.fitting.result import FitResult
from results.errors import DataError, FitError


@dataclass(frozen=True)
class EnvelopeResult:
    """Rows on the envelope (indices), N* = params_coefficient * C^params_exponent likewise D*, and the loss's law."""

    rows: NDArray[np.int64]
    params_exponent: float
    params_coefficient: float
    tokens_exponent: float
    tokens_coefficient: float
    loss: FitResult
    warnings: tuple[str, ...]


def lower_envelope(flops: ArrayLike, loss: ArrayLike) -> NDArray[np.int64]:
    """Indices of the rows that no other row beats in loss for the same or less compute, by rising compute."""
    c, y = np.asarray(flops, dtype=float), np.asarray(loss, dtype=float)
    if len(c) != len(y) or len(c) == 0:
        raise DataError(f"envelope: columns of {len(c)} and {len(y)} rows")
    order = np.lexsort((y, c))
    best = np.minimum.accumulate(y[order])
    first = np.concatenate([[True], best[1:] < best[:-1]])
    return order[first]


def approach1(flops: ArrayLike, params: ArrayLike, tokens: ArrayLike, loss: ArrayLike) -> EnvelopeResult:
    """Approach 1 of Hoffmann et al. 2022 (arXiv 2203.15556), section 3.1: regress log N and log D on log C along the
    lower envelope, and fit L = E + A C^-alpha to it.

    The envelope takes minima over noise, so its losses are too low by about the noise; single runs with luck count.
    Raises FitError with fewer than 4 rows on the envelope.
    """
    c, n, d, y = (np.asarray(v, dtype=float) for v in (flops, params, tokens, loss))
    rows = lower_envelope(c, y)
    if len(rows) < 4:
        raise FitError(f"envelope: {len(rows)} rows lie on it; a power law with a floor needs 4")
    log_c = np.log(c[rows])
    if np.ptp(log_c) <= 0:
        raise FitError("envelope: all rows on it have the same compute")
    lines = [np.polyfit(log_c - log_c.mean(), np.log(v[rows]), 1) for v in (n, d)]
    (a, at_n), (b, at_d) = lines
    law = fit("power", {"x": c[rows], "metric": y[rows]}, loss="squares")
    note = "the envelope takes minima over noise: its losses are biased low, and lucky runs decide it"
    return EnvelopeResult(
        rows,
        float(a),
        float(np.exp(at_n - a * log_c.mean())),
        float(b),
        float(np.exp(at_d - b * log_c.mean())),
        law,
        (note,),
    )

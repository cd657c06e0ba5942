"""Where along a ladder of codebooks quality is best, with one generator at one length of training: an inner optimum.

A parabola of log gFID in log2 K, the bits of a token, through tokenizers that differ in their codebook alone; where it
opens upwards and its vertex lies inside the ladder there is an inner optimum. The interval of the vertex -b / 2a is
Fieller's: the x at which the slope 2 a x + b cannot be told from 0 by its t-test; it may be open on one side or both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..frames import StudyFrames
from ..rows import Record, groups
from ..seed_intervals import t_factor

LEAST_RUNGS = 4
"""Codebooks at least: one more than the parabola's parameters."""


@dataclass(frozen=True)
class RateOptimum(Record):
    """The best number of bits a token at one generator, tokens per image and compute; `low` and `high` None: open.

    `inner`: the parabola opens upwards and its vertex lies inside the ladder; `bits` is the vertex then, else the rung
    of the lowest mean. `span` is the ratio of the highest to the lowest gFID of the ladder, `flops` None where unknown.
    """

    size: str
    tokens: int
    flops: float | None
    rungs: tuple[float, ...]
    gfids: tuple[float, ...]
    inner: bool
    bits: float
    low: float | None
    high: float | None
    span: float
    repeated: bool


def rate_optima(frames: StudyFrames) -> list[RateOptimum]:
    """One for every generator and length of training at which LEAST_RUNGS codebooks or more were measured.

    The length is that of the images seen, or the FLOPs where images are not known; where neither is, a tokenizer must
    have one value.
    """
    points = frames.scored
    points = points[points["regulariser"].isna() & points["codebook_size"].notna()]
    known = points["images"].astype(float).fillna(points["path_flops"].astype(float))
    points = points.assign(
        _length=known, _bits=np.log2(points["codebook_size"].astype(float)), _log=np.log(points["gfid"])
    )
    optima = []
    for (size, tokens, length), rows in groups(points, ["size", "tokens_per_image", "_length"]):
        if rows["_bits"].nunique() < LEAST_RUNGS:
            continue
        repeated = bool(rows.duplicated(["_bits"]).any())
        if repeated and math.isnan(length):
            continue
        cells = rows.groupby("_bits")["_log"].mean()
        x, y = rows["_bits"].to_numpy(dtype=float), np.log(rows["gfid"].to_numpy(dtype=float))
        flops = float(rows["path_flops"].median())
        inner, bits, low, high = _vertex(x, y)
        rungs, logs = cells.index.to_numpy(dtype=float), cells.to_numpy(dtype=float)
        optima.append(
            RateOptimum(
                str(size), int(tokens), flops if math.isfinite(flops) else None, tuple(rungs.tolist()),
                tuple(np.exp(logs).tolist()), inner, bits if inner else float(rungs[logs.argmin()]),
                low, high, math.exp(np.ptp(logs)), repeated,
            )
        )  # fmt: skip
    return optima


def _vertex(x: np.ndarray, y: np.ndarray) -> tuple[bool, float, float | None, float | None]:
    """Whether the vertex is an inner minimum, where, and Fieller's interval within the ladder (None: open)."""
    centre = x.mean()
    u = x - centre
    design = np.column_stack([np.ones_like(u), u, u**2])
    coefficients, *_ = np.linalg.lstsq(design, y, rcond=None)
    df = len(x) - 3
    _, b, a = coefficients.tolist()
    vertex = centre - b / (2 * a) if a != 0 else math.nan
    inner = a > 0 and x.min() < vertex < x.max()
    if df < 1:
        return inner, vertex, None, None
    variance = float(((y - design @ coefficients) ** 2).sum()) / df
    covariance = variance * np.linalg.inv(design.T @ design)
    grid = np.linspace(x.min(), x.max(), 2001)
    g = grid - centre
    slope, sd = (
        2 * a * g + b,
        np.sqrt(np.maximum(4 * g**2 * covariance[2, 2] + 4 * g * covariance[1, 2] + covariance[1, 1], 0)),
    )
    flat = np.flatnonzero(np.abs(slope) <= t_factor(df) * sd)
    if not len(flat):
        return inner, vertex, None, None
    low = None if flat[0] == 0 else float(grid[flat[0]])
    high = None if flat[-1] == len(grid) - 1 else float(grid[flat[-1]])
    return inner, vertex, low, high

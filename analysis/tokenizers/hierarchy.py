"""A hierarchical model of log gFID at one compute: pairs, luck that a tokenizer's pairs share, and noise.

    y_r = mu[f, z] + u[f, s] + e_r,      u ~ N(0, rho v),  e ~ N(0, (1 - rho) v)

for run r of family f and size z on tokenizer seed s; flat prior on every mu, p(v) ~ 1 / v, rho uniform on [0, 1).
The posterior is exact: rho on a grid, v scaled inverse chi-square given rho with (runs - pairs) degrees of freedom, mu
normal given both; hence the marginal of each mu is a mixture of Student t. Time is linear in the runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

Array = np.ndarray

RHO = np.linspace(0.0, 0.95, 20)
"""Share of the variance that belongs to the tokenizer seed."""


@dataclass(frozen=True)
class Posterior:
    """Posterior mean of mu (k,), joint draws of mu (draws, k), posterior-mean sd of one run, degrees of freedom."""

    mean: Array
    drawn: Array
    sd: float
    df: int


def posterior(y: Array, pair: Array, cluster: Array, draws: int, seed: int) -> Posterior | None:
    """From ln gFID y (n,), the pair and the cluster (tokenizer) of each run as integers from 0; None without repeats.

    With V = (1 - rho) I + rho J (J: same cluster), mu_hat = (X' V^-1 X)^-1 X' V^-1 y, the weight of rho is |V|^-1/2
    |X' V^-1 X|^-1/2 (residual sum)^(-df/2). V^-1 is closed for each cluster of m runs: (I - c J) / (1 - rho) with c =
    rho / (1 - rho + m rho), so that counts of runs by cluster and pair are all that is needed.
    """
    n, k = len(y), int(pair.max()) + 1
    df = n - k
    if df < 1:
        return None
    # Pairs without a common tokenizer know nothing of each other: V^-1 and all that follows fall into blocks.
    of_pair, column, row = _blocks(pair, cluster)
    block, blocks, columns, rows = of_pair[pair], int(of_pair.max()) + 1, int(column.max()) + 1, int(row.max()) + 1
    counts, sums, totals = np.zeros((blocks, rows, columns)), np.zeros((blocks, rows)), np.zeros((blocks, columns))
    np.add.at(counts, (block, row[cluster], column[pair]), 1.0)
    np.add.at(sums, (block, row[cluster]), y)
    np.add.at(totals, (block, column[pair]), y)
    sizes, runs = counts.sum(axis=2), counts.sum(axis=1)
    # A block with fewer pairs than the largest is filled up with such that have nothing to do with the others.
    filled = np.eye(columns) * (runs == 0)[:, None, :]
    diagonal = np.eye(columns) * runs[:, None, :]
    # From here on the first axis is rho.
    rest, rho = (1 - RHO)[:, None, None], RHO[:, None, None]
    c = rho / (rest + sizes * rho)
    weighted = (c[..., None] * counts).swapaxes(2, 3)
    information = (diagonal - weighted @ counts) / rest[..., None] + filled
    right = (totals - (weighted @ sums[..., None])[..., 0]) / rest
    covariance = np.linalg.inv(information)
    mu = (covariance @ right[..., None])[..., 0][:, of_pair, column]
    residual = y - mu[:, pair]
    place = block * rows + row[cluster]
    by_cluster = np.stack([np.bincount(place, r, blocks * rows) for r in residual]).reshape(len(RHO), blocks, rows)
    squares = ((residual**2).sum(axis=1) - (c * by_cluster**2).sum(axis=(1, 2))) / (1 - RHO)
    squares = np.maximum(squares, 1e-300)
    log_v = n * np.log(1 - RHO) + np.log1p(sizes * rho / rest).sum(axis=(1, 2))
    log_det = np.linalg.slogdet(information)[1].sum(axis=1)
    log_weight = -0.5 * (log_v + log_det + df * np.log(squares))
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    random = np.random.default_rng(seed)
    chosen = random.choice(len(RHO), size=draws, p=weight)
    spread = np.sqrt(squares[chosen] / random.chisquare(df, size=draws))
    normal = np.zeros((blocks, columns, draws))
    normal[of_pair, column] = random.standard_normal((draws, k)).T
    factors = np.linalg.cholesky(covariance)
    for i in np.unique(chosen).tolist():
        of_rho = np.flatnonzero(chosen == i)
        normal[:, :, of_rho] = factors[i] @ normal[:, :, of_rho]
    drawn = (mu[chosen].T + spread * normal[of_pair, column]).T
    sd = math.sqrt(float(weight @ squares) / df)
    return Posterior(weight @ mu, drawn, sd, df)


def _blocks(pair: Array, cluster: Array) -> tuple[Array, Array, Array]:
    """Which pairs are linked by common clusters: the block of each pair (k,), its place there (k,), and that of each
    cluster (m,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    k, m = int(pair.max()) + 1, int(cluster.max()) + 1
    links = coo_array((np.ones(len(pair)), (pair, k + cluster)), shape=(k + m, k + m))
    _, block = connected_components(links, directed=False)
    return block[:k], _places(block[:k]), _places(block[k:])


def _places(block: Array) -> Array:
    """The number of each entry among those of its block, in their order."""
    order = np.argsort(block, kind="stable")
    first = np.searchsorted(block[order], np.unique(block))
    places = np.empty(len(block), dtype=int)
    places[order] = np.arange(len(block)) - np.repeat(first, np.diff([*first, len(block)]))
    return places

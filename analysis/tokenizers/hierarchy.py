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
    n, k, m = len(y), int(pair.max()) + 1, int(cluster.max()) + 1
    df = n - k
    if df < 1:
        return None
    counts = np.zeros((m, k))
    np.add.at(counts, (cluster, pair), 1.0)
    sums, sizes = np.bincount(cluster, y, m), counts.sum(axis=1)
    runs, totals = counts.sum(axis=0), np.bincount(pair, y, k)
    means, covariances, log_weights, squares = [], [], [], []
    for rho in RHO.tolist():
        c = rho / (1 - rho + sizes * rho)
        information = (np.diag(runs) - counts.T @ (c[:, None] * counts)) / (1 - rho)
        right = (totals - counts.T @ (c * sums)) / (1 - rho)
        covariance = np.linalg.inv(information)
        mu = covariance @ right
        residual = y - mu[pair]
        by_cluster = np.bincount(cluster, residual, m)
        square = max(float((residual @ residual - c @ by_cluster**2) / (1 - rho)), 1e-300)
        log_v = n * math.log(1 - rho) + float(np.log1p(sizes * rho / (1 - rho)).sum())
        log_weights.append(-0.5 * (log_v + float(np.linalg.slogdet(information)[1]) + df * math.log(square)))
        means.append(mu)
        covariances.append(covariance)
        squares.append(square)
    weight = np.exp(np.array(log_weights) - max(log_weights))
    weight /= weight.sum()
    random = np.random.default_rng(seed)
    chosen = random.choice(len(RHO), size=draws, p=weight)
    spread = np.sqrt(np.array(squares)[chosen] / random.chisquare(df, size=draws))
    drawn = random.standard_normal((draws, k))
    for i in np.unique(chosen).tolist():
        rows = chosen == i
        drawn[rows] = means[i] + spread[rows, None] * (drawn[rows] @ np.linalg.cholesky(covariances[i]).T)
    sd = math.sqrt(float(weight @ np.array(squares)) / df)
    return Posterior(weight @ np.array(means), drawn, sd, df)

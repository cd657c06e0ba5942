"""Starts by variable projection: a grid over the non-linear parameters, the linear ones solved for exactly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .law import Array, Law
from .problem import Problem, coordinates_of, parameters_of

MAX_ROWS = 4000  # more rows than these do not make a better start


def nonnegative_least_squares(gram: Array, moment: Array, signed: list[bool]) -> Array:
    """Minimise c'Gc/2 - m'c with c_k >= 0 where not signed, exactly, for a batch of small problems.

    gram (S, m, m), moment (S, m). Tries every subset of active columns (2^m, m <= 4) and keeps the best feasible one.
    """
    count, m = moment.shape
    best = np.zeros((count, m))
    best_value = np.zeros(count)
    scale = np.sqrt(np.maximum(np.einsum("skk->sk", gram), 1e-300))
    correlation = gram / (scale[:, :, None] * scale[:, None, :])
    scaled = moment / scale
    bounded = [k for k in range(m) if not signed[k]]
    for mask in range(0 if any(signed) else 1, 2 ** len(bounded)):
        off = {k for i, k in enumerate(bounded) if not mask >> i & 1}
        active = [k for k in range(m) if k not in off]
        matrix = correlation[:, active][:, :, active] + 1e-12 * np.eye(len(active))
        right = scaled[:, active]
        solution = np.linalg.solve(matrix, right[:, :, None])[:, :, 0]
        feasible = np.all([signed[k] | (solution[:, i] >= 0) for i, k in enumerate(active)], axis=0)
        value = -0.5 * np.einsum("sk,sk->s", solution, right)
        better = feasible & (value < best_value)
        best_value = np.where(better, value, best_value)
        best[better] = 0.0
        best[np.ix_(better, active)] = solution[better]
    return best / scale


def starts_of(problem: Problem, metric: Array, fixed: dict[str, float], count: int) -> Array:
    """The best `count` starts, (count, p) coordinates, best first.

    metric (n,), scaled. The residual "raw" weights rows equally, "log" relatively.
    """
    law, columns, weights, residual = problem.law, problem.columns, problem.weights, problem.residual
    n = metric.shape[0]
    if n > MAX_ROWS:
        chosen = np.linspace(0, n - 1, MAX_ROWS).astype(np.int64)
        columns, metric, weights = columns.rows(chosen), metric[chosen], weights[chosen]
        n = MAX_ROWS
    grid = law.starting_grid(fixed)
    size = next(iter(grid.values())).shape[0] if grid else 1
    starts, values = [], []
    chunk = max(1, 2_000_000 // n)
    linear = [q for q in law.parameters if q.linear]
    with np.errstate(all="ignore"):
        for begin in range(0, size, chunk):
            p = law.start_values({k: axis[begin : begin + chunk, None] for k, axis in grid.items()}, columns, metric)
            rows = next(iter(p.values())).shape[0] if p else 1
            held = {name: np.full((rows, 1), value) for name, value in fixed.items()}
            p = {**p, **held}
            system = law.linear_system(p, columns, metric) if linear else None
            if system is not None:
                basis, target, precision = system
                if residual == "raw":
                    precision = np.where(metric != 0, precision * metric**2, 1.0)
                precision = np.broadcast_to(precision * weights, (rows, n))
                target = np.broadcast_to(target, (rows, n))
                stack = np.stack([np.broadcast_to(column, (rows, n)) for column in basis], axis=1)
                weighted = stack * precision[:, None, :]
                gram = np.matmul(weighted, stack.transpose(0, 2, 1))
                moment = np.matmul(weighted, target[:, :, None])[:, :, 0]
                bad = ~(np.isfinite(gram).all(axis=(1, 2)) & np.isfinite(moment).all(axis=1))
                gram[bad], moment[bad] = np.eye(len(linear)), 0.0
                signed = [q.lower < 0 or q.name in law.free_coefficients for q in linear]
                solved = nonnegative_least_squares(gram, moment, signed)
                p = law.complete(p, {q.name: solved[:, k : k + 1] for k, q in enumerate(linear)})
            p = {**p, **held}
            theta = coordinates_of(law, {name: np.broadcast_to(value, (rows, 1)) for name, value in p.items()})
            # a term that the projection switched off starts small, not absent: at a bound its slopes are dead
            theta = np.where(np.isfinite(theta), theta, 0.0)
            soft_lower = np.where([q.log and q.linear for q in law.parameters], problem.lower + 8.0, problem.lower)
            theta = np.clip(theta, soft_lower, problem.upper)
            value = law.predict(parameters_of(law, theta), columns)
            miss = np.log(np.maximum(value, 1e-300) / metric) if residual == "log" else value - metric
            starts.append(theta)
            values.append(np.sum(np.abs(miss) * weights, axis=1))
    theta, value = np.concatenate(starts), np.concatenate(values)
    order = np.argsort(np.where(np.isfinite(value), value, np.inf), kind="stable")
    labels = law.basins(grid)
    if labels:
        order = _best_apart(np.stack(labels, axis=1), order)
    return theta[order[:count]]


def _best_apart(cells: Array, order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of starts by rising objective the best of each cell (row of `cells`, (S, k)) first, then the others."""
    _, first = np.unique(cells[order], axis=0, return_index=True)
    leads = np.zeros(len(order), dtype=bool)
    leads[first] = True
    return np.concatenate([order[leads], order[~leads]])

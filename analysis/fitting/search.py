"""Which of many minima: starts by variable projection, tried briefly; the leaders polished, problems side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .laws.law import Array, Columns, padded
from .minimiser import Minimum, minimise
from .polishing import polish, polish_leaders, typical_residual
from .problem import Problem, coordinates_of, parameters_of

MAX_ROWS = 4000  # more rows than these do not make a better start
AGREEMENT = 1e-8  # starts agree where their objectives are within this, relatively
LEAST_ROWS, PART_ROWS = 300, 25  # of a part that chooses among the starts: at least, and for each parameter
FINALISTS = 3  # starts that go on with all rows
TRIAL = 50  # iterations of a start that is only tried
FIRST = 6  # times as many leaders as go on to the end are kept after a third of the trial
SAME = 0.01  # tried starts whose objectives are this close, relatively,
NEAR = 0.1  # and whose coordinates are this close, relatively above 1, are on the way to one minimum
MANY_ROWS = 20 * MAX_ROWS
ELEMENTS = 60_000  # starts x rows of one batch: its arrays stay in the processor's cache
LONGER = 2.0  # rows of a batch's longest problem over those of its shortest: the rest is padding


def nonnegative_least_squares(gram: Array, moment: Array, signed: list[bool]) -> Array:
    """Minimise c'Gc/2 - m'c with c_k >= 0 where not signed, exactly, for a batch of small problems.

    gram (S, m, m), moment (S, m). Tries every subset of the columns that may not be negative, and keeps the best
    feasible one.
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
    if len(metric) > MAX_ROWS:
        chosen = np.linspace(0, len(metric) - 1, MAX_ROWS).astype(np.int64)
        problem, metric = problem.rows(chosen), metric[chosen]
    law, columns, weights, residual = problem.law, problem.columns, problem.weights, problem.residual
    n = len(metric)
    grid = law.starting_grid(fixed)
    size = next(iter(grid.values())).shape[0] if grid else 1
    starts, values = [], []
    chunk = max(1, 2_000_000 // n)
    solved_for = law.solved_for
    linear = [q for q in law.parameters if q.name in solved_for]
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
    if labels:  # the best of each cell of equal labels first, then the others
        _, first = np.unique(np.stack(labels, axis=1)[order], axis=0, return_index=True)
        leads = np.isin(np.arange(len(order)), first)
        order = np.concatenate([order[leads], order[~leads]])
    return theta[order[:count]]


def search_enough(
    problems: Sequence[Problem], starts: Sequence[Array], leaders: int, max_iterations: int
) -> list[Minimum]:
    """The minima of problems of one law; where a third of the first `law.enough` starts agree, no more are tried.

    Of many rows a part chooses among the starts, and the best go on with all.
    """
    enough = problems[0].law.enough if problems else 0
    if not enough:
        return search(problems, starts, leaders, max_iterations)
    parts = [_part(problem) for problem in problems]
    minima = search(parts, [begun[:enough] for begun in starts], leaders, max_iterations)
    unsure = [k for k, begun in enumerate(starts) if len(begun) > enough and not _agree(minima[k])]
    more = search([parts[k] for k in unsure], [starts[k][enough:] for k in unsure], leaders, max_iterations)
    for k, minimum in zip(unsure, more, strict=True):
        minima[k] = minima[k].joined(minimum)
    for k, (problem, part) in enumerate(zip(problems, parts, strict=True)):
        if part is not problem:
            best = minima[k].select(np.argsort(minima[k].objective, kind="stable")[:FINALISTS])
            [ended] = search([problem], [best.coordinates], leaders, max_iterations)
            minima[k] = replace(ended, stands_for=best.stands_for)
    return minima


def _part(problem: Problem) -> Problem:
    """The problem of evenly spaced rows, PART_ROWS for each parameter, where there are more than twice as many."""
    rows, needed = problem.target.shape[-1], max(LEAST_ROWS, PART_ROWS * len(problem.law.parameters))
    return problem if rows <= 2 * needed else problem.rows(np.linspace(0, rows - 1, needed).astype(np.int64))


def _agree(ended: Minimum) -> bool:
    """Whether a third of the starts came to the best objective, and that is a minimum."""
    objective = np.where(np.isfinite(ended.objective), ended.objective, np.inf)
    equal = objective <= objective.min() * (1 + AGREEMENT) + 1e-300
    return bool(ended.converged[equal].any() and ended.stands_for[equal].sum() * 3 >= ended.stands_for.sum())


def search(problems: Sequence[Problem], starts: Sequence[Array], leaders: int, max_iterations: int) -> list[Minimum]:
    """Minimise every problem from its starts (S_k, p), best starts first; at most `leaders` of them to the end.

    Problems of one law are searched side by side, which changes their results by rounding alone. A law with
    `screening` has many minima, joined by curved valleys: all its starts make TRIAL steps that follow the valleys'
    bends, and the best that differ go on. Of many rows a part chooses the basin.
    """
    begun = list(starts)
    ended: dict[int, Minimum] = {}
    crowded = [k for k, problem in enumerate(problems) if len(starts[k]) > (1 if _many_rows(problem) else leaders)]
    for stage, which in ((_tried, crowded), (_polished, range(len(problems)))):
        counts = [len(start) for start in begun]  # 0 where the law is a number nowhere
        for batch in batches(problems, counts, [k for k in which if counts[k]]):
            owner = np.repeat(np.arange(len(batch)), [counts[k] for k in batch])
            start = np.concatenate([begun[k] for k in batch])
            together, owner = stage(stacked([problems[k] for k in batch]), start, owner, leaders, max_iterations)
            for number, k in enumerate(batch):
                minimum = together.select(np.flatnonzero(owner == number))
                if stage is _polished and k in ended:
                    minimum = replace(minimum, stands_for=ended[k].stands_for)
                ended[k], begun[k] = minimum, minimum.coordinates
    return [ended[k] for k in range(len(problems))]


def _many_rows(problem: Problem) -> bool:
    return problem.target.shape[-1] > MANY_ROWS


def _tried(
    problem: Problem, start: Array, owner: NDArray[np.int64], leaders: int, max_iterations: int
) -> tuple[Minimum, NDArray[np.int64]]:
    """Of the starts those that are worth polishing, and their owners: the problems, by number in the batch."""
    if _many_rows(problem):
        # choose the basin on a part of the rows, then polish its winners on all
        sample = problem.rows(np.linspace(0, problem.target.shape[-1] - 1, MAX_ROWS).astype(np.int64))
        [rough] = search([sample], [start], leaders, max_iterations)
        best = np.argsort(rough.objective)[:2]
        return rough.select(best), owner[best]
    if problem.loss.kind == "lad":
        problem = replace(problem, loss=problem.loss.smoothed(typical_residual(problem, start)))
    elif problem.law.smooth_trial and problem.loss.kind == "huber":
        problem = replace(problem, loss=replace(problem.loss, kind="squares"))
    brief = TRIAL // 3
    minimum = minimise(problem.select(owner), start, max_iterations=brief, bend=True)
    tried, owner = _distinct(minimum, owner, FIRST * leaders)
    crowded = np.flatnonzero(np.bincount(owner)[owner] > leaders)
    if crowded.size:
        again = minimise(
            problem.select(owner[crowded]), tried.coordinates[crowded], max_iterations=TRIAL - brief, bend=True
        )
        tried, owner = _distinct(tried.replaced(crowded, again), owner, leaders)
    return tried, owner


def _polished(
    problem: Problem, start: Array, owner: NDArray[np.int64], _leaders: int, max_iterations: int
) -> tuple[Minimum, NDArray[np.int64]]:
    """The starts to the end."""
    if problem.law.screening and not _many_rows(problem):
        return polish_leaders(problem, start, owner, max_iterations), owner
    return polish(problem.select(owner), start, max_iterations), owner


def _distinct(tried: Minimum, owner: NDArray[np.int64], most: int) -> tuple[Minimum, NDArray[np.int64]]:
    """Of each problem the best starts that are on the way to different minima, at most `most`, best first.

    Each stands for those that it is the first to be close to.
    """
    chosen: list[int] = []
    count: list[int] = []
    for number in np.unique(owner):
        ranked = np.flatnonzero((owner == number) & np.isfinite(tried.objective))
        ranked = ranked[np.argsort(tried.objective[ranked], kind="stable")]
        objective, theta = tried.objective[ranked], tried.coordinates[ranked]
        left = np.ones(len(ranked), dtype=bool)
        for _ in range(most):
            if not left.any():
                break
            leader = int(np.argmax(left))
            near = np.abs(theta - theta[leader]) <= NEAR * np.maximum(1.0, np.abs(theta[leader]))
            close = left & near.all(axis=1) & (objective <= objective[leader] * (1 + SAME) + 1e-300)
            close[leader] = True
            chosen.append(int(ranked[leader]))
            count.append(int(tried.stands_for[ranked[close]].sum()))
            left &= ~close
    index = np.array(chosen, dtype=np.int64)
    return replace(tried.select(index), stands_for=np.array(count, dtype=np.int64)), owner[index]


def batches(problems: Sequence[Problem], starts: Sequence[int], which: Sequence[int]) -> list[list[int]]:
    """Indices `which` of problems, by those that are searched together; starts: how many each problem has.

    Together go problems of one law and similar length with the same loss in scaled units. Least absolute deviations are
    solved one problem at a time.
    """
    out: list[list[int]] = []
    alike: dict[object, list[int]] = {}
    for k in sorted(which, key=lambda k: problems[k].target.shape[-1]):
        alone = k if problems[k].loss.kind == "lad" else None
        alike.setdefault((problems[k].loss, id(problems[k].law), alone), []).append(k)
    for group in alike.values():
        batch: list[int] = []
        for k in group:
            count, rows = sum(starts[i] for i in batch) + starts[k], problems[k].target.shape[-1]
            if batch and (count * rows > ELEMENTS or rows > LONGER * problems[batch[0]].target.shape[-1]):
                out.append(batch)
                batch = []
            batch.append(k)
        out.append(batch)
    return out


def stacked(problems: Sequence[Problem]) -> Problem:
    """One problem with the rows of each of K problems, (K, n): shorter ones repeat their last row without weight."""
    first = problems[0]
    if len(problems) == 1:
        return first
    rows = max(problem.target.shape[-1] for problem in problems)
    return replace(
        first,
        columns=first.law.prepared(Columns.stacked([problem.columns for problem in problems], rows)),
        target=padded([problem.target for problem in problems], rows),
        weights=padded([problem.weights for problem in problems], rows, mode="constant"),
    )

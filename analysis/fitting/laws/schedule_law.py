"""The law of whole training curves under a learning-rate schedule: multi-power."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from results.errors import DataError

from .law import LOSS, Array, Columns, Parameter, SeparableLaw, Term, Values
from .law_terms import exponent_of, floor_of

SLOTS = 64
"""Changes of the learning rate that a row tells apart; more of them share slots by how long ago they were."""
AT_ONCE = 4_000_000  # pairs of a row and a change in memory


class MultiPower(SeparableLaw):
    """L(t) = L0 + A S(t)^-alpha - B sum_k (lr_(k-1) - lr_k) (1 - (1 + C lr_k^-gamma S_k(t))^-beta).

    S(t) is the sum of the learning rates of all steps up to t (S_1 + S_W), S_k(t) that of steps k to t; the second sum
    runs over the steps after the warm-up. Luo et al. 2025 (arXiv 2503.12811), equations 1 and 2.

    Rows are steps of whole curves: `step` (from 1), `lr`, the learning rate of that step, and `run` (text or number),
    which names the curve where there are several. The learning rate of a row is that of all steps since the row
    before, of the first row that of all steps before it. The warm-up of a run ends with its largest learning rate.
    What a row has to know of its curve is computed before rows are cut or resampled, so curves have to be complete
    where they are given: to `fit`, and to `predict`, for schedules that were never run too.
    """

    name = "multi-power"
    formula = "L = L0 + A S^-alpha - B sum_k (lr_(k-1) - lr_k) (1 - (1 + C lr_k^-gamma S_k)^-beta)"
    source = "Luo et al. 2025, arXiv 2503.12811, equations 1 and 2"
    columns = ("step", "lr", "run")
    optional_columns: Mapping[str, float] = MappingProxyType({"run": 1.0})
    floor_parameter = "L0"
    parameters = (
        floor_of("L0"),
        Parameter(
            "A", 1e-9, 1e9, log=True, linear=True,
            unit={LOSS: 1.0, "lr": lambda p: p["alpha"], "step": lambda p: p["alpha"]},
        ),
        exponent_of("alpha", (0.1, 0.25, 0.5, 0.8, 1.2)),
        Parameter("B", 1e-9, 1e9, log=True, linear=True, unit={LOSS: 1.0, "lr": -1.0}),
        Parameter(
            "C", 1e-6, 1e9, log=True,
            unit={"lr": lambda p: p["gamma"] - 1.0, "step": -1.0}, grid=(1.0, 10.0, 100.0, 1000.0),
        ),
        exponent_of("beta", (0.2, 0.5, 1.0)),
        exponent_of("gamma", (0.1, 0.5, 1.0)),
    )  # fmt: skip

    def coded(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        if "run" not in columns:
            return dict(columns)
        labels = np.asarray(columns["run"])
        empty = np.flatnonzero([value is None or value != value for value in labels.ravel().tolist()])
        if empty.size:
            raise DataError(f"row {empty[0]}, column 'run': empty, but it names a curve")
        return {**columns, "run": np.unique(labels, return_inverse=True)[1].reshape(labels.shape) + 1.0}

    def filled(self, columns: Mapping[str, Any], rows: int) -> dict[str, Any]:
        defaults = {name: np.full(rows, value) for name, value in self.optional_columns.items()}
        return {**defaults, **self.coded(columns)}

    def prepared(self, columns: Columns) -> Columns:
        columns.derived("slots", _with_curves)
        return columns

    def terms(self, p: Values, x: Columns) -> Sequence[Term]:
        x = self.prepared(x)
        log_sum = x.derived("log sum", _missing)
        power = np.exp(-p["alpha"] * log_sum)
        log_c, beta, gamma = np.log(p["C"]), p["beta"], p["gamma"]
        total: Array = np.zeros(np.broadcast_shapes(log_c.shape, log_sum.shape))
        by_c, by_beta, by_gamma = total.copy(), total.copy(), total.copy()
        for slot in range(int(x.derived("slots", _missing).max(initial=0))):
            drop, log_rate = x.derived(("drop", slot), _missing), x.derived(("log rate", slot), _missing)
            u = np.exp(np.minimum(log_c - gamma * log_rate + x.derived(("log since", slot), _missing), 600.0))
            log = np.log1p(u)
            rest = drop * np.exp(-beta * log)
            total += drop - rest
            by_beta += rest * log
            move = rest * beta * (u / (1.0 + u))
            by_c += move
            by_gamma -= move * log_rate
        return [
            Term("L0", 1.0),
            Term("A", power, {"alpha": -log_sum * power}),
            Term("B", -total, {"C": -by_c / p["C"], "beta": -by_beta, "gamma": -by_gamma}),
        ]


def _missing(columns: Columns) -> Array:
    raise AssertionError("curves are prepared before they are used")


def _with_curves(columns: Columns) -> Array:
    """What each row has to know of its curve, put into `columns`; how many slots it uses, of the shape of a column."""
    step, rate, run = (np.atleast_2d(columns.value(name)) for name in ("step", "lr", "run"))
    shape = columns.value("step").shape
    log_sum = np.zeros(step.shape)
    count = np.zeros(step.shape)
    slots = np.zeros((3, SLOTS, *step.shape))
    slots[2] = -np.inf
    for table in range(len(step)):
        for label in np.unique(run[table]):
            rows = np.flatnonzero(run[table] == label)
            rows = rows[np.argsort(step[table, rows], kind="stable")]
            log_sum[table, rows], inside, used = _curve(step[table, rows], rate[table, rows])
            slots[:, :, table, rows] = inside
            count[table, rows] = used
    columns.derived("log sum", lambda _: log_sum.reshape(shape))
    for slot in range(int(count.max(initial=0))):
        for name, values in zip(("drop", "log rate", "log since"), slots[:, slot], strict=True):
            columns.derived((name, slot), lambda _, values=values: values.reshape(shape))  # type: ignore[misc]
    return count.reshape(shape)


def _curve(step: Array, rate: Array) -> tuple[Array, Array, int]:
    """Of one curve in order of its steps (n,): log S (n,), the slots (3, SLOTS, n) and how many are used.

    A slot has the drops of the learning rate in it so far, the mean logarithm of the rate after them and of S_k.
    """
    total = np.cumsum(rate * np.diff(step, prepend=0.0))
    n = len(step)
    slots = np.zeros((3, SLOTS, n))
    slots[2] = -np.inf
    drop = -np.diff(rate, prepend=rate[0])
    changed = np.flatnonzero((drop != 0) & (np.arange(n) > np.argmax(rate)))
    before = total[changed - 1]
    drop, log_rate = drop[changed], np.log(rate[changed])
    least = np.log(np.min(np.diff(total), initial=total[-1], where=np.diff(total) > 0))
    width = max(np.log(total[-1]) - least, 1e-9) * (1 + 1e-9)
    for begin in range(0, n, max(1, AT_ONCE // max(len(changed), 1))):
        rows = np.arange(begin, min(n, begin + max(1, AT_ONCE // max(len(changed), 1))))
        row, change = np.nonzero(changed[None, :] <= rows[:, None])
        since = np.log(np.maximum(total[rows][row] - before[change], 1e-300))
        if len(changed) <= SLOTS:
            slot = change
        else:
            slot = np.clip((since - least) / width * SLOTS, 0, SLOTS - 1).astype(np.int64)
        index, size = slot * len(rows) + row, SLOTS * len(rows)
        weight = np.abs(drop[change])
        weights = np.bincount(index, weight, size)
        sums = [np.bincount(index, w, size) for w in (drop[change], weight * log_rate[change], weight * since)]
        some = weights > 0
        mean = np.where(some, weights, 1.0)
        values = sums[0], sums[1] / mean, np.where(some, sums[2] / mean, -np.inf)
        slots[:, :, rows] = np.stack([value.reshape(SLOTS, len(rows)) for value in values])
    return np.log(total), slots, min(len(changed), SLOTS)

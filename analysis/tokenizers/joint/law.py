"""The joint law of cross-entropy and gFID over tokenizers, for the fitting engine, and two rivals of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from analysis.fitting.laws.law import Array, Columns, Law, Parameter, Values

Form = Literal["joint", "direct", "root"]
FORMS: dict[Form, str] = {
    "joint": "nats = T h_i + X, gFID = F_i + kappa X^gamma",
    "direct": "gFID = F_i + X",
    "root": "sqrt(gFID) = sqrt(F_i) + X",
}
"""By name, with X = exp(a + p k + q t - s u) N^-alpha + exp(b + p k + q t - s u) D^-beta."""
EXCESS = ("A", "B", "alpha", "beta", "p", "q", "s")


class JointLaw(Law):
    """Excess X over N (non-embedding parameters) and D (images), scaled by rate and causal weight, in one of FORMS.

    With k and t the centred logs of log2 K and T, u = w / (w + w_half), N and D around their geometric means:
    X = (A N^-alpha + B D^-beta) exp(p k + q t - s u). Rows are of cross-entropy in nats per image (`of_loss` 1; form
    joint alone) or of gFID. `tokenizer` counts tokenizers from 0, each with its irreducible nats per token h; `floor`
    is the measured F, or 0 where the family `open_floor` (from 0; -1: none) has one that is fitted. `tied`: p = q.
    Source: the form is this project's; arXiv 2412.16326, Sec. 3.3, has gFID = E + A C^-alpha a tokenizer.
    """

    name = "joint"
    source = "docs/analysis.md"
    columns = ("log_n", "log_d", "k", "t", "u", "tokens", "floor", "tokenizer", "open_floor", "of_loss")
    signed_columns = columns

    def __init__(self, form: Form, tokenizers: int, open_floors: int, tied: bool = False) -> None:
        self.form, self.tied = form, tied
        self.formula = FORMS[form]
        self.heights = [f"h{i}" for i in range(tokenizers)] if form == "joint" else []
        self.floors = [f"F{i}" for i in range(open_floors)]
        exponents = [
            Parameter("A", 1e-9, 1e9, log=True, grid=(0.03, 0.2)),
            Parameter("B", 1e-9, 1e9, log=True, grid=(0.05, 0.3)),
            Parameter("alpha", 0.01, 3.0, grid=(0.15, 0.5)),
            Parameter("beta", 0.01, 3.0, grid=(0.3, 0.7)),
            Parameter("p", -4.0, 4.0, grid=(0.2, 0.8)),
            Parameter("q", -4.0, 4.0, grid=(0.2, 0.8)),
            Parameter("s", -6.0, 6.0, grid=(0.2,)),
        ]
        if tied:
            exponents = [q for q in exponents if q.name != "q"]
        link = [
            Parameter("kappa", 1e-9, 1e9, log=True, grid=(1.0,)),
            Parameter("gamma", 0.2, 4.0, grid=(0.8, 1.3)),
        ]
        self.parameters = (
            *exponents,
            *(link if form == "joint" else []),
            *(Parameter(name, 0.0, 1e4, grid=(1.0,)) for name in self.heights),
            *(Parameter(name, 0.0, 1e6, grid=(0.7,)) for name in self.floors),
        )

    def predict(self, p: Values, x: Columns) -> Array:
        total, floor = np.add(*self.excess(p, x)), self._floor(p, x)
        if self.form == "direct":
            return floor + total
        if self.form == "root":
            return (np.sqrt(np.maximum(floor, 1e-12)) + total) ** 2
        height = self._of(p, self.heights, x.value("tokenizer"))
        powered = p["kappa"] * total ** p["gamma"]
        return np.where(x.value("of_loss") > 0.5, x.value("tokens") * height + total, floor + powered)

    def excess(self, p: Values, x: Columns) -> tuple[Array, Array]:
        """The two terms of X, of size and of length, each (S, n)."""
        k, t = x.value("k"), x.value("t")
        scale = np.exp(p["p"] * (k + t) - p["s"] * x.value("u") if self.tied
                       else p["p"] * k + p["q"] * t - p["s"] * x.value("u"))  # fmt: skip
        of_size = p["A"] * np.exp(-p["alpha"] * x.value("log_n")) * scale
        of_length = p["B"] * np.exp(-p["beta"] * x.value("log_d")) * scale
        return of_size, of_length

    def evaluate(self, p: Values, x: Columns) -> tuple[Array, list[Array]]:
        of_size, of_length = self.excess(p, x)
        total = of_size + of_length
        floor = self._floor(p, x)
        slopes: dict[str, Array] = {}
        if self.form == "direct":
            value, by_total, by_floor = floor + total, np.ones_like(total), np.ones_like(total)
        elif self.form == "root":
            root = np.sqrt(np.maximum(floor, 1e-12))
            value = (root + total) ** 2
            by_total, by_floor = 2 * (root + total), (root + total) / root
        else:
            loss = x.value("of_loss") > 0.5
            height = self._of(p, self.heights, x.value("tokenizer"))
            powered = p["kappa"] * total ** p["gamma"]
            tokens = x.value("tokens")
            value = np.where(loss, tokens * height + total, floor + powered)
            by_total = np.where(loss, 1.0, p["gamma"] * powered / total)
            by_floor = np.where(loss, 0.0, np.ones_like(total))
            slopes["kappa"] = np.where(loss, 0.0, powered / p["kappa"])
            slopes["gamma"] = np.where(loss, 0.0, powered * np.log(total))
            for i, name in enumerate(self.heights):
                slopes[name] = np.where(loss & (x.value("tokenizer") == i), tokens, 0.0) * np.ones_like(total)
        slopes |= {
            "A": by_total * of_size / p["A"],
            "B": by_total * of_length / p["B"],
            "alpha": -by_total * of_size * x.value("log_n"),
            "beta": -by_total * of_length * x.value("log_d"),
            "p": by_total * total * (x.value("k") + x.value("t") if self.tied else x.value("k")),
            "q": by_total * total * x.value("t"),
            "s": -by_total * total * x.value("u"),
        }
        for i, name in enumerate(self.floors):
            slopes[name] = by_floor * (x.value("open_floor") == i)
        return value, [slopes[q.name] for q in self.parameters]

    def start_values(self, p: Values, x: Columns, metric: Array) -> dict[str, Array]:
        """A and B as shares of the metric; heights and kappa as the rows then have them; floors below the lowest."""
        values = dict(p)
        of_loss = np.broadcast_to(x.value("of_loss") > 0.5, metric.shape)
        floor = np.broadcast_to(x.value("floor"), metric.shape)
        open_floor = np.broadcast_to(x.value("open_floor"), metric.shape)
        lowest = floor.astype(float).copy()
        for i, name in enumerate(self.floors):
            rows = (open_floor == i) & ~of_loss
            values[name] = p[name] * (metric[rows].min() if rows.any() else 1.0)
            lowest[open_floor == i] = float(values[name].ravel()[0])
        above = np.maximum(metric - lowest, 0.02 * metric)
        typical = {
            "joint": np.median(metric[of_loss]) if of_loss.any() else 1.0,
            "direct": 2 * np.median(above),
            "root": 2 * np.median(np.sqrt(metric) - np.sqrt(np.maximum(np.minimum(lowest, 0.98 * metric), 0))),
        }[self.form]
        for name in ("A", "B"):
            values[name] = p[name] * typical
        if self.form == "joint":
            total = np.add(*self.excess(values, x))
            tokenizer = np.broadcast_to(x.value("tokenizer"), metric.shape)
            tokens = np.broadcast_to(x.value("tokens"), metric.shape)
            for i, name in enumerate(self.heights):
                rows = of_loss & (tokenizer == i)
                if rows.any():
                    left = ((metric - total) / tokens)[:, rows].mean(axis=1, keepdims=True)
                    values[name] = np.maximum(left, 1e-3)
            rows = ~of_loss
            logs = np.log(above[rows]) - values["gamma"] * np.log(total[:, rows])
            values["kappa"] = np.exp(logs.mean(axis=1, keepdims=True))
        return values

    def _floor(self, p: Values, x: Columns) -> Array:
        measured = x.value("floor")
        return measured + self._of(p, self.floors, x.value("open_floor")) if self.floors else measured + 0 * p["A"]

    @staticmethod
    def _of(p: Values, names: Sequence[str], index: Array) -> Array:
        """The parameter of each row's index, (S, n); 0 where the index is -1."""
        values = np.concatenate([p[name] for name in names] + [np.zeros_like(p[names[0]])], axis=1)
        places = index.astype(np.int64)
        return values[:, places] if places.ndim == 1 else np.take_along_axis(values, places % len(values[0]), axis=1)

"""The floor of gFID that a tokenizer sets, by its rate: log F = f0 - phi log R + psi u, for tokenizers not trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from results.errors import FitError

from .table import Centre

Array = np.ndarray


@dataclass(frozen=True)
class FloorLaw:
    """Least squares over tokenizers: `coefficients` (f0, phi, psi), their covariance over the variance, the standard
    deviation of one tokenizer around the law with `df` degrees of freedom, log R centred at `centre`. `notes` say what
    is not known."""

    coefficients: Array
    unit_covariance: Array
    sd: float
    df: int
    centre: float
    notes: tuple[str, ...]

    @classmethod
    def of(cls, table: pd.DataFrame, centre: Centre) -> FloorLaw:
        """From the measured floors; phi or psi is 0, and said not to be known, where rates or weights do not vary.

        Raises FitError where fewer than two tokenizers have a floor.
        """
        first = table.drop_duplicates("tokenizer")
        first = first[first["floor"] > 0]
        if len(first) < 2:
            raise FitError(f"the law of the floor needs two tokenizers with a measured rfid_floor, not {len(first)}")
        middle = float(np.log(first["rate"]).mean())
        x = _design(first, centre, middle)
        notes = []
        used = [0]
        for column, words in ((1, "rates: what the rate does to it (phi)"), (2, "weights: what CRT does to it (psi)")):
            trial = [*used, column]
            if np.linalg.matrix_rank(x[:, trial], tol=1e-4) == len(trial):
                used = trial
            else:
                notes.append(f"floors of too few {words} is not known")
        y = np.log(first["floor"].to_numpy(dtype=float))
        solved, *_ = np.linalg.lstsq(x[:, used], y, rcond=None)
        df = len(y) - len(used)
        residual = y - x[:, used] @ solved
        sd = float(np.sqrt(residual @ residual / df)) if df else float("nan")
        coefficients, covariance = np.zeros(3), np.zeros((3, 3))
        coefficients[used] = solved
        covariance[np.ix_(used, used)] = np.linalg.pinv(x[:, used].T @ x[:, used])
        return cls(coefficients, covariance, sd, df, middle, tuple(notes))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: f0 at the mean rate, phi, psi, and the deviation of one tokenizer; None for what is not known."""
        names = ("f0", "phi", "psi")
        known = [
            value if self.unit_covariance[i, i] > 0 else None for i, value in enumerate(self.coefficients.tolist())
        ]
        errors = (self.sd * np.sqrt(np.diag(self.unit_covariance))).tolist() if self.df else [None] * 3
        return {
            **dict(zip(names, known, strict=True)),
            **{f"{n}_se": e if k is not None else None for n, e, k in zip(names, errors, known, strict=True)},
            "sd": self.sd if self.df else None, "df": self.df, "notes": list(self.notes),
        }  # fmt: skip

    def predict(self, table: pd.DataFrame, centre: Centre) -> Array:
        """F (n,) of tokenizers by their rate and weight."""
        return np.exp(_design(table, centre, self.centre) @ self.coefficients)

    def draws(self, table: pd.DataFrame, centre: Centre, count: int, seed: int, luck: bool = False) -> Array:
        """F (count, n): draws of the law (Student t); with `luck` also of one tokenizer around it."""
        random = np.random.default_rng((seed, 71))
        if not self.df:
            return np.repeat(self.predict(table, centre)[None, :], count, axis=0)
        spread = self.sd * np.sqrt(self.df / random.chisquare(self.df, size=count))
        root = np.linalg.svd(self.unit_covariance)
        half = root[0] * np.sqrt(root[1])
        moved = spread[:, None] * (random.standard_normal((count, 3)) @ half.T)
        logs = (self.coefficients + moved) @ _design(table, centre, self.centre).T
        if luck:
            logs = logs + spread[:, None] * random.standard_normal(logs.shape)
        return np.exp(logs)


def _design(table: pd.DataFrame, centre: Centre, middle: float) -> Array:
    rate = np.log(table["rate"].to_numpy(dtype=float)) - middle
    return np.stack([np.ones(len(table)), -rate, centre.columns(table)["u"]], axis=1)

"""Fitting the joint law and its rivals, with draws by a wild bootstrap that moves whole tokenizers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from analysis.fitting.fit import fit
from analysis.fitting.problem import bounds_of
from analysis.fitting.result import FitResult, ParameterEstimate, Status
from analysis.inference.bootstrap import Bootstrap, bootstrap
from analysis.inference.few_clusters import few_cluster_factors
from results.errors import FitError

from .floors import FloorLaw
from .law import EXCESS, Form, JointLaw
from .table import Centre, Identified

Array = np.ndarray

NOISE = {"loss": 0.01, "gfid": 0.03}
"""First guesses of the noise of logs, by which the two metrics are weighed against each other; then as measured."""
LEAST_NOISE = 1e-4
REPLICATES = 200
STARTS = 12


@dataclass(frozen=True)
class JointFit:
    """A fitted form: `result` of the engine, `drawn` its replicates (None: none were asked for), from which predictions
    are drawn, `apart` the same, each parameter as far from the fit as its own interval asks for, and what was not told
    (`identified`). `noise` is the residual standard deviation of log gFID and of log nats."""

    form: Form
    result: FitResult
    drawn: Bootstrap | None
    apart: Bootstrap | None
    table: pd.DataFrame
    centre: Centre
    identified: Identified
    floors: FloorLaw | None
    noise: Mapping[str, float]

    @property
    def law(self) -> JointLaw:
        """The law with its counts of tokenizers and floors."""
        law = self.result.law
        assert isinstance(law, JointLaw)
        return law

    @property
    def trusted(self) -> bool:
        """Whether the minimiser reached a minimum, on the edge of what is allowed or inside."""
        return self.result.status is not Status.MAX_ITERATIONS

    def estimates(self) -> dict[str, ParameterEstimate]:
        """Exponents, link and, of the rate, p - q, with 95 % intervals where there are draws; None for what is held."""
        names = [name for name in (*EXCESS, "kappa", "gamma") if name in self.law.names]
        estimates = {}
        for name in names:
            value = self.result.parameters[name].value
            if name in self.identified.held or value is None:
                estimates[name] = ParameterEstimate(None)
            elif self.apart is None:
                estimates[name] = ParameterEstimate(value)
            else:
                estimates[name] = self.apart.estimate(self.apart.parameters[name], value)
        return estimates

    def rate_alone(self) -> tuple[ParameterEstimate, float] | None:
        """The nested test of p = q (rate alone matters): p - q with its interval, and the two-sided share of draws on
        the other side of 0. None where p and q are not both told."""
        if self.apart is None or self.law.tied or not {"p", "q"} <= self.identified.names:
            return None
        difference = self.apart.derive(lambda values: values["p"] - values["q"])
        draws = self.apart.parameters["p"] - self.apart.parameters["q"]
        below = (1 + float(np.sum(draws < 0))) / (2 + len(draws))
        return difference, 2 * min(below, 1 - below)

    def columns(self, rows: pd.DataFrame, floor: Array | None = None) -> dict[str, Array]:
        """The law's columns for gFID at configurations with params, images, codes, tokens and weight; `floor` F (n,)
        or None for that of the rows."""
        floor = rows["floor"].to_numpy(dtype=float) if floor is None else floor
        count = len(rows)
        return {
            **self.centre.columns(rows),
            "tokens": rows["tokens"].to_numpy(dtype=float), "floor": floor,
            "tokenizer": np.zeros(count), "open_floor": np.full(count, -1.0), "of_loss": np.zeros(count),
        }  # fmt: skip

    def predict(self, rows: pd.DataFrame, floor: Array | None = None) -> Array:
        """gFID (n,)."""
        return self.result.predict(self.columns(rows, floor))

    def draws(self, rows: pd.DataFrame, count: int, seed: int, floor: Array | None = None) -> Array:
        """Draws (count, n) of gFID: of the exponents, and of the floor's law, unless `floor` (n,) is given."""
        if self.drawn is None:
            raise FitError("this fit has no draws")
        if floor is None and self.floors is None:
            raise FitError("no rfid_floor was measured: tokenizers not trained have no floor")
        floors = (
            np.repeat(floor[None, :], count, axis=0)
            if floor is not None
            else self.floors.draws(rows, self.centre, count, seed)  # type: ignore[union-attr]
        )
        p = {name: np.resize(values, count)[:, None] for name, values in self.drawn.parameters.items()}
        if self.law.tied:
            p["q"] = p["p"]
        x = self.centre.columns(rows)
        scale = np.exp(p["p"] * x["k"] + p["q"] * x["t"] - p["s"] * x["u"])
        total = (p["A"] * np.exp(-p["alpha"] * x["log_n"]) + p["B"] * np.exp(-p["beta"] * x["log_d"])) * scale
        if self.form == "joint":
            return floors + p["kappa"] * total ** p["gamma"]
        return floors + total if self.form == "direct" else (np.sqrt(floors) + total) ** 2


def fit_joint(
    table: pd.DataFrame, form: Form = "joint", *, replicates: int = 0, seed: int = 0, tied: bool = False
) -> JointFit:
    """One form fitted to a table of `joint_table`, by least squares of logs, the two metrics weighed by their noise.

    replicates: of the wild bootstrap (0: none), which flips the residuals of each tokenizer together, the tokenizer
    seed being the statistical unit. tied: p = q whatever the data. Raises FitError where the form needs nats per image
    that were not measured.
    """
    centre = Centre.of(table)
    identified = Identified.of(table, centre)
    tied = (tied or identified.tied) and {"p", "q"} <= identified.names
    losses = table[table["nats"] > 0] if form == "joint" else table.iloc[:0]
    if form == "joint" and losses["tokenizer"].nunique() < table["tokenizer"].nunique():
        raise FitError("the joint law needs nats per image of every tokenizer; the direct law does without")
    stacked = pd.concat([losses, table], ignore_index=True)
    of_loss = np.arange(len(stacked)) < len(losses)
    tokenizer, _ = pd.factorize(stacked["tokenizer"], sort=True)
    lacking = sorted(set(stacked.loc[~(stacked["floor"] > 0), "family"]))
    open_floor = stacked["family"].map({name: i for i, name in enumerate(lacking)}).fillna(-1).to_numpy(dtype=float)
    law = JointLaw(form, int(tokenizer.max()) + 1, len(lacking), tied)
    floor = np.where(open_floor >= 0, 0.0, stacked["floor"].fillna(0.0).to_numpy(dtype=float))
    data: dict[str, Any] = {
        **centre.columns(stacked),
        "tokens": stacked["tokens"].to_numpy(dtype=float), "floor": floor, "tokenizer": tokenizer.astype(float),
        "open_floor": open_floor, "of_loss": of_loss.astype(float), "clusters": tokenizer,
        "metric": np.where(of_loss, stacked["nats"], stacked["gfid"]).astype(float),
    }  # fmt: skip
    held = {name: value for name, value in identified.held.items() if name in law.names}
    noise = dict(NOISE)
    start: dict[str, float] | None = None
    for _ in range(2 if form == "joint" else 1):
        sd = np.where(of_loss, noise["loss"], noise["gfid"])
        weights = (noise["gfid"] / sd) ** 2
        result = fit(
            law, {**data, "weights": weights}, loss="squares", fixed=held, starts=STARTS if start is None else 2,
            start=start,
        )  # fmt: skip
        left = np.log(data["metric"]) - np.log(result.predict(data))
        noise = {
            name: max(float(np.sqrt(np.mean(left[rows] ** 2))), LEAST_NOISE) if rows.any() else NOISE[name]
            for name, rows in (("loss", of_loss), ("gfid", ~of_loss))
        }
        start = {name: value for name, value in result.values.items() if np.isfinite(value) and name not in held}
    drawn = bootstrap(result, replicates=replicates, kind="wild", seed=seed) if replicates else None
    apart = None
    if drawn is not None:
        # Parameters that make up for each other would leave the data if each had its own factor here.
        apart = _moved(drawn, few_cluster_factors(drawn.result, of_loss.astype(np.int64)))
        drawn = _moved(drawn, widening(table["tokenizer"].nunique(), 1 + len(identified.names)))
    try:
        floors = FloorLaw.of(table, centre)
    except FitError:
        floors = None
    return JointFit(form, result, drawn, apart, table, centre, identified, floors, noise)


def widening(tokenizers: int, told: int) -> float:
    """By how much draws of predictions move further from the fit, as few tokenizers ask for: sqrt(G / (G - m)), since m
    numbers were fitted to G tokenizers and their residuals are the smaller for it, times Student's t over the normal
    quantile (Cameron & Miller 2015, A practitioner's guide to cluster-robust inference, Sec. VI)."""
    freedom = max(tokenizers - told, 1)
    return float(np.sqrt(tokenizers / freedom) * stdtrit(freedom, 0.975) / stdtrit(np.inf, 0.975))


def _moved(drawn: Bootstrap, factor: float | Array) -> Bootstrap:
    """The draws so many times as far from the fit: all coordinates, or each (p,)."""
    fitted = drawn.result.coordinates
    lower, upper = bounds_of(drawn.result.law)
    coordinates = np.clip(fitted + factor * (drawn.coordinates - fitted), lower, upper)
    parameters = drawn.result.scales.natural_at(drawn.result.law, coordinates)
    return replace(drawn, coordinates=coordinates, parameters=parameters)

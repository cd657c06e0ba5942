"""Laws of rising, bounded, routed and scheduled quantities: known truth, gradients, JSON, their own formulas."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.fitting.fit import fit, fit_groups
from analysis.fitting.laws.formulas.equation import formula_law
from analysis.fitting.laws.known_laws import law_named
from analysis.fitting.laws.law import Columns
from analysis.fitting.request import FitRequest
from analysis.fitting.result import FitResult, Status
from results.errors import DataError, UsageError

DATA = Path(__file__).parents[3].parent / "shared" / "data" / "scalebench"
X = np.geomspace(1e16, 1e22, 24)
N, D = np.exp(np.random.default_rng(3).uniform([[17], [21]], [[22], [26]], (2, 48)))
EXPERTS = 2.0 ** np.random.default_rng(3).integers(0, 9, 48)


def routed(n: np.ndarray, experts: np.ndarray) -> np.ndarray:
    """Clark's law at a = -.09, b = -.12, c = .005, d = 2.6, E_start = 2, E_max = 400."""
    effective = 1 / (1 / (experts - 1 + 1 / (1 / 2 - 1 / 400)) + 1 / 400)
    return np.exp(-0.09 * np.log(n) - 0.12 * np.log(effective) + 0.005 * np.log(n) * np.log(effective) + 2.6)


CASES = [
    ("product", {"x": X}, 0.11 * X**0.5, {"k": 0.11, "a": 0.5}),
    ("product", {"x": X}, -3e4 * X**-0.2, {"k": -3e4, "a": -0.2}),
    ("product", {"params": N, "tokens": D}, 30 * N**-0.7 * D**0.3, {"k": 30, "a": -0.7, "b": 0.3}),
    ("signed-power", {"x": X}, 0.8 - 40 * X**-0.12, {"E": 0.8, "A": -40, "alpha": 0.12}),
    ("signed-power", {"x": X}, -2 + 40 * X**-0.12, {"E": -2, "A": 40, "alpha": 0.12}),
    ("logistic", {"x": X}, 0.25 + 0.5 / (1 + (3e18 / X) ** 0.4), {"low": 0.25, "high": 0.75, "x0": 3e18, "alpha": 0.4}),
    ("routed", {"params": N, "experts": EXPERTS}, routed(N, EXPERTS), {"c": 0.005, "E_start": 2, "E_max": 400}),
]


@pytest.mark.parametrize(("name", "columns", "metric", "truth"), CASES)
def test_known_truth(name: str, columns: dict[str, np.ndarray], metric: np.ndarray, truth: dict[str, float]) -> None:
    result = fit(name, {**columns, "metric": metric}, residual="raw", loss="squares")
    assert result.status is Status.CONVERGED and not result.warnings
    for parameter, value in truth.items():
        assert result.values[parameter] == pytest.approx(value, rel=1e-5)
    again = FitResult.from_json(json.loads(json.dumps(result.to_json())))
    assert again.law.name == name and again.law.columns == tuple(columns)
    assert again.predict(columns) == pytest.approx(metric)


def test_product_takes_one_column_or_two() -> None:
    table = pd.DataFrame({"C": X, "N": X**0.5, "D": X**0.4 * np.cos(np.arange(24)) ** 2 + 1, "y": X**0.3})
    assert FitRequest(table, "product", flops="C", metric="y").fit().law.columns == ("x",)
    assert FitRequest(table, "product", params="N", tokens="D", metric="y").fit().law.columns == ("params", "tokens")
    groups = fit_groups("product", {name: {"x": X, "metric": X**power} for name, power in (("a", 0.5), ("b", -0.2))})
    assert [result.values["a"] for result in groups.values()] == pytest.approx([0.5, -0.2])
    with pytest.raises(UsageError, match="columns='N' is not x or params,tokens"):
        law_named("product", columns="N")


def test_chance_is_the_floor_of_logistic() -> None:
    accuracy = 0.25 + 0.5 / (1 + (3e18 / X) ** 0.4) + 0.003 * np.cos(np.arange(24))
    table = pd.DataFrame({"C": X, "accuracy": accuracy})
    result = FitRequest(table, "logistic", flops="C", metric="accuracy", residual="raw", floor=0.2).fit()
    assert result.values["low"] == 0.2 and result.status is Status.CONVERGED


def farseer(n: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Near the published values of Li et al. 2025."""
    floor = np.exp(-0.021 * n**0.169 - 0.091)
    return floor + np.exp(88.01 * n**-0.1 - 6.287) * d ** -np.exp(-0.124 * n**0.123 + 0.424)


def test_farseer() -> None:
    rng = np.random.default_rng(4)
    n, d = np.exp(rng.uniform(19, 22.5, 60)), np.exp(rng.uniform(21.5, 27, 60))
    result = fit("farseer", {"params": n, "tokens": d, "metric": farseer(n, d)})
    assert result.status is Status.CONVERGED
    assert result.values["b"] == pytest.approx(-0.1, rel=1e-4) and result.values["a"] == pytest.approx(0.123, rel=1e-4)
    assert result.predict({"params": [2e10], "tokens": [1e13]}) == pytest.approx(
        farseer(np.array([2e10]), np.array([1e13])), rel=1e-6
    )


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
def test_farseer_reaches_no_worse_a_minimum_than_its_formula() -> None:
    table = pd.read_parquet(DATA / "farseer_train.parquet")
    points = {"params": table.N, "tokens": table.D, "metric": table.loss}
    text = "exp(s*params^q + S) + exp(B*params^b + Q)*tokens^(-exp(A*params^a + E))"
    typed = fit(formula_law(text, "params,tokens"), points, loss="squares")
    assert fit("farseer", points, loss="squares").objective <= typed.objective * (1 + 1e-8)


# --- whole curves ---

PEAK, WARMUP, STEPS = 3e-3, 40, 400
TRUTH = {"L0": 2.65, "A": 0.35, "alpha": 0.46, "B": 42.0, "C": 2.0, "beta": 0.58, "gamma": 0.63}


def schedule(kind: str) -> np.ndarray:
    """The learning rate of each step, after a linear warm-up."""
    after = STEPS - WARMUP
    share = np.arange(1, after + 1) / after
    rates = {
        "constant": np.ones(after),
        "steps": np.where(share > 0.8, 0.1, np.where(share > 0.5, 0.3, 1.0)),
        "cosine": 0.1 + 0.45 * (1 + np.cos(np.pi * share)),
        "wsd": np.where(share < 0.8, 1.0, 0.1 ** ((share - 0.8) / 0.2)),
    }[kind]
    return PEAK * np.concatenate([np.arange(1, WARMUP + 1) / WARMUP, rates])


def curve(rate: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The loss at steps `at` (from 1), summed term by term as the paper writes it."""
    total = np.cumsum(rate)
    losses = []
    for t in at:
        k = np.arange(WARMUP, t)
        since = total[t - 1] - total[k - 1]
        gone = 1 - (1 + TRUTH["C"] * rate[k] ** -TRUTH["gamma"] * since) ** -TRUTH["beta"]
        drop = TRUTH["B"] * np.sum((rate[k - 1] - rate[k]) * gone)
        losses.append(TRUTH["L0"] + TRUTH["A"] * total[t - 1] ** -TRUTH["alpha"] - drop)
    return np.array(losses)


def curves(kinds: list[str]) -> pd.DataFrame:
    step = np.arange(1, STEPS + 1)
    tables = [
        pd.DataFrame({"step": step, "lr": schedule(kind), "run": kind, "loss": curve(schedule(kind), step)})
        for kind in kinds
    ]
    table = pd.concat(tables, ignore_index=True)
    table["weight"] = (table["step"] > WARMUP) * (table["step"] % 5 == 0) * 1.0
    return table


@pytest.mark.parametrize(("kind", "apart"), [("constant", 1e-12), ("steps", 1e-12), ("cosine", 1e-5), ("wsd", 1e-5)])
def test_multi_power_is_the_sum_of_the_paper(kind: str, apart: float) -> None:
    columns = Columns({"step": np.arange(1.0, STEPS + 1), "lr": schedule(kind), "run": np.ones(STEPS)})
    predicted = law_named("multi-power").predict({name: np.array([[value]]) for name, value in TRUTH.items()}, columns)
    at = np.arange(WARMUP + 20, STEPS + 1, 20)
    assert predicted[0][at - 1] == pytest.approx(curve(schedule(kind), at), abs=apart)


def test_multi_power_slopes_are_those_of_its_values() -> None:
    law = law_named("multi-power")
    columns = Columns(
        {"step": np.arange(1.0, 201), "lr": schedule("cosine")[WARMUP : WARMUP + 200], "run": np.ones(200)}
    )
    p = {name: np.array([[value]]) for name, value in TRUTH.items()}
    _, slopes = law.evaluate(p, columns)
    for name, slope in zip(law.names, slopes, strict=True):
        h = 1e-5 * p[name]
        above, below = (law.predict({**p, name: p[name] + sign * h}, columns) for sign in (1, -1))
        assert np.broadcast_to(slope, above.shape) == pytest.approx((above - below) / (2 * h), rel=1e-4, abs=1e-8)


def test_multi_power_predicts_a_schedule_that_was_never_run() -> None:
    table = curves(["constant", "steps", "cosine"]).sample(frac=1, random_state=0)  # in any order of rows
    result = FitRequest(table, "multi-power", metric="loss", weights="weight").fit()
    assert result.status is Status.CONVERGED and result.values["alpha"] == pytest.approx(0.46, abs=0.01)
    predicted = result.predict({"step": np.arange(1, STEPS + 1), "lr": schedule("wsd")})
    at = np.arange(WARMUP + 20, STEPS + 1, 20)
    assert predicted[at - 1] == pytest.approx(curve(schedule("wsd"), at), abs=2e-3)


def test_curves_as_groups_are_fitted_as_alone() -> None:
    table = curves(["constant", "steps"])
    groups = FitRequest(table, "multi-power", metric="loss", weights="weight", group="run").fit_groups()
    alone = FitRequest(table[table.run == "steps"], "multi-power", metric="loss", weights="weight").fit()
    assert groups["steps"].objective == pytest.approx(alone.objective, rel=1e-6, abs=1e-12)


def test_a_curve_without_a_name() -> None:
    table = curves(["constant"])
    table.loc[3, "run"] = None
    with pytest.raises(DataError, match="row 3, column 'run': empty"):
        FitRequest(table, "multi-power", metric="loss").fit()

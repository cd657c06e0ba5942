"""Metrics that rise or are negative: fitted rightly, or refused by a sentence that names the law to take."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from analysis.fitting.fit import fit, fit_groups
from analysis.fitting.laws.known_laws import law_named
from analysis.fitting.request import FitRequest
from analysis.fitting.result import FitResult, Status
from results.errors import FitError, UsageError

X = np.geomspace(1e3, 1e8, 16)
WIGGLE = 0.01 * np.cos(7 * np.arange(16))


def grid() -> tuple[np.ndarray, np.ndarray]:
    n, d = np.meshgrid(np.geomspace(1e7, 1e9, 5), np.geomspace(1e9, 1e11, 5))
    return n.ravel(), d.ravel()


@pytest.mark.parametrize("residual", ["log", "raw"])
@pytest.mark.parametrize("law", ["power", "m1", "m3", "m4", "shifted-power"])
@pytest.mark.parametrize("metric", [3 * X**0.4, 0.7 - 0.5 * X**-0.2, np.log(X)], ids=["product", "saturating", "log"])
def test_a_law_that_only_falls_says_so_of_a_metric_that_rises(law: str, metric: np.ndarray, residual: str) -> None:
    with pytest.raises(FitError, match=rf"law {'power' if law == 'm1' else law} only falls with x, but 'metric' rises"):
        fit(law, {"x": X, "metric": metric * (1 + WIGGLE)}, residual=residual)


@pytest.mark.parametrize("law", ["chinchilla", "kaplan"])
def test_laws_of_two_columns_say_which_one(law: str) -> None:
    n, d = grid()
    with pytest.raises(FitError, match=r"only falls with params, but 'accuracy' rises with 'N'.*law product"):
        table = pd.DataFrame({"N": n, "D": d, "accuracy": 0.9 - 20 / n**0.25 - 30 / d**0.2})
        FitRequest(table, law, params="N", tokens="D", metric="accuracy").fit()
    # it rises with D alone, at each N
    with pytest.raises(FitError, match="only falls with tokens"):
        fit(law, {"params": n, "tokens": d, "metric": (1 + 30 / n**0.2) * d**0.05})


def test_noise_and_bends_are_no_rise() -> None:
    rng = np.random.default_rng(1)
    for seed in range(20):
        noise = np.random.default_rng(seed).normal(size=16)
        assert fit("power", {"x": X, "metric": 2 + 0.01 * noise}).rows == 16
    bump = 2 * X**-0.1 * (1 + 0.4 * np.exp(-((np.log(X) - 12) ** 2)))
    assert fit("power", {"x": X, "metric": bump * (1 + 0.01 * rng.normal(size=16))}).values["alpha"] > 0


def test_a_group_that_rises_is_named() -> None:
    falls, rises = {"x": X, "metric": 1 + X**-0.3}, {"x": X, "metric": X**0.3}
    with pytest.raises(FitError, match="group 'b': law power only falls"):
        fit_groups("power", {"a": falls, "b": rises})


@pytest.mark.parametrize("law", ["power", "shifted-power"])
def test_a_negative_metric_gives_a_floor_of_either_sign(law: str) -> None:
    result = fit(law, {"x": X, "metric": -3 + 8 * X**-0.2}, residual="raw", loss="squares")
    floor = result.law.floor_parameter
    assert floor is not None and result.values[floor] == pytest.approx(-3, rel=1e-4)
    again = FitResult.from_json(json.loads(json.dumps(result.to_json())))
    assert again.law.signed_floor and again.predict({"x": [1e9]}) == pytest.approx(-3 + 8 * 1e9**-0.2, rel=1e-4)
    positive = fit_groups(
        law, {"a": {"x": X, "metric": -3 + 8 * X**-0.2}, "b": {"x": X, "metric": 1 + X**-0.2}}, residual="raw"
    )
    assert [group.law.signed_floor for group in positive.values()] == [True, False]


def test_chinchilla_of_a_negative_metric() -> None:
    n, d = grid()
    result = fit("chinchilla", {"params": n, "tokens": d, "metric": -4 + 300 / n**0.3 + 500 / d**0.3}, residual="raw")
    assert result.values["E"] == pytest.approx(-4, rel=1e-4)


def test_a_positive_metric_with_a_negative_floor_is_one_option_away() -> None:
    table = pd.DataFrame({"x": X, "error": -2 + 20 * X**-0.1})
    request = FitRequest(table, "power", x="x", metric="error", residual="raw", loss="squares")
    held = request.fit()
    assert held.status is Status.BOUNDARY and "--floor SIGNED" in held.warnings[0]
    signed = FitRequest(table, "power", x="x", metric="error", residual="raw", loss="squares", floor="SIGNED").fit()
    assert signed.values["E"] == pytest.approx(-2) and not signed.warnings
    n, d = grid()
    points = pd.DataFrame({"params": n, "tokens": d, "loss": 5 + 300 / n**0.3 + 500 / d**0.3})
    assert FitRequest(points, "chinchilla", floor=-6, residual="raw").fit().values["E"] == -6
    with pytest.raises(UsageError, match="law m3 has no floor that could be negative"):
        FitRequest(table, "m3", x="x", metric="error", floor="SIGNED").fit()


@pytest.mark.parametrize("law", ["m1", "m3", "m4"])
def test_a_positive_law_says_so_of_a_negative_metric(law: str) -> None:
    with pytest.raises(FitError, match="is positive everywhere, but 'metric' is negative"):
        fit(law, {"x": X, "metric": -3 + 8 * X**-0.2}, residual="raw")


@pytest.mark.parametrize("loss", ["huber", "squares", "lad"])
def test_exact_data_have_no_other_minima(loss: str) -> None:
    n, d = grid()
    for law, metric in (("chinchilla", 1.7 + 500 / n**0.35 + 900 / d**0.3), ("kaplan", (1e13 / n + 3e13 / d) ** 0.08)):
        result = fit(law, {"params": n, "tokens": d, "metric": metric}, loss=loss)
        assert result.status is Status.CONVERGED and not result.warnings


def test_what_did_not_converge_says_so_though_parameters_are_open() -> None:
    n, d = np.geomspace(1e7, 1e9, 12), np.geomspace(1e9, 1e11, 12)
    points = {"params": np.full(12, 1e8), "tokens": d, "metric": 2 + 900 / d**0.3 + 0.01 * np.cos(n)}
    settled, stopped = (fit("chinchilla", points, max_iterations=count) for count in (400, 1))
    assert settled.status is Status.NOT_IDENTIFIABLE
    assert stopped.status is Status.MAX_ITERATIONS and "alpha" in stopped.not_identified


def test_options_of_a_signed_law() -> None:
    law = law_named("chinchilla", signed_floor=True)
    assert law.signed_floor and law.parameters[0].lower == -np.inf
    assert law_named("chinchilla").parameters[0].lower == 0

"""Rows that are chosen for any law: what they promise is what they give, few rows are enough to begin, bad input."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from analysis.allocation.next_rows import next_rows
from analysis.fitting.request import FitRequest
from results.errors import DataError, FitError, UsageError

X = np.geomspace(10, 1000, 12)
TARGET = pd.DataFrame({"x": [1e5]})
CHINCHILLA = "E + A/n^alpha + B/d^beta"


def _request(number: int, x: np.ndarray = X) -> FitRequest:
    """The law of a power to rows with 2 % of noise."""
    noise = np.exp(0.02 * np.random.default_rng((2, number)).standard_normal(len(x)))
    rows = pd.DataFrame({"x": x, "loss": 5 * x**-0.3 * noise})
    return FitRequest(rows, "product", columns={}, x="x", metric="loss", loss="squares")


def test_rows_of_any_law_are_chosen_at_the_far_end_of_a_line_in_logs() -> None:
    candidates = pd.DataFrame({"x": np.geomspace(10, 1e4, 9)})
    chosen = next_rows(_request(0), candidates, TARGET, "1 + 0*x", budget=2.0)
    # The largest candidate tells most of what lies beyond it.
    assert chosen.choices[0].option == 8
    assert chosen.now > chosen.choices[0].after
    by_cost = next_rows(_request(0), candidates, TARGET, "x^2", budget=1e4)
    assert by_cost.choices[0].option < 8


def test_what_is_expected_is_what_further_rows_give() -> None:
    """The spread at the target, now and after the chosen rows, is that of fits to 200 data sets."""
    candidates = pd.DataFrame({"x": np.geomspace(10, 1e4, 9)})
    chosen = next_rows(_request(0), candidates, TARGET, "1 + 0*x", budget=3.0)
    # The noise is known to one data set's residuals only, so it is the mean over some that is compared.
    now, after = np.mean(
        [
            (result.now, result.choices[-1].after)
            for result in (next_rows(_request(i), candidates, TARGET, "1 + 0*x", budget=3.0) for i in range(40))
        ],
        axis=0,
    )
    further = np.concatenate([X, candidates["x"].to_numpy()[[choice.option for choice in chosen.choices]]])
    for x, expected in ((X, now), (further, after)):
        fitted = [_request(i, x).fit().predict({"x": TARGET["x"].to_numpy()})[0] for i in range(200)]
        assert expected == pytest.approx(np.std(np.log(fitted)), rel=0.2)
    assert after < 0.8 * now


def test_fewer_rows_than_parameters_are_enough_to_begin() -> None:
    n, d = np.array([1e7, 3e7, 1e8]), np.array([1e9, 1e9, 1e10])
    rows = pd.DataFrame({"n": n, "d": d, "loss": 1.8 + 480 / n**0.35 + 2000 / d**0.37})
    request = FitRequest(rows, CHINCHILLA, columns={"n": "n", "d": "d"}, metric="loss")
    candidates = pd.DataFrame({"n": [1e7, 1e8, 1e9], "d": [1e10, 1e9, 1e11]})
    chosen = next_rows(request, candidates, pd.DataFrame({"n": [1e10], "d": [1e12]}), "6*n*d", budget=1e22)
    assert len(chosen.choices) > 0 and math.isfinite(chosen.now) and chosen.choices[-1].after < chosen.now


def test_one_dear_row_that_decides_is_not_crowded_out_by_cheap_ones() -> None:
    """Per cost the cheap rows come first, and what is left does not pay for the one at the target."""
    candidates = pd.DataFrame({"x": [*np.linspace(10, 12, 30), 1e5], "cost": [0.1] * 30 + [2.9]})
    chosen = next_rows(_request(0), candidates, TARGET, "cost", budget=3.0)
    assert chosen.choices[0].option == 30


def test_impossible_budgets_costs_and_rows() -> None:
    request, candidates = _request(0), pd.DataFrame({"x": [10.0, 100.0]})
    with pytest.raises(UsageError, match=r"budget = -1.0 is not allowed"):
        next_rows(request, candidates, TARGET, "x", budget=-1.0)
    with pytest.raises(UsageError, match=r"cost = 0.0 of row 0 is not allowed"):
        next_rows(request, candidates, TARGET, "x - 10", budget=1.0)
    with pytest.raises(DataError, match="'x' of a candidate or target row is empty"):
        next_rows(request, candidates, pd.DataFrame({"x": [math.nan]}), "x", budget=1.0)
    many = pd.DataFrame({"x": np.linspace(10, 100, 10_000)})
    with pytest.raises(DataError, match=r"have 10013 rows together; allowed: 10000"):
        next_rows(request, many, TARGET, "x", budget=1.0)
    sinks = pd.DataFrame({"x": X, "loss": 3 - 0.1 * np.log(X)})
    formula = FitRequest(sinks, "a + b*log(x)", columns={"x": "x"}, metric="loss", residual="raw")
    with pytest.raises(FitError, match="not positive at the target"):
        next_rows(formula, candidates, pd.DataFrame({"x": [1e300]}), "x", budget=100.0)

"""Allocation: closed form against search and published values, costs, warnings, refusals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.allocation.optimum import optimum
from analysis.fitting.costs import FormulaCost, PowerCost, fit_cost
from analysis.fitting.fit import fit
from analysis.fitting.laws.formulas.equation import formula_law
from analysis.fitting.request import FitRequest
from analysis.fitting.result import FitResult
from analysis.inference.bootstrap import bootstrap
from results.errors import DataError, FitError, UsageError


def points(law: str = "chinchilla", n: int = 60, noise: float = 0.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    params, tokens = np.exp(rng.uniform(17, 23, n)), np.exp(rng.uniform(20, 26, n))
    if law == "kaplan":
        loss = ((8.8e13 / params) ** (0.076 / 0.095) + 5.4e13 / tokens) ** 0.095
    else:
        loss = 1.82 + 478 / params**0.347 + 2143 / tokens**0.367
    return {"params": params, "tokens": tokens, "metric": loss * np.exp(noise * rng.normal(size=n))}


def fitted(law: str = "chinchilla", noise: float = 0.0) -> FitResult:
    return fit(law, points(law, noise=noise))


@pytest.mark.parametrize("law", ["chinchilla", "kaplan"])
@pytest.mark.parametrize("flops", [1e19, 1e22])
def test_closed_form_is_the_minimum_along_the_budget(law: str, flops: float) -> None:
    result = fitted(law)
    best = optimum(result, flops)
    assert best.closed_form
    n, d = best.params.value, best.tokens.value
    assert n is not None and d is not None
    assert 6 * n * d == pytest.approx(flops)
    near = n * np.exp(np.linspace(-0.5, 0.5, 2001))
    losses = result.predict({"params": near, "tokens": flops / (6 * near)})
    assert near[np.argmin(losses)] == pytest.approx(n, rel=1e-3)
    searched = optimum(result, flops, cost=FormulaCost("6*N*D"))
    assert not searched.closed_form
    assert searched.params.value == pytest.approx(n, rel=1e-4)
    assert searched.params_exponent.value == pytest.approx(best.params_exponent.value, rel=1e-3)


def test_exponents_are_a_and_its_complement() -> None:
    result = fitted()
    best = optimum(result, 1e20)
    assert best.params_exponent.value == pytest.approx(0.367 / (0.347 + 0.367), rel=1e-6)
    assert best.params_exponent.value == pytest.approx(result.derived["a"].value)
    assert best.tokens_exponent.value == pytest.approx(1 - best.params_exponent.value)


@given(st.floats(0.5, 100), st.floats(0.7, 1.3), st.floats(0.7, 1.3), st.floats(44, 52))
@settings(max_examples=10, deadline=None)
def test_power_costs_agree_with_the_search(k: float, u: float, v: float, log_c: float) -> None:
    result, flops = fitted(), float(np.exp(log_c))
    closed = optimum(result, flops, cost=PowerCost(k, u, v))
    searched = optimum(result, flops, cost=FormulaCost(f"{k!r}*N^{u!r}*D^{v!r}"))
    assert closed.params.value == pytest.approx(searched.params.value, rel=1e-3)
    assert closed.tokens_exponent.value == pytest.approx(searched.tokens_exponent.value, rel=1e-2)


def test_a_fixed_cost_per_token_moves_the_optimum_to_larger_models() -> None:
    result = fitted()
    plain = optimum(result, 1e20)
    taxed = optimum(result, 1e20, cost=FormulaCost("6*N*D + 3e9*D"))
    assert taxed.params.value > plain.params.value
    assert taxed.tokens.value < plain.tokens.value


def test_cost_from_a_column_of_flops() -> None:
    p = points()
    real = 7.3 * p["params"] ** 0.96 * p["tokens"] ** 1.02
    cost = fit_cost(p["params"], p["tokens"], real)
    assert (cost.coefficient, cost.params_power, cost.tokens_power) == pytest.approx((7.3, 0.96, 1.02), rel=1e-9)
    with pytest.raises(DataError, match="independently"):
        fit_cost(p["params"], 20 * p["params"], real)


def test_intervals_from_draws_hold_the_value() -> None:
    result = fitted(noise=0.01)
    best = optimum(result, 1e21, draws=bootstrap(result, replicates=200).coordinates)
    for e in (best.params, best.tokens, best.loss, best.params_exponent):
        assert e.low is not None and e.high is not None and e.value is not None
        assert e.low < e.value < e.high


def test_extrapolation_is_said() -> None:
    warnings = optimum(fitted(), 1e26).warnings
    assert any("extrapolation" in w for w in warnings)
    assert any("outside the fitted rows" in w for w in warnings)


def test_data_constrained_optimum_needs_and_uses_unique_tokens() -> None:
    rng = np.random.default_rng(1)
    params, tokens = np.exp(rng.uniform(17, 22, 150)), np.exp(rng.uniform(20, 25, 150))
    unique = np.exp(rng.uniform(19, 24, 150))
    base = fitted()
    law_points = {"params": params, "tokens": tokens, "unique_tokens": unique}
    from analysis.fitting.laws.known_laws import law_named
    from analysis.fitting.laws.law import Columns

    law = law_named("data-constrained")
    truth = {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37, "R_N": 5.3, "R_D": 15.4}
    metric = law.predict({k: np.array([[v]]) for k, v in truth.items()}, Columns(law_points))[0]
    result = fit(law, {**law_points, "metric": metric}, loss="squares", residual="log")
    with pytest.raises(UsageError, match="unique_tokens"):
        optimum(result, 1e21)
    scarce = optimum(result, 1e21, fixed_columns={"unique_tokens": 1e9})
    plenty = optimum(result, 1e21, fixed_columns={"unique_tokens": 1e15})
    assert scarce.loss.value > plenty.loss.value
    assert plenty.params.value == pytest.approx(optimum(base, 1e21).params.value, rel=0.5)


@pytest.mark.parametrize("flops", [0.0, -1.0, np.nan, np.inf])
def test_wrong_budgets(flops: float) -> None:
    with pytest.raises(UsageError, match="flops="):
        optimum(fitted(), flops)


@pytest.mark.parametrize("formula", ["6*N*", "__import__('os')", "N.real", "6*N", "open(N)", "-D", "6*N*X", "'a'*D"])
def test_wrong_costs(formula: str) -> None:
    with pytest.raises(UsageError, match="cost="):
        FormulaCost(formula)


def test_no_optimum_without_a_trade_off() -> None:
    x = np.geomspace(1, 1e4, 9)
    with pytest.raises(UsageError, match="no trade-off"):
        optimum(fit("power", {"x": x, "metric": 1 + x**-0.5}), 1e20)
    tokens = np.geomspace(1e9, 1e12, 20)
    one_size = fit("chinchilla", {"params": np.full(20, 1e8), "tokens": tokens, "metric": 1 + 2000 / tokens**0.37})
    with pytest.raises(FitError, match="alpha"):
        optimum(one_size, 1e20)


def test_the_cost_that_the_fit_measured_is_the_default() -> None:
    data = points(noise=0.003)
    plain = fit("chinchilla", data)
    table = pd.DataFrame({**data, "C": 11.0 * data["params"] * data["tokens"]})
    real = FitRequest(table, "chinchilla", params="params", tokens="tokens", flops="C").fit()
    assert real.cost == PowerCost(11.0)
    measured, usual, given = optimum(real, 1e21), optimum(plain, 1e21), optimum(real, 1e21, cost=PowerCost())
    assert [a.cost_source for a in (measured, usual, given)] == ["measured", "6ND", "given"]
    assert (
        measured.cost == "C = 11 N D"
        and measured.params.value == optimum(plain, 1e21, cost=PowerCost(11.0)).params.value
    )
    assert given.params.value == pytest.approx(usual.params.value)
    assert any("own FLOPs are 1.83 times those of C = 6 N D" in w for w in given.warnings)


def test_what_did_not_converge_and_what_cannot_be_counts_are_said() -> None:
    data = points(noise=0.003)
    stopped = fit("chinchilla", data, max_iterations=1)
    assert any("do not use these numbers" in w for w in optimum(stopped, 1e21).warnings)
    millions = fit("chinchilla", {**data, "params": data["params"] / 1e6, "tokens": data["tokens"] / 1e9})
    warnings = optimum(millions, 1e4).warnings
    assert [w.partition(" ")[0] for w in warnings if "cannot be counts" in w] == ["params", "tokens"]
    searched = optimum(millions, 1e4, cost=FormulaCost("6*N*D"))
    assert searched.params.value == pytest.approx(optimum(millions, 1e4).params.value, rel=1e-6)


def vocabulary_fit() -> FitResult:
    rng = np.random.default_rng(2)
    n, v, d = np.exp(rng.uniform([[17], [14], [20]], [[22], [19], [25]], (3, 80)))
    loss = -5 + 400 / n**0.34 + 60 / v**0.25 + 900 / d**0.33
    return fit(
        "vocabulary",
        {"params_non_vocabulary": n, "params_vocabulary": v, "tokens": d, "metric": loss},
        residual="raw",
        loss="squares",
    )


def test_the_best_vocabulary_is_found_and_paid_for() -> None:
    best = optimum(vocabulary_fit(), 1e21)
    n, v, d = (float(np.asarray(e.value)) for e in (best.params, best.vocabulary, best.tokens))
    assert best.cost == "C = 6 N D, N = Nnv + Nv" and 6 * (n + v) * d == pytest.approx(1e21)
    sizes, words = np.meshgrid(n * np.geomspace(0.7, 1.4, 41), v * np.geomspace(0.7, 1.4, 41))
    loss = -5 + 400 / sizes**0.34 + 60 / words**0.25 + 900 / (1e21 / 6 / (sizes + words)) ** 0.33
    k = np.unravel_index(np.argmin(loss), loss.shape)
    assert (sizes[k], words[k]) == pytest.approx((n, v), rel=0.03) and best.loss.value == pytest.approx(loss.min())
    given = optimum(vocabulary_fit(), 1e21, fixed_columns={"params_vocabulary": 1e8})
    total = float(np.asarray(given.params.value)) + 1e8
    assert given.vocabulary is None and 6 * total * float(np.asarray(given.tokens.value)) == pytest.approx(1e21)


def test_a_formula_with_columns_n_and_d() -> None:
    data = points()
    typed = fit(
        formula_law("E + A/N^alpha + B/D^beta", "N,D"),
        {"N": data["params"], "D": data["tokens"], "metric": data["metric"]},
    )
    known, searched = optimum(fitted(), 1e21), optimum(typed, 1e21)
    assert searched.params.value == pytest.approx(known.params.value, rel=1e-6)
    assert searched.tokens_exponent.value == pytest.approx(known.tokens_exponent.value, rel=1e-3)

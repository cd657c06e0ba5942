"""Every law: slopes against finite differences, units, bounds, published limits, names."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.fitting.laws.known_laws import LAWS, DataConstrained, law_named
from analysis.fitting.laws.law import Columns, Law
from analysis.fitting.problem import Scales, bounds_of, parameters_of
from analysis.fitting.result import predict_with
from results.errors import UsageError

ALL = [
    "power",
    "m1",
    "chinchilla",
    "kaplan",
    "data-constrained",
    "vocabulary",
    "m3",
    "shifted-power",
    "m4",
    "bnsl-1",
    "bnsl-2",
    "bnsl-3",
]


def inside(law: Law, rng: np.random.Generator, count: int = 3) -> np.ndarray:
    """Random coordinates well inside the bounds."""
    lower, upper = bounds_of(law)
    theta = np.empty((count, len(law.parameters)))
    for k, q in enumerate(law.parameters):
        if q.log:
            theta[:, k] = rng.uniform(max(lower[k], -0.7), min(upper[k], 0.7), count)
        else:
            theta[:, k] = rng.uniform(max(lower[k], -0.5) + 0.1, min(upper[k], 1.0), count)
    if law.name == "m4":
        theta[:, law.names.index("e0")] = theta[:, law.names.index("e")] + rng.uniform(0.5, 2.0, count)
    return theta


def some_columns(law: Law, rng: np.random.Generator, n: int = 7) -> dict[str, np.ndarray]:
    columns = {name: np.exp(rng.normal(0, 1.5, n)) for name in law.columns}
    if "unique_tokens" in columns:
        columns["unique_tokens"] = columns["tokens"] * rng.choice([0.2, 0.5, 2.0], n)
    return columns


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("seed", range(4))
def test_slopes_are_those_of_finite_differences(name: str, seed: int) -> None:
    law, rng = law_named(name), np.random.default_rng(seed)
    theta, x = inside(law, rng), Columns(some_columns(law, rng))
    p = parameters_of(law, theta)
    value, slopes = law.evaluate(p, x)
    np.testing.assert_allclose(value * np.ones((3, 7)), law.predict(p, x) * np.ones((3, 7)), rtol=1e-12)
    for q, slope in zip(law.parameters, slopes, strict=True):
        step = 1e-6 * np.maximum(np.abs(p[q.name]), 0.1)
        up = law.predict({**p, q.name: p[q.name] + step}, x)
        down = law.predict({**p, q.name: p[q.name] - step}, x)
        numeric = (up - down) / (2 * step)
        np.testing.assert_allclose(slope * np.ones_like(numeric), numeric, rtol=2e-5, atol=1e-7, err_msg=q.name)


@pytest.mark.parametrize("name", ALL)
@given(st.floats(-20, 20), st.floats(-20, 20), st.integers(0, 50))
@settings(max_examples=15, deadline=None)
def test_units_carry_every_parameter_through_a_change_of_scale(
    name: str, of_x: float, of_metric: float, seed: int
) -> None:
    """The law in scaled units, times the metric's scale, equals the law in natural units with natural parameters."""
    law, rng = law_named(name), np.random.default_rng(seed)
    theta, columns = inside(law, rng, 1), some_columns(law, rng)
    scales = Scales(dict.fromkeys(law.columns, float(np.exp(of_x))), float(np.exp(of_metric)))
    scaled = law.predict(parameters_of(law, theta), scales.apply(columns)) * scales.metric
    natural = scales.natural(law, parameters_of(law, theta))
    np.testing.assert_allclose(law.predict(natural, Columns(columns)) * np.ones((1, 7)), scaled, rtol=1e-6)
    back = scales.scaled(law, natural)
    for q in law.parameters:
        np.testing.assert_allclose(back[q.name], parameters_of(law, theta)[q.name], rtol=1e-9)


def numbers(**values: float) -> dict[str, np.ndarray]:
    return {name: np.array([[value]]) for name, value in values.items()}


def test_data_constrained_without_repetition_is_chinchilla() -> None:
    law, plain = DataConstrained(), law_named("chinchilla")
    x = Columns({"params": np.array([0.5, 1.0]), "tokens": np.array([1.0, 3.0]), "unique_tokens": np.array([5.0, 4.0])})
    p = numbers(E=1.0, A=20.0, B=2.0, alpha=0.3, beta=0.4, R_N=5.0, R_D=15.0)
    np.testing.assert_allclose(law.predict(p, x), plain.predict(p, x), rtol=1e-12)


def test_data_constrained_repetition_loses_to_fresh_data_and_saturates() -> None:
    law = DataConstrained()
    p = numbers(E=1.0, A=20.0, B=2.0, alpha=0.3, beta=0.4, R_N=5.0, R_D=15.0)
    tokens = np.array([1.0, 4.0, 100.0, 1e6])
    fresh = law.predict(p, Columns({"params": np.full(4, 0.1), "tokens": tokens, "unique_tokens": tokens}))[0]
    repeated = law.predict(p, Columns({"params": np.full(4, 0.1), "tokens": tokens, "unique_tokens": np.ones(4)}))[0]
    assert repeated[0] == pytest.approx(fresh[0])
    assert np.all(repeated[1:] > fresh[1:])
    limit = 1.0 + 20.0 * 0.1**-0.3 + 2.0 * (1 + 15.0) ** -0.4
    assert repeated[3] == pytest.approx(limit, rel=1e-6)


def test_kaplan_limits_are_the_single_variable_laws() -> None:
    law = law_named("kaplan")
    p = numbers(Nc=8.8e13, Dc=5.4e13, alpha_N=0.076, alpha_D=0.095)
    unlimited = law.predict(p, Columns({"params": np.array([1e9]), "tokens": np.array([1e30])}))
    assert unlimited[0, 0] == pytest.approx((8.8e13 / 1e9) ** 0.076, rel=1e-6)


def test_m4_solves_its_own_equation() -> None:
    law, rng = law_named("m4"), np.random.default_rng(3)
    p = parameters_of(law, inside(law, rng, 20))
    x = Columns({"x": np.exp(np.linspace(-4, 4, 9))})
    y = law.predict(p, x)
    left = (y - p["e"]) / (p["e0"] - y) ** p["k"]
    np.testing.assert_allclose(left, p["a"] * x.value("x") ** -p["c"], rtol=1e-7)


def test_bnsl_far_before_the_break_is_a_power_law() -> None:
    law = law_named("bnsl-1")
    p = numbers(a=0.1, b=2.0, c0=0.2, c1=0.7, d1=1.0, f1=0.1)
    x = np.array([1e-4, 1e4])
    y = law.predict(p, Columns({"x": x}))[0]
    np.testing.assert_allclose(y, [0.1 + 2 * 1e-4**-0.2, 0.1 + 2 * 1e4 ** -(0.2 + 0.7)], rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: law_named("chinchila"), "chinchila"),
        (lambda: law_named("power", floor="rfid"), "floor='rfid'"),
        (lambda: law_named("power", breaks=2), "breaks"),
        (lambda: law_named("bnsl", breaks=4), "breaks=4"),
    ],
)
def test_wrong_names_and_options_are_usage_errors(call, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match=words):
        call()


def test_every_law_names_its_source_and_formula() -> None:
    for name in sorted(set(LAWS) - {"formula"}):
        law = law_named(name)
        assert "arXiv" in law.source
        assert law.formula.startswith(("L =", "(L"))
        assert {key for q in law.parameters for key in q.unit} <= {*law.columns, "loss"}


def test_fixed_floor_is_added_in_natural_units() -> None:
    law = law_named("power", floor=2.0)
    scales = Scales({"x": 10.0, "floor": 4.0}, 4.0)
    theta = np.array([[0.0, 0.5]])  # A = 1 in scaled units
    out = predict_with(law, scales, theta, {"x": [10.0, 1000.0]})
    np.testing.assert_allclose(out[0], [2 + 4.0, 2 + 4.0 / 10], rtol=1e-12)

"""Curved valleys and ridges of learning-curve laws: exact curvature, leaps along a valley, what a ridge leaves open."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.fitting.fit import as_points, fit, fit_groups
from analysis.fitting.laws.known_laws import law_named
from analysis.fitting.laws.law import Columns
from analysis.fitting.minimiser import hessian, minimise, newton
from analysis.fitting.problem import Loss, Problem, Scales, evaluate, make_problem, parameters_of
from analysis.fitting.result import Status
from analysis.inference.bootstrap import bootstrap
from analysis.inference.profile import natural_problem, profile

DATA = Path(__file__).parents[3].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")


def curve(n: int = 14, noise: float = 0.0, seed: int = 0) -> dict[str, np.ndarray]:
    x = np.geomspace(1e3, 1e7, n)
    loss = 0.4 + 8.0 * x**-0.25 * (1 + (x / 1e5) ** (1 / 0.5)) ** (-0.3 * 0.5)
    return {"x": x, "metric": loss * np.exp(noise * np.random.default_rng(seed).normal(size=n))}


def problem_of(law: str, points: dict[str, np.ndarray], loss: str = "squares") -> Problem:
    valid = as_points(law_named(law), points, "log")
    return make_problem(law_named(law), valid, Scales.of(law_named(law), valid), "log", Loss(loss))


@pytest.mark.parametrize("law", ["m3", "m4", "bnsl-1", "bnsl-2", "shifted-power"])
def test_the_hessian_is_the_second_difference_of_the_objective(law: str) -> None:
    points = curve(noise=0.02)
    problem = problem_of(law, points)
    at = fit(law, points, loss="squares", starts=1, max_iterations=10).coordinates + 0.01
    at = np.clip(at, problem.lower + 0.01, problem.upper - 0.01)
    exact = hessian(problem, at[None, :])[0]
    rng = np.random.default_rng(0)
    for _ in range(5):
        way = rng.normal(size=len(at))
        h = 1e-3 / np.linalg.norm(way)
        ends = evaluate(problem, np.stack([at - h * way, at, at + h * way])).objective
        second = (ends[0] - 2 * ends[1] + ends[2]) / h**2
        assert way @ exact @ way == pytest.approx(second, rel=2e-3, abs=1e-6 * np.abs(exact).max())


@needs_data
def test_newton_ends_in_a_few_steps_what_reweighting_needs_hundreds_for() -> None:
    table = pd.read_csv(DATA / "alabdulmohsin_benchmark.lang.csv")
    rows = table[(table.Domain == "BB") & (table.Task == "('mult', '1-shot')") & (table.Training == 1)]
    points = {"x": rows["Seen Examples"].to_numpy(), "metric": rows["Loss"].to_numpy()}
    problem = problem_of("bnsl-1", points)
    near = fit("bnsl-1", points, loss="squares").coordinates + np.array([0.0, 0.0, 1e-3, 1e-3, 0.0, 0.0])
    after = minimise(problem, newton(problem, near[None, :], 8), max_iterations=0)
    assert after.converged.all()
    long = minimise(problem, near[None, :], max_iterations=100, bend=True)
    assert not long.converged.any()
    assert after.objective[0] < long.objective[0]


@given(st.lists(st.floats(-3, 3), min_size=6, max_size=6))
@settings(max_examples=30)
def test_newton_never_goes_uphill_nor_out_of_bounds(shift: list[float]) -> None:
    problem = problem_of("bnsl-1", curve(noise=0.02))
    start = np.clip(np.array([[0.5, 0.0, 0.2, 0.3, 0.0, -0.7]]) + shift, problem.lower, problem.upper)
    end = newton(problem, start, 6)
    assert np.all(end >= problem.lower) and np.all(end <= problem.upper)
    before, after = evaluate(problem, start).objective[0], evaluate(problem, end).objective[0]
    assert after <= before * (1 + 1e-12) or not np.isfinite(before)


@pytest.mark.parametrize(
    ("law", "far"),
    [
        ("m4", {"a": 0.3 / 60.0**20, "c": 0.3, "k": 20.0, "e": 0.5, "e0": 60.5}),
        ("bnsl-1", {"a": 0.3, "b": 1.0, "c0": -2.0, "c1": 2.5, "d1": 1e-4, "f1": 1.0}),
        ("bnsl-1", {"a": 0.3, "b": 1.0, "c0": 0.2, "c1": 2.5, "d1": 1e4, "f1": 1.0}),
    ],
)
def test_further_along_a_valley_the_prediction_hardly_changes(law: str, far: dict[str, float]) -> None:
    x = Columns({"x": np.geomspace(0.05, 20, 30)})
    near = {name: np.array([[value]]) for name, value in far.items()}
    there = law_named(law).further(near, x, np.array([[2.0]]))
    assert there is not None
    moved = max(abs(np.log(there[name][0, 0] / value)) for name, value in far.items() if value > 0)
    assert moved > 0.5
    change = np.log(law_named(law).predict(there, x) / law_named(law).predict(near, x))
    assert np.abs(change).max() < 0.01


def test_a_valley_that_ends_at_a_bound_is_followed_to_its_end() -> None:
    # an exponential bend of the logarithm: the limit of a break far before the data, reached by no finite c1
    x = np.geomspace(1e2, 1e6, 40)
    loss = np.exp(0.2 - 0.1 * np.log(x) + 2.0 * np.exp(-np.log(x / 1e2) / 4))
    points = {"x": x, "metric": loss * np.exp(1e-3 * np.random.default_rng(0).normal(size=len(x)))}
    short = fit("bnsl-1", points, loss="squares", starts=4, max_iterations=400)
    assert short.status is not Status.MAX_ITERATIONS
    long = fit("bnsl-1", points, loss="squares", starts=16, max_iterations=3000)
    assert short.objective <= long.objective * (1 + 1e-5)


@pytest.mark.parametrize("seed", [2, 3])
def test_a_break_between_the_last_two_points_leaves_the_slope_after_it_open(seed: int) -> None:
    x = np.geomspace(1e3, 1e6, 12)
    loss = 10 * x**-0.1
    loss[-1] *= (
        0.8  # one last point below the line: every slope that is steep enough explains it, from a break of its own
    )
    points = {"x": x, "metric": loss * np.exp(1e-3 * np.random.default_rng(seed).normal(size=12))}
    result = fit("bnsl-1", points, loss="squares")
    assert result.status is Status.NOT_IDENTIFIABLE
    assert result.parameters["c1"].value is None and result.parameters["d1"].value is None
    assert result.gradient_norm < 1e-4  # the open parameters, whose slopes are rounding, do not count
    problem = problem_of("bnsl-1", points)
    objective = evaluate(problem, result.coordinates[None, :]).objective[0]
    best = minimise(problem, result.coordinates[None, :], max_iterations=500, bend=True).objective[0]
    assert objective <= best * (1 + 3e-6)
    # the bend that the last point needs is log(1 / 0.8) over log x between the last two points: no steeper one is taken
    steepness = parameters_of(problem.law, result.coordinates[None, :])["c1"][0, 0]
    assert 0 < steepness < 2 * np.log(1 / 0.8) / np.log(x[-1] / x[-2])


def test_an_exponent_that_the_data_do_determine_keeps_its_value() -> None:
    result = fit("bnsl-1", curve(24, noise=1e-4), loss="squares")
    assert result.status is Status.CONVERGED
    assert result.values["c1"] == pytest.approx(0.3, rel=0.1)


@pytest.mark.parametrize("law", ["bnsl-1", "m4"])
def test_resamples_of_a_curve_in_a_valley_reach_their_minima(law: str) -> None:
    # an exponential bend of the logarithm: each resample has its minimum elsewhere along the valley
    x = np.geomspace(1e2, 1e6, 40)
    loss = np.exp(0.2 - 0.1 * np.log(x) + 2.0 * np.exp(-np.log(x / 1e2) / 4))
    points = {"x": x, "metric": loss * np.exp(1e-3 * np.random.default_rng(0).normal(size=len(x)))}
    result = fit(law, points, loss="squares")
    drawn = bootstrap(result, replicates=60, kind="rows", seed=1)
    assert drawn.converged >= 0.95


def test_both_ends_of_a_profile_in_a_valley_lie_equally_high() -> None:
    # c0 and c1 grow together there: moved alone, in natural units, c0 changes predictions by orders of magnitude
    x = np.geomspace(1e2, 1e6, 40)
    loss = np.exp(0.2 - 0.1 * np.log(x) + 2.0 * np.exp(-np.log(x / 1e2) / 4))
    points = {"x": x, "metric": loss * np.exp(1e-3 * np.random.default_rng(0).normal(size=len(x)))}
    result = fit("bnsl-1", points, loss="squares")
    ends = profile(result)
    problem, start = natural_problem(result)
    for number, name in ((2, "c0"), (3, "c1")):
        held = replace(problem, free=np.arange(len(start)) != number)
        heights = []
        for end in (ends[name].low, ends[name].high):
            assert end is not None and abs(end - result.values[name]) > 0.3
            at = start[None, :]
            for value in np.linspace(start[number], end, 25)[1:]:  # slowly along the valley
                at = np.where(np.arange(len(start)) == number, value, at)
                at = minimise(held, at, max_iterations=1000, bend=True).coordinates
            heights.append(evaluate(problem, at).objective[0] - result.objective)
        assert heights[0] == pytest.approx(heights[1], rel=0.02)


@needs_data
@pytest.mark.slow
def test_no_law_fits_worse_than_one_that_it_contains() -> None:
    parts = [pd.read_csv(DATA / f"alabdulmohsin_benchmark.{kind}.csv") for kind in ("vision", "lang")]
    table = pd.concat(parts, ignore_index=True).query("Training == 1")
    curves = {
        str(key): {"x": rows["Seen Examples"].to_numpy(), "metric": rows["Loss"].to_numpy()}
        for number, (key, rows) in enumerate(table.groupby(["Domain", "Task", "Model"]))
        if number % 20 == 0
    }
    laws = ("m1", "m2", "m3", "m4", "shifted-power", "bnsl-1", "bnsl-2", "bnsl-3")
    objective = {
        law: np.array([result.objective for result in fit_groups(law, curves, loss="squares").values()]) for law in laws
    }
    inside = [("m1", "m2"), ("m2", "m4"), ("m2", "shifted-power"), ("m3", "bnsl-1"), ("shifted-power", "bnsl-1")]
    for inner, outer in (*inside, ("bnsl-1", "bnsl-2"), ("bnsl-2", "bnsl-3")):
        assert np.all(objective[outer] <= objective[inner] * (1 + 1e-6)), (inner, outer)

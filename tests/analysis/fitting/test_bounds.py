"""Minima at a bound: reached exactly and in few steps, whatever the other parameters have to do meanwhile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from analysis.fitting.fit import as_points, fit
from analysis.fitting.laws.known_laws import law_named
from analysis.fitting.minimiser import along_bounds, minimise, system_of
from analysis.fitting.problem import Loss, Problem, Scales, evaluate, make_problem
from analysis.fitting.result import Status

DATA = Path(__file__).parents[3].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")


def below_zero(noise: float = 0.0) -> Problem:
    """A power law whose best floor is below 0, where none may be."""
    x = np.geomspace(1e3, 1e7, 30)
    metric = (9.0 * x**-0.1 - 1.0) * np.exp(noise * np.random.default_rng(0).normal(size=len(x)))
    law = law_named("power")
    points = as_points(law, {"x": x, "metric": metric}, "log")
    return make_problem(law, points, Scales.of(law, points), "log", Loss("squares"))


@pytest.mark.parametrize("bend", [False, True])
@pytest.mark.parametrize("distance", [1e-12, 1e-9, 1e-6, 1e-3, 0.3])
def test_a_start_next_to_a_bound_reaches_it_exactly(distance: float, bend: bool) -> None:
    problem = below_zero(0.01)
    floor = [q.name for q in problem.law.parameters].index("E")
    start = np.where(np.arange(len(problem.lower)) == floor, distance, [[0.5, 0.5, 0.5]])
    end = minimise(problem, start, max_iterations=30, bend=bend)
    assert end.coordinates[0, floor] == 0.0 and end.at_bound[0, floor]
    assert end.converged.all()
    held = replace(problem, free=np.arange(len(problem.lower)) != floor)
    best = minimise(held, np.where(problem.free & ~held.free, 0.0, end.coordinates), max_iterations=300)
    assert end.objective[0] == pytest.approx(best.objective[0], rel=1e-12)


@needs_data
@pytest.mark.parametrize("distance", [1e-9, 1e-7, 1e-5, 1e-3, 0.1])
def test_at_the_end_of_a_valley_a_bound_is_reached_in_few_steps(distance: float) -> None:
    # m3 tends to an exponential here: a falls to its bound along a valley. Clipped steps creep up to it for ever
    table = pd.read_csv(DATA / "alabdulmohsin_benchmark.lang.csv")
    rows = table[(table.Task == "('date', '1-shot')") & (table.Training == 1)]
    law = law_named("m3")
    points = as_points(law, {"x": rows["Seen Examples"].to_numpy(), "metric": rows["Loss"].to_numpy()}, "log")
    problem = make_problem(law, points, Scales.of(law, points), "log", Loss("squares"))
    best = fit("m3", points, loss="squares")
    assert best.at_bound == ("a",)
    beside = best.coordinates[None, :] + np.array([[distance, 0.0, 0.0]])
    held = replace(problem, free=np.array([False, True, True]))
    along = minimise(held, beside, max_iterations=300, bend=True).coordinates
    end = minimise(problem, along, max_iterations=30, bend=True)
    assert end.converged.all() and end.at_bound[0].tolist() == [True, False, False]
    assert end.objective[0] == pytest.approx(best.objective, rel=1e-10)


@given(st.lists(st.floats(-0.5, 0.5), min_size=3, max_size=3), st.floats(1e-9, 0.5), st.floats(1e-6, 1.0))
@settings(max_examples=60)
def test_a_step_that_meets_a_bound_is_the_best_one_that_stops_there(
    shift: list[float], floor: float, damping: float
) -> None:
    problem = below_zero()
    index = [q.name for q in problem.law.parameters].index("E")
    current = np.array([[0.5, 0.5, 0.5]]) + shift
    current[0, index] = floor
    at = evaluate(problem, current, keep=True)
    held = np.zeros_like(current, dtype=bool)
    lam = np.array([damping])
    straight = np.clip(current + system_of(at, lam, held).solve(at.gradient), problem.lower, problem.upper)
    others = np.arange(len(problem.lower)) != index
    assume(straight[0, index] == 0.0 and np.all(straight[0, others] > problem.lower[others]))
    there = along_bounds(problem, current, at, held, lam, straight, bend=False)
    assert there[0, index] == 0.0
    inside = (there > problem.lower) & (there < problem.upper)

    def model(step: np.ndarray) -> float:
        matrix = at.newton[0] + damping * at.reweighted[0]
        ridge = (1e-13 + 0.1 * damping) * np.diag(at.reweighted[0])
        return float(at.gradient[0] @ step + 0.5 * step @ matrix @ step + 0.5 * ridge @ step**2)

    best = there[0] - current[0]
    for k in np.flatnonzero(inside[0]):
        for change in (1e-3, -1e-3):
            other = best.copy()
            other[k] += change
            assert model(best) <= model(other) + 1e-9 * abs(model(other))


def test_a_parameter_at_a_bound_is_open_where_others_make_up_for_it() -> None:
    # the last point alone is off the line: how far the break lies before it, how sharp it is and how steep the slope
    # after it cannot be told apart, and the sharpest break is no better than any other
    x = np.geomspace(1e3, 1e6, 12)
    loss = 10 * x**-0.1
    loss[-1] *= 0.8
    metric = loss * np.exp(1e-3 * np.random.default_rng(3).normal(size=12))
    result = fit("bnsl-1", {"x": x, "metric": metric}, loss="squares")
    assert result.status is Status.NOT_IDENTIFIABLE
    assert {"c1", "d1", "f1"} <= set(result.not_identified)


def test_a_floor_of_zero_is_known_and_not_open() -> None:
    x = np.geomspace(1e3, 1e7, 30)
    result = fit("power", {"x": x, "metric": 9.0 * x**-0.1 - 1.0})
    assert result.status is Status.BOUNDARY
    assert result.at_bound == ("E",) and result.values["E"] == 0.0

"""Groups fitted side by side: the same answers as one at a time, errors that name the group, what shares a batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.fitting.fit import as_points, fit, fit_groups
from analysis.fitting.laws.known_laws import law_named
from analysis.fitting.laws.law import Array, Columns, Law, Parameter, Values
from analysis.fitting.problem import Loss, Problem, Scales, evaluate, make_problem
from analysis.fitting.result import Status
from analysis.fitting.search import ELEMENTS, LONGER, batches, stacked
from results.errors import DataError, FitError, UsageError

DATA = Path(__file__).parents[3].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")


def curve(n: int, alpha: float, seed: int) -> dict[str, np.ndarray]:
    x = np.geomspace(1e3, 1e7, n)
    noise = np.random.default_rng(seed).normal(size=n)
    return {"x": x, "metric": (0.4 + 30.0 * x**-alpha) * np.exp(0.01 * noise)}


def surface(n: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    params, tokens = 10 ** rng.uniform(6, 9, n), 10 ** rng.uniform(8, 11, n)
    metric = (1.7 + 400 / params**0.34 + 400 / tokens**0.28) * np.exp(0.01 * rng.normal(size=n))
    return {"params": params, "tokens": tokens, "metric": metric, "weights": rng.integers(0, 3, n).astype(float)}


def problem_of(law: str, points: dict[str, np.ndarray], loss: Loss) -> Problem:
    valid = as_points(law_named(law), points, "log")
    return make_problem(law_named(law), valid, Scales.of(law_named(law), valid), "log", loss)


@pytest.mark.parametrize("loss", ["huber", "squares", "lad", "envelope"])
@pytest.mark.parametrize("residual", ["log", "raw"])
def test_groups_of_any_length_end_where_they_end_alone(loss: str, residual: str) -> None:
    groups = {f"{n} rows": surface(n, seed) for seed, n in enumerate((20, 23, 60, 400))}
    together = fit_groups("chinchilla", groups, loss=loss, residual=residual)
    assert list(together) == list(groups)
    for name, points in groups.items():
        alone = fit("chinchilla", points, loss=loss, residual=residual)
        assert together[name].status is alone.status
        assert together[name].objective == pytest.approx(alone.objective, rel=1e-9)
        assert together[name].rows == alone.rows == len(points["metric"])
        for key, value in alone.values.items():
            assert together[name].values[key] == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize("law", ["power", "m1", "m3", "m4", "shifted-power", "bnsl-1"])
def test_learning_curves_side_by_side_end_where_they_end_alone(law: str) -> None:
    groups = {str(seed): curve(12 + 5 * seed, 0.2 + 0.05 * seed, seed) for seed in range(4)}
    together = fit_groups(law, groups, loss="squares")
    for name, points in groups.items():
        alone = fit(law, points, loss="squares")
        assert together[name].objective == pytest.approx(alone.objective, rel=1e-7)
        assert together[name].status is alone.status


def test_fixed_parameters_stay_fixed_in_every_group() -> None:
    groups = {str(seed): curve(20 + seed, 0.3, seed) for seed in range(3)}
    for result in fit_groups("bnsl-1", groups, loss="squares", fixed={"a": 0.41, "c0": 0.3}).values():
        assert result.values["a"] == pytest.approx(0.41, rel=1e-12)
        assert result.values["c0"] == pytest.approx(0.3, rel=1e-12)


def test_an_unusable_group_is_named_before_anything_is_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "analysis.fitting.fit.search_enough", lambda *_: pytest.fail("fitted before every group was looked at")
    )
    groups = {"good": curve(12, 0.3, 0), "bad": {"x": np.array([1e3, 1e4]), "metric": np.array([1.0, -1.0])}}
    with pytest.raises(DataError, match=r"^group 'bad': row 1, column 'metric': -1"):
        fit_groups("power", groups)
    with pytest.raises(UsageError, match="starts=0"):
        fit_groups("power", groups, starts=0)


class Nowhere(Law):
    """A law of one's own that is a number nowhere."""

    name, formula, source, columns, screening = "nowhere", "nan", "this test", ("x",), 12
    parameters = (Parameter("a", 0, 10, grid=(0.1, 1.0, 2.0, 3.0)), Parameter("b", 0, 10, grid=(0.1, 1.0, 2.0, 3.0)))

    def predict(self, p: Values, x: Columns) -> Array:
        return np.nan * p["a"] * x.value("x") ** p["b"]


@pytest.mark.parametrize("loss", ["huber", "lad"])
def test_a_law_that_gives_no_number_is_said_of_the_group(loss: str) -> None:
    with pytest.raises(FitError, match="law nowhere: no start gives a finite objective on these 12 rows"):
        fit(Nowhere(), curve(12, 0.3, 0), loss=loss)
    with pytest.raises(FitError, match=r"^group 'one': law nowhere: no start"):
        fit_groups(Nowhere(), {"one": curve(12, 0.3, 0)}, loss=loss)


def test_no_groups_give_no_results() -> None:
    assert fit_groups("power", {}) == {}


@given(st.lists(st.integers(3, 300), min_size=1, max_size=30), st.integers(1, 200), st.booleans())
def test_every_problem_is_in_one_batch_of_bounded_size(rows: list[int], starts: int, lad: bool) -> None:
    some = [
        problem_of("power", curve(n, 0.3, 0), Loss("lad" if lad and k % 3 == 0 else "huber"))
        for k, n in enumerate(rows)
    ]
    batched = batches(some, [starts] * len(rows), range(len(rows)))
    assert sorted(k for batch in batched for k in batch) == list(range(len(rows)))
    for batch in batched:
        length = [rows[k] for k in batch]
        assert len(batch) == 1 or (
            max(length) * starts * len(batch) <= ELEMENTS and max(length) <= LONGER * min(length)
        )
        assert len({some[k].loss for k in batch}) == 1
        assert len(batch) == 1 or some[batch[0]].loss.kind != "lad"


@given(
    st.lists(st.integers(3, 40), min_size=2, max_size=5), st.sampled_from(["m4", "bnsl-1", "power"]), st.integers(0, 99)
)
@settings(max_examples=40)
def test_padding_changes_no_objective_and_no_gradient(rows: list[int], law: str, seed: int) -> None:
    problems = [problem_of(law, curve(n, 0.3, k), Loss("squares")) for k, n in enumerate(rows)]
    lower, upper = np.maximum(problems[0].lower, -1.0), np.minimum(problems[0].upper, 1.0)
    at = np.random.default_rng(seed).uniform(lower, upper, (len(rows), len(lower)))
    together = evaluate(stacked(problems), at)
    for k, problem in enumerate(problems):
        alone = evaluate(problem, at[k : k + 1])
        np.testing.assert_allclose(together.objective[k], alone.objective[0], rtol=1e-11)
        np.testing.assert_allclose(
            together.gradient[k], alone.gradient[0], rtol=1e-9, atol=1e-9 * alone.gradient_scale.max()
        )
        np.testing.assert_allclose(
            together.newton[k], alone.newton[0], rtol=1e-9, atol=1e-9 * np.abs(alone.newton).max()
        )


@needs_data
@pytest.mark.parametrize("law", ["m3", "m4", "bnsl-1"])
def test_noise_below_rounding_of_the_data_changes_no_status(law: str) -> None:
    # one learning curve that ends at a bound, eleven digits of it the same: each copy must reach the bound
    table = pd.read_csv(DATA / "alabdulmohsin_benchmark.lang.csv")
    rows = table[(table.Task == "('date', '1-shot')") & (table.Training == 1)]
    rng = np.random.default_rng(0)
    groups = {
        str(k): {
            "x": rows["Seen Examples"].to_numpy(),
            "metric": rows["Loss"].to_numpy() * (1 + 1e-11 * rng.standard_normal(len(rows))),
        }
        for k in range(8)
    }
    results = fit_groups(law, groups, loss="squares", starts=4, max_iterations=800)
    assert len({result.status for result in results.values()}) == 1
    assert Status.MAX_ITERATIONS not in {result.status for result in results.values()}
    objectives = np.array([result.objective for result in results.values()])
    assert objectives.max() <= objectives.min() * (1 + 1e-7)

"""The fit against published answers, known truth, and the statuses it must admit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.fitting.fit import fit
from analysis.fitting.laws.known_laws import law_named
from analysis.fitting.result import FitResult, Status
from results.errors import DataError, UsageError

DATA = Path(__file__).parents[3].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")

BEST = 1.018274017801e-3


def chinchilla_points(drop: int = 5) -> dict[str, np.ndarray]:
    import pandas as pd

    table = pd.read_csv(DATA / "chinchilla_replication.csv")
    n, c, loss = (table[k].to_numpy() for k in ("Model Size", "Training FLOP", "loss"))
    keep = loss < np.sort(loss)[-drop] if drop else np.ones(len(loss), dtype=bool)
    return {"params": n[keep], "tokens": c[keep] / (6 * n[keep]), "metric": loss[keep]}


def synthetic(seed: int = 0, n: int = 60, noise: float = 0.01, e: float = 1.7) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    params, tokens = np.exp(rng.uniform(17, 23, n)), np.exp(rng.uniform(20, 26, n))
    loss = e + 400 / params**0.34 + 1500 / tokens**0.37
    return {"params": params, "tokens": tokens, "metric": loss * np.exp(noise * rng.normal(size=n))}


@needs_data
def test_chinchilla_240_points_reach_the_best_known_minimum() -> None:
    points = chinchilla_points()
    assert len(points["metric"]) == 240
    result = fit("chinchilla", points)
    assert result.status is Status.CONVERGED
    assert result.objective == pytest.approx(BEST, rel=1e-9)
    assert result.starts_agreeing == result.starts == 8
    assert result.gradient_norm <= 1e-9
    v = result.values
    assert (round(v["E"], 5), round(v["A"], 2), round(v["B"], 1)) == (1.81722, 477.83, 2143.4)
    assert (round(v["alpha"], 5), round(v["beta"], 5)) == (0.34731, 0.36717)
    assert result.derived["a"].value == pytest.approx(0.5139, abs=5e-5)


@needs_data
def test_chinchilla_lad_is_the_published_fit_with_a_certificate() -> None:
    result = fit("chinchilla", chinchilla_points(), loss="lad")
    v = result.values
    assert result.status is Status.CONVERGED
    assert result.gradient_norm < 1e-9
    assert (round(v["E"], 4), round(v["A"], 1), round(v["B"], 1)) == (1.8169, 482.0, 2085.4)
    assert (round(v["alpha"], 4), round(v["beta"], 4)) == (0.3478, 0.3659)


@needs_data
def test_chinchilla_all_245_points() -> None:
    result = fit("chinchilla", chinchilla_points(drop=0))
    assert result.objective == pytest.approx(1.826010523e-3, rel=1e-8)
    assert result.derived["a"].value == pytest.approx(0.5646, abs=5e-5)
    assert len(result.flagged) >= 5


@needs_data
@pytest.mark.parametrize(("delta", "a"), [(1e-4, 0.5126), (1e-2, 0.5184)])
def test_chinchilla_exponent_against_delta(delta: float, a: float) -> None:
    assert fit("chinchilla", chinchilla_points(), delta=delta).derived["a"].value == pytest.approx(a, abs=5e-5)


@needs_data
def test_chinchilla_least_squares() -> None:
    assert fit("chinchilla", chinchilla_points(), loss="squares").derived["a"].value == pytest.approx(0.5298, abs=5e-5)


@needs_data
@pytest.mark.parametrize(
    ("experiment", "best"),
    [
        ("ml_scalefit__massivetext__chinchilla", 13.0887),
        ("llama_3__raw_loss", 2.2759),
        ("marin_202603__comma__llama_2", 22.9076),
        ("marin_202603__dclm__llama_2", 22.8369),
        ("marin_202603__nemotron__llama_2", 22.6085),
    ],
)
def test_isoflop_experiments_reach_the_best_known_minima(experiment: str, best: float) -> None:
    import pandas as pd

    table = pd.read_csv(DATA / "isoflops_annotated.csv")
    table = table[table.experiment == experiment]
    points = {"params": table.params, "tokens": table.tokens, "metric": table.loss}
    result = fit("chinchilla", points, residual="raw")
    assert result.objective_mean * 1e6 <= best * (1 + 1e-4)
    assert result.status is Status.CONVERGED


@pytest.mark.parametrize("loss", ["huber", "lad", "squares"])
@pytest.mark.parametrize("residual", ["log", "raw"])
def test_noise_free_truth_is_found_exactly(loss: str, residual: str) -> None:
    result = fit("chinchilla", synthetic(noise=0.0), loss=loss, residual=residual)
    assert result.status is Status.CONVERGED
    v = result.values
    np.testing.assert_allclose([v["E"], v["A"], v["B"], v["alpha"], v["beta"]], [1.7, 400, 1500, 0.34, 0.37], rtol=1e-5)


@pytest.mark.parametrize("n", [4, 6, 12])
@pytest.mark.parametrize("floor", ["free", 2.0, "column"])
def test_power_law_with_few_points(n: int, floor: str | float) -> None:
    x = np.geomspace(1e17, 1e20, n)
    y = 2.0 + 30 * (x / 1e17) ** -0.6
    columns = {"x": x, "metric": y}
    if floor == "column":
        columns["floor"] = np.full(n, 2.0)
    result = fit(law_named("power", floor=floor), columns)
    assert result.status is Status.CONVERGED
    assert result.values["alpha"] == pytest.approx(0.6, rel=1e-6)
    more = {"x": [1e21], "floor": [2.0]}
    assert result.predict(more)[0] == pytest.approx(2 + 30 * 1e4**-0.6, rel=1e-6)


def test_power_law_whose_floor_is_zero_says_boundary() -> None:
    x = np.geomspace(1, 1e4, 12)
    curve = 10 * x**-0.3 * np.exp(-0.02 * np.log(x) ** 2)  # bends down: no positive floor fits
    result = fit("power", {"x": x, "metric": curve})
    assert result.status is Status.BOUNDARY
    assert result.at_bound == ("E",)
    assert result.values["E"] == 0.0


def test_three_models_of_one_size_do_not_identify_alpha() -> None:
    tokens = np.array([1e9, 4e9, 2e10])
    result = fit("chinchilla", {"params": np.full(3, 1e8), "tokens": tokens, "metric": 1.7 + 2000 / tokens**0.37})
    assert result.status is Status.NOT_IDENTIFIABLE
    assert "alpha" in result.not_identified
    assert result.parameters["alpha"].value is None
    assert np.isnan(result.values["alpha"])


def test_many_rows_of_one_size_do_not_identify_alpha_but_beta() -> None:
    tokens = np.geomspace(1e9, 1e12, 40)
    loss = 1.7 + 0.5 + 2000 / tokens**0.37
    noise = np.exp(0.002 * np.random.default_rng(0).normal(size=40))
    result = fit("chinchilla", {"params": np.full(40, 1e8), "tokens": tokens, "metric": loss * noise})
    assert result.status is Status.NOT_IDENTIFIABLE
    assert set(result.not_identified) >= {"E", "A", "alpha"}
    assert result.parameters["beta"].value == pytest.approx(0.37, abs=0.03)
    assert result.derived["a"].value is None


def test_the_ratio_of_two_exponents_that_are_not_identified_is_not_either() -> None:
    # two models of one size, one number of tokens each: nothing says which of them lowered the loss
    points = {"params": [1e8, 1e9], "tokens": [1e9, 1e10], "metric": [3.0, 2.5]}
    result = fit("chinchilla", points)
    assert {"alpha", "beta"} <= set(result.not_identified)
    assert result.derived["a"].value is None


def test_json_round_trip_predicts_the_same() -> None:
    points = synthetic()
    result = fit("chinchilla", points)
    import json

    again = FitResult.from_json(json.loads(json.dumps(result.to_json())))
    np.testing.assert_array_equal(again.predict(points), result.predict(points))
    assert again.values == result.values
    assert again.status is result.status
    with pytest.raises(DataError, match="status"):
        FitResult.from_json({k: v for k, v in result.to_json().items() if k != "status"})


@given(st.floats(-12, 12), st.floats(-12, 12), st.floats(-5, 5), st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_scale_equivariance(of_n: float, of_d: float, of_loss: float, seed: int) -> None:
    points = synthetic(seed)
    base = fit("chinchilla", points)
    moved = {
        "params": points["params"] * np.exp(of_n),
        "tokens": points["tokens"] * np.exp(of_d),
        "metric": points["metric"] * np.exp(of_loss),
    }
    other = fit("chinchilla", moved)
    assert other.objective == pytest.approx(base.objective, rel=1e-9)
    a, b = base.values, other.values
    assert b["alpha"] == pytest.approx(a["alpha"], rel=1e-5, abs=1e-7)
    assert b["E"] == pytest.approx(a["E"] * np.exp(of_loss), rel=1e-5, abs=1e-7)
    if a["A"] > 1e-3:
        assert b["A"] == pytest.approx(a["A"] * np.exp(of_n * a["alpha"] + of_loss), rel=1e-4)


@given(st.floats(-4, 4), st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_raw_residuals_scale_with_delta(of_loss: float, seed: int) -> None:
    points, unit = synthetic(seed), float(np.exp(of_loss))
    base = fit("chinchilla", points, residual="raw", delta=1e-2)
    other = fit("chinchilla", {**points, "metric": points["metric"] * unit}, residual="raw", delta=1e-2 * unit)
    assert other.objective == pytest.approx(base.objective * unit**2, rel=1e-9)


@given(st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_row_order_does_not_matter(seed: int) -> None:
    points = synthetic(seed)
    order = np.random.default_rng(seed).permutation(60)
    base, other = fit("chinchilla", points), fit("chinchilla", {k: v[order] for k, v in points.items()})
    assert other.objective == pytest.approx(base.objective, rel=1e-10)
    assert other.values["alpha"] == pytest.approx(base.values["alpha"], rel=1e-5, abs=1e-7)


@given(st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_integer_weights_are_repeated_rows(seed: int) -> None:
    points = synthetic(seed)
    times = np.random.default_rng(seed).integers(0, 4, 60)
    weighted = fit("chinchilla", {**points, "weights": times.astype(float)})
    repeated = fit("chinchilla", {k: np.repeat(v, times) for k, v in points.items()})
    assert weighted.objective == pytest.approx(repeated.objective, rel=1e-9)
    assert weighted.values["beta"] == pytest.approx(repeated.values["beta"], rel=1e-5, abs=1e-7)


def test_envelope_follows_the_lower_edge() -> None:
    rng = np.random.default_rng(1)
    x = np.exp(rng.uniform(0, 8, 400))
    edge = 1.0 + 3 * x**-0.5
    y = edge * np.exp(rng.exponential(0.2, 400))
    below = y < fit("power", {"x": x, "metric": y}, loss="envelope").predict({"x": x})
    assert 0.02 < below.mean() < 0.09  # the quantile is 0.05
    assert 0.4 < (y < fit("power", {"x": x, "metric": y}).predict({"x": x})).mean() < 0.6


def test_read_only_float32_is_answered() -> None:
    points = {k: v.astype(np.float32) for k, v in synthetic().items()}
    for column in points.values():
        column.flags.writeable = False
    result = fit("chinchilla", points)
    assert result.status is Status.CONVERGED
    assert result.values["beta"] == pytest.approx(fit("chinchilla", synthetic()).values["beta"], rel=1e-2)


def test_a_fixed_floor_stays_fixed() -> None:
    result = fit("chinchilla", synthetic(noise=0.0), fixed={"E": 1.7})
    assert result.values["E"] == pytest.approx(1.7, rel=1e-12)
    assert result.values["alpha"] == pytest.approx(0.34, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"residual": "relative"}, "residual='relative'"),
        ({"loss": "cauchy"}, "loss='cauchy'"),
        ({"delta": 0.0}, "delta=0.0"),
        ({"starts": 0}, "starts=0"),
        ({"fixed": {"gamma": 1.0}}, "gamma"),
    ],
)
def test_wrong_options_are_usage_errors(options: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        fit("chinchilla", synthetic(), **options)


@pytest.mark.slow
def test_a_million_rows_in_bounded_memory() -> None:
    import resource

    points = synthetic(n=1_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = fit("chinchilla", points)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert result.status is Status.CONVERGED
    assert result.values["alpha"] == pytest.approx(0.34, abs=0.002)
    assert grown < 600  # megabytes


def test_the_law_that_the_documentation_adds_works() -> None:
    import re

    from analysis.fitting.laws.known_laws import LAWS

    text = (Path(__file__).parents[3] / "docs" / "fitting.md").read_text()
    [code] = re.findall(r"```python\n(import numpy as np\n.*?)```", text, flags=re.DOTALL)
    assert len(code.strip().splitlines()) < 35
    try:
        exec(code, {})  # noqa: S102 - the page's own example
        rng = np.random.default_rng(0)
        n, k = np.exp(rng.uniform(15, 20, 40)), np.exp(rng.uniform(7, 12, 40))
        loss = 1.5 + 300 / n**0.4 + 5 / k**0.25
        result = fit("codebook", {"params": n, "codebook_size": k, "metric": loss})
        assert result.status is Status.CONVERGED
        assert result.values["alpha"] == pytest.approx(0.4, rel=1e-5)
        assert result.values["G"] == pytest.approx(5, rel=1e-4)
    finally:
        LAWS.pop("codebook", None)

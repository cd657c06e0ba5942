"""Bootstraps, sandwich and profiles: published intervals, known coverage, warnings, open ends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analysis.fitting.fit import fit
from analysis.fitting.result import FitResult, Status
from analysis.inference.bootstrap import bootstrap, predict, uncertainty, with_intervals
from analysis.inference.profile import profile, with_profile
from analysis.inference.sandwich import sandwich
from results.errors import UsageError

DATA = Path(__file__).parents[3].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")

# Besiroglu et al. 2024 (arXiv 2404.10102): standard error, 95 % interval
PUBLISHED = {
    "A": (124.5, 285, 744),
    "B": (1293, 1042, 5810),
    "E": (0.0257, 1.769, 1.871),
    "alpha": (0.0154, 0.317, 0.373),
    "beta": (0.0206, 0.331, 0.415),
}


def chinchilla() -> FitResult:
    import pandas as pd

    table = pd.read_csv(DATA / "chinchilla_replication.csv")
    n, c, loss = (table[k].to_numpy() for k in ("Model Size", "Training FLOP", "loss"))
    keep = loss < np.sort(loss)[-5]
    return fit("chinchilla", {"params": n[keep], "tokens": c[keep] / (6 * n[keep]), "metric": loss[keep]})


def random_law(rng: np.random.Generator) -> dict[str, float]:
    """A Chinchilla law each of whose terms matters in the middle of the data."""
    alpha, beta = rng.uniform(0.25, 0.5, 2)
    a, b = np.exp(rng.uniform(np.log(0.2), 0, 2))
    return {"E": rng.uniform(1, 2.5), "A": a * 2e8**alpha, "B": b * 1e10**beta, "alpha": alpha, "beta": beta}


def draw_points(law: dict[str, float], n: int, noise: str, rng: np.random.Generator) -> dict[str, np.ndarray]:
    params = np.exp(rng.uniform(np.log(1e7), np.log(5e9), n))
    tokens = np.exp(rng.uniform(np.log(5e8), np.log(2e11), n))
    mean = law["E"] + law["A"] / params ** law["alpha"] + law["B"] / tokens ** law["beta"]
    error = rng.normal(size=n) if noise == "gaussian" else rng.standard_t(3, n)
    return {"params": params, "tokens": tokens, "metric": mean * np.exp(0.01 * error)}


def some_fit(seed: int = 0, n: int = 80, **more: np.ndarray) -> FitResult:
    rng = np.random.default_rng(seed)
    return fit("chinchilla", {**draw_points(random_law(rng), n, "gaussian", rng), **more})


@needs_data
def test_published_resamples_give_the_published_errors_and_intervals() -> None:
    np.random.seed(42)  # noqa: NPY002 - the published list was drawn with the legacy generator
    resamples = np.stack([np.random.choice(240, 240) for _ in range(4000)])  # noqa: NPY002
    result = with_intervals(chinchilla(), bootstrap(chinchilla(), resamples=resamples))
    for name, (se, low, high) in PUBLISHED.items():
        e = result.parameters[name]
        assert e.se == pytest.approx(se, rel=0.02), name
        assert e.low == pytest.approx(low, rel=0.02), name
        assert e.high == pytest.approx(high, rel=0.02), name
    assert result.derived["a"].se == pytest.approx(0.020, rel=0.02)


@needs_data
def test_own_generator_agrees_with_the_published_list() -> None:
    result = with_intervals(chinchilla(), bootstrap(chinchilla(), seed=1))
    for name, (se, low, high) in PUBLISHED.items():
        e, tolerance = result.parameters[name], 0.10 if name == "B" else 0.05
        assert e.se == pytest.approx(se, rel=tolerance), name
        assert e.low == pytest.approx(low, rel=tolerance), name
        assert e.high == pytest.approx(high, rel=tolerance), name


@needs_data
def test_profile_sees_what_the_bootstrap_sees() -> None:
    result = with_profile(chinchilla())
    for name in ("alpha", "beta", "E"):
        e, (_, low, high) = result.parameters[name], PUBLISHED[name]
        assert e.low == pytest.approx(low, abs=0.45 * (high - low) / 2), name
        assert e.high == pytest.approx(high, abs=0.45 * (high - low) / 2), name


def test_same_seed_same_draws_other_seed_others() -> None:
    result = some_fit()
    first, again, other = (bootstrap(result, replicates=40, seed=s) for s in (3, 3, 4))
    np.testing.assert_array_equal(first.coordinates, again.coordinates)
    assert not np.array_equal(first.coordinates, other.coordinates)


def test_given_resamples_are_weights() -> None:
    result = some_fit()
    rows = np.random.default_rng(0).integers(0, 80, (25, 80))
    drawn = bootstrap(result, resamples=rows)
    assert result.points is not None
    for r in (0, 24):
        columns = {k: v[rows[r]] for k, v in result.points.columns.items()}
        again = fit("chinchilla", {**columns, "metric": result.points.metric[rows[r]]})
        assert drawn.parameters["alpha"][r] == pytest.approx(again.values["alpha"], rel=1e-4)


def test_least_squares_sandwich_is_the_textbook_covariance_in_the_linear_case() -> None:
    """L = E + A x^-alpha with alpha held is linear: raw least squares has a closed form."""
    rng = np.random.default_rng(0)
    x = np.exp(rng.uniform(0, 5, 500))
    y = 1.0 + 2.0 * x**-0.5 + 0.05 * rng.normal(size=500)
    result = fit("power", {"x": x, "metric": y}, residual="raw", loss="squares", fixed={"alpha": 0.5})
    design = np.stack([np.ones(500), x**-0.5], axis=1)
    r = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    bread = np.linalg.inv(design.T @ design)
    hc1 = bread @ (design.T * r**2) @ design @ bread * 500 / 498
    covariance = sandwich(result)[:2, :2]
    assert np.sqrt(covariance[0, 0]) * result.scales.metric == pytest.approx(np.sqrt(hc1[0, 0]), rel=2e-3)
    assert np.sqrt(covariance[1, 1]) * result.values["A"] == pytest.approx(np.sqrt(hc1[1, 1]), rel=2e-3)


def test_clusters_are_resampled_whole_and_widen_intervals() -> None:
    rng = np.random.default_rng(0)
    runs = np.repeat(np.arange(24), 10)
    law = random_law(rng)
    points = draw_points(law, 240, "gaussian", rng)
    points["params"] = points["params"][runs * 10]
    mean = law["E"] + law["A"] / points["params"] ** law["alpha"] + law["B"] / points["tokens"] ** law["beta"]
    points["metric"] = mean * np.exp(0.02 * rng.normal(size=24)[runs] + 0.002 * rng.normal(size=240))
    by_run = fit("chinchilla", {**points, "clusters": runs})
    whole = bootstrap(by_run, replicates=400)
    rows = bootstrap(by_run, replicates=400, kind="rows")
    assert whole.kind == "clusters"
    assert np.std(whole.parameters["alpha"]) > 1.5 * np.std(rows.parameters["alpha"])
    assert any("too narrow" in w for w in rows.warnings)
    assert np.sqrt(sandwich(by_run)[3, 3]) > 1.3 * np.sqrt(sandwich(fit("chinchilla", points))[3, 3])


def test_fewer_than_six_clusters_give_no_interval() -> None:
    result = some_fit(clusters=np.arange(80) % 5)
    full = with_intervals(result, bootstrap(result, replicates=60))
    assert full.parameters["alpha"].low is None
    assert any("5 clusters are fewer than 6" in w for w in full.warnings)


def test_points_without_noise_have_vanishing_intervals() -> None:
    rng = np.random.default_rng(0)
    law = random_law(rng)
    points = draw_points(law, 60, "gaussian", rng)
    exact = law["E"] + law["A"] / points["params"] ** law["alpha"] + law["B"] / points["tokens"] ** law["beta"]
    result = fit("chinchilla", {**points, "metric": exact})
    full = with_intervals(result, bootstrap(result, replicates=100))
    assert full.parameters["alpha"].value == pytest.approx(law["alpha"], rel=1e-6)
    assert full.parameters["alpha"].se is not None and full.parameters["alpha"].se < 1e-5


def test_few_rows_warn() -> None:
    assert any("may cover less" in w for w in bootstrap(some_fit(n=20), replicates=40).warnings)


def test_many_rows_give_way_to_the_sandwich() -> None:
    result = some_fit(n=3000)
    drawn = uncertainty(result, replicates=200_000)
    assert drawn.kind == "sandwich"
    assert "too many" in drawn.warnings[0]
    rows = bootstrap(result, replicates=200)
    assert np.std(drawn.parameters["alpha"]) == pytest.approx(np.std(rows.parameters["alpha"]), rel=0.25)


def test_not_identified_has_no_interval_and_profiles_are_open() -> None:
    tokens = np.geomspace(1e9, 1e12, 40)
    noise = np.exp(0.005 * np.random.default_rng(0).normal(size=40))
    sizes = np.where(np.arange(40) % 2, 1.00e8, 1.05e8)  # nearly one size: identified on paper, not in practice
    loss = (1.7 + 200 / sizes**0.34 + 2000 / tokens**0.37) * noise
    result = fit("chinchilla", {"params": sizes, "tokens": tokens, "metric": loss})
    intervals = profile(result)
    assert result.status is not Status.CONVERGED or intervals["alpha"].low is None or intervals["alpha"].high is None
    one_size = fit("chinchilla", {"params": np.full(40, 1e8), "tokens": tokens, "metric": loss})
    full = with_intervals(one_size, bootstrap(one_size, replicates=60))
    assert full.parameters["alpha"].to_json() == {"value": None, "se": None, "low": None, "high": None}
    assert full.parameters["beta"].low is not None


def test_prediction_intervals_hold_new_observations() -> None:
    rng = np.random.default_rng(7)
    inside = []
    for _ in range(12):
        law = random_law(rng)
        drawn = bootstrap(fit("chinchilla", draw_points(law, 120, "gaussian", rng)), replicates=200)
        new = draw_points(law, 50, "gaussian", rng)
        p = predict(drawn, new)
        assert np.all(p.observation_low < p.low)
        assert np.all(p.high < p.observation_high)
        inside.append(np.mean((p.observation_low < new["metric"]) & (new["metric"] < p.observation_high)))
    assert 0.91 < np.mean(inside) < 0.985


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "jackknife"}, "jackknife"),
        ({"kind": "clusters"}, "no cluster column"),
        ({"replicates": 3}, "replicates=3"),
        ({"resamples": np.full((30, 80), 80)}, "indices below 80"),
    ],
)
def test_wrong_options_are_usage_errors(options: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        bootstrap(some_fit(), **options)


@pytest.mark.parametrize(
    ("n", "noise"),
    [
        (60, "gaussian"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in ((60, "student"), (240, "gaussian"), (240, "student"))
        ),
    ],
)
def test_nominal_95_percent_intervals_cover(n: int, noise: str) -> None:
    """50 random laws; benchmarks/bench_fit_coverage.py runs 1,000. Five parameters a law, so about 250 looks."""
    rng = np.random.default_rng(11)
    hits: dict[str, list[bool]] = {}
    for _ in range(50):
        law = random_law(rng)
        result = fit("chinchilla", draw_points(law, n, noise, rng))
        for method, full in (
            ("rows", with_intervals(result, bootstrap(result, replicates=100))),
            ("wild", with_intervals(result, bootstrap(result, replicates=100, kind="wild"))),
            ("profile", with_profile(result)),
        ):
            for name, e in full.parameters.items():
                low = -np.inf if e.low is None else e.low
                high = np.inf if e.high is None else e.high
                hits.setdefault(method, []).append(low <= law[name] <= high)
    for method, looks in hits.items():
        assert 0.87 <= np.mean(looks) <= 0.995, (method, np.mean(looks))

"""Held-out errors, and comparisons of laws and of groups."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analysis.fitting.fit import fit
from analysis.inference.comparison import compare_groups, compare_laws, log_likelihood
from analysis.inference.validation import expanding_window, holdout, holdout_above, leave_one_group_out, rmsle
from results.errors import DataError, UsageError

DATA = Path(__file__).parents[3].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")


def curve(n: int = 40, noise: float = 0.003, seed: int = 0) -> dict[str, np.ndarray]:
    x = np.geomspace(1e15, 1e20, n)
    y = 1.5 + 4 * (x / 1e15) ** -0.3
    return {"x": x, "metric": y * np.exp(noise * np.random.default_rng(seed).normal(size=n))}


def plane(
    n: int = 80, noise: float = 0.01, seed: int = 0, alpha: float = 0.34, a: float = 400.0
) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    params, tokens = np.exp(rng.uniform(16, 22, n)), np.exp(rng.uniform(20, 26, n))
    loss = 1.7 + a / params**alpha + 2000 / tokens**0.37
    return {"params": params, "tokens": tokens, "metric": loss * np.exp(noise * rng.normal(size=n))}


def test_rmsle() -> None:
    assert rmsle([np.e, 1.0], [1.0, 1.0]) == pytest.approx(np.sqrt(0.5))
    assert rmsle([-1.0], [1.0]) is None


def test_hidden_rows_do_not_reach_the_fit() -> None:
    data = curve()
    hidden = data["x"] > 1e18
    spoiled = {**data, "metric": np.where(hidden, 99.0, data["metric"])}
    good, bad = holdout("power", data, hidden), holdout("power", spoiled, hidden)
    assert good.result.values == bad.result.values
    assert good.rmsle is not None and bad.rmsle is not None
    assert good.rmsle < 0.02 < bad.rmsle
    assert (good.trained, good.held) == (int((~hidden).sum()), int(hidden.sum()))


def test_holdout_above_by_compute_with_coverage() -> None:
    data = plane(200)
    c = 6 * data["params"] * data["tokens"]
    held_out = holdout_above("chinchilla", data, float(np.quantile(c, 0.8)), replicates=200)
    assert held_out.held == 40
    assert held_out.rmsle == pytest.approx(0.01, rel=0.6)
    assert held_out.coverage is not None and held_out.coverage > 0.85
    with pytest.raises(DataError, match="no row has more"):
        holdout_above("chinchilla", data, 1e40)
    with pytest.raises(DataError, match="every row has more"):
        holdout_above("chinchilla", data, 1.0)


def test_expanding_window_trains_on_less_compute_than_it_predicts() -> None:
    data = plane(100)
    parts = expanding_window("chinchilla", data, windows=4)
    assert len(parts) == 4
    assert [p.trained for p in parts] == sorted(p.trained for p in parts)
    c = 6 * data["params"] * data["tokens"]
    for held in parts:
        assert np.sort(c)[held.trained - 1] <= c[held.rows].min()
    assert np.mean([held.rmsle for held in parts]) < 0.05
    with pytest.raises(DataError, match="too few"):
        expanding_window("chinchilla", plane(11))


def test_leave_one_group_out() -> None:
    data = {**plane(90), "groups": np.repeat(["a", "b", "c"], 30)}
    parts = leave_one_group_out("chinchilla", data)
    assert [(p.name, p.held) for p in parts] == [("without a", 30), ("without b", 30), ("without c", 30)]
    with pytest.raises(UsageError, match="no group"):
        leave_one_group_out("chinchilla", plane())


def test_nothing_held_out_is_an_error() -> None:
    for hidden in (np.zeros(40, bool), np.ones(40, bool)):
        with pytest.raises(DataError, match="rows are held out"):
            holdout("power", curve(), hidden)


@needs_data
def test_published_likelihoods() -> None:
    """Besiroglu et al. 2024: 879.77 (their fit), 837.78 (Hoffmann et al.'s digits in TeX), 562.25 (rounded)."""
    import pandas as pd

    table = pd.read_csv(DATA / "chinchilla_replication.csv")
    n, c, loss = (table[k].to_numpy() for k in ("Model Size", "Training FLOP", "loss"))
    keep = loss < np.sort(loss)[-5]
    n, d, loss = n[keep], c[keep] / (6 * n[keep]), loss[keep]
    [(_, best)] = compare_laws(["chinchilla"], {"params": n, "tokens": d, "metric": loss})
    assert best.log_likelihood == pytest.approx(879.77, abs=0.01)

    def at(e: float, a: float, b: float, alpha: float, beta: float) -> float:
        return log_likelihood(np.log((e + a / n**alpha + b / d**beta) / loss), np.ones(240), "laplace")[0]

    tex = at(np.exp(0.5267228), np.exp(6.0073404), np.exp(6.0179186), 0.33917084, 0.2849083)
    assert tex == pytest.approx(837.78, abs=0.01)
    assert at(1.69, 406.4, 410.7, 0.34, 0.28) == pytest.approx(562.25, abs=0.01)
    assert 2 * (best.log_likelihood - tex) == pytest.approx(84.00, abs=0.01)


def test_the_true_law_wins_and_aicc_is_undefined_for_few_units() -> None:
    ranked = compare_laws(["kaplan", "chinchilla"], plane(120))
    assert [likely.law for _, likely in ranked] == ["chinchilla", "kaplan"]
    [(_, few)] = compare_laws(["chinchilla"], {**plane(60), "clusters": np.arange(60) % 7})
    assert few.units == 7
    assert few.aicc is None


def test_aicc_is_the_textbook_one_for_gaussian_noise() -> None:
    [(result, likely)] = compare_laws(["power"], curve(), noise="gaussian")
    rss = np.sum(np.log(result.predict(curve()) / curve()["metric"]) ** 2)
    n, k = 40, 4
    textbook = n * np.log(rss / n) + n * (1 + np.log(2 * np.pi)) + 2 * k + 2 * k * (k + 1) / (n - k - 1)
    assert likely.aicc == pytest.approx(textbook, rel=1e-9)


def test_groups_with_one_exponent_and_with_two() -> None:
    def both(alpha: float, a: float) -> dict[str, np.ndarray]:
        first, second = plane(80, 0.004, 1), plane(80, 0.004, 2, alpha, a)
        joined = {k: np.concatenate([first[k], second[k]]) for k in first}
        return {**joined, "groups": np.repeat(["VQ", "CRT"], 80)}

    same = compare_groups("chinchilla", both(0.34, 600.0), replicates=100)
    other = compare_groups("chinchilla", both(0.26, 150.0), replicates=100)
    assert same.shared_names == ("alpha", "beta")
    assert same.freedom == 2
    assert same.bootstrap_p_value > 0.03
    assert same.shared["alpha"] == pytest.approx(0.34, abs=0.05)
    assert other.p_value < 0.01
    assert other.bootstrap_p_value < 0.03
    with pytest.raises(UsageError, match="no group"):
        compare_groups("chinchilla", plane())
    with pytest.raises(DataError, match="one group only"):
        compare_groups("chinchilla", {**plane(), "groups": np.full(80, "a")})


@pytest.mark.slow
def test_the_group_test_rejects_at_its_level() -> None:
    small = 0
    for seed in range(60):
        first, second = plane(40, 0.01, 2 * seed), plane(40, 0.01, 2 * seed + 1, a=500.0)
        data = {k: np.concatenate([first[k], second[k]]) for k in first}
        test = compare_groups("chinchilla", {**data, "groups": np.repeat([1, 2], 40)}, replicates=100, seed=seed)
        small += test.bootstrap_p_value <= 0.1
    assert small <= 14  # 6 expected


@needs_data
def test_learning_curves_are_predicted_as_well_as_published() -> None:
    """The language tasks; benchmarks/bench_fit_learning_curves.py does all 92."""
    import pandas as pd

    table = pd.read_csv(DATA / "alabdulmohsin_benchmark.lang.csv")
    table = table[table.Domain == "LM"]
    errors: dict[str, list[float]] = {}
    for _, task in table.groupby(["Task", "Model"]):
        seen, hidden = task[task.Training == 1], task[task.Training == 0]
        for law in ("m1", "m2", "m3", "m4"):
            result = fit(law, {"x": seen["Seen Examples"], "metric": seen["Loss"]}, loss="squares")
            errors.setdefault(law, []).append(
                rmsle(result.predict({"x": hidden["Seen Examples"]}), hidden["Loss"]) or 9
            )
    for law, published in zip(("m1", "m2", "m3", "m4"), (0.0140, 0.0109, 0.0034, 0.0108), strict=True):
        assert np.mean(errors[law]) <= 1.02 * published, law

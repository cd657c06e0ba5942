"""Best pairs: the exact posterior against closed forms, calibrated probabilities, held runs flagged."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.tokenizers.comparisons.expected_crossover import expected_crossover
from analysis.tokenizers.compute import Compute
from analysis.tokenizers.pairs import best_pairs, default_budgets, probability_curve
from results.errors import FitError

FLOPS = np.geomspace(1e11, 1e13, 3)
PARAMETERS = {"XS": 1e4, "S": 1e5, "M": 4e5}


def _run(family: str, size: str, seed: int, log_gfid: float, flops=FLOPS) -> pd.DataFrame:
    """A run whose log gFID falls by a half from end to end and is `log_gfid` in the middle."""
    y = log_gfid + np.linspace(0.25, -0.25, len(flops))
    return pd.DataFrame(
        {
            "run_id": f"{family}-{size}-{seed}",
            "family": family,
            "size": size,
            "tokenizer_seed": seed,
            "path_flops": flops,
            "images": flops / 1e7,
            "gfid": np.exp(y),
            "parameters_other": PARAMETERS[size],
        }
    )


def _study(values: dict[tuple[str, str], list[float]]) -> pd.DataFrame:
    return pd.concat([_run(f, z, s, v) for (f, z), own in values.items() for s, v in enumerate(own)], ignore_index=True)


def test_with_no_shared_tokenizers_the_posterior_is_students_t():
    """Two families, one size each, every run its own tokenizer: rho cannot matter, mu is a pooled-variance t."""
    a, b = [0.10, 0.30, 0.20], [0.45, 0.35, 0.55, 0.60]
    found = best_pairs(_study({("A", "S"): a, ("B", "S"): b}), 1e12, draws=200_000)
    pooled = math.sqrt((np.var(a, ddof=1) * 2 + np.var(b, ddof=1) * 3) / 5)
    assert found.df == 5 and found.sd == pytest.approx(pooled, rel=1e-9)
    first = found.pairs[0]
    assert (first.family, first.gfid) == ("A", pytest.approx(math.exp(0.2)))
    half = stats.t.ppf(0.975, 5) * pooled / math.sqrt(3)
    assert math.log(first.high) - 0.2 == pytest.approx(half, rel=0.02)
    gap = np.mean(b) - np.mean(a)
    exact = stats.t.cdf(gap / (pooled * math.sqrt(1 / 3 + 1 / 4)), 5)
    assert first.probability == pytest.approx(exact, abs=0.004)
    assert sum(p for _, p in found.families) == pytest.approx(1)


def test_a_seed_seen_at_one_size_corrects_its_other_sizes():
    """Seed 0 is 20 % worse at S, so M, run on seed 0 alone, is expected below its measurement."""
    values = {("A", "S"): [0.40, 0.20, 0.21, 0.19], ("A", "XS"): [0.62, 0.41, 0.40, 0.42]}
    points = pd.concat([_study(values), _run("A", "M", 0, 0.30)])
    pair = {p.size: p for p in best_pairs(points, 1e12, draws=4000).pairs}
    assert 0.10 < math.log(pair["M"].gfid) < 0.20
    assert math.log(pair["S"].gfid) == pytest.approx(0.25, abs=1e-6)


@pytest.mark.slow
def test_probabilities_are_calibrated():
    """Over random truths the share of studies in which a pair is best equals the probability it was given."""
    random = np.random.default_rng(8)
    predicted, happened = [], []
    for _ in range(150):
        truth = random.normal(0, 0.12, size=(2, 2))
        values = {}
        luck = random.normal(0, 0.08, size=(2, 3))
        for i, family in enumerate("AB"):
            for j, size in enumerate(("S", "M")):
                values[(family, size)] = list(truth[i, j] + luck[i] + random.normal(0, 0.04, 3))
        found = best_pairs(_study(values), 1e12, draws=1500)
        winner = np.unravel_index(truth.argmin(), (2, 2))
        for p in found.pairs:
            predicted.append(p.probability)
            happened.append((p.family, p.size) == ("AB"[winner[0]], ("S", "M")[winner[1]]))
    predicted, happened = np.array(predicted), np.array(happened)
    for low, high in ((0.0, 0.15), (0.15, 0.5), (0.5, 1.01)):
        part = (predicted >= low) & (predicted < high)
        assert part.sum() > 40
        error = abs(predicted[part].mean() - happened[part].mean())
        assert error < 3.5 * math.sqrt(0.25 / part.sum()), (low, predicted[part].mean(), happened[part].mean())


def test_draws_repeat_with_their_seed_and_differ_with_another():
    points = _study({("A", "S"): [0.1, 0.3, 0.2], ("B", "S"): [0.2, 0.4, 0.25]})
    one, same, other = (best_pairs(points, 1e12, draws=500, seed=s) for s in (0, 0, 1))
    assert one == same and one.pairs[0].probability != other.pairs[0].probability


def test_interpolation_is_linear_in_logs_and_what_ends_goes_on_by_its_law():
    points = pd.concat([_run("A", "S", s, 0.0) for s in (0, 1)] + [_run("B", "S", 0, 1.0, FLOPS * 100)])
    at = best_pairs(points, 10**11.5)
    assert [p.family for p in at.pairs] == ["A"]
    assert at.pairs[0].gfid == pytest.approx(math.exp(0.125)) and not at.pairs[0].extrapolated
    assert [left.name for left in at.not_judged] == ["B + S"] and at.to_dict()["basis"] == "measured"
    found = best_pairs(points, 1e14)
    beyond = {p.family: p for p in found.pairs}
    # A straight line in logs goes on between flat and straight, with an interval that holds the straight one.
    assert beyond["A"].extrapolated and beyond["A"].reach == pytest.approx(10)
    assert math.exp(-0.5) < beyond["A"].gfid < math.exp(-0.25)
    assert beyond["A"].low < math.exp(-0.5) and beyond["A"].high > math.exp(-0.4)
    assert not beyond["B"].extrapolated
    assert beyond["A"].train_images == pytest.approx(1e7)
    within = best_pairs(points, 1e14, within_range=True)
    assert [p.family for p in within.pairs] == ["B"] and within.not_judged[0].name == "A + S"
    assert "end at 1e+13" in within.not_judged[0].reason
    with pytest.raises(FitError, match="no run was measured"):
        best_pairs(points, 1e9)
    with pytest.raises(FitError, match="no compute budget"):
        best_pairs(points, float("nan"))


def test_a_budget_without_runs_names_what_is_allowed_and_it_is():
    points = pd.concat([_run("A", "S", s, 0.0, FLOPS * 1.2345) for s in (0, 1)])
    with pytest.raises(FitError, match=r"measured at 1e\+09 FLOPs; the smallest budget that is judged: 1.24e\+11$"):
        best_pairs(points, 1e9)
    assert best_pairs(points, 1.24e11).pairs
    with pytest.raises(FitError, match=r"measured at 1e\+15 FLOPs; within range: 1.24e\+11 to 1.23e\+13$"):
        best_pairs(points, 1e15, within_range=True)
    assert best_pairs(points, 1.23e13, within_range=True).pairs
    one = _run("A", "S", 0, 0.0, np.array([1.2345e12]))
    with pytest.raises(FitError, match=r"within range: 1.2345e\+12$"):
        best_pairs(one, 1e15, within_range=True)
    gap = pd.concat([points, _run("B", "S", 0, 0.0, FLOPS * 1e6)])
    with pytest.raises(FitError, match=r"within range: up to 1.23e\+13, and from 1e\+17 on$"):
        best_pairs(gap, 1e15, within_range=True)
    with pytest.raises(FitError, match="none has a known compute"):
        best_pairs(points.assign(path_flops=math.nan), 1e15)


def test_a_budget_below_what_is_counted_beside_training_says_so():
    points = _study({("A", "S"): [0.1, 0.2]}).assign(tokenizer_flops=2.5e12, flops_per_image=1e7)
    counted = Compute(total=True, generators=7).of(points)
    with pytest.raises(FitError, match=r"\(--total, --serve\) costs 3.57e\+11 at least; the smallest .* 4.58e\+11$"):
        best_pairs(counted, 1.6e11)
    assert best_pairs(counted, 4.58e11).pairs
    # Above what the tokenizer takes, too little is left for the shortest run.
    with pytest.raises(FitError, match=r"measured at 4e\+11 FLOPs; the smallest budget that is judged: 4.58e\+11$"):
        best_pairs(counted, 4e11)
    with pytest.raises(FitError, match=r"costs 3.33e\+14 at least; the smallest"):
        best_pairs(Compute(serve=1e8).of(points), 1e14)


@pytest.mark.parametrize(("begins", "flops", "said"), [(2.02e20, 2e20, "2.02e+20"), (3.05e20, 2e20, "3e+20"),
                                                       (2.0004e20, 2e20, "2.0004e+20")])  # fmt: skip
def test_where_runs_begin_is_never_printed_as_the_budget(begins, flops, said):
    points = pd.concat([_run("A", "S", 0, 0.0, FLOPS * 1e9), _run("B", "S", 0, 0.0, begins * FLOPS / FLOPS[0])])
    ((name, reason),) = best_pairs(points, flops).not_judged
    assert (name, reason) == ("B + S", f"its runs begin at {said}")
    ended = pd.concat([_run("A", "S", 0, 0.0, FLOPS * 1e9), _run("B", "S", 0, 0.0, FLOPS * 19.8e6)])
    (left,) = best_pairs(ended, 2e20, within_range=True).not_judged
    assert left.reason == "its runs end at 1.98e+20"


def test_a_pair_without_others_is_measured_there_or_judged():
    points = _study({("A", "S"): [0.1, 0.2]})
    assert best_pairs(points, 1e12).alone == "the only pair measured there"
    assert best_pairs(points, 1e14).alone == "the only pair judged there"


def test_without_repeats_no_probability_is_made_up():
    found = best_pairs(_study({("A", "S"): [0.1], ("B", "S"): [0.4]}), 1e12)
    assert found.df == 0 and found.sd is None
    assert [p.probability for p in found.pairs] == [None, None]
    assert found.best.family == "A"
    assert probability_curve(_study({("A", "S"): [0.1], ("B", "S"): [0.4]})) is None


def test_default_budgets_lie_where_two_families_were_measured():
    points = pd.concat(
        [_run("A", "S", 0, 0.1, FLOPS / 100), _run("B", "S", 0, 0.1), _run("C", "S", 0, 0.1, FLOPS * 10)]
    )
    budgets = default_budgets(points)
    assert len(budgets) == 3 and 1e11 < budgets[0] < budgets[1] < budgets[2] < 1e13
    assert np.log(budgets[1]) == pytest.approx(np.log([budgets[0], budgets[2]]).mean(), abs=0.05)
    alone = default_budgets(_run("A", "S", 0, 0.1))
    assert alone[0] > 1e11 and alone[-1] < 1e13


def test_probability_curve_sums_to_one_and_switches_where_the_truth_does():
    parts = []
    for s, luck in enumerate((-0.02, 0.0, 0.02)):
        for family, slope in (("A", 0.05), ("B", 0.5)):
            y = luck - slope * np.log(FLOPS / 1e12)
            parts.append(_run(family, "S", s, 0.0).assign(gfid=np.exp(y)))
    curve = probability_curve(pd.concat(parts), count=9, draws=1000)
    assert curve.sum(axis=1).to_numpy() == pytest.approx(np.ones(9))
    a = curve["A"].to_numpy()
    assert a[0] > 0.99 and a[-1] < 0.01
    assert np.interp(0.5, a[::-1], np.log(curve.index)[::-1]) == pytest.approx(math.log(1e12), abs=0.3)


@pytest.mark.slow
def test_expected_crossover_covers_the_truth_when_only_one_seed_has_all_sizes():
    """S on three seeds, XS and M on seed 0; the fronts of A and B truly cross at 1e12."""
    random = np.random.default_rng(4)
    hits, inside = 0, 0
    for _ in range(40):
        parts = []
        for family, slope in (("A", 0.1), ("B", 0.4)):
            luck = random.normal(0, 0.06, 3)
            for size, penalty, seeds in (("XS", 0.1, (0,)), ("S", 0.0, (0, 1, 2)), ("M", 0.1, (0,))):
                for s in seeds:
                    y = penalty + luck[s] - slope * np.log(FLOPS / 1e12) + random.normal(0, 0.03, len(FLOPS))
                    parts.append(_run(family, size, s, 0.0).assign(gfid=np.exp(y)))
        found = expected_crossover(pd.concat(parts), "A", "B", count=25, draws=600)
        low, high = found.interval_low or 0, found.interval_high or math.inf
        hits += not found.excluded and low <= 1e12 <= high
        inside += found.flops is not None and found.expected_direction
    assert hits >= 35 and inside >= 36
    assert found.design.sizes == ("XS", "S", "M") and "borrowing" in found.method

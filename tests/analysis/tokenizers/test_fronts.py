"""Fronts, crossovers and multipliers: known truths recovered, censoring said, intervals that cover."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from analysis.tokenizers.comparisons.contrasts import multiplier
from analysis.tokenizers.comparisons.crossover import (
    crossing_over_seeds,
    crossover,
    crossover_of,
    median_bound,
    split_point,
)
from analysis.tokenizers.fronts import (
    Curve,
    Design,
    Front,
    compared_fronts,
    designs,
    front,
    pareto_mask,
    select_elsewhere,
)
from analysis.tokenizers.seed_intervals import Noise, over_seeds
from results.errors import FitError

COSTS = np.geomspace(1e11, 1.6e13, 6)
SEEDS = (0, 1, 2)


def _points(family: str, seed: int, flops: np.ndarray, gfid: np.ndarray, size: str = "S") -> pd.DataFrame:
    rows = {"family": family, "size": size, "tokenizer_seed": seed, "seed": seed, "path_flops": flops, "gfid": gfid}
    return pd.DataFrame(rows | {"parameters_other": {"XS": 1e4, "S": 1e5, "M": 4e5}[size]})


def _two(alpha=(0.2, 0.6), crossing=3e12, shifts=None, seeds=SEEDS) -> pd.DataFrame:
    """Power laws A and B without noise that cross at `crossing`; shifts[seed] multiplies A's gFID."""
    parts = []
    for seed in seeds:
        factor = 1.0 if shifts is None else shifts[seed]
        parts.append(_points("A", seed, COSTS, factor * (COSTS / crossing) ** -alpha[0]))
        parts.append(_points("B", seed, COSTS, (COSTS / crossing) ** -alpha[1]))
    return pd.concat(parts, ignore_index=True)


def _front(gfid: np.ndarray) -> Front:
    return Front(COSTS, gfid, ("S",) * len(COSTS), float(COSTS[0]), float(COSTS[-1]))


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=24))
def test_pareto_mask_is_what_the_definition_says(pairs):
    flops, gfid = np.array(pairs, dtype=float).T
    mask = pareto_mask(flops, gfid)
    for i in range(len(pairs)):
        beaten = ((flops <= flops[i]) & (gfid <= gfid[i]) & ((flops < flops[i]) | (gfid < gfid[i]))).any()
        twin = any(mask[j] for j in range(len(pairs)) if j != i and pairs[j] == pairs[i])
        assert mask[i] == (not beaten and not twin)
    kept = np.argsort(flops[mask])
    assert (np.diff(gfid[mask][kept]) < 0).all()


def test_front_interpolates_in_logs_is_flat_at_its_end_and_ends_with_the_measurements():
    points = _points("A", 0, np.array([1e11, 1e12, 4e12, 9e12]), np.array([4.0, 1.0, 1.5, 2.0]))
    found = front(points)
    assert found.flops == pytest.approx([1e11, 1e12])
    assert np.exp(found.log_gfid(np.log([10**11.5, 5e12]))) == pytest.approx([2.0, 1.0])
    assert np.isnan(found.log_gfid(np.log([9e10, 1e13]))).all()
    assert np.exp(found.log_flops_at(np.log([2.0]))) == pytest.approx([10**11.5])
    assert np.isnan(found.log_flops_at(np.log([0.9, 5.0]))).all()
    with pytest.raises(FitError, match="no gFID"):
        front(points.assign(gfid=np.nan))


def test_front_between_two_points_of_one_size_is_that_size_s_own_curve():
    """The larger size begins where the smaller one is already lower: a line between Pareto points would cut across."""
    small = _points("A", 0, np.array([1e11, 4e11, 1.6e12]), np.array([16.0, 8.0, 7.0]), "S")
    large = _points("A", 0, np.array([8e11, 3.2e12]), np.array([12.0, 3.0]), "M")
    found = front(pd.concat([small, large]))
    at = np.log([2e11, 8e11, 1.6e12, 3.2e12])
    assert np.exp(found.log_gfid(at)) == pytest.approx([8 * 2**0.5, (7 * 8) ** 0.5, 6.0, 3.0])


_POINT = st.tuples(st.integers(0, 60).map(lambda tenths: tenths / 10), st.floats(-2, 2))
_CURVE = st.lists(_POINT, min_size=1, max_size=5, unique_by=lambda point: point[0])


@settings(max_examples=200)
@given(st.lists(_CURVE, min_size=1, max_size=3))
@example([[(0.0, 1.5), (0.1, 1.75), (1.0, 0.0)], [(0.3, 0.0)]])
@example([[(0.0, 1.0), (0.1, 2.0), (0.5, 0.0)], [(0.4, 0.0)]])
def test_front_is_the_lowest_of_all_that_is_affordable(curves):
    # Sizes with one budget each are no curves, see below.
    assume(len(curves) == 1 or any(len(curve) > 1 for curve in curves))
    # Beside the steps, where the last digit of a logarithm would decide.
    names, at = ("XS", "S", "M"), np.linspace(0, 6, 2401) + 7e-4
    parts, values = [], []
    for name, curve in zip(names, curves, strict=False):
        x, y = np.array(sorted(curve)).T
        parts.append(_points("A", 0, np.exp(x), np.exp(y), name))
        values.append(np.interp(at, x, y, left=np.inf))
    found = front(pd.concat(parts))
    assert (np.diff(found.flops) > 0).all() and (np.diff(np.log(found.gfid)) < 1e-8).all()
    expected = np.minimum.accumulate(np.min(values, axis=0))
    inside = (at >= math.log(found.low)) & (at <= math.log(found.high))
    # The grid misses a minimum by its slope times a step at most.
    step = max(abs(np.diff(v[np.isfinite(v)])).max(initial=0.0) for v in values)
    got = found.log_gfid(at[inside])
    assert (got <= expected[inside] + 1e-7).all() and (got >= expected[inside] - step - 1e-7).all()


def test_sizes_with_one_budget_each_are_joined_along_their_pareto_points():
    flops, gfid = np.array([1e18, 4e18, 1.6e19]), np.array([16.0, 20.0, 4.0])
    parts = [_points("A", 0, flops[i : i + 1], gfid[i : i + 1], size) for i, size in enumerate(("XS", "S", "M"))]
    found = front(pd.concat(parts))
    assert np.exp(found.log_gfid(np.log([1e18, 4e18, 1.6e19]))) == pytest.approx([16.0, 8.0, 4.0])


@given(st.floats(-3, 3), st.floats(0.1, 5))
def test_split_point_of_one_crossing_is_that_crossing(at, slope):
    x = np.linspace(-4, 4, 9)
    where, sign = split_point(x, slope * (x - at))
    assert where == pytest.approx(at, abs=1e-9)
    assert sign == -1
    assert split_point(x, np.full(9, slope)) == (None, 1)


def test_split_point_ignores_a_ripple_and_finds_the_lasting_crossing():
    x = np.arange(8.0)
    where, sign = split_point(x, np.array([-1, 0.1, -1, -1, -1, 1, 1, 1.0]))
    assert (where, sign) == (pytest.approx(4.5), -1)
    assert split_point(x, np.array([1, 1, 1, -0.1, 1, 1, 1, 1.0]))[0] is None


def test_a_known_crossover_is_recovered_with_direction():
    found = crossover(_two(), "A", "B")
    assert found.flops == pytest.approx(3e12, rel=1e-9)
    assert found.expected_direction and (found.lower_before, found.lower_after) == ("A", "B")
    assert [s.placement for s in found.per_seed] == ["within"] * 3
    other = crossover(_two(), "B", "A")
    assert other.flops == pytest.approx(3e12) and not other.expected_direction
    assert {s.placement for s in other.per_seed} == {"reversed"}


def test_seeds_that_cross_at_different_places_give_an_interval_around_the_mean():
    shifts = {s: math.exp(0.4 * math.log(f)) for s, f in zip(SEEDS, (0.5, 1.0, 2.0), strict=True)}
    found = crossover(_two(shifts=shifts), "A", "B")
    assert [s.flops for s in found.per_seed] == pytest.approx([6e12, 3e12, 1.5e12])
    assert found.flops == pytest.approx(3e12)
    assert found.interval_low is not None and found.interval_low < 1.5e12
    own = crossing_over_seeds(found)
    assert own is not None and own.value == pytest.approx(3e12) and own.df == 2
    # Straight lines of one slope: the inverted test and the t interval over the seeds' own crossings are the same.
    assert found.interval_low == pytest.approx(own.low, rel=0.02)


def test_no_crossing_is_an_answer_with_direction_and_a_one_sided_statement():
    found = crossover(_two(crossing=1e15), "A", "B")
    assert found.flops is None and found.lower_before == found.lower_after == "A"
    assert found.excluded and not found.established
    assert found.at_high.value == pytest.approx((1.6e13 / 1e15) ** 0.4)
    assert [s.placement for s in found.per_seed] == ["above"] * 3
    side, flops, confidence = median_bound(found)
    assert (side, confidence) == ("above", 0.875) and flops == pytest.approx(1.6e13)
    assert crossing_over_seeds(found) is None


def test_censored_seeds_are_kept_and_said():
    shifts = {0: 1.0, 1: 1.2, 2: math.exp(-0.4 * math.log(20))}
    found = crossover(_two(shifts=shifts), "A", "B")
    assert [s.placement for s in found.per_seed] == ["within", "within", "above"]
    assert found.flops is not None, "the mean over all three seeds still crosses"
    assert found.interval_high is None and not found.established
    assert crossing_over_seeds(found) is None
    side, flops, _ = median_bound(found)
    assert side == "above" and flops == pytest.approx(3e12 * 1.2**-2.5)
    both = crossover(_two(shifts={0: 8.0, 1: 1.0, 2: 0.1}), "A", "B")
    assert {s.placement for s in both.per_seed} == {"below", "within", "above"}
    assert median_bound(both) is None


def test_one_seed_is_conditional_and_has_an_interval_only_with_a_noise_model():
    points = _two(seeds=(0,))
    bare = crossover(points, "A", "B")
    assert bare.conditional and bare.band is None and bare.interval_low is None
    assert "conditional on this tokenizer" in bare.method and "conditional" in bare.at_low.method
    noisy = crossover(points, "A", "B", noise=Noise(0.06, None, "given"))
    half = 1.959964 * 0.06 * math.sqrt(2) / 0.4
    assert noisy.interval_low == pytest.approx(3e12 * math.exp(-half), rel=1e-3)
    assert noisy.interval_high == pytest.approx(3e12 * math.exp(half), rel=1e-3)
    assert "noise only" in noisy.method


def test_designs_compare_equal_choices_only():
    parts = [_points(f, s, COSTS, COSTS**-0.3, z) for f in "AB" for s in SEEDS for z in ("S",)]
    parts += [_points(f, 0, COSTS, COSTS**-0.3, z) for f in "AB" for z in ("XS", "M")]
    parts += [_points("A", 1, COSTS, COSTS**-0.3, "M")]
    points = pd.concat(parts)
    assert designs(points, "A", "B") == [Design(SEEDS, ("S",)), Design((0,), ("XS", "S", "M"))]
    assert designs(points[points["tokenizer_seed"] == 0], "A", "B") == [Design((0,), ("XS", "S", "M"))]
    with pytest.raises(FitError, match="share no tokenizer seed"):
        crossover(points, "A", "C")
    apart = pd.concat([_points("A", 0, COSTS, COSTS**-0.3), _points("B", 0, 1e4 * COSTS, COSTS**-0.3)])
    with pytest.raises(FitError, match="do not overlap"):
        crossover(apart, "A", "B")


@settings(max_examples=25)
@given(st.floats(0.5, 4.0), st.floats(0.2, 0.9))
def test_a_known_compute_multiplier_is_recovered(factor, alpha):
    base = [_points("A", s, COSTS, COSTS**-alpha) for s in SEEDS]
    treated = [_points("B", s, COSTS / factor, COSTS**-alpha) for s in SEEDS]
    found = multiplier(pd.concat(base + treated), "A", "B")
    assert found.estimate.value == pytest.approx(factor, rel=1e-6)
    assert found.curve.shape == (3, len(found.curve_gfid))
    assert np.nanmax(np.abs(np.log(found.curve / factor))) < 1e-6


def test_multiplier_averages_in_logs_over_the_common_gfid_range_and_reports_missing_overlap():
    parts = [_points("A", s, COSTS, COSTS**-0.5) for s in SEEDS]
    parts += [_points("B", s, COSTS / m, COSTS**-0.5) for s, m in zip((0, 1), (2.0, 8.0), strict=True)]
    parts += [_points("B", 2, COSTS, 1e-4 * COSTS**-0.5)]
    found = multiplier(pd.concat(parts), "A", "B")
    assert found.estimate.value == pytest.approx(4.0) and found.estimate.seeds == (0, 1)
    assert found.without_overlap == ((2, "B"),)
    single = multiplier(pd.concat([parts[0], parts[3]]), "A", "B", noise=Noise(0.05, None, "given")).estimate
    assert math.log(single.high / single.value) == pytest.approx(1.959964 * 0.05 * math.sqrt(2) / 0.5, rel=1e-3)


def test_fronts_selected_on_other_seeds_carry_no_winners_curse():
    """A flat truth: the lowest of noisy points lies far below it, points chosen on the other seeds do not."""
    random = np.random.default_rng(2)
    own, elsewhere = [], []
    for _ in range(300):
        noisy = random.normal(0, 0.06, size=(3, len(COSTS)))
        at = np.log(COSTS[-1])
        own += [float(front(_points("A", 0, COSTS, np.exp(y))).log_gfid(at)) for y in noisy[:1]]
        elsewhere += [float(f.log_gfid(at)) for f in select_elsewhere([Curve("S", np.log(COSTS), noisy)])]
    assert np.mean(own) < -0.05
    assert abs(np.mean(elsewhere)) < 0.006


def test_compared_fronts_use_the_cells_that_every_seed_has():
    parts = [_points("A", s, COSTS, (COSTS / 1e12) ** -0.3 * (1 + 0.01 * s)) for s in (0, 1)]
    parts[1] = parts[1].iloc[:-1]
    parts.append(_points("A", 0, COSTS[:1], np.array([100.0]), "M"))
    found = compared_fronts(pd.concat(parts), "A", Design((0, 1), ("S",)))
    assert found[0].high == pytest.approx(COSTS[-2]) and set(found[0].sizes) == {"S"}
    assert found[1].gfid / found[0].gfid == pytest.approx(np.full(5, 1.01))


def test_confidence_set_covers_the_true_crossover():
    """Nominal 95 % over 3 and 5 tokenizer seeds, seed shifts of 15 %: within binomial error of 400 draws."""
    random = np.random.default_rng(11)
    for seeds in (3, 5):
        hits, draws = 0, 400
        truth = math.log(3e12)
        for _ in range(draws):
            shifts = random.normal(0, 0.15, size=(2, seeds))
            sides = [
                {s: _front((COSTS / 3e12) ** -alpha * math.exp(shift)) for s, shift in enumerate(own)}
                for alpha, own in zip((0.2, 0.6), shifts, strict=True)
            ]
            found = crossover_of("A", "B", Design(tuple(range(seeds)), ("S",)), (sides[0], sides[1]))
            low = -math.inf if found.interval_low is None else math.log(found.interval_low)
            high = math.inf if found.interval_high is None else math.log(found.interval_high)
            hits += not found.excluded and low <= truth <= high
        assert 0.92 <= hits / draws <= 0.98, f"{seeds} seeds cover {hits / draws:.3f}"


def test_from_six_seeds_on_a_cluster_bootstrap_agrees_with_the_test():
    random = np.random.default_rng(5)
    sides = [
        {s: _front((COSTS / 3e12) ** -alpha * math.exp(random.normal(0, 0.1))) for s in range(8)}
        for alpha in (0.2, 0.6)
    ]
    found = crossover_of("A", "B", Design(tuple(range(8)), ("S",)), (sides[0], sides[1]))
    assert found.bootstrap is not None
    assert found.bootstrap[0] < found.flops < found.bootstrap[1]
    width = math.log(found.interval_high / found.interval_low)
    assert 0.6 * width < math.log(found.bootstrap[1] / found.bootstrap[0]) < width
    few = crossover_of("A", "B", Design(tuple(range(5)), ("S",)), (sides[0], sides[1]))
    assert few.bootstrap is None


def test_t_intervals_over_seeds_cover_and_say_their_degrees_of_freedom():
    random = np.random.default_rng(3)
    for n in (2, 3, 5):
        values = np.exp(random.normal(0.3, 0.2, size=(1500, n)))
        found = [over_seeds(dict(enumerate(row)), scale="ratio") for row in values]
        cover = np.mean([e.low <= math.exp(0.3) <= e.high for e in found])
        assert 0.93 <= cover <= 0.97, f"{n} seeds cover {cover:.3f}"
        assert found[0].df == n - 1 and f"df {n - 1}" in found[0].method


def test_estimates_refuse_what_has_no_logarithm():
    with pytest.raises(FitError, match="seed 1 has the value 0"):
        over_seeds({0: 1.0, 1: 0.0}, scale="ratio")
    with pytest.raises(FitError, match="nothing to average"):
        over_seeds({}, scale="difference")

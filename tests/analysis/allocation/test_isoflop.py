"""The parabola baseline and the lower envelope: published Llama-3 value, exact cases, brackets, bias."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.allocation.envelope import approach1, lower_envelope
from analysis.allocation.isoflop import isoflop, parabola
from results.errors import DataError, FitError

DATA = Path(__file__).parents[3].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")


@needs_data
def test_llama_3_parabola() -> None:
    import pandas as pd

    table = pd.read_csv(DATA / "isoflops_annotated.csv")
    table = table[table.experiment == "llama_3__raw_loss"]
    found = isoflop(table.budget, table.tokens, table.loss)
    assert round(found.coefficient, 3) == 0.299
    assert round(found.exponent, 3) == 0.537
    kept = table[~table.outlier]
    assert round(isoflop(kept.budget, kept.tokens, kept.loss).exponent, 3) == 0.500
    assert any("biased" in w for w in found.warnings)


def test_exact_parabolas_give_the_exact_power_law() -> None:
    budgets = np.repeat(np.geomspace(1e18, 1e21, 4), 7)
    best = 0.1 * budgets**0.5
    size = best * np.tile(np.exp(np.linspace(-2, 2.5, 7)), 4)
    loss = 2 + 0.05 * np.log(size / best) ** 2
    found = isoflop(budgets, size, loss)
    assert (found.exponent, found.coefficient) == pytest.approx((0.5, 0.1), rel=1e-8)
    assert found.size(1e20) == pytest.approx(0.1 * 1e10, rel=1e-8)


def test_minima_that_are_not_bracketed_are_left_out_and_named() -> None:
    budgets = np.repeat([1e18, 1e19, 1e20], 5)
    best = budgets**0.5
    offsets = np.concatenate([np.linspace(-1, 1, 5), np.linspace(-1, 1, 5), np.linspace(1, 3, 5)])
    size = best * np.exp(offsets)
    found = isoflop(budgets, size, 2 + 0.1 * offsets**2)
    assert [m.bracketed for m in found.minima] == [True, True, False]
    assert any("1e+20" in w and "not bracketed" in w for w in found.warnings)
    with pytest.raises(FitError, match="1 of 2 budgets"):
        isoflop(budgets[5:], size[5:], (2 + 0.1 * offsets**2)[5:])


def test_the_bias_that_the_warning_speaks_of() -> None:
    """Noise-free Chinchilla losses on an off-centre grid: the parabola misses D*, the warning is right."""
    alpha, beta = 0.34, 0.28
    budgets = np.repeat(np.geomspace(1e18, 1e21, 4), 9)
    tokens = 2.0 * (budgets / 6) ** 0.5 * np.tile(np.exp(np.linspace(-3, 5, 9)), 4)
    params = budgets / (6 * tokens)
    loss = 1.7 + 400 / params**alpha + 410 / tokens**beta
    found = isoflop(budgets, tokens, loss)
    log_ratio = np.log(beta * 410 / (alpha * 400))
    truth = np.exp((alpha * np.log(1e20 / 6) + log_ratio) / (alpha + beta))
    assert abs(np.log(found.size(1e20) / truth)) > 0.05


def test_too_few_sizes() -> None:
    with pytest.raises(FitError, match="2 different sizes"):
        parabola(1e18, np.array([1e6, 2e6, 2e6]), np.array([2.0, 1.9, 1.9]))


def test_bad_columns_name_row_and_column() -> None:
    with pytest.raises(DataError, match="row 1, column 'size'"):
        isoflop([1e18, 1e18], [1e6, -1.0], [2.0, 1.9])
    with pytest.raises(DataError, match="row 0, column 'loss'"):
        isoflop([1e18, 1e18], [1e6, 1e7], [np.nan, 1.9])


@given(st.lists(st.tuples(st.floats(1, 100), st.floats(1, 10)), min_size=1, max_size=40))
@settings(max_examples=60, deadline=None)
def test_the_envelope_is_what_nothing_beats(rows: list[tuple[float, float]]) -> None:
    c, y = np.array(rows).T
    on = lower_envelope(c, y)
    assert np.all(np.diff(y[on]) < 0)
    for i in range(len(c)):
        beaten = np.any((c <= c[i]) & (y < y[i]) | (c < c[i]) & (y <= y[i]))
        assert (not beaten) == bool(np.any((c[on] == c[i]) & (y[on] == y[i])))


def test_approach_1_finds_the_exponent_of_a_dense_grid() -> None:
    n, d = np.meshgrid(np.geomspace(1e6, 1e10, 90), np.geomspace(1e8, 1e12, 90))
    n, d = n.ravel(), d.ravel()
    loss = 1.7 + 400 / n**0.34 + 2000 / d**0.37
    found = approach1(6 * n * d, n, d, loss)
    inner = found.params_exponent
    assert inner == pytest.approx(0.37 / 0.71, abs=0.04)
    assert found.tokens_exponent == pytest.approx(1 - inner, abs=0.04)
    assert found.loss.values["E"] == pytest.approx(1.7, abs=0.1)

"""The parabola baseline: published Llama-3 value, exact cases, brackets, bias."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analysis.allocation.isoflop import isoflop, parabola
from results.errors import DataError, FitError

DATA = Path(__file__).parents[3].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")


@needs_data
def test_llama_3_parabola() -> None:
    import pandas as pd

    table = pd.read_csv(DATA / "isoflops_annotated.csv")
    table = table[table.experiment == "llama_3__raw_loss"]
    law = isoflop(table.budget, table.tokens, table.loss)
    assert round(law.coefficient, 3) == 0.299
    assert round(law.exponent, 3) == 0.537
    kept = table[~table.outlier]
    assert round(isoflop(kept.budget, kept.tokens, kept.loss).exponent, 3) == 0.500
    assert any("biased" in w for w in law.warnings)


def test_exact_parabolas_give_the_exact_power_law() -> None:
    budgets = np.repeat(np.geomspace(1e18, 1e21, 4), 7)
    best = 0.1 * budgets**0.5
    size = best * np.tile(np.exp(np.linspace(-2, 2.5, 7)), 4)
    loss = 2 + 0.05 * np.log(size / best) ** 2
    law = isoflop(budgets, size, loss)
    assert (law.exponent, law.coefficient) == pytest.approx((0.5, 0.1), rel=1e-8)
    assert law.size(1e20) == pytest.approx(0.1 * 1e10, rel=1e-8)


def test_minima_that_are_not_bracketed_are_left_out_and_named() -> None:
    budgets = np.repeat([1e18, 1e19, 1e20], 5)
    best = budgets**0.5
    offsets = np.concatenate([np.linspace(-1, 1, 5), np.linspace(-1, 1, 5), np.linspace(1, 3, 5)])
    size = best * np.exp(offsets)
    law = isoflop(budgets, size, 2 + 0.1 * offsets**2)
    assert [m.bracketed for m in law.minima] == [True, True, False]
    assert any("1e+20" in w and "not bracketed" in w for w in law.warnings)
    with pytest.raises(FitError, match="1 of 2 budgets"):
        isoflop(budgets[5:], size[5:], (2 + 0.1 * offsets**2)[5:])


def test_the_bias_that_the_warning_speaks_of() -> None:
    """Noise-free Chinchilla losses on an off-centre grid: the parabola misses D*, the warning is right."""
    alpha, beta = 0.34, 0.28
    budgets = np.repeat(np.geomspace(1e18, 1e21, 4), 9)
    tokens = 2.0 * (budgets / 6) ** 0.5 * np.tile(np.exp(np.linspace(-3, 5, 9)), 4)
    params = budgets / (6 * tokens)
    loss = 1.7 + 400 / params**alpha + 410 / tokens**beta
    law = isoflop(budgets, tokens, loss)
    log_ratio = np.log(beta * 410 / (alpha * 400))
    truth = np.exp((alpha * np.log(1e20 / 6) + log_ratio) / (alpha + beta))
    assert abs(np.log(law.size(1e20) / truth)) > 0.05


def test_too_few_sizes() -> None:
    with pytest.raises(FitError, match="2 different sizes"):
        parabola(1e18, np.array([1e6, 2e6, 2e6]), np.array([2.0, 1.9, 1.9]))


def test_bad_columns_name_row_and_column() -> None:
    with pytest.raises(DataError, match="row 1, column 'size'"):
        isoflop([1e18, 1e18], [1e6, -1.0], [2.0, 1.9])
    with pytest.raises(DataError, match="row 0, column 'loss'"):
        isoflop([1e18, 1e18], [1e6, 1e7], [np.nan, 1.9])

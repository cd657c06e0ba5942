"""The command isoflop: power laws through the minima of parabolas, and its errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from results.errors import DataError, FitError, UsageError

from .fit_commands import run, run_json


@pytest.fixture
def slices(tmp_path: Path) -> Path:
    """Four budgets of seven sizes; the parabolas' minima lie at N* = 0.1 C^0.5."""
    c = np.repeat(np.geomspace(1e18, 1e21, 4), 7)
    best = 0.1 * c**0.5
    n = best * np.tile(np.exp(np.linspace(-2, 2.5, 7)), 4)
    path = tmp_path / "slices.csv"
    pd.DataFrame({"N": n, "C": c, "loss": 2 + 0.05 * np.log(n / best) ** 2}).to_csv(path, index=False)
    return path


def test_power_laws_of_both(slices: Path) -> None:
    answer = run_json("isoflop", slices, "--params", "N", "--flops", "C")
    assert answer["params"]["exponent"] == pytest.approx(0.5) and answer["params"]["coefficient"] == pytest.approx(0.1)
    assert answer["tokens"]["exponent"] == pytest.approx(0.5)
    assert answer["tokens"]["coefficient"] == pytest.approx(1 / 0.6)
    assert len(answer["params"]["minima"]) == 4 and "biased" in answer["warnings"][0]
    text = run("isoflop", slices, "--params", "N", "--flops", "C", "--where", "C > 2e18")
    assert "N* = 0.1 C^0.5" in text and "1e+21" in text and "1e+18" not in text


def test_errors(slices: Path) -> None:
    with pytest.raises(UsageError, match="needs the column 'params'"):
        run("isoflop", slices)
    with pytest.raises(DataError, match="column 'M' is missing"):
        run("isoflop", slices, "--params", "M", "--flops", "C")
    with pytest.raises(FitError, match="1 of 1 budgets"):
        run("isoflop", slices, "--params", "N", "--flops", "C", "--where", "C < 2e18")
    with pytest.raises(UsageError, match="tolerance=0 is not"):
        run("isoflop", slices, "--params", "N", "--flops", "C", "--tolerance", 0)

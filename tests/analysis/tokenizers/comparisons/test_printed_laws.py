"""The printed laws of arXiv 2412.16326 as data: its crossover, its multipliers, and what rounding makes of a claim."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.tokenizers.comparisons.crossover import crossover
from analysis.tokenizers.comparisons.printed_laws import PrintedLaw, printed_crossover, printed_multiplier
from results.errors import FitError

TOKENS_256 = PrintedLaw("256 tokens", -0.65, 25.91, 2.21)
TOKENS_576 = PrintedLaw("576 tokens", -0.58, 24.46, 0.99)
CRT = PrintedLaw("CRT", -0.73, 28.85, 2.21)
CODES_1K = PrintedLaw("1k codes", -0.67, 26.88, 2.70)
CODES_131K = PrintedLaw("131k codes", -0.57, 23.20, 1.78)


def test_256_and_576_tokens_cross_where_the_printed_laws_do():
    claim = printed_crossover(TOKENS_256, TOKENS_576, 1e15, 3e18)
    assert claim.value == pytest.approx(9.2e17, rel=0.02)
    assert claim.low is None or claim.low < claim.value


def test_the_fronts_of_points_on_the_laws_cross_there_too():
    flops = np.geomspace(1e15, 3e18, 25)
    parts = [
        pd.DataFrame({"family": law.name, "size": "XL", "tokenizer_seed": 0, "path_flops": flops,
                      "gfid": law.gfid(flops), "parameters_other": 1e8})
        for law in (TOKENS_256, TOKENS_576)
    ]  # fmt: skip
    cross = crossover(pd.concat(parts), TOKENS_256.name, TOKENS_576.name)
    assert cross.flops == pytest.approx(9.2e17, rel=0.03) and cross.expected_direction and cross.conditional


@pytest.mark.parametrize(("flops", "saving"), [(1e16, 1.01), (1e17, 1.34), (1e18, 1.78)])
def test_what_the_regulariser_saves_at_its_own_compute(flops, saving):
    claim = printed_multiplier(TOKENS_256, CRT, flops)
    assert claim.value == pytest.approx(saving, abs=0.006)
    assert claim.low < claim.value < claim.high


def test_rounding_leaves_the_multiplier_open_at_small_compute():
    claim = printed_multiplier(TOKENS_256, CRT, 1e16)
    assert claim.low < 1 < claim.high and "rounding of the printed coefficients" in claim.warning


def test_1k_against_131k_is_not_told_by_what_is_printed():
    """The text has a crossing near 1e17; the printed coefficients have none."""
    claim = printed_crossover(CODES_1K, CODES_131K, 1e15, 3e18)
    assert claim.value is None and "not told by the printed coefficients" in claim.warning


def test_full_precision_is_stable_and_a_floor_is_not_undercut():
    exact = [PrintedLaw(law.name, law.alpha, law.lam, law.floor, decimals=8) for law in (TOKENS_256, TOKENS_576)]
    claim = printed_crossover(*exact, 1e15, 3e18)
    assert claim.warning is None and claim.high / claim.low == pytest.approx(1, abs=1e-4)
    with pytest.raises(FitError, match=r"its floor is 2\.21"):
        TOKENS_256.flops_at(2.0)

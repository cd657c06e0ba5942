"""The expected error of a fit: the algebra of one row more against brute force, and simulation of what it promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.allocation.expected_error import Knowledge, Surroundings, misfit_covariance


def _around(number: int, targets: int = 2, others: int = 9, parameters: int = 3, noise: float = 0.02) -> Surroundings:
    random = np.random.default_rng((number, 0))
    count = targets + others
    logs = random.uniform(0, 5, (count, 2))
    misfit = misfit_covariance(logs, 0.03, 0.5)
    return Surroundings(random.standard_normal((parameters, count)), misfit, noise, np.full(parameters, 0.2), targets)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(0, 6), st.integers(1, 5))
def test_gains_and_updates_are_those_of_a_fit_anew(number: int, targets: int, rows: int, parameters: int) -> None:
    around = _around(number, targets, rows + 3, parameters)
    known = Knowledge.of(around, np.arange(targets, targets + rows))
    candidates = np.arange(targets + rows, targets + rows + 3)
    total = targets * known.error**2
    for candidate, gain in zip(candidates, known.gains(candidates), strict=True):
        anew = Knowledge.of(around, np.append(known.rows, candidate))
        updated = known.after(int(candidate))
        assert gain == pytest.approx(total - targets * anew.error**2, rel=1e-7, abs=1e-9 * total)
        assert updated.error == pytest.approx(anew.error, rel=1e-7)
        assert updated.smoother == pytest.approx(anew.smoother, rel=1e-6, abs=1e-9)


def test_the_error_is_that_of_fits_to_draws_of_law_misfit_and_noise() -> None:
    around, random = _around(1), np.random.default_rng(2)
    rows = np.arange(2, 9)
    known = Knowledge.of(around, rows)
    count = around.slopes.shape[1]
    coordinates = random.standard_normal((20_000, 3)) / np.sqrt(around.prior)
    truth = coordinates @ around.slopes + random.multivariate_normal(np.zeros(count), around.misfit, len(coordinates))
    seen = truth[:, rows] + np.sqrt(around.noise) * random.standard_normal((len(coordinates), len(rows)))
    off = seen @ known.smoother.T - truth[:, :2]
    assert known.error == pytest.approx(np.sqrt(np.mean(off**2)), rel=0.02)


def test_where_a_law_is_off_the_row_beside_the_target_tells_more_than_one_far_away() -> None:
    """A straight line through 0: without misfit the row at 10 fixes its slope best, with it the one at the target."""
    places = np.array([2.0, 10.0, 2.1, 0.5])
    for variance, best in ((0.0, 1), (1.0, 2)):
        misfit = misfit_covariance(places[:, None], variance, 0.1) + 1e-12 * np.eye(4)
        known = Knowledge.of(Surroundings(places[None], misfit, 0.01, np.array([1e-4]), 1), np.array([3]))
        candidates = np.array([1, 2])
        assert candidates[known.gains(candidates).argmax()] == best


def test_a_row_can_do_harm() -> None:
    """A fit that follows rows far from the target, where the law is off, predicts it worse than one without them."""
    places = np.array([1.0, 1.05, *np.linspace(8.0, 10.0, 6)])
    misfit = misfit_covariance(places[:, None], 1.0, 0.1)
    known = Knowledge.of(Surroundings(places[None], misfit, 1e-4, np.array([1e-6]), 1), np.array([1]))
    assert (known.gains(np.arange(2, 8)) < 0).all()

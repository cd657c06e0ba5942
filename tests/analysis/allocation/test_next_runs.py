"""Runs that are chosen: what a decision gains, dependencies, budgets, designs whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.allocation.next_runs import Option, choose, regret
from results.errors import UsageError

DRAWS = 4000


def _beliefs(means: list[float], sds: list[float]) -> np.ndarray:
    random = np.random.default_rng(0)
    return np.array(means) + np.array(sds) * random.standard_normal((DRAWS, len(means)))


def test_regret_of_two_normals_is_the_closed_form() -> None:
    values = _beliefs([0.0, 0.1], [0.1, 0.1])
    s, gap = 0.1 * math.sqrt(2), 0.1
    normal = math.exp(-0.5 * (gap / s) ** 2) / math.sqrt(2 * math.pi)
    below = 0.5 * math.erfc(gap / s / math.sqrt(2))
    assert regret(values) == pytest.approx(s * normal - gap * below, rel=0.08)


def test_rivals_of_the_best_are_measured_and_the_hopeless_are_not() -> None:
    values = _beliefs([0.0, 0.02, 2.0], [0.1, 0.1, 0.1])
    options = [Option(f"pair {i}", 1.0, (i,)) for i in range(3)]
    chosen = choose(options, values, values, np.full(3, 1e-6), budget=2.0)
    assert {c.option for c in chosen} == {0, 1}
    assert chosen[0].before > chosen[0].after >= chosen[1].after
    assert chosen[-1].after < 0.1 * chosen[0].before


def test_what_is_cheap_and_tells_as_much_comes_first() -> None:
    values = _beliefs([0.0, 0.0], [0.1, 0.1])
    options = [Option("dear", 10.0, (0,)), Option("cheap", 1.0, (1,))]
    assert choose(options, values, values, np.full(2, 1e-4), budget=20.0)[0].option == 1


def test_what_a_run_needs_is_paid_once() -> None:
    values = _beliefs([0.0, 0.0, 0.0], [0.1, 0.1, 0.1])
    options = [
        Option("a", 1.0, (0,), "tokenizer"),
        Option("b", 1.0, (1,), "tokenizer"),
        Option("c", 1.0, (2,), "other"),
    ]
    prices = {"tokenizer": 4.0, "other": 100.0}
    chosen = choose(options, values, values, np.full(3, 1e-4), budget=10.0, price_of_needs=prices)
    assert [c.cost for c in chosen] == [5.0, 1.0]
    assert choose(options, values, values, np.full(3, 1e-4), budget=4.9, price_of_needs=prices) == []


def test_variance_of_a_target_falls_by_what_is_correlated_with_it() -> None:
    random = np.random.default_rng(1)
    a, b = random.standard_normal((2, DRAWS))
    observed = np.column_stack([a, b])
    chosen = choose(
        [Option("a", 1.0, (0,)), Option("b", 1.0, (1,))], (a + 0.1 * b)[:, None], observed, np.full(2, 0.01),
        budget=1.5, criterion="variance",
    )  # fmt: skip
    assert [c.option for c in chosen] == [0]
    assert chosen[0].after == pytest.approx(0.02, abs=0.005)


@pytest.mark.parametrize(
    ("budget", "cost", "field"), [(0.0, 1.0, "budget"), (math.nan, 1.0, "budget"), (1.0, 0.0, "cost")]
)
def test_impossible_budgets_and_costs(budget: float, cost: float, field: str) -> None:
    values = _beliefs([0.0, 0.0], [1.0, 1.0])
    with pytest.raises(UsageError, match=f"{field} = .* is not allowed"):
        choose([Option("a", cost, (0,))], values, values, np.ones(2), budget)

"""Schedules: forks at the right place, continuous learning rates, exact totals."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.specification.ladder import transformer
from scaling.specification.spec import GeneratorRun, OptimiserSpec, TokenizerRun
from scaling.training.schedule import generator_learning_rate, segments, tokenizer_learning_rate

BATCH = 128


def run(budgets: list[int], schedule: str = "warmup-stable-decay") -> GeneratorRun:
    """A generator run over budgets given in steps."""
    return GeneratorRun(
        tokenizer=TokenizerRun(),
        transformer=transformer("XS"),
        optimiser=OptimiserSpec(learning_rate=1e-2, warmup_images=BATCH),
        train_images=tuple(b * BATCH for b in budgets),
        schedule=schedule,
    )


@given(st.lists(st.integers(10, 3000), min_size=1, max_size=6, unique=True))
def test_every_budget_is_reached_once_and_the_bill_adds_up(budgets: list[int]) -> None:
    spec = run(budgets)
    found = segments(spec)
    assert [s.end for s in found if s.evaluated] == sorted(b * BATCH for b in budgets)
    assert sum(s.end - s.start for s in found) == spec.executed_images
    trunk = [s for s in found if not s.decays]
    assert trunk[0].start == 0
    assert all(a.end == b.start for a, b in pairwise(trunk))
    for segment in found:
        if segment.decays:
            fork = segment.start
            assert fork <= max(s.end for s in trunk)
            assert 0.1 < (segment.end - fork) / segment.end < 0.3


def test_decay_starts_at_the_trunks_rate_and_ends_near_zero() -> None:
    spec = run([100, 200])
    trunk, decay, *_ = segments(spec)
    assert generator_learning_rate(spec, trunk, 0) == pytest.approx(1e-3)
    assert generator_learning_rate(spec, trunk, BATCH) == 1e-2
    assert generator_learning_rate(spec, decay, decay.start) == generator_learning_rate(spec, trunk, trunk.end) == 1e-2
    assert generator_learning_rate(spec, decay, decay.end - BATCH) < 4e-4
    assert generator_learning_rate(spec, decay, decay.end) == 0
    middle = decay.start + (decay.end - decay.start) // 4
    assert generator_learning_rate(spec, decay, middle) == pytest.approx(0.5e-2, rel=0.05)  # 1 - sqrt(1/4)


def test_cosine_is_one_segment_to_zero() -> None:
    spec = run([100], schedule="cosine")
    (only,) = segments(spec)
    assert only.evaluated and not only.decays
    rates = [generator_learning_rate(spec, only, images) for images in range(BATCH, only.end + 1, BATCH)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0, abs=1e-12)


def test_tokenizers_warm_up_hold_and_decay() -> None:
    spec = TokenizerRun(
        train_images=1000, batch_size=10, decay_fraction=0.4,
        optimiser=OptimiserSpec(learning_rate=1e-3, warmup_images=100),
    )  # fmt: skip
    assert tokenizer_learning_rate(spec, 0) == pytest.approx(1e-4)
    assert tokenizer_learning_rate(spec, 100) == tokenizer_learning_rate(spec, 600) == 1e-3
    assert tokenizer_learning_rate(spec, 700) == pytest.approx(0.5e-3)
    constant = spec.model_copy(update={"decay_fraction": 0.0})
    assert tokenizer_learning_rate(constant, 999) == 1e-3

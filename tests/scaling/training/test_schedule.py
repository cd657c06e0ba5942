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


def watched(schedule: str, places: tuple[int, ...]) -> GeneratorRun:
    """A run of 100 and 200 steps (cosine: 200) whose trunk is looked at after so many steps."""
    budgets = [200] if schedule == "cosine" else [100, 200]
    fields = run(budgets, schedule).model_dump() | {"evaluate_images": tuple(place * BATCH for place in places)}
    return GeneratorRun.model_validate(fields)


@pytest.mark.parametrize("schedule", ["warmup-stable-decay", "constant", "cosine"])
def test_looking_at_the_trunk_cuts_it_and_changes_nothing_else(schedule: str) -> None:
    plain, looked = watched(schedule, ()), watched(schedule, (30, 80, 120))
    assert plain.run_id == run([200] if schedule == "cosine" else [100, 200], schedule).run_id != looked.run_id
    interim = [segment for segment in segments(looked) if segment.interim]
    assert [segment.end for segment in interim] == [30 * BATCH, 80 * BATCH, 120 * BATCH]
    assert all(segment.evaluated and not segment.decays for segment in interim)

    def steps(spec: GeneratorRun) -> list[tuple[str, int, float]]:
        return [
            (segment.branch, images, generator_learning_rate(spec, segment, images))
            for segment in segments(spec) for images in range(segment.start, segment.end, BATCH)
        ]  # fmt: skip

    assert steps(looked) == steps(plain) and looked.executed_images == plain.executed_images
    budgets = [segment.end for segment in segments(looked) if segment.evaluated and not segment.interim]
    assert budgets == list(looked.train_images)


@pytest.mark.parametrize(
    ("schedule", "place", "end"), [("warmup-stable-decay", 161, 160), ("constant", 100, 200), ("cosine", 200, 200)]
)
def test_a_place_that_is_not_on_the_trunk_is_refused(schedule: str, place: int, end: int) -> None:
    with pytest.raises(ValueError, match=f"evaluate_images = {place * BATCH} is not allowed; .* up to {end * BATCH}"):
        watched(schedule, (place,))
    with pytest.raises(ValueError, match="evaluate_images = 5 is not allowed"):
        GeneratorRun.model_validate(run([200], schedule).model_dump() | {"evaluate_images": 5})

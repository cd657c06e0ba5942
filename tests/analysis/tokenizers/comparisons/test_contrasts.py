"""Contrasts: known paired effects recovered, pooled within seeds first, facets named, unpaired runs counted."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis.tokenizers.comparisons.contrasts import contrast, facets, mean_effect, regulariser_contrasts
from results.errors import FitError


def _pair(make_study, known, ratio=0.9, **options):
    """PLAIN and a regularised twin whose true gFID is `ratio` times as high."""
    base = known["plain"]
    twin = replace(base, regulariser_weight=0.5, rfid=1.2 * base.rfid)

    def truth(family, size, budget, flops):
        g = base.floor + base.data_term * budget**-1.05
        return g * (ratio if family.regulariser_weight else 1.0)

    options = {"sizes": ("S",), "tokenizer_noise": 0.0, "noise": 0.0} | options
    return make_study((base, twin), truth=truth, **options), base.label, twin.label


def test_known_effects_are_recovered_exactly_without_noise(make_study, known):
    study, base, twin = _pair(make_study, known, ratio=0.85)
    frames = study.frames()
    assert regulariser_contrasts(frames) == [(base, twin)]
    found = contrast(frames, base, twin)
    gfid = [e for e in (*found.per_budget, *found.pooled) if e.metric == "gfid"]
    assert len(gfid) == 5 + 1
    assert [e.estimate.value for e in gfid] == pytest.approx([0.85] * 6)
    assert gfid[-1].budget is None and gfid[-1].estimate.df == 2
    rfid = found.effect("rfid")
    assert rfid is not None and rfid.estimate.value == pytest.approx(1.2, rel=0.05)
    assert found.facets == ("regulariser",)
    assert found.tokenizer_flops_ratio == pytest.approx(1.03)
    assert found.stage2_flops_difference < 1e-12 and found.unpaired_runs == 0


def test_nats_are_a_difference_and_pooling_averages_within_seeds_first(make_study, known):
    study, base, twin = _pair(make_study, known)
    for row in study.evaluations:
        if row["metric"] == "nats_per_image":
            run = next(r for r in study.runs if r["run_id"] == row["run_id"])
            row["value"] = 80.0 - (4.0 + run["seed"] + row["images"] / 64_000) * bool(run["regulariser_weight"])
    effect = contrast(study.frames(), base, twin).effect("nats_per_image")
    budgets = np.mean([16, 32, 64, 128, 256]) / 64
    assert effect.estimate.per_seed == pytest.approx([-(4.0 + s + budgets) for s in (0, 1, 2)])
    assert effect.estimate.value == pytest.approx(-(5.0 + budgets))
    half = 4.302653 * 1.0 / math.sqrt(3)
    assert effect.estimate.high - effect.estimate.value == pytest.approx(half, rel=1e-5)


def test_unbalanced_budgets_pool_over_what_every_seed_has(make_study, known):
    study, base, twin = _pair(make_study, known)
    long = {r["run_id"] for r in study.runs if r["stage"] == "generator" and r["seed"] == 2}
    kept = [r for r in study.evaluations if not (r["run_id"] in long and r["images"] > 64_000)]
    lost = next(r["run_id"] for r in study.runs if r["generator"] and r["seed"] == 1 and r["regulariser_weight"])
    study.evaluations = [r for r in kept if not (r["run_id"] == lost and r["images"] == 16_000)]
    found = contrast(study.frames(), base, twin)
    assert found.unpaired_runs == 1
    budgets = {e.budget: len(e.estimate.seeds) for e in found.per_budget if e.metric == "gfid"}
    assert budgets == {16_000: 2, 32_000: 3, 64_000: 3, 128_000: 2, 256_000: 2}
    assert found.effect("gfid").estimate.seeds == (0, 1, 2)


def test_one_seed_is_conditional(make_study, known):
    study, base, twin = _pair(make_study, known, seeds=(0,))
    estimate = contrast(study.frames(), base, twin).effect("gfid").estimate
    assert estimate.conditional and estimate.low is None and "conditional on this tokenizer" in estimate.method


def test_coverage_of_the_pooled_effect_over_seeds():
    """Tokenizer shifts of 10 % on either side, gFID noise of 6 %, three seeds, two budgets: 95 % nominal, 300 draws."""
    random = np.random.default_rng(6)
    seeds, budgets = np.repeat([0, 1, 2], 2), np.tile([32_000, 128_000], 3)
    design = pd.DataFrame({"tokenizer_seed": seeds, "images": budgets, "size": "S", "parameters_other": 1e5})
    shifts = random.normal(0, 0.1 * math.sqrt(2), size=(300, 3))[:, seeds]
    logs = math.log(0.9) + shifts + random.normal(0, 0.06 * math.sqrt(2), size=(300, 6))
    found = [mean_effect(design.assign(effect=np.exp(row)), "gfid", "ratio", None, None).estimate for row in logs]
    assert {e.df for e in found} == {2}
    assert 0.92 <= np.mean([e.low <= 0.9 <= e.high for e in found]) <= 0.98


def test_families_that_differ_in_more_are_no_regulariser_contrast(make_study, known):
    frames = make_study((known["compressed"], known["regularised"]), sizes=("S",), seeds=(0,)).frames()
    assert regulariser_contrasts(frames) == []
    assert facets(frames, "K256-T16", "K4096-T16-crt0.5") == ("quantizer", "regulariser")
    with pytest.raises(FitError, match="no pair of runs"):
        contrast(frames, "K256-T16", "K4096-T16")

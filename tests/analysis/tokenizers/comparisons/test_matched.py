"""Tokenizers at matched rate or rFID, and several forms of a regulariser against one base."""

from __future__ import annotations

from dataclasses import replace

import pytest

from analysis.reporting.answer import answer
from analysis.reporting.tables.comparison_tables import _holm, forms_table, matched_table
from analysis.tokenizers.comparisons.matched import alike, matched_tokenizers


def _truth(ratios):
    def truth(family, size, budget, flops):
        gfid = family.floor + family.data_term * budget**-1.05
        return gfid * ratios.get(family.regulariser_weight or family.codebook_size, 1.0)

    return truth


def test_rate_and_rfid_are_matched_and_nothing_else(make_study, known):
    base = known["plain"]
    twin = replace(base, regulariser_weight=0.5, rfid=1.5 * base.rfid)
    # Half the codebook is another rate; its rFID is that of the base.
    smaller = replace(base, codebook_size=base.codebook_size // 4)
    truth = _truth({0.5: 0.8, smaller.codebook_size: 1.1})
    study = make_study((base, twin, smaller), truth=truth, noise=0.0, tokenizer_noise=0.0)
    frames = study.frames()
    families = list(frames.families["family"])
    pairs = {(pair.effect.base, pair.effect.treatment): pair for pair in matched_tokenizers(frames, families)}
    by_rfid = next(key for key in pairs if smaller.label in key)
    assert set(pairs) == {(base.label, twin.label), by_rfid}
    assert pairs[base.label, twin.label].matched == ("rate",)
    assert pairs[base.label, twin.label].effect.effect("gfid").estimate.value == pytest.approx(0.8, rel=0.05)
    assert pairs[base.label, twin.label].multiplier.estimate.value > 1.1
    assert set(by_rfid) == {base.label, smaller.label} and pairs[by_rfid].matched == ("rFID",)
    table = matched_table(frames)
    assert table is not None and list(table.data["matched"]) == [" and ".join(p.matched) for p in pairs.values()]


def test_the_bounds_of_a_match():
    assert alike(1.0, 1.02, 0.02) and alike(1.05, 1.0, 0.05)
    assert not alike(1.0, 1.03, 0.02)
    assert not alike(float("nan"), 1.0, 0.05)


def test_forms_of_a_regulariser_stand_side_by_side(make_study, known):
    base = known["plain"]
    forms = [replace(base, regulariser_weight=weight) for weight in (0.25, 0.5, 1.0)]
    study = make_study((base, *forms), truth=_truth({0.25: 0.95, 0.5: 0.8, 1.0: 1.3}), noise=0.01)
    table = forms_table(answer(study.frames()), "gFID")
    assert table is not None
    ratios = dict(zip(table.data["treatment"], table.data["gfid"], strict=True))
    expected = {form.label: ratio for form, ratio in zip(forms, (0.95, 0.8, 1.3), strict=True)}
    assert ratios == pytest.approx(expected, rel=0.1)
    assert (table.data["all_forms_p"] >= table.data["no_difference_p"]).all()
    lone = make_study((base, forms[1]), noise=0.01)
    assert forms_table(answer(lone.frames()), "gFID") is None


def test_holm_s_step_down():
    # The classical example: 0.01, 0.04, 0.03, 0.005 become 0.03, 0.06, 0.06, 0.02.
    facts = [{"base": "a", "no_difference_p": p} for p in (0.01, 0.04, 0.03, 0.005)]
    facts += [{"base": "b", "no_difference_p": 0.04}, {"base": "b", "no_difference_p": None}]
    _holm(facts)
    assert [f["all_forms_p"] for f in facts] == [*map(pytest.approx, (0.03, 0.06, 0.06, 0.02, 0.04)), None]

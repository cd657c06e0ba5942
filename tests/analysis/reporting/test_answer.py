"""The answer: right sentences for every outcome, honest about seeds and censoring, and the same as strict JSON."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from analysis.reporting import wording
from analysis.reporting.answer import answer
from analysis.reporting.sentences import headline
from analysis.tokenizers.compute import Compute
from analysis.tokenizers.measure import Measure
from analysis.tokenizers.seed_intervals import over_seeds


def test_the_demo_like_study_answers_all_three_questions(demo_like):
    found = answer(demo_like.frames())
    topics = [s.topic for s in found.statements if s.main]
    assert topics == ["compression", "regulariser", "pair", "pair", "pair"]
    first = found.sentences[0]
    assert "K256-T16, the more compressed, reconstructs worse than K4096-T16" in first
    assert "cross at" in first and "over 3 tokenizer seeds" in first and "by the law beyond the longest run" in first
    assert "At equal training images and size it is at 16k images" in first and "the output head takes" in first
    assert "nats per image by −" in found.sentences[1] and "gFID by a factor" in found.sentences[1]
    assert "rFID by a factor" in found.sentences[1]
    assert all("with probability" in s for s in found.sentences[2:])
    further = [s for s in found.statements if s.topic == "compression" and not s.main]
    alone = [s for s in further if "K256-T64" in s.text]
    assert len(alone) == 4 and all(("conditional on this tokenizer" in s.text) == s.conditional for s in alone)
    # Not a seed by seed comparison, but one that says whose variance it borrows.
    assert all(s.conditional or "K256-T64 with one seed borrowing their variance" in s.text for s in alone)


def test_json_is_strict_complete_and_repeatable(demo_like):
    frames = demo_like.frames()
    text = answer(frames).to_json()
    assert text == answer(demo_like.frames()).to_json()
    data = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert {"headline", "compression", "regulariser", "best_pairs", "compute_laws"} <= data.keys()
    crossing = data["compression"][0]["crossover"]
    assert crossing["seeds"] == [0, 1, 2] and len(crossing["interval"]) == 2
    assert {e["metric"] for e in data["regulariser"][0]["pooled"]} == {"gfid", "nats_per_image"}
    assert [round(sum(p["probability"] for p in b["pairs"]), 6) for b in data["best_pairs"]] == [1, 1, 1]


def _tilted(make_study, known, first=0.1, second=0.5, crossing=2e12, **options):
    """Two tokenizers whose gFID are power laws of compute that cross at `crossing`, at one size."""

    def truth(family, size, budget, flops):
        return (flops / crossing) ** -(first if family.codebook_size == 256 else second)

    options = {"sizes": ("S",), "tokenizer_noise": 0.02, "noise": 0.01} | options
    return make_study((known["compressed"], known["plain"]), truth=truth, **options)


def test_an_established_crossover_is_said_to_make_the_better_images(make_study, known):
    found = answer(_tilted(make_study, known, crossing=1.2e12).frames())
    cross = found.compression[0].crossover
    assert cross.established and cross.flops == pytest.approx(1.2e12, rel=0.25)
    assert found.headline.startswith("The tokenizer that reconstructs worse, K256-T16, makes the better images below")
    assert "do not establish" not in found.sentences[0]


def test_no_crossing_is_said_with_its_direction(make_study, known):
    found = answer(_tilted(make_study, known, crossing=1e16).frames())
    assert "no crossover with K4096-T16 in the measured range" in found.headline
    assert "K256-T16 is lower throughout, beyond the noise at every compute" in found.sentences[0]


def test_the_opposite_of_the_paper_is_said_as_plainly(make_study, known):
    found = answer(_tilted(make_study, known, first=0.5, second=0.1, crossing=1.2e12).frames())
    assert found.headline.startswith("Against expectation the less compressed tokenizer, K4096-T16")
    assert "the other way round" in found.sentences[0]


def test_a_tie_in_rfid_is_not_called_worse(make_study, known):
    same = replace(known["compressed"], rfid=known["plain"].rfid)
    frames = make_study((same, known["plain"]), sizes=("S",), tokenizer_noise=0.1).frames()
    assert "cannot be told apart by reconstruction" in answer(frames).sentences[0]


def test_censored_seeds_are_listed_with_the_statement_they_allow(make_study, known):
    study = _tilted(make_study, known, crossing=2.0e12, tokenizer_noise=0.12, seed=2)
    found = answer(study.frames())
    cross = found.compression[0].crossover
    assert {s.placement for s in cross.per_seed} > {"within"}, "the seed of this test must give a censored tokenizer"
    from analysis.reporting.sentences import seeds_sentence

    text = seeds_sentence(cross)
    assert "none up to" in text or "none down to" in text
    assert text.count("seed ") >= 3


def test_one_seed_says_so_everywhere_and_invents_no_probability(make_study, known):
    frames = make_study((known["compressed"], known["plain"], known["regularised"]), seeds=(0,)).frames()
    found = answer(frames)
    assert all(s.conditional for s in found.statements)
    assert "no interval: one seed" in found.sentences[0]
    assert "conditional on this tokenizer" in found.sentences[1]
    pairs = [s.text for s in found.statements if s.topic == "pair"]
    assert pairs and all("no probability of being best can be given" in text for text in pairs)


def test_no_regulariser_and_a_single_tokenizer_are_said(make_study, known):
    found = answer(make_study((known["plain"],), sizes=("S",)).frames())
    assert "one tokenizer without regulariser, K4096-T16" in found.sentences[0]
    assert "no two tokenizers differ in it alone" in found.sentences[1]
    assert "best pair measured is K4096-T16 + S" in found.headline


def test_sizes_run_on_one_seed_only_join_by_the_model(make_study, known):
    study = make_study((known["compressed"], known["plain"]))
    drop = {r["run_id"] for r in study.runs if r["generator"] in ("XS", "M") and r["seed"] > 0}
    for table in ("runs", "curves", "evaluations"):
        setattr(study, table, [r for r in getattr(study, table) if r["run_id"] not in drop])
    found = answer(study.frames())
    kinds = [(c.crossover.design.sizes, len(c.crossover.seeds)) for c in found.compression]
    assert kinds == [(("XS", "S", "M"), 3), (("S",), 3), (("XS", "S", "M"), 1)]
    assert "hierarchical model" in found.sentences[0]


def test_a_study_without_gfid_says_what_it_has(make_study, known, own_study):
    found = answer(make_study((known["plain"],), sizes=(), seeds=(0,)).frames())
    assert found.headline == "No gFID was measured, so no tokenizers are compared; 1 tokenizer finished."
    assert found.sentences == () and found.best_pairs == ()
    found = answer(own_study.frames())
    assert found.headline == "No gFID was measured; 12 runs of no stage finished and measured own_missed."
    assert found.sentences == (
        "own_missed ranges from 0.250 (net.depth = 2, width = 16) to 2.00 (net.depth = 1, width = 4) over 6 "
        "configurations, mean over 2 seeds each.",
    )
    assert json.loads(found.to_json())["statements"][0]["topic"] == "own"


def test_own_metrics_stand_beside_the_three_questions(make_study, known):
    study = make_study((known["compressed"], known["plain"]), sizes=("S",), seeds=(0,))
    ends = [row for row in study.evaluations if row["metric"] == "gfid" and row["guidance"] == 1.0]
    codes = {run["run_id"]: run["codebook_size"] for run in study.runs}
    study.evaluations += [row | {"metric": "own_score", "value": 1.0 * codes[row["run_id"]]} for row in ends]
    found = answer(study.frames())
    assert [s.topic for s in found.statements] == ["compression", "regulariser", "pair", "pair", "pair", "own"]
    assert found.sentences[-1] == (
        "own_score ranges from 256 (K256-T16 + S) to 4100 (K4096-T16 + S) over 2 configurations, mean over 1 seed each."
    )


def test_budgets_can_be_chosen_and_impossible_ones_are_noted(demo_like):
    found = answer(demo_like.frames(), budgets=(1e12, 1e3))
    assert [b.flops for b in found.best_pairs] == [1e12]
    assert any("no run was measured at 1e+03 FLOPs" in note for note in found.notes)


COUNTED = [Compute(total=True, generators=7), Compute(total=True), Compute(serve=1e6), Compute(total=True, serve=1e5)]


@pytest.mark.parametrize("compute", COUNTED, ids=lambda compute: compute.words.replace(" ", "-"))
def test_every_sentence_says_which_compute_it_counts(demo_like, compute):
    found = answer(demo_like.frames(compute=compute))
    said = [found.headline, *(s.text for s in found.statements)]
    assert len(said) > 6 and compute.words in found.headline
    for text in said:
        assert "training FLOPs" not in text and "not counted" not in text, text
        assert " FLOPs" not in text or f"FLOPs {compute.words}" in text, text
    crossings = [s.text for s in found.statements if "cross at" in s.text]
    assert all(re.search(rf"cross at \S+ FLOPs {re.escape(compute.words)}", text) for text in crossings)
    (regulariser,) = [s.text for s in found.statements if s.topic == "regulariser"]
    assert f"Compute multiplier at equal gFID, in FLOPs {compute.words}: " in regulariser
    counted = {True: ", counted in the multiplier.", False: ", left out of this."}[compute.total]
    counted = ", 1/7 of them counted in the multiplier." if compute.generators == 7 else counted
    assert counted in regulariser and regulariser.startswith("At equal training of the generator")


def test_without_options_sentences_speak_of_training_flops(demo_like):
    found = answer(demo_like.frames())
    assert " training FLOPs" in found.headline and "not counted in this." in found.sentences[1]
    assert found.sentences[1].startswith("At equal compute the causal") and "Counted in" not in found.sentences[0]


def test_a_headline_names_its_metric_where_it_is_another(make_study, known):
    guided = Measure.of(guidance="best")
    frames = make_study((known["plain"],), sizes=("S",)).frames(measure=guided)
    assert "the best pair measured by gFID at best guidance is K4096-T16 + S" in answer(frames).headline
    cross = answer(_tilted(make_study, known, crossing=1.2e12).frames())
    assert "makes the better images below" in cross.headline
    renamed = headline(cross.compression, cross.best_pairs, "KID")
    assert "K256-T16, has the lower KID below" in renamed and renamed.endswith("above, K4096-T16 has.")


def test_pairs_that_are_not_judged_are_noted(demo_like):
    found = answer(demo_like.frames())
    left = [b for b in found.best_pairs if b.not_judged]
    notes = [note for note in found.notes if note.startswith("Not judged at ")]
    assert left and len(notes) == len(left)
    for b, note in zip(left, notes, strict=True):
        assert wording.flops(b.flops) in note and all(f"{name}, {why} FLOPs" in note for name, why in b.not_judged[:6])


@pytest.mark.parametrize(
    ("value", "text"), [(0.8456, "0.846"), (12.345, "12.3"), (1234.5, "1230"), (0.0, "0"), (2.5e-6, "2.50e-6")]
)
def test_numbers_have_three_digits(value, text):
    assert wording.number(value) == text


def test_wording_of_intervals_and_amounts():
    assert wording.flops(6.14e12) == "6.1e12"
    assert wording.images(64_000) == "64k" and wording.images(1_310_000) == "1.31M"
    assert wording.percent(1.0) == "> 99 %" and wording.percent(0.001) == "< 1 %" and wording.percent(None) == "–"
    assert wording.signed(-3.0) == "−3.00"
    one = over_seeds({0: 2.0}, scale="ratio")
    assert "conditional on this tokenizer" in wording.seeds(one) and wording.span(one) == ""
    assert wording.listing(["a", "b", "c"]) == "a, b and c"

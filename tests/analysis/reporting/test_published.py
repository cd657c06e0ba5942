"""Published tables of tokenizer x generator: imported, and every answer reached; small ones of the same kinds."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from analysis.reporting.answer import Answer, answer
from analysis.tokenizers.comparisons.loss_ranking import loss_rankings
from analysis.tokenizers.comparisons.rate_optimum import rate_optima
from analysis.tokenizers.frames import load
from analysis.tokenizers.measure import Measure, selection_note
from results import Store
from results.errors import DataError, UsageError
from results.importing.importer import import_file
from sweeps.cli.app import app

STUDY = Path(__file__).parents[3] / "docs" / "studies" / "fashion"
DATA = Path(__file__).parents[3].parent / "shared" / "data" / "published"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data/published")
COLUMNS = {"guided": "guidance"}


def _imported(folder: Path, file: Path, **columns: str) -> Path:
    import_file(Store(folder), file, columns=COLUMNS | columns, keep=True)
    return folder


def _answer(folder: Path, **options: str) -> Answer:
    found = answer(load(folder, measure=Measure.of(**options)))
    text = " ".join([found.headline, *(s.text for s in found.statements)])
    assert "nan" not in text.lower().split() and " to 237" not in text
    assert "no interval: one seed" in text or not found.best_pairs
    return found


@needs_data
def test_llamagen_crosses_with_best_guidance_and_not_without(tmp_path):
    root = _imported(tmp_path, DATA / "llamagen.csv")
    best = _answer(root, guidance="best").compression[0]
    (law,) = [law for law in best.fitted_laws if law.floor == "free"]
    assert best.crossover.flops is None and best.crossover.conditional
    assert law.per_seed[0].flops == pytest.approx(4.6e20, rel=0.1)
    found = _answer(root, guidance="none")
    assert found.compression[0].crossover.flops is None
    assert "No crossover within the measured range: VQ16-256 is lower throughout" in found.sentences[0]
    assert any("too low" in note for note in _answer(root, guidance="best").notes)


@needs_data
def test_maskbit_has_an_inner_optimum_near_14_bits_with_a_wide_interval(tmp_path):
    root = _imported(tmp_path, DATA / "maskbit.csv")
    (optimum,) = rate_optima(load(root))
    assert optimum.inner and optimum.bits == pytest.approx(14, abs=0.5) and not optimum.repeated
    assert (optimum.high or 18) - (optimum.low or 10) > 2
    assert "inner optimum near 14" in _answer(root).sentences[0]


@needs_data
def test_gear_has_no_one_multiplier(tmp_path):
    (multiplier,) = _answer(_imported(tmp_path, DATA / "gear.csv")).compute_multiplier
    levels, values = multiplier.along
    at = {level: float(values[abs(levels - level).argmin()]) for level in (16.96, 8.66, 8.2)}
    assert at[16.96] == pytest.approx(1.5, abs=0.1) and at[8.66] == pytest.approx(2.1, abs=0.1)
    assert at[8.2] == pytest.approx(1.7, abs=0.25)
    assert multiplier.no_difference is None and multiplier.band is None


@needs_data
def test_nestok_s_lowest_cross_entropy_has_the_worst_images(tmp_path):
    root = _imported(tmp_path, DATA / "nestok.csv", nats_per_token_at_256="nats_per_token")
    rankings = {r.lowest_loss: r for r in loss_rankings(load(root))}
    worst = rankings["nested-dropout-256"]
    assert (worst.place, len(worst.families), worst.best) == (4, 4, "alignment-256")
    with pytest.raises(UsageError, match="only at matched rate"):
        answer(load(root, measure=Measure.of("nats_per_token")))


@needs_data
def test_dit_s_more_tokens_are_never_shown_worse(tmp_path):
    found = _answer(_imported(tmp_path, DATA / "dit.csv"))
    assert len(found.compression) == 3
    for compression in found.compression:
        cross = compression.crossover
        assert cross.flops is None or cross.slight is not None
        assert cross.lower_after == cross.second, "the one with more tokens"


TABLE = """tokenizer,codebook_size,tokens_per_image,generator,path_flops,guided,rfid,gfid
A,1024,16,S,1e18,best,3.0,9.0
A,1024,16,S,1e18,none,3.0,20.0
A,1024,16,S,1e19,best,3.0,6.0
B,1024,64,S,1e18,best,2.0,12.0
B,1024,64,S,1e19,best,2.0,4.0
"""


def test_guidance_in_words(tmp_path):
    (tmp_path / "table.csv").write_text(TABLE)
    root = _imported(tmp_path / "root", tmp_path / "table.csv")
    assert load(root).measure.guidance == "none" and len(load(root).ranked) == 1
    best = load(root, measure=Measure.of(guidance="best"))
    assert sorted(best.ranked["gfid"]) == [4.0, 6.0, 9.0, 12.0] and best.measure.name == "gFID at best guidance"
    assert not best.floor_is_comparable
    with pytest.raises(DataError, match=r"guidance = 1.5: gfid was not measured so; measured: 1, best"):
        load(root, measure=Measure.of(guidance="1.5"))
    with pytest.raises(DataError, match=r"nats_per_image was not measured so; measured: none$"):
        load(STUDY, measure=Measure.of("nats_per_image", guidance="1.5"))
    with pytest.raises(UsageError, match="allowed: none, best, or a scale"):
        Measure.of(guidance="some")
    with pytest.raises(UsageError, match="does not fall with quality"):
        Measure.of("psnr")
    with pytest.raises(DataError, match="extractor = 'inception' measured nothing here"):
        load(root, measure=Measure.of(extractor="inception"))


def test_best_guidance_of_what_was_never_guided_is_refused(tmp_path):
    (tmp_path / "table.csv").write_text(
        TABLE.replace(",best,", ",none,").replace("A,1024,16,S,1e18,none,3.0,9.0\n", "")
    )
    root = _imported(tmp_path / "root", tmp_path / "table.csv")
    with pytest.raises(DataError, match="gfid was measured without guidance only; allowed: none"):
        load(root, measure=Measure.of(guidance="best"))
    assert load(root, measure=Measure.of(guidance="none")).measure.name == "gFID"
    with pytest.raises(DataError, match="gfid was measured without guidance only; allowed: none"):
        load(STUDY, measure=Measure.of(guidance="best"))


def test_a_value_at_the_only_scale_measured_is_not_called_tuned(tmp_path):
    def note(text: str) -> str | None:
        (folder := tmp_path / str(len(list(tmp_path.iterdir())))).mkdir()
        (folder / "table.csv").write_text(text)
        frames = load(_imported(folder / "root", folder / "table.csv"), measure=Measure.of(guidance="best"))
        return selection_note(frames.measure, frames.ranked)

    tuned = note(TABLE)
    assert tuned is not None and tuned.startswith("Each value is at a scale that its authors tuned, as in arXiv")
    some = note(TABLE.replace("1e19,best,2.0", "1e19,none,2.0"))
    assert some is not None and some.startswith(
        "1 of 4 values are at the one scale that was measured of them; each other one is at a scale that its authors"
    )
    scales = note(TABLE.replace(",best,", ",1.5,"))
    assert scales is not None and scales.startswith("3 of 4 values are") and "the lowest of up to 2 scales" in scales
    single = note(TABLE.replace(",best,", ",1.5,").replace("A,1024,16,S,1e18,none,3.0,20.0\n", ""))
    assert single == "No guidance was chosen: each value is at the one scale that was measured of it"


@needs_data
@pytest.mark.parametrize("table", ["gear", "dit"])
def test_published_tables_without_guidance_refuse_the_best(tmp_path, table):
    root = _imported(tmp_path, DATA / f"{table}.csv")
    with pytest.raises(DataError, match="without guidance only"):
        load(root, measure=Measure.of(guidance="best"))


@needs_data
def test_a_headline_says_that_its_pair_is_known_by_its_law_alone(tmp_path):
    assert _answer(_imported(tmp_path / "gear", DATA / "gear.csv")).headline == (
        "At 3.8e20 training FLOPs the best pair is, by its law, VQ16-end-to-end + L, gFID 7.30: an extrapolation, 1.9 "
        "times beyond its longest run."
    )
    nestok = _imported(tmp_path / "nestok", DATA / "nestok.csv", nats_per_token_at_256="nats_per_token")
    assert "by its law, alignment-128 + B, gFID at best guidance 1.90: an" in _answer(nestok).headline


def test_a_published_table_is_answered_without_nan_or_made_up_intervals(tmp_path):
    (tmp_path / "table.csv").write_text(TABLE)
    root = _imported(tmp_path / "root", tmp_path / "table.csv")
    done = CliRunner().invoke(app, ["optimum", str(root), "--flops", "5e18", "--guidance", "best"])
    assert done.exit_code == 0, done.output
    assert "no interval: one seed" in done.stdout and "nan" not in done.stdout.lower()
    assert "gFID at best guidance" in done.stdout and "too low" in done.stdout
    cross = _answer(root, guidance="best").compression[0].crossover
    assert cross.flops is not None and cross.band is None and cross.slight is None

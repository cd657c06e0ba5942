"""Published tables of tokenizer x generator: imported, and every answer reached; small ones of the same kinds."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from analysis.reporting.answer import Answer, answer
from analysis.tokenizers.comparisons.loss_ranking import loss_rankings
from analysis.tokenizers.comparisons.rate_optimum import rate_optima
from analysis.tokenizers.frames import load
from analysis.tokenizers.measure import Measure
from results import Store
from results.errors import DataError, UsageError
from results.importing.importer import import_file
from sweeps.cli.app import app

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
    with pytest.raises(UsageError, match="allowed: none, best, or a scale"):
        Measure.of(guidance="some")
    with pytest.raises(UsageError, match="does not fall with quality"):
        Measure.of("psnr")
    with pytest.raises(DataError, match="extractor = 'inception' measured nothing here"):
        load(root, measure=Measure.of(extractor="inception"))


def test_a_published_table_is_answered_without_nan_or_made_up_intervals(tmp_path):
    (tmp_path / "table.csv").write_text(TABLE)
    root = _imported(tmp_path / "root", tmp_path / "table.csv")
    done = CliRunner().invoke(app, ["optimum", str(root), "--flops", "5e18", "--guidance", "best"])
    assert done.exit_code == 0, done.output
    assert "no interval: one seed" in done.stdout and "nan" not in done.stdout.lower()
    assert "gFID at best guidance" in done.stdout and "too low" in done.stdout
    cross = _answer(root, guidance="best").compression[0].crossover
    assert cross.flops is not None and cross.band is None and cross.slight is None

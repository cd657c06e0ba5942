"""Figures of the committed study: their numbers, fonts, sizes of text and free labels; and what no study has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection
from matplotlib.image import imread, imsave

from analysis.reporting import wording
from analysis.reporting.answer import answer
from analysis.reporting.figures import thinning
from analysis.reporting.figures.drawing import style
from analysis.reporting.figures.drawing.labels import visible_texts
from analysis.reporting.figures.drawing.page import _wrapped
from analysis.reporting.figures.gallery import GALLERY, draw, drawn, write_figures
from analysis.reporting.figures.registry import Evidence, NotDrawn, figure, from_file, plot_of
from analysis.reporting.latex import caption_text, with_amounts
from analysis.tokenizers.frames import load
from results.errors import UsageError

FASHION = Path(__file__).parents[3] / "docs" / "studies" / "fashion"
GOLDEN = Path(__file__).with_name("golden_figures.json")
"""Of each figure of the committed study: how many rows it shows, their columns, and the means of those with numbers.
`python -m tests.analysis.reporting.test_figures` writes it anew."""
PAPERS = ("neurips", "cvpr", "icml")


def digest(rows: pd.DataFrame) -> dict[str, object]:
    """What a golden file keeps of the rows of a figure."""
    numbers = rows.select_dtypes("number").astype(float)
    means = {str(name): float(f"{mean:.8g}") for name, mean in numbers.mean().items() if np.isfinite(mean)}
    return {"rows": len(rows), "columns": list(map(str, rows.columns)), "means": means}


def digests(evidence: Evidence) -> dict[str, object]:
    """The digest of every figure that the study supports, and the reason of every one that it does not."""
    kept: dict[str, object] = {}
    for name, plot in GALLERY.items():
        try:
            kept[name] = digest(plot.of_study(evidence).rows)
        except NotDrawn as reason:
            kept[name] = str(reason)
    return kept


@pytest.fixture(scope="module")
def fashion() -> Evidence:
    return Evidence.of(load(FASHION))


@pytest.fixture(scope="module")
def full(demo_like) -> Evidence:
    return Evidence.of(demo_like.frames())


def test_rows_of_every_figure_are_those_of_the_golden_file(fashion):
    golden = json.loads(GOLDEN.read_text())
    now = digests(fashion)
    assert list(now) == list(golden)
    for name, kept in golden.items():
        if isinstance(kept, str):
            assert now[name] == kept, name
            continue
        assert {k: now[name][k] for k in ("rows", "columns")} == {k: kept[k] for k in ("rows", "columns")}, name
        assert now[name]["means"] == pytest.approx(kept["means"], rel=1e-5), name


def test_no_front_rises(fashion, full):
    for evidence in (fashion, full):
        for name, metric in (("gfid-compute", "gfid"), ("compute-gfid", "gfid"), ("compute-loss", "nats_per_token")):
            rows = GALLERY[name].of_study(evidence).rows
            for _, line in rows[rows["kind"] == "front"].groupby("family"):
                assert len(line) > 2 and (np.diff(line[metric]) <= 0).all(), name


def test_numbers_in_the_figure_are_those_of_the_answer(fashion):
    best = fashion.answer.best_pairs
    result = draw(GALLERY["best-pair"], fashion, "neurips")
    rows = result.shown.rows
    assert rows["gfid"].tolist() == [pair.gfid for b in best for pair in b.pairs[:5]]
    texts = [text.get_text() for text in visible_texts(result.figure)]
    for b in best:
        assert f"{b.best.name}   {wording.percent(b.best.probability)}" in texts
    assert all("0 %" not in text.split("   ")[-1].split() for text in texts if text.endswith(" 0 %"))
    cross = fashion.answer.compression[0].crossover
    result = draw(GALLERY["gfid-compute"], fashion, "neurips")
    top, bottom = result.figure.axes
    dotted = [line.get_xdata()[0] for axis in (top, bottom) for line in axis.lines if line.get_linestyle() == ":"]
    assert dotted == [cross.flops, cross.flops] and result.shown.fit["crossover"] == cross.to_dict()
    assert wording.flops(cross.flops) in result.caption


def test_what_was_never_run_and_what_is_extrapolated_stands_in_the_figure(fashion):
    for name, words in (
        ("gfid-compute", "Never run: K1024-T16-crt0.25 + XS"),
        ("best-pair", "Hollow: beyond the pair's longest run"),
        ("best-tokenizer", "Hatched: extrapolated"),
        ("worse-is-better", "lowest at this compute"),
    ):
        texts = " ".join(" ".join(t.get_text().split()) for t in visible_texts(draw(GALLERY[name], fashion).figure))
        assert words in texts, name


def _faults(evidence: Evidence, look: str, columns: int, names: list[str]) -> list[str]:
    faults = []
    for name in names:
        try:
            result = draw(GALLERY[name], evidence, look, columns, check=True)
        except NotDrawn:
            continue
        faults += [f"{name}: {trouble}" for trouble in result.troubles]
        small = {t.get_text() for t in visible_texts(result.figure) if t.get_fontsize() < style.LEAST_POINTS}
        faults += [f"{name}: small text {text!r}" for text in small]
        if look in PAPERS:
            titles = [axis.get_title(loc="left") for axis in result.figure.axes] + [result.figure.get_suptitle()]
            faults += [f"{name}: title {t!r}" for t in titles if t and not re.match(r"\([a-p]\)", t)]
        assert result.figure.get_figwidth() == style.STYLES[look].widths[columns - 1]
    return faults


def test_texts_neither_overlap_nor_are_cut_nor_small(fashion):
    names = ["worse-is-better", "best-pair", "gfid-compute", "compute-gfid", "regulariser", "memorisation"]
    assert _faults(fashion, "neurips", 2, names) == []


@pytest.mark.slow
@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize("look", list(style.STYLES))
def test_texts_of_every_figure_in_every_style(fashion, full, look, columns):
    assert _faults(fashion, look, columns, list(GALLERY)) == []
    if columns == 1 and look in ("neurips", "talk"):  # The narrowest, and the largest letters.
        assert _faults(full, look, columns, list(GALLERY)) == []


def test_pdf_has_its_fonts_embedded_and_none_of_type_3(fashion, tmp_path):
    content = style.image_bytes(draw(GALLERY["gfid-compute"], fashion, "neurips").figure, "pdf", "neurips")
    assert b"/FontFile2" in content and b"/Type3" not in content
    assert {b"CIDFontType2", b"Type0"} <= set(re.findall(rb"/Subtype /(\w+)", content))
    assert b"STIXGeneral" in content
    if shutil.which("pdffonts"):
        path = tmp_path / "figure.pdf"
        path.write_bytes(content)
        listed = subprocess.run(["pdffonts", str(path)], capture_output=True, text=True, check=True).stdout
        fonts = listed.splitlines()[2:]
        assert fonts and all("CID TrueType" in font and " yes yes" in font for font in fonts)


def test_colours_and_dashes_tell_tokenizers_apart_in_grey(full):
    palette = full.palette
    dashes = [str(palette.dashes[family]) for family in palette.colours]
    assert len(set(dashes)) == len(dashes) and len(set(palette.markers.values())) == len(palette.markers)
    greys = [0.299 * r + 0.587 * g + 0.114 * b for r, g, b, _ in palette.shades.values()]
    assert np.all(np.diff(greys) < -0.05)


@pytest.mark.slow
def test_every_figure_of_a_full_study_is_drawn_and_holds_ink(full, tmp_path):
    absent = {"own-metrics", "tokens-overlay", "codebook-overlay", "entropy-by-position", "loss-by-position"}
    absent |= {"depth-ablation", "data-size", "reconstructions", "samples", "tokenizer-losses"}
    for name in set(GALLERY) - absent:
        path = tmp_path / "picture.png"
        path.write_bytes(style.image_bytes(draw(GALLERY[name], full).figure, "png"))
        dark = (imread(path)[..., :3] < 0.9).any(axis=2)
        h, w = (n // 2 for n in dark.shape)
        shares = [quarter.mean() for quarter in (dark[:h, :w], dark[:h, w:], dark[h:, :w], dark[h:, w:])]
        assert min(shares) > 0.001, f"{name}: an empty quarter: {shares}"


def test_own_metrics_are_drawn_by_the_setting_with_the_fewest_values(own_study):
    frames = own_study.frames()
    figures = dict(drawn(frames, answer(frames)))
    assert list(figures) == ["training", "own-metrics"]
    (axis,) = figures["own-metrics"].axes
    assert [text.get_text() for text in figures["own-metrics"].legends[0].get_texts()] == [
        "net.depth = 1",
        "net.depth = 2",
    ]
    assert [line.get_xdata().tolist() for line in axis.lines] == [[400, 800, 1600], [800, 1600, 3200]]
    assert [len(dots.get_offsets()) for dots in axis.collections] == [6, 6]


def test_the_loss_by_position_is_that_of_each_runs_longest_budget(make_study, known):
    study = make_study((known["plain"], known["compressed"]), sizes=("S",), seeds=(0, 1))
    generators = [row for row in study.runs if row["stage"] == "generator"]
    for run in generators:
        for images, worse in ((1000, 1.0), (64000, 0.0)):
            at = {"run_id": run["run_id"], "attempt": 1, "branch": f"decay@{images}", "step": images // 128,
                  "images": images, "tokens": None, "flops": None, "split": "validation"}  # fmt: skip
            study.curves += [at | {"term": f"nats_at_{p}", "value": 4.0 + worse - 0.1 * p} for p in range(12)]
    evidence = Evidence.of(study.frames())
    rows = GALLERY["loss-by-position"].of_study(evidence).rows
    assert len(rows) == 12 * len(generators) and set(rows["branch"]) == {"decay@64000"}
    assert rows["value"].to_numpy() == pytest.approx(4.0 - 0.1 * rows["position"].to_numpy())
    (axis,) = draw(GALLERY["loss-by-position"], evidence).figure.axes
    assert [len(line.get_xdata()) for line in axis.get_lines()] == [12, 12]


@pytest.mark.parametrize("form", ["svg", "pdf"])
def test_the_same_study_gives_the_same_bytes(fashion, form):
    one, two = (style.image_bytes(draw(GALLERY["best-pair"], fashion).figure, form) for _ in range(2))
    assert one == two


def test_a_study_without_the_data_has_no_such_figure(make_study, known):
    study = make_study((known["plain"],), sizes=("S",), seeds=(0,))
    study.curves = []
    study.evaluations = [r for r in study.evaluations if r["metric"] in ("gfid", "rfid")]
    frames = study.frames()
    assert [name for name, _ in drawn(frames, answer(frames))] == ["best-pair", "gfid-compute"]
    evidence = Evidence.of(frames)
    for name, reason in (
        ("worse-is-better", "needs the rFID of two tokenizers; known of 1"),
        ("compute-loss", "nats_per_token is known of no row"),
        ("training", "the study has no training curves"),
        ("regulariser", "no two of its tokenizers differ in the regulariser alone"),
        ("joint-law", "the joint law needs 8 points"),
        ("samples", "no picture of a generator lies beside its rows"),
    ):
        with pytest.raises(NotDrawn, match=reason):
            GALLERY[name].of_study(evidence)


def test_figures_are_written_with_rows_fit_and_caption(fashion, tmp_path):
    names = ["extrapolation-check", "samples"]
    written = write_figures(fashion.frames, tmp_path, style="cvpr", formats=("pdf", "svg"), names=names, columns=1)
    assert written.not_drawn.keys() == {"samples"} and written.troubles == {}
    files = {path.suffix: path for path in written.paths["extrapolation-check"]}
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(path.name for path in files.values())
    width = float(re.search(r'width="([0-9.]+)pt"', files[".svg"].read_text())[1])
    assert width == pytest.approx(3.25 * 72)
    rows, document = pd.read_csv(files[".csv"]), json.loads(files[".json"].read_text())
    logs = np.log(rows["predicted"] / rows["gfid"])
    assert document["fit"]["rmsle"] == pytest.approx(np.sqrt((logs**2).mean())) and document["columns"] == list(rows)
    caption = files[".txt"].read_text()
    error = f"{100 * (np.exp(document['fit']['rmsle']) - 1):.2g} %"
    assert error in caption and error.replace("%", r"\%") in files[".tex"].read_text()
    assert files[".tex"].read_text().startswith("\\begin{figure}\n")


def test_joint_law_hides_each_tokenizer_whole_and_every_largest_budget(fashion):
    shown = GALLERY["joint-law"].of_study(fashion)
    points = fashion.points
    whole = shown.rows[shown.rows["case"] == "a tokenizer, floor measured"]
    ends = shown.rows[shown.rows["case"] == "the largest compute"]
    for family, own in whole.groupby("family"):
        assert len(own) == (points["family"] == family).sum()
    largest = points["images"] == points.groupby(["family", "size"])["images"].transform("max")
    assert sorted(ends["gfid"]) == sorted(points.loc[largest, "gfid"])
    assert (shown.rows["low"] < shown.rows["predicted"]).all() and (shown.rows["predicted"] < shown.rows["high"]).all()
    for case, own in shown.rows.groupby("case"):
        error = np.sqrt((np.log(own["predicted"] / own["gfid"]) ** 2).mean())
        assert shown.fit[case]["rmsle"] == pytest.approx(error) and error < 0.25


def test_joint_law_is_drawn_from_its_table(fashion):
    table = GALLERY["extrapolation-check"].of_study(fashion).rows
    evidence = Evidence(fashion.frames, fashion.answer, tables={"joint-law": table})
    assert len(draw(GALLERY["joint-law"], evidence).shown.rows) == len(table)
    short = Evidence(fashion.frames, fashion.answer, tables={"joint-law": table.drop(columns="low")})
    with pytest.raises(NotDrawn, match="no column low"):
        GALLERY["joint-law"].of_study(short)


def test_sheets_show_pictures_of_the_runs(fashion, tmp_path):
    runs = fashion.frames.runs
    paths = {}
    for i, run_id in enumerate(runs["run_id"]):
        paths[run_id] = tmp_path / f"{i}.png"
        imsave(paths[run_id], np.random.default_rng(i).random((16, 64)), cmap="gray")
    evidence = Evidence(fashion.frames, fashion.answer, pictures=paths)
    result = draw(GALLERY["reconstructions"], evidence, "neurips", check=True)
    assert result.shown.rows["family"].tolist() == ["K16-T16", "K1024-T16", "K1024-T16-crt0.25"]
    assert result.shown.rows["seed"].tolist() == [0, 0, 0] and result.troubles == ()
    assert len(draw(GALLERY["samples"], evidence).figure.axes) == 5


OWN = '''
from analysis.reporting.figures.registry import figure

@figure(needs=("gfid", "parameters_other"))
def quality_by_size(rows, page):
    """gFID against parameters.

    More words.
    """
    axis = page.axes()
    axis.loglog(rows["parameters_other"], rows["gfid"], "o")
    return axis

def forgets(rows, page):
    page.axes()
'''


def test_a_figure_of_ones_own(fashion, tmp_path):
    file = tmp_path / "own.py"
    file.write_text(OWN)
    written = write_figures(fashion.frames, tmp_path / "out", names=[f"{file}:quality_by_size"])
    assert (tmp_path / "out" / "quality-by-size.txt").read_text() == "gFID against parameters.\n"
    assert len(pd.read_csv(tmp_path / "out" / "quality-by-size.csv")) == len(fashion.frames.ranked)
    assert list(written.paths) == ["quality-by-size"]
    with pytest.raises(UsageError, match="returned no axes"):
        draw(from_file(f"{file}:forgets"), fashion)
    with pytest.raises(UsageError, match="has no function nothing; it has: quality_by_size, forgets"):
        from_file(f"{file}:nothing")
    with pytest.raises(UsageError, match="there is no file"):
        from_file("absent.py:f")
    with pytest.raises(UsageError, match="of = 'rows' is no table of a study"):
        figure(of="rows")
    with pytest.raises(NotDrawn, match="own_score is known of no row"):
        plot_of(figure(needs=("own_score",))(lambda rows, page: None)).of_study(fashion)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"style": "nature"}, "style = 'nature' is unknown; allowed: report, neurips"),
        ({"formats": ("gif",)}, "format = 'gif' is unknown; allowed: pdf, png, svg"),
        ({"names": ["nothing"]}, "figure = 'nothing' is unknown; allowed: worse-is-better"),
        ({"names": ["best-pair"], "columns": 3}, "columns = 3 is not allowed; allowed: 1, 2"),
    ],
)
def test_wrong_options_are_named(fashion, tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        write_figures(fashion.frames, tmp_path, **options)


def test_amounts_in_captions():
    assert caption_text("at 6.1e12 FLOPs, K1e5x") == "at 6.1 × 10¹² FLOPs, K1e5x"
    assert with_amounts("5 % at 6.1e12_") == r"5 \% at 6.1e12\_"
    assert with_amounts("5 % at 6.1e12") == r"5 \% at $6.1\times10^{12}$"


def test_settings_do_not_leak(fashion):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    style.svg(draw(GALLERY["best-pair"], fashion).figure)
    assert dict(mpl.rcParams) == before


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(digests(Evidence.of(load(FASHION))), indent=1, ensure_ascii=False) + "\n")


def test_of_very_many_runs_fewer_marks_are_drawn_and_the_figure_says_so(fashion, monkeypatch):
    whole = draw(GALLERY["gfid-compute"], fashion)
    monkeypatch.setattr(thinning, "MOST_MARKS", 20)
    few = draw(GALLERY["gfid-compute"], fashion)

    def marks(drawing):
        dots = [d for axis in drawing.figure.axes for d in axis.collections if isinstance(d, PathCollection)]
        return np.concatenate([d.get_offsets()[:, 1] for d in dots])

    count = len(fashion.points)
    assert len(marks(whole)) == count and len(marks(few)) == 20
    assert marks(few).min() == marks(whole).min() and marks(few).max() == marks(whole).max()
    note = f"Marks: 20 of {count} measurements, evenly along the vertical axis; the data has all."
    assert note in " ".join(text.get_text().replace("\n ", "") for text in few.figure.texts).replace("  ", " ")
    assert len(few.shown.rows) == len(whole.shown.rows)


def test_a_title_breaks_between_words_never_within_mathematics():
    title = r"At $5.6\!\times\!10^{10}$ FLOPs of training"
    assert _wrapped(title, 12) == "At $5.6\\!\\times\\!10^{10}$\nFLOPs of\ntraining"


@pytest.mark.parametrize("name", ["best-pair", "compute-gfid", "rate-distortion"])
def test_long_names_of_tokenizers_stay_in_their_figure(name: str) -> None:
    """Ten forms of a regulariser have names that differ at their ends only; none may press a panel together."""
    frames = load(FASHION.parent / "fashion-crt")
    result = draw(GALLERY[name], Evidence(frames, answer(frames)), "report", check=True)
    assert result.troubles == ()
    assert all(axis.get_position().width > 0.15 for axis in result.figure.axes)

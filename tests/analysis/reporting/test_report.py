"""The report: valid, self-contained HTML that begins with the answer, opens in a browser, is replaced atomically."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imsave

from analysis.reporting.answer import answer
from analysis.reporting.markup import inline_svg, scientific
from analysis.reporting.report import write_report
from analysis.reporting.tables.all_tables import all_tables
from results.errors import StoreError

VOID = {"meta", "br", "img", "hr", "input", "link", "area", "base", "col", "embed", "source", "track", "wbr"}


class _Page(HTMLParser):
    """Checks nesting and collects ids, links, sources, tags and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.sources: list[str] = []
        self.references: list[str] = []
        self.tags: set[str] = set()
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        for key, value in attrs:
            if key == "id":
                self.ids.append(value)
            elif key in ("src", "srcset", "data", "action", "poster"):
                self.sources.append(value)
            elif key in ("href", "xlink:href"):
                self.references.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes <{self.open[-1] if self.open else 'nothing'}>"
        self.open.pop()

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words)).replace("\xa0", " ")


@pytest.fixture(scope="module")
def written(demo_like, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    frames = demo_like.frames()
    random = np.random.default_rng(0)
    previews = {}
    for i, (run_id, stage) in enumerate(zip(frames.runs["run_id"], frames.runs["stage"], strict=True)):
        path = folder / f"{i}.png"
        imsave(path, random.integers(0, 255, (16 if stage == "tokenizer" else 48, 80)).astype(np.uint8), cmap="gray")
        previews[run_id] = path
    facts = {"command": "tokenlaw demo", "machine": "2 cores <no GPU>"}
    report = write_report(frames, folder / "out", title="A study & its answer", previews=previews, facts=facts)
    return frames, report, previews


def test_the_page_is_well_formed_and_begins_with_the_answer(written):
    _, report, _ = written
    page = _Page(report.index.read_text())
    assert page.open == []
    assert len(page.ids) == len(set(page.ids)), "ids of the drawings must not clash"
    body = page.text
    assert body.index("reconstructs worse") < body.index("Tokenizers")
    for topic in ("Which tokenizer at which compute", "What the causal regulariser changes", "What to train together"):
        assert topic in body
    assert "2 cores <no GPU>" in body and "A study & its answer" in body


def test_the_page_needs_nothing_from_outside(written):
    _, report, _ = written
    text = report.index.read_text()
    page = _Page(text)
    assert not page.tags & {"link", "iframe", "object", "embed", "base"}
    assert all(source.startswith("data:image/png;base64,") for source in page.sources) and page.sources
    inner = {f"#{i}" for i in page.ids}
    assert all(r in inner for r in page.references), set(page.references) - inner
    assert not re.search(r"<script[^>]*\bsrc=", text)
    assert "@import" not in text and not re.search(r"url\((?!#)", text)


def test_every_sentence_of_the_answer_is_on_the_page(written):
    _, report, _ = written
    text = _Page(report.index.read_text()).text
    for sentence in report.answer.sentences:
        plain = re.sub(r"(\d(?:\.\d+)?)e(-?)(\d+)", lambda m: f"{m[1]} × 10{'−' if m[2] else ''}{int(m[3])}", sentence)
        assert plain in text


def test_previews_are_shown_once_a_tokenizer_and_pair_with_their_scores(written):
    frames, report, previews = written
    text = report.index.read_text()
    families, pairs = frames.families["family"].nunique(), len(frames.points.groupby(["family", "size"]))
    assert text.count('src="data:image/png;base64,') == families + pairs < len(previews)
    assert re.search(r"K4096-T16 \+ M, seed 0\.0, 256k images, gFID 0\.\d+", text)


def test_neighbours_are_folded_away_and_other_pictures_keep_their_caption(make_study, known, tmp_path):
    frames = make_study((known["plain"],), sizes=("S",), seeds=(0,)).frames()
    path = tmp_path / "picture.png"
    imsave(path, np.zeros((4, 8), dtype=np.uint8), cmap="gray")
    generator = frames.points["run_id"].iloc[0]
    previews = {generator: path, f"{generator}/neighbours": path, "The best of all": path}
    text = write_report(frames, tmp_path / "out", title="Pictures", previews=previews).index.read_text()
    assert _Page(text).open == []
    assert text.count('src="data:image/png') == 3 and "The best of all" in text
    assert text.index("Samples above their nearest") > text.index("Samples, a class a column")


def test_json_and_tables_hold_the_same_numbers_at_full_precision(written):
    frames, report, _ = written
    data = json.loads(report.answer_json.read_text())
    assert data == json.loads(report.answer.to_json())
    with report.tables["generators"].open(newline="") as file:
        rows = list(csv.DictReader(file))
    own = frames.points[(frames.points["family"] == "K256-T16") & (frames.points["size"] == "S")]
    expected = float(np.exp(np.log(own.loc[own["images"] == 64_000, "gfid"]).mean()))
    row = next(r for r in rows if (r["family"], r["size"], r["images"]) == ("K256-T16", "S", "64000"))
    assert float(row["gfid"]) == pytest.approx(expected, rel=1e-12) and int(row["gfid_seeds"]) == 3
    assert {p.suffix for p in (report.index.parent / "tables").iterdir()} == {".csv", ".tex", ".md"}


def test_tables_render_as_latex(written):
    frames, report, _ = written
    tables = all_tables(frames, report.answer)
    (table,) = (table for table in tables if table.name == "regulariser")
    latex = table.to_latex()
    assert latex.count("\\\\\n") == len(table.rows) + 1 and "−" not in latex and "95 \\%" in latex


@pytest.mark.slow
def test_the_same_study_gives_the_same_report(written, tmp_path):
    frames, report, previews = written
    again = write_report(
        frames,
        tmp_path,
        title="A study & its answer",
        previews=previews,
        facts={"command": "tokenlaw demo", "machine": "2 cores <no GPU>"},
    )
    assert again.index.read_bytes() == report.index.read_bytes()
    assert again.readme_figure.read_bytes() == report.readme_figure.read_bytes()


def test_a_report_replaces_an_earlier_one_and_leaves_other_files_alone(make_study, known, tmp_path):
    frames = make_study((known["compressed"], known["plain"]), sizes=("S",)).frames()
    (tmp_path / "index.html").write_text("old")
    (tmp_path / "mine.txt").write_text("keep")
    report = write_report(frames, tmp_path, title="New", previews={"Samples": tmp_path / "missing.png"})
    text = report.index.read_text()
    assert text != "old" and "Not shown: Samples: No such file" in text
    assert (tmp_path / "mine.txt").read_text() == "keep"
    assert not list(tmp_path.rglob("*.tmp"))
    assert "The causal regulariser was not compared" in text


def test_names_and_words_are_explained_before_the_answer(written):
    text = _Page(written[1].index.read_text()).text
    start = text.index("K256-T16: a tokenizer with 256 codes that makes 16 tokens of an image; crt with a number")
    assert start < text.index("reconstructs worse than")
    assert "XS, S and M: sizes of the generator" in text and "rFID floor: that of reconstructions" in text
    assert "family: tokenizers that differ in their seed alone" in text


def test_a_study_without_gfid_shows_its_own_metrics_curves_and_table(own_study, tmp_path):
    frames = own_study.frames()
    picture = tmp_path / "picture.png"
    imsave(picture, np.zeros((4, 8), dtype=np.uint8), cmap="gray")
    previews = {frames.runs["run_id"].iloc[0]: picture}
    report = write_report(frames, tmp_path / "out", title="Own", previews=previews)
    page = _Page(report.index.read_text())
    assert page.open == [] and "own_missed ranges from" in page.text
    assert "12 other runs" in page.text and "Pareto" not in page.text and "regulariser" not in page.text
    assert set(report.figures) == {"own-metrics", "training"} and "data:image/png" in page.sources[0]
    with report.tables["own"].open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    row = rows["net.depth = 2, width = 16"]
    assert (row["run.width"], row["run.net.depth"], row["runs"], row["metric"]) == ("16", "2", "2", "own_missed")
    assert float(row["value"]) == pytest.approx(0.25) and float(row["value_low"]) < 0.2
    with report.tables["runs"].open(newline="") as file:
        assert {row["run.net.depth"] for row in csv.DictReader(file)} == {"1", "2"}


def test_every_field_in_which_tokenizers_or_generators_differ_is_a_column(make_study, known, tmp_path):
    study = make_study((known["compressed"], known["plain"]), sizes=("S", "M"), seeds=(0,))
    for row in study.runs:
        spec = json.loads(row["spec"]) | {"losses": {"perceptual_weight": float(row["codebook_size"] == 256)}}
        if row["stage"] == "generator":
            spec = {"stage": "generator", "tokenizer": spec, "transformer": {"heads": row["width"] // 32}}
        row["spec"] = json.dumps(spec)
    tables = {table.name: table for table in all_tables(study.frames(), answer(study.frames()))}
    assert "losses.perceptual weight" in tables["tokenizers"].columns
    assert tables["tokenizers"].data["tokenizer.losses.perceptual_weight"].tolist() == [1.0, 0.0]
    assert {"transformer.heads", "width"} <= set(tables["generators"].columns)
    assert "generator.transformer.heads" in tables["generators"].data
    assert {"generator.transformer.heads", "tokenizer.losses.perceptual_weight"} <= set(tables["runs"].data)


def test_flags_failures_and_divergence_are_listed(make_study, known, tmp_path):
    study = make_study((known["compressed"], known["plain"]), sizes=("S", "M"), seeds=(0, 1))
    flagged = next(r for r in study.evaluations if r["metric"] == "gfid")
    flagged["flag"] = "sampled with <b>another</b> seed"
    study.runs.append(study.runs[0] | {"attempt": 2, "status": "failed", "cause": "out_of_memory"})
    next(r for r in study.runs if r["generator"] == "M")["status"] = "diverged"
    text = write_report(study.frames(), tmp_path, title="Flags").index.read_text()
    page = _Page(text)
    assert "sampled with <b>another</b> seed" in page.text, "text from the store is escaped"
    assert "failed: out_of_memory" in page.text and "diverged" in page.text


def test_an_unwritable_folder_is_one_clear_error(demo_like, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="a part of the path is a file"):
        write_report(demo_like.frames(), tmp_path / "file" / "out", title="x")


def test_numbers_become_powers_of_ten_and_text_is_escaped():
    assert scientific("at 6.1e12 & <b>") == "at 6.1&nbsp;×&nbsp;10<sup>12</sup> &amp; &lt;b&gt;"
    assert scientific("run 1e5f and K4e2x") == "run 1e5f and K4e2x"
    assert scientific("x K256-T16-crt0.5, of") == 'x <span class="name">K256-T16-crt0.5</span>, of'
    assert "name" not in scientific("one-sided geometric-mean")
    assert scientific("2.5e-6") == "2.5&nbsp;×&nbsp;10<sup>−6</sup>"


def test_inline_drawings_take_the_pages_ink_and_unique_ids():
    drawing = '<svg width="9pt" viewBox="0 0 9 9"><g id="a"><path style="fill: #1f2328" clip-path="url(#c)"/></g></svg>'
    out = inline_svg(drawing, "f1", 'A "figure"')
    assert 'id="f1-a"' in out and "url(#f1-c)" in out and "currentColor" in out and 'width="9pt"' not in out
    assert 'aria-label="A &quot;figure&quot;"' in out


def test_the_template_ships_with_the_package():
    import analysis

    assert (Path(analysis.__file__).parent / "reporting" / "templates" / "report.html.jinja").is_file()

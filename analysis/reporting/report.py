"""The report: one self-contained HTML page that begins with the answer; the same as JSON, CSV, LaTeX and figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from analysis.tokenizers.frames import StudyFrames
from results.store import atomic

from . import page_data
from .answer import Answer
from .answer import answer as answer_of
from .background import caveats, provenance_lines, summary
from .extent import drawn_frames
from .glossary import study_words, terms_of
from .markup import embedded, inline_svg, plain_text, scientific
from .pictures import further_samples, shown_pictures
from .tables.all_tables import all_tables

README_FIGURE = "worse-is-better"
"""The figure that is also written as a PNG, for a README or a slide."""


@dataclass(frozen=True)
class Report:
    """Where everything lies: the page, the machine-readable answer, figures (SVG) by name, tables (CSV) by name."""

    index: Path
    answer_json: Path
    figures: dict[str, Path]
    tables: dict[str, Path]
    readme_figure: Path | None
    answer: Answer


def write_report(
    frames: StudyFrames,
    out: Path,
    *,
    title: str,
    previews: Mapping[str, Path] | None = None,
    facts: Mapping[str, object] | None = None,
) -> Report:
    """Write the report of a study into the folder `out`, replacing what an earlier report left there file by file.

    `previews` maps a run id to its preview.png (grids of reconstructions or samples); another key is taken as a
    caption, and `<run id>/<what>` adds what it shows, `neighbours` being samples above their nearest training images.
    `facts` are further lines for the provenance section, such as the command, the machine and the wall time. Every
    file is replaced atomically and index.html last, so a reader never sees half of a report. A study without gFID is
    shown with what it has. Raises StoreError if the folder cannot be written.
    """
    from analysis.reporting.figures.drawing import style
    from analysis.reporting.figures.gallery import drawn

    for folder in ("figures", "tables"):
        atomic.make_folder(out / folder)
    answer = answer_of(frames)
    tables = {table.name: table for table in all_tables(frames, answer)}
    report = Report(out / "index.html", out / "answer.json", {}, {}, None, answer)
    drawings = {}
    for number, (name, figure) in enumerate(drawn(drawn_frames(frames, answer.families), answer), start=1):
        picture = style.svg(figure)
        report.figures[name] = out / "figures" / f"{name}.svg"
        atomic.write(report.figures[name], style.XML + picture, durable=False)
        # The page gives each its title.
        drawings[name] = partial(inline_svg, picture, f"f{number}")
        if name == README_FIGURE:
            report = replace(report, readme_figure=style.save(figure, out / "figures" / f"{name}.png"))
    for table in tables.values():
        report.tables[table.name] = out / "tables" / f"{table.name}.csv"
        for suffix, text in {"csv": table.to_csv(), "tex": table.to_latex(), "md": table.to_markdown()}.items():
            atomic.write(out / "tables" / f"{table.name}.{suffix}", text, durable=False)
    atomic.write(report.answer_json, answer.to_json(), durable=False)
    pictures, missing = shown_pictures(frames, previews or {})
    samples, left_out = further_samples(previews or {}, pictures)
    if left_out:
        missing.append(f"samples of {left_out} more runs, which would make the page too large; they lie with the runs")
    page = _page(
        title=title,
        answer=answer,
        words=study_words(frames),
        statements={topic: [s for s in answer.statements if s.topic == topic] for topic in _TOPICS},
        topics=_TOPICS,
        tables=tables,
        figures=drawings,
        pictures=pictures,
        missing_previews=missing,
        summary=summary(frames),
        provenance=[*provenance_lines(frames), *((str(k), str(v)) for k, v in (facts or {}).items())],
        caveats=caveats(frames, answer),
        static_rows=page_data.STATIC_ROWS,
        page_json=embedded(page_data.page_data(frames, tables, samples)),
        answer_json=embedded(answer.to_dict()),
    )
    # Of the whole page, so that a word that only a table uses is explained too.
    terms = "".join(f"<dt>{scientific(t)}</dt><dd>{scientific(m)}</dd>" for t, m in terms_of(plain_text(page), frames))
    atomic.write(report.index, page.replace(_GLOSSARY, f"<dl>{terms}</dl>"), durable=False)
    return report


report = write_report
"""Its name among those of the package."""

_GLOSSARY = "<!-- glossary -->"
"""Where the template leaves room for it."""


def _page(**values: Any) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("analysis.reporting", "templates")
    jinja = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    jinja.filters["scientific"] = scientific
    return jinja.get_template("report.html.jinja").render(**values)


_TOPICS = {
    "compression": "Which tokenizer at which compute",
    "regulariser": "What the causal regulariser changes",
    "pair": "What to train together",
    "own": "What your own metrics say",
}

"""The gallery: every figure of a study by name; drawn, and written each with its rows, its fit and its caption."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analysis.reporting.answer import Answer
from analysis.reporting.latex import caption_text, figure_environment
from analysis.tokenizers.frames import StudyFrames
from analysis.tokenizers.rows import plain
from results.errors import UsageError
from results.store import atomic

from . import ablations, best_pair, compute, fronts, held_out, rate, regulariser, runs, sheets
from .drawing.labels import overlapping
from .drawing.page import Page
from .drawing.style import FORMATS, STYLES, applied, image_bytes, named
from .registry import Evidence, NotDrawn, Plot, Shown, from_file

ROOMS: tuple[Any, ...] = (best_pair, fronts, compute, rate, regulariser, ablations, held_out, runs, sheets)
GALLERY: dict[str, Plot] = {plot.name: plot for room in ROOMS for plot in room.PLOTS}
COLUMNS = (1, 2)


@dataclass(frozen=True)
class Drawn:
    """A figure that was drawn, what it shows, and its caption in plain text."""

    plot: Plot
    shown: Shown
    figure: Figure
    caption: str
    troubles: tuple[str, ...] = ()


@dataclass(frozen=True)
class Written:
    """Files by figure, what could not be drawn with the reason, and texts that overlap, by figure."""

    paths: dict[str, list[Path]]
    not_drawn: dict[str, str]
    troubles: dict[str, tuple[str, ...]]


def draw(plot: Plot, evidence: Evidence, style: str = "report", columns: int = 2, *, check: bool = False) -> Drawn:
    """One figure in a style, over one column or the whole text. Raises NotDrawn, UsageError.

    check: also look for texts that overlap.
    """
    if columns not in COLUMNS:
        raise UsageError(f"columns = {columns} is not allowed; allowed: 1, 2")
    shown = plot.of_study(evidence)
    frames = evidence.frames
    with applied(style) as look:
        page = Page(
            look, columns, evidence.palette, shown.fit, frames.measure.name, frames.measure.label,
            "training compute (FLOPs)" if not (frames.compute.total or frames.compute.serve) else frames.compute.label,
            evidence.pictures,
        )  # fmt: skip
        for note in shown.notes:
            page.note(note)
        if plot.draw(shown.rows, page) is None:
            raise UsageError(f"figure = {plot.name!r} returned no axes; a figure function returns what it drew on")
        figure = page.finish()
        troubles = tuple(overlapping(figure)) if check else ()
    caption = " ".join(filter(None, (shown.caption, page.panel_caption(), *shown.notes)))
    return Drawn(plot, shown, figure, caption, troubles)


def drawn(
    frames: StudyFrames, answer: Answer, style: str = "report", names: Sequence[str] | None = None
) -> Iterator[tuple[str, Figure]]:
    """Every figure of the report (or those named) for which the study has data, by its name, in the gallery's order.

    Raises UsageError for an unknown name, listing what is allowed.
    """
    evidence = Evidence(frames, answer)
    chosen = [name for name, plot in GALLERY.items() if plot.report] if names is None else names
    for plot in [named("figure", name, GALLERY) for name in chosen]:
        try:
            yield plot.name, draw(plot, evidence, style).figure
        except NotDrawn:
            continue


def write_figures(
    frames: StudyFrames,
    out: Path,
    *,
    style: str = "neurips",
    formats: Sequence[str] = ("pdf",),
    names: Sequence[str] | None = None,
    columns: int = 2,
    pictures: Mapping[str, Path] | None = None,
    tables: Mapping[str, pd.DataFrame] | None = None,
) -> Written:
    """Write figures into a folder: each in every format, its rows as NAME.csv, what was fitted as NAME.json, its
    caption as NAME.txt and, in a figure environment, NAME.tex.

    `names`: of the gallery, or FILE.py:FUNCTION; by default the whole gallery. Raises UsageError for an unknown style,
    format or name, StoreError on a full disk.
    """
    look = named("style", style, STYLES)
    for form in formats:
        named("format", form, FORMATS)
    chosen = [
        from_file(name) if ".py:" in name else named("figure", name, GALLERY)
        for name in (GALLERY if names is None else names)
    ]
    atomic.make_folder(out)
    evidence = Evidence.of(frames, pictures=pictures or {}, tables=tables or {})
    written = Written({}, {}, {})
    for plot in chosen:
        try:
            result = draw(plot, evidence, style, columns, check=True)
        except NotDrawn as reason:
            written.not_drawn[plot.name] = str(reason)
            continue
        if result.troubles:
            written.troubles[plot.name] = result.troubles
        contents: dict[str, bytes] = {form: image_bytes(result.figure, form, style) for form in formats}
        spread = columns == 2 and look.widths[0] > 3 and look.paper
        contents["csv"] = result.shown.rows.to_csv(index=False, lineterminator="\n").encode()
        contents["json"] = (json.dumps(_document(result), indent=1, ensure_ascii=False) + "\n").encode()
        contents["txt"] = (caption_text(result.caption) + "\n").encode()
        contents["tex"] = figure_environment(plot.name, result.caption, spread=spread).encode()
        written.paths[plot.name] = [out / f"{plot.name}.{suffix}" for suffix in contents]
        for suffix, content in contents.items():
            atomic.write(out / f"{plot.name}.{suffix}", content, durable=False)
    return written


def _document(result: Drawn) -> dict[str, Any]:
    """What stands beside a figure: what it is, on what it stands, and what was fitted."""
    columns = [str(column) for column in result.shown.rows.columns]
    notes = list(result.shown.notes)
    paper = {"paper": f"arXiv 2412.16326, {result.plot.paper}"} if result.plot.paper else {}
    facts = {"name": result.plot.name, "summary": result.plot.summary} | paper
    return facts | {"columns": columns, "notes": notes, "fit": _finite(plain(dict(result.shown.fit)))}


def _finite(value: Any) -> Any:
    """Without what JSON cannot say."""
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""The report: one self-contained HTML page that begins with the answer; the same as JSON, CSV, LaTeX and figures."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.tokenizers.frames import StudyFrames
from analysis.tokenizers.fronts import in_order
from analysis.tokenizers.rows import records
from results.store import atomic

from . import wording
from .answer import Answer
from .answer import answer as answer_of
from .tables import Table, all_tables

README_FIGURE = "worse-is-better"
"""The figure that is also written as a PNG, for a README or a slide."""

NEIGHBOURS = "neighbours"
"""`<run id>/neighbours` shows samples above their nearest training images."""

MAX_PREVIEW_BYTES = 2 * 2**20
"""A preview larger than this is named in the report but not embedded."""


@dataclass(frozen=True)
class Report:
    """Where everything lies: the page, the machine-readable answer, figures (SVG) by name, tables (CSV) by name."""

    index: Path
    answer_json: Path
    figures: dict[str, Path]
    tables: dict[str, Path]
    readme_figure: Path | None
    answer: Answer


@dataclass(frozen=True)
class _Picture:
    caption: str
    uri: str
    stage: str


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
    caption, and `<run id>/<what>` adds what it shows, `neighbours` being samples above
    their nearest training images. `facts` are further lines for the provenance section, such as the
    command, the machine and the wall time. Every file is replaced atomically and index.html last, so a reader never
    sees half of a report. Raises DataError for a study without gFID, StoreError if the folder cannot be written.
    """
    from analysis.reporting.figures import style
    from analysis.reporting.figures.gallery import drawn

    atomic.make_folder(out / "figures")
    atomic.make_folder(out / "tables")
    answer = answer_of(frames)
    tables = all_tables(frames, answer)
    figures: dict[str, Path] = {}
    drawings: dict[str, dict[str, str]] = {}
    readme_figure = None
    for number, (entry, figure) in enumerate(drawn(frames, answer), start=1):
        picture = style.svg(figure)
        figures[entry.name] = out / "figures" / f"{entry.name}.svg"
        atomic.write(figures[entry.name], '<?xml version="1.0" encoding="utf-8"?>\n' + picture, durable=False)
        drawings[entry.name] = {
            "svg": inline_svg(picture, f"f{number}", entry.title),
            "title": entry.title,
            "caption": entry.caption,
        }
        if entry.name == README_FIGURE:
            readme_figure = style.save(figure, out / "figures" / f"{entry.name}.png")
    paths = {}
    for table in tables:
        paths[table.name] = out / "tables" / f"{table.name}.csv"
        atomic.write(paths[table.name], table.to_csv(), durable=False)
        atomic.write(out / "tables" / f"{table.name}.tex", table.to_latex(), durable=False)
    answer_json = out / "answer.json"
    atomic.write(answer_json, answer.to_json(), durable=False)
    page = render(frames, answer, tables, drawings, title=title, previews=previews or {}, facts=facts or {})
    atomic.write(out / "index.html", page, durable=False)
    return Report(out / "index.html", answer_json, figures, paths, readme_figure, answer)


def render(
    frames: StudyFrames,
    answer: Answer,
    tables: list[Table],
    drawings: Mapping[str, Mapping[str, str]],
    *,
    title: str,
    previews: Mapping[str, Path],
    facts: Mapping[str, object],
) -> str:
    """The HTML page as text; `drawings` maps figure names to {svg, title, caption}. Pure but for reading previews."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("analysis.reporting", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["scientific"] = scientific
    pictures, missing = _pictures(frames, previews)
    statements = {topic: [s for s in answer.statements if s.topic == topic] for topic in _TOPICS}
    return environment.get_template("report.html.jinja").render(
        title=title,
        answer=answer,
        statements=statements,
        topics=_TOPICS,
        tables={t.name: t for t in tables},
        figures=drawings,
        pictures=pictures,
        missing_previews=missing,
        summary=_summary(frames),
        provenance=[*_provenance(frames), *((str(k), str(v)) for k, v in facts.items())],
        caveats=_caveats(frames, answer),
    )


_TOPICS = {
    "compression": "Which tokenizer at which compute",
    "regulariser": "What the causal regulariser changes",
    "pair": "What to train together",
}


def scientific(text: str) -> str:
    """Escaped HTML in which 6.1e12 reads as 6.1 × 10¹² and names such as K256-T16 do not break; returned as markup."""
    from markupsafe import Markup

    found = re.sub(
        r"(?<![\w.])(\d(?:\.\d+)?)e(-?)(\d+)(?![\w.]*\w)",
        lambda m: f"{m[1]}&nbsp;×&nbsp;10<sup>{'−' if m[2] else ''}{int(m[3])}</sup>",
        escape(text),
    )
    found = re.sub(r"(?<![\w&#;/.-])((?=[\w.#-]*\d)[A-Za-z]\w*(?:-[\w.#]*\w)+)", r'<span class="name">\1</span>', found)
    return Markup(found)


def inline_svg(text: str, prefix: str, label: str) -> str:
    """An SVG for embedding in a page: unique ids, ink in the page's text colour, size left to the page."""
    from analysis.reporting.figures.style import INK

    text = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = text.replace(INK, "currentColor")
    head = re.match(r"<svg[^>]*>", text)
    assert head is not None
    box = re.search(r'viewBox="[^"]+"', head[0])
    assert box is not None
    opening = (
        f'<svg {box[0]} xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" role="img" '
        f'aria-label="{escape(label)}">'
    )
    return opening + text[head.end() :].strip()


def _pictures(frames: StudyFrames, previews: Mapping[str, Path]) -> tuple[list[_Picture], list[str]]:
    """Embedded previews, reconstructions first, one run of each tokenizer and pair; and why others are missing."""
    runs = {row["run_id"]: row for row in records(frames.runs)}
    chosen: dict[tuple[str, str, str, str], tuple[tuple[int, int], str, str, Path]] = {}
    for key, path in previews.items():
        run_id, _, what = key.partition("/")
        if run_id in runs:
            row = runs[run_id]
            place = NEIGHBOURS if what == NEIGHBOURS else str(row["stage"])
            group = (place, str(row["family"]), str(row["size"]), what)
            shown = "" if what == NEIGHBOURS else what
            rank, caption = (int(row["tokenizer_seed"]), int(row["seed"])), _caption(frames, row, shown)
        else:
            group, rank, caption = ("other", key, "", ""), (0, 0), key
        if group not in chosen or rank < chosen[group][0]:
            chosen[group] = (rank, caption, group[0], Path(path))
    stages = ["tokenizer", "generator", NEIGHBOURS, "other"]
    families = {f: i for i, f in enumerate(frames.families["family"])}
    sizes = {size: i for i, size in enumerate(in_order(frames.points, set(frames.points["size"])))}
    found, missing = [], []
    for group in sorted(chosen, key=lambda g: (stages.index(g[0]), families.get(g[1], 0), sizes.get(g[2], 0), g[3])):
        _, caption, stage, path = chosen[group]
        try:
            content = path.read_bytes()
        except OSError as error:
            missing.append(f"{caption}: {error.strerror}")
            continue
        if not content.startswith(b"\x89PNG\r\n\x1a\n") or len(content) > MAX_PREVIEW_BYTES:
            missing.append(f"{caption}: no PNG picture below {MAX_PREVIEW_BYTES // 2**20} MiB")
            continue
        found.append(_Picture(caption, "data:image/png;base64," + base64.b64encode(content).decode(), stage))
    return found, missing


def _caption(frames: StudyFrames, row: Mapping[str, Any], what: str) -> str:
    suffix = f", {what}" if what else ""
    if row["stage"] == "tokenizer":
        own = frames.tokenizers[frames.tokenizers["run_id"] == row["run_id"]]
        score = f", rFID {wording.number(float(own['rfid'].iloc[0]))}" if len(own) and "rfid" in own else ""
        return f"{row['family']}, seed {row['seed']}{score}{suffix}"
    own = frames.points[frames.points["run_id"] == row["run_id"]].sort_values("images")
    score = ""
    if len(own):
        last = own.iloc[-1]
        score = f", {wording.images(last['images'])} images, gFID {wording.number(float(last['gfid']))}"
    return f"{row['family']} + {row['size']}, seed {row['tokenizer_seed']}.{row['seed']}{score}{suffix}"


def _summary(frames: StudyFrames) -> str:
    runs = frames.runs
    tokenizers, generators = (int((runs["stage"] == s).sum()) for s in ("tokenizer", "generator"))
    total = float(runs["executed_flops"].sum())
    hours = float(runs["wall_seconds"].sum()) / 3600
    time = f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.0f} minutes"
    data = ", ".join(sorted(set(runs["data"].dropna()))) or "unknown data"
    return (
        f"{tokenizers} tokenizer and {generators} generator runs on {data}, "
        f"{len(frames.points)} points, {wording.flops(total)} training FLOPs in all, {time} of computing."
    )


def _provenance(frames: StudyFrames) -> list[tuple[str, str]]:
    """Facts that all runs share or in which they differ, from their provenance column."""
    collected: dict[str, set[str]] = {}
    for text in frames.runs["provenance"]:
        try:
            record = json.loads(text)
        except ValueError:
            continue
        for key, value in _flat(record).items():
            collected.setdefault(key, set()).add(value)
    known = frames.runs[frames.runs["data_fingerprint"].notna()]
    lines = [
        (
            "data",
            ", ".join(
                f"{d} {h[:12]}" for d, h in sorted(set(zip(known["data"], known["data_fingerprint"], strict=True)))
            ),
        )
    ]
    for key, values in collected.items():
        shown = sorted(values)
        text = ", ".join(shown[:4]) + (f" and {len(shown) - 4} more" if len(shown) > 4 else "")
        lines.append((key, text))
    started, finished = frames.runs["started_at"].dropna(), frames.runs["finished_at"].max()
    begun = str(started.min()) if len(started) else "unknown"
    return [*lines, ("first run started", begun), ("last run finished", str(finished))]


def _flat(record: Any, prefix: str = "") -> dict[str, str]:
    if not isinstance(record, dict):
        return {}
    lines: dict[str, str] = {}
    for key, value in record.items():
        if isinstance(value, dict):
            lines |= _flat(value, f"{prefix}{key} ")
        elif value is not None and value != "":
            lines[f"{prefix}{key}".replace("_", " ")] = str(value)
    return lines


def _caveats(frames: StudyFrames, answer: Answer) -> list[str]:
    """What a reader must know before relying on a number."""
    found = [
        "The statistical unit is the tokenizer seed. Intervals over few seeds are wide, because they have to be: with "
        "three seeds Student's t has two degrees of freedom and a factor of 4.3.",
        "The lowest of several noisy values is too low. Fronts are therefore compared along the points that the other "
        "tokenizer seeds select; with one seed that is impossible, and its front is a little optimistic.",
        "FLOPs are those of training the generator; training the tokenizer, sampling and evaluation are not counted.",
    ]
    single = frames.families[frames.families["tokenizer_seeds"] == 1]["family"]
    if len(single):
        found.append(f"One seed only, so conditional on that tokenizer: {wording.listing(list(single))}.")
    if not frames.floor_is_comparable and "rfid_floor" in set(frames.used["metric"]):
        found.append("rfid_floor was measured under another protocol than gfid: laws with that floor are left out.")
    noise = frames.tokenizers["real_fid"].dropna() if "real_fid" in frames.tokenizers else pd.Series(dtype=float)
    if len(noise):
        level = wording.number(float(noise.median()))
        found.append(f"Held-out real images score {level} in gFID's own protocol: differences of that order are noise.")
    held = [f"{p.name} at {wording.flops(b.flops)}" for b in answer.best_pairs for p in b.pairs if p.held]
    if held:
        found.append(
            "Pairs whose longest run is cheaper than a budget stand with that run's gFID there, which longer training "
            f"may lower: {wording.listing(held)}."
        )
    found.append(
        "The Fréchet distances use a small feature network trained on this data set: comparable within this study only."
        if len(frames.protocols[frames.protocols["metric"] == "gfid"])
        else "No Fréchet distance was measured."
    )
    return found + [note + "." for note in answer.notes]

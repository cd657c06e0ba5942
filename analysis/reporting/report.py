"""The report: one self-contained HTML page that begins with the answer; the same as JSON, CSV, LaTeX and figures."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.tokenizers.frames import StudyFrames
from analysis.tokenizers.fronts import in_order
from analysis.tokenizers.rows import records
from results.settings import flat
from results.store import atomic

from . import wording
from .answer import Answer
from .answer import answer as answer_of
from .tables import all_tables

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
    caption, and `<run id>/<what>` adds what it shows, `neighbours` being samples above their nearest training images.
    `facts` are further lines for the provenance section, such as the command, the machine and the wall time. Every
    file is replaced atomically and index.html last, so a reader never sees half of a report. A study without gFID is
    shown with what it has. Raises StoreError if the folder cannot be written.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from analysis.reporting.figures import style
    from analysis.reporting.figures.gallery import drawn

    atomic.make_folder(out / "figures")
    atomic.make_folder(out / "tables")
    answer = answer_of(frames)
    tables = all_tables(frames, answer)
    report = Report(out / "index.html", out / "answer.json", {}, {}, None, answer)
    drawings = {}
    for number, (name, figure) in enumerate(drawn(frames, answer), start=1):
        picture = style.svg(figure)
        report.figures[name] = out / "figures" / f"{name}.svg"
        atomic.write(report.figures[name], style.XML + picture, durable=False)
        # The page gives each its title.
        drawings[name] = partial(inline_svg, picture, f"f{number}")
        if name == README_FIGURE:
            report = replace(report, readme_figure=style.save(figure, out / "figures" / f"{name}.png"))
    for table in tables:
        report.tables[table.name] = out / "tables" / f"{table.name}.csv"
        atomic.write(report.tables[table.name], table.to_csv(), durable=False)
        atomic.write(out / "tables" / f"{table.name}.tex", table.to_latex(), durable=False)
    atomic.write(report.answer_json, answer.to_json(), durable=False)
    pictures, missing = _pictures(frames, previews or {})
    statements = {topic: [s for s in answer.statements if s.topic == topic] for topic in _TOPICS}
    loader = PackageLoader("analysis.reporting", "templates")
    jinja = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    jinja.filters["scientific"] = scientific
    page = jinja.get_template("report.html.jinja").render(
        title=title,
        answer=answer,
        glossary=_glossary(frames),
        statements=statements,
        topics=_TOPICS,
        tables={t.name: t for t in tables},
        figures=drawings,
        pictures=pictures,
        missing_previews=missing,
        summary=_summary(frames),
        provenance=[*_provenance(frames), *((str(k), str(v)) for k, v in (facts or {}).items())],
        caveats=_caveats(frames, answer),
    )
    atomic.write(report.index, page, durable=False)
    return report


report = write_report
"""Its name among those of the package."""


_TOPICS = {
    "compression": "Which tokenizer at which compute",
    "regulariser": "What the causal regulariser changes",
    "pair": "What to train together",
    "own": "What your own metrics say",
}


def _glossary(frames: StudyFrames) -> list[tuple[str, str]]:
    """The names and words of the page, explained by the study's own."""
    words = []
    families = frames.families.dropna(subset=["codebook_size", "tokens_per_image"])
    if len(families):
        first = records(families)[0]
        codes, tokens = f"{first['codebook_size']:.0f}", f"{first['tokens_per_image']:.0f}"
        text = f"a tokenizer with {codes} codes that makes {tokens} tokens of an image"
        if (families["regulariser_weight"] > 0).any():
            text += "; crt with a number: trained with the causal regulariser of that weight"
        words.append((str(first["family"]), text))
        words.append(("family", "tokenizers that differ in their seed alone; it is named after what they share"))
    points = frames.points
    sizes = in_order(points)
    if sizes:
        medians = points.groupby("size")["parameters_other"].median().loc[sizes].dropna()
        listed = wording.listing([f"{wording.images(median)} parameters" for median in medians])
        counts = f" ({listed} outside the vocabulary)" if listed else ""
        text = f"sizes of the generator, the transformer that predicts the tokens{counts}"
        words.append((wording.listing(sizes), text))
    metrics = set(frames.used["metric"])
    meanings = {
        "gfid": ("gFID", "Fréchet distance of generated images to training images; lower is better"),
        "rfid": ("rFID", "the same distance of reconstructed held-out images to the held-out images themselves"),
        "rfid_floor": ("rFID floor", "that of reconstructions, measured as gFID is; no perfect generator gets below"),
    }  # fmt: skip
    return words + [meaning for metric, meaning in meanings.items() if metric in metrics]


def scientific(text: str) -> str:
    """Escaped HTML in which 6.1e12 reads as 6.1 × 10¹² and names such as K256-T16 do not break; returned as markup."""
    from markupsafe import Markup

    text = re.sub(
        r"(?<![\w.])(\d(?:\.\d+)?)e(-?)(\d+)(?![\w.]*\w)",
        lambda m: f"{m[1]}&nbsp;×&nbsp;10<sup>{'−' if m[2] else ''}{int(m[3])}</sup>",
        escape(text),
    )
    name = r"(?<![\w&#;/.-])((?=[\w.-]*\d)[A-Za-z]\w*(?:-[\w.]*\w)+)"
    return Markup(re.sub(name, r'<span class="name">\1</span>', text))


def inline_svg(text: str, prefix: str, label: str) -> str:
    """An SVG for embedding in a page: unique ids, ink in the page's text colour, size left to the page."""
    from analysis.reporting.figures.style import INK

    for pattern, unique in (
        (r'\bid="([^"]+)"', rf'id="{prefix}-\1"'),
        (r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)"),
        (r'href="#([^"]+)"', rf'href="#{prefix}-\1"'),
        (r"(?s)<metadata>.*?</metadata>|<!--.*?-->", ""),
    ):
        text = re.sub(pattern, unique, text)
    head = re.match(r'<svg[^>]*?(viewBox="[^"]+")[^>]*>', text)
    assert head is not None
    opening = (
        f'<svg {head[1]} xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" role="img" '
        f'aria-label="{escape(label)}">'
    )
    return opening + text[head.end() :].replace(INK, "currentColor").strip()


def _pictures(frames: StudyFrames, previews: Mapping[str, Path]) -> tuple[list[_Picture], list[str]]:
    """Embedded previews, reconstructions first, one run of each tokenizer and pair; and why others are missing."""
    runs = {row["run_id"]: row for row in records(frames.runs)}
    chosen: dict[tuple[str, str, str, str], tuple[tuple[int, int], str, str, Path]] = {}
    for key, path in previews.items():
        run_id, _, what = key.partition("/")
        if run_id in runs:
            row = runs[run_id]
            staged = row["stage"] != "run"
            place = NEIGHBOURS if what == NEIGHBOURS else str(row["stage"]) if staged else "other"
            group = (place, str(row["family"] if staged else row["label"]), str(row["size"]), what)
            rank = (int(row["tokenizer_seed"]) if staged else 0, int(row["seed"]))
            caption = _caption(frames, row) + (f", {what}" if what not in ("", NEIGHBOURS) else "")
        else:
            group, rank, caption = ("other", key, "", ""), (0, 0), key
        if group not in chosen or rank < chosen[group][0]:
            chosen[group] = (rank, caption, group[0], Path(path))
    stages = ["tokenizer", "generator", NEIGHBOURS, "other"]
    families = {f: i for i, f in enumerate(frames.families["family"])}
    sizes = {size: i for i, size in enumerate(in_order(frames.points))}
    pictures, missing = [], []
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
        pictures.append(_Picture(caption, "data:image/png;base64," + base64.b64encode(content).decode(), stage))
    return pictures, missing


def _caption(frames: StudyFrames, row: Mapping[str, Any]) -> str:
    if row["stage"] == "run":
        return str(row["label"])
    if row["stage"] == "tokenizer":
        rows = frames.tokenizers[frames.tokenizers["run_id"] == row["run_id"]]
        score = f", rFID {wording.number(float(rows['rfid'].iloc[0]))}" if len(rows) and "rfid" in rows else ""
        return f"{row['family']}, seed {row['seed']}{score}"
    points = frames.points[frames.points["run_id"] == row["run_id"]].sort_values("images")
    score = ""
    if len(points):
        last = points.iloc[-1]
        score = f", {wording.images(last['images'])} images, gFID {wording.number(float(last['gfid']))}"
    return f"{row['family']} + {row['size']}, seed {row['tokenizer_seed']}.{row['seed']}{score}"


def _summary(frames: StudyFrames) -> str:
    runs = frames.runs
    kinds = {"tokenizer": "tokenizer", "generator": "generator", "run": "other"}
    counts = [f"{n} {name}" for stage, name in kinds.items() if (n := int((runs["stage"] == stage).sum()))]
    seconds = float(runs["wall_seconds"].sum())
    time = f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.0f} minutes"
    time = time if seconds >= 60 else f"{seconds:.0f} seconds"
    data = ", ".join(sorted(set(runs["data"].dropna())))
    points = f", {len(frames.points)} points" if len(frames.points) else ""
    return (
        f"{wording.listing(counts)} runs{f' on {data}' if data else ''}{points}, "
        f"{wording.flops(float(runs['executed_flops'].sum()))} training FLOPs in all, {time} of computing."
    )


def _provenance(frames: StudyFrames) -> list[tuple[str, str]]:
    """Facts that all runs share or in which they differ, from their provenance column."""
    collected: dict[str, set[str]] = {}
    for text in frames.runs["provenance"]:
        try:
            record = json.loads(text)
        except ValueError:
            continue
        for key, value in flat(record if isinstance(record, dict) else {}).items():
            if value is not None and value != "":
                collected.setdefault(key.replace("_", " ").replace(".", " "), set()).add(str(value))
    known = frames.runs[frames.runs["data_fingerprint"].notna()]
    sets = sorted(set(zip(known["data"], known["data_fingerprint"], strict=True)))
    lines = [("data", ", ".join(f"{name} {fingerprint[:12]}" for name, fingerprint in sets))]
    for key, values in collected.items():
        more = f" and {len(values) - 4} more" if len(values) > 4 else ""
        lines.append((key, ", ".join(sorted(values)[:4]) + more))
    started, finished = frames.runs["started_at"].dropna(), frames.runs["finished_at"].max()
    begun = str(started.min()) if len(started) else "unknown"
    return [*lines, ("first run started", begun), ("last run finished", str(finished))]


def _caveats(frames: StudyFrames, answer: Answer) -> list[str]:
    """What a reader must know before relying on a number."""
    caveats = [
        "The statistical unit is the tokenizer seed. Intervals over few seeds are wide, because they have to be: with "
        "three seeds Student's t has two degrees of freedom and a factor of 4.3.",
        "The lowest of several noisy values is too low. Fronts are therefore compared along the points that the other "
        "tokenizer seeds select; with one seed that is impossible, and its front is a little optimistic.",
        f"FLOPs are those {frames.compute.words}; what is not named is not counted, nor is evaluation.",
    ]
    if not len(frames.families):
        caveats = ["Intervals over few seeds are wide, because they have to be: with three seeds a factor of 4.3."]
    single = frames.families[frames.families["tokenizer_seeds"] == 1]["family"]
    if len(single):
        caveats.append(f"One seed only, so conditional on that tokenizer: {wording.listing(list(single))}.")
    if not frames.floor_is_comparable and "rfid_floor" in set(frames.used["metric"]):
        caveats.append("rfid_floor was measured under another protocol than gfid: laws with that floor are left out.")
    noise = frames.tokenizers["real_fid"].dropna() if "real_fid" in frames.tokenizers else pd.Series(dtype=float)
    if len(noise):
        level = wording.number(float(noise.median()))
        caveats.append(
            f"Held-out real images score {level} in gFID's own protocol: differences of that order are noise."
        )
    beyond = [f"{p.name} at {wording.flops(b.flops)}" for b in answer.best_pairs for p in b.pairs if p.extrapolated]
    if beyond:
        caveats.append(
            "Pairs whose longest run is cheaper than a budget stand there by their law, with its predictive interval: "
            f"{wording.listing(beyond)}."
        )
    judged = frames.protocols.loc[frames.protocols["metric"] == "gfid", "protocol_json"]
    if len(judged) and not any('"extractor":"efficientnet-lite0"' in text for text in judged):
        caveats.append(
            "The Fréchet distances use a small feature network trained on this data set: comparable within this study "
            "only."
        )
    if not len(judged):
        caveats.append("No gFID was measured.")
    return caveats + [note + "." for note in answer.notes]

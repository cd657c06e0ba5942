"""What the page's script reads: every run, every measurement at the end of a budget, curves and samples, as JSON.

Numbers are written here, by `wording`, and never again by the script: it shows these very texts and only places points
by them, so that a number under the pointer is the number of the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.tokenizers.frames import StudyFrames
from analysis.tokenizers.fronts import in_order
from analysis.tokenizers.rows import groups, records, said
from results.schema import METRICS, TRUNK

from . import wording
from .rendering import Table

MAX_CURVES = 400
"""Runs of a study whose curves are on the page; of larger studies they stay in the store."""
CURVE_POINTS = 32
STATIC_ROWS = 200
"""Rows of a table that is written out; the rows of a longer one are drawn by the script as they scroll into view."""
SERIES = 8
"""Series that colours can tell apart."""
NAMES = {"gfid": "gFID", "rfid": "rFID", "rfid_floor": "rFID floor", "psnr": "PSNR", "ssim": "SSIM", "kid": "KID"}
AXES: dict[str, tuple[str, Callable[[float], str]]] = {
    "path_flops": ("training FLOPs", wording.flops),
    "images": ("training images", wording.images),
    "step": ("steps", wording.images),
}
"""What a point has besides its metrics: its name, and how it is written."""


def metric_label(metric: str) -> str:
    """A metric as people write it."""
    return NAMES.get(metric, metric.removeprefix("own_").replace("_", " "))


def page_data(frames: StudyFrames, tables: Mapping[str, Table], samples: Mapping[str, list[str]]) -> dict[str, Any]:
    """Runs in the order of the table of runs, points by run, long tables, curves; `samples`: base64 PNGs by run id."""
    runs = tables["runs"]
    ids = [str(run_id) for run_id in runs.data["run_id"]]
    place = {run_id: i for i, run_id in enumerate(ids)}
    facts = {row["run_id"]: row for row in records(frames.runs[["run_id", "stage", "label", "family", "size"]])}
    series = _series(frames, facts)
    sizes = in_order(frames.points)
    longer = {name: table for name, table in tables.items() if len(table.rows) > STATIC_ROWS or name == "runs"}
    names = sorted(set(series.values()), key=_family_order(frames))
    return {
        "ids": ids,
        "series": [names.index(series[run_id]) for run_id in ids],
        "names": names,
        "marks": [sizes.index(facts[i]["size"]) if facts[i]["size"] in sizes else 0 for i in ids],
        "sizes": sizes,
        "points": _points(frames, place),
        "curves": _curves(frames, place) if len(ids) <= MAX_CURVES else {},
        "tables": {name: {"columns": table.columns, "rows": table.rows} for name, table in longer.items()},
        "samples": dict(samples),
    }


def _family_order(frames: StudyFrames) -> Callable[[str], tuple[int, int, str]]:
    order = {family: i for i, family in enumerate(frames.families["family"])}
    return lambda name: (order.get(name, len(order)), len(name), name)


def _series(frames: StudyFrames, facts: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """What each run is drawn as: its tokenizer, or of runs of no stage the setting that colours can tell apart."""
    of_own: dict[str, str] = {}
    free = [c for c in map(str, frames.settings.columns) if c.startswith("run.")]
    counts = {c: frames.settings[c].map(said).nunique() for c in free}
    varying = sorted((c for c in free if counts[c] > 1), key=lambda c: (counts[c] > SERIES, counts[c]))
    if varying:
        texts = frames.settings[varying[0]].map(said)
        of_own = {str(i): f"{varying[0].removeprefix('run.')} = {text}" for i, text in texts.items() if text}
    return {
        run_id: str(row["family"]) if row["stage"] != "run" and row["family"] else of_own.get(run_id, "runs")
        for run_id, row in facts.items()
    }


def _points(frames: StudyFrames, place: Mapping[str, int]) -> dict[str, Any]:
    """Columns of equal length: `run` (an index), `axes` and `metrics` by name, each a list of texts or null."""
    rows = frames.used
    if rows.empty:
        return {"run": [], "axes": {}, "metrics": {}}
    last = rows.groupby(["run_id", "branch"])["step"].transform("max")
    ends = rows[(rows["branch"] != TRUNK) | rows["step"].isna() | (rows["step"] == last)]
    told = [
        metric if pd.isna(guidance) or guidance == 1.0 else f"{metric} @{said(guidance)}"
        for metric, guidance in zip(ends["metric"], ends["guidance"], strict=True)
    ]
    ends = ends.assign(told=told, step=ends["step"].fillna(-1))
    keys = ["run_id", "branch", "step"]
    # Splits of one metric differ in what they compare with; the one that answers stand on comes first.
    ends = ends.assign(rank=ends["split"].map({"train": 0, "validation": 1}))
    validation = ~ends["metric"].isin(("gfid", "rfid_floor", "real_fid"))
    ends["rank"] = np.where(validation, -ends["rank"], ends["rank"])
    ends = ends.sort_values("rank", kind="stable").drop_duplicates([*keys, "told"])
    wide = ends.pivot(index=keys, columns="told", values="value")
    axes = ends.groupby(keys)[["images", "path_flops"]].first().reindex(wide.index)
    steps = pd.Series(wide.index.get_level_values("step"), index=wide.index)
    axes["step"] = steps.where(steps >= 0)
    first = frames.measure.metric
    metrics = sorted(map(str, wide.columns), key=lambda m: (m != first, "@" in m, not m.startswith("own_"), m))
    return {
        "run": [place[run_id] for run_id in wide.index.get_level_values("run_id")],
        "axes": {
            name: {"label": label, "values": _texts(axes[name], write), "at": _places(axes[name])}
            for name, (label, write) in AXES.items()
            if axes[name].notna().any()
        },
        "metrics": {
            metric: {
                "label": _guided_label(metric),
                "meaning": METRICS[metric.split(" @")[0]].meaning if metric.split(" @")[0] in METRICS else "",
                "values": _texts(wide[metric], wording.number),
            }
            for metric in metrics
        },
    }


def _guided_label(metric: str) -> str:
    name, _, guidance = metric.partition(" @")
    return metric_label(name) + (f", guidance {guidance}" if guidance else "")


def _texts(values: pd.Series, write: Callable[[float], str]) -> list[str | None]:
    return [write(value) if known else None for value, known in zip(values.tolist(), values.notna(), strict=True)]


def _places(values: pd.Series) -> list[float | None]:
    """Where along an axis: four digits, which a pixel does not tell from all of them."""
    known = values.notna()
    return [float(f"{value:.4g}") if k else None for value, k in zip(values.tolist(), known, strict=True)]


TERMS = ("perceptual", "squared_error", "cross_entropy", "loss", "nats_per_token")
"""The first of these that a run recorded is its curve, else the first term by name."""


def _curves(frames: StudyFrames, place: Mapping[str, int]) -> dict[str, Any]:
    """Of each run one term along its trunk, thinned: {index: {term, along, at, values}}."""
    curves = frames.curves[frames.curves["branch"] == TRUNK]
    chosen: dict[str, Any] = {}
    for run_id, rows in groups(curves, "run_id"):
        present = set(rows["term"])
        term = next((t for t in TERMS if t in present), min(present))
        rows = rows[rows["term"] == term]
        split = "validation" if (rows["split"] == "validation").any() else "train"
        rows = rows[(rows["split"] == split) & rows["value"].notna()]
        along = "images" if rows["images"].notna().all() else "step"
        rows = rows.sort_values(along)
        if run_id not in place or len(rows) < 2:
            continue
        keep = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), CURVE_POINTS)).astype(int))
        rows = rows.iloc[keep]
        chosen[str(place[run_id])] = {
            "term": f"{term.replace('_', ' ')}, {split}",
            "along": AXES[along][0],
            "at": [float(f"{v:.4g}") for v in rows[along]],
            "values": [float(f"{v:.4g}") for v in rows["value"]],
            "last": [wording.images(float(rows[along].iloc[-1])), wording.number(float(rows["value"].iloc[-1]))],
        }
    return chosen

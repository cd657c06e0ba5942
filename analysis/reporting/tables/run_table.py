"""The table of all runs: what each was, what it measured last, and what it cost."""

from __future__ import annotations

import pandas as pd

from analysis.tokenizers.frames import StudyFrames
from analysis.tokenizers.rows import records, said

from .. import wording
from ..page_data import metric_label
from ..rendering import Shown, Table, known


def run_table(frames: StudyFrames) -> Table | None:
    """Every run: status, settings, last measurements, FLOPs, time, memory, and in the numbers all its facts."""
    runs = frames.runs.sort_values(["stage", "label", "run_id"], ascending=[False, True, True])
    trained = runs["parameters_other"] + runs["parameters_embedding"]
    scores = _last_scores(frames)
    runs = runs.drop(columns=["spec", "provenance"]).join(frames.settings, on="run_id").assign(_trained=trained)
    runs = runs.join(scores, on="run_id")
    settings = [c for c in map(str, frames.settings.columns) if c.startswith("run.")]
    columns: dict[str, Shown] = {"run": "label", "id": "run_id", "status": "status"}
    columns |= {c.removeprefix("run."): known(c, said) for c in settings if runs[c].map(said).nunique() > 1}
    columns |= {metric_label(c.removeprefix("last_")): known(c, wording.number) for c in map(str, scores.columns)}
    columns |= {
        "parameters trained": known("_trained", "{:,.0f}".format),
        "FLOPs spent": known("executed_flops", wording.flops), "time": known("wall_seconds", "{:.0f} s".format),
        "peak memory": known("peak_memory_bytes", lambda size: f"{size / 2**20:.0f} MiB"),
    }  # fmt: skip
    # Stores of earlier versions do not know them.
    if runs["images_per_second"].notna().any():
        columns["images/s"] = known("images_per_second", "{:,.0f}".format)
    if runs["model_flops_share"].notna().any():
        columns["share of peak"] = known("model_flops_share", "{:.0%}".format)
    return Table.of("runs", "Runs", records(runs), columns, "Metrics at the longest budget, without guidance.")


SCORES = 4
"""Metrics shown in the table of runs; the numbers have all."""


def _last_scores(frames: StudyFrames) -> pd.DataFrame:
    """rFID, the metric that ranks and those of one's own at each run's longest budget: columns last_METRIC, by run."""
    metrics = ["rfid", frames.measure.metric, *dict.fromkeys(frames.own["metric"])]
    points = frames.scored if len(frames.scored) else frames.points
    wide = [frames.tokenizers.set_index("run_id").reindex(columns=["rfid"]).dropna()]
    last = points.sort_values("images").drop_duplicates("run_id", keep="last").set_index("run_id")
    if frames.measure.metric != "rfid" and "gfid" in last:
        wide.append(last[["gfid"]].set_axis([frames.measure.metric], axis=1).dropna())
    own = frames.own[~frames.own["metric"].isin([c for table in wide for c in table.columns])]
    own = own[own["guidance"].isna() | (own["guidance"] == 1.0)]
    own = own.sort_values("images", na_position="first").drop_duplicates(["run_id", "metric"], keep="last")
    wide.append(own.pivot(index="run_id", columns="metric", values="value"))
    table = pd.concat(wide, axis=1)
    chosen = [metric for metric in dict.fromkeys(metrics) if metric in table and table[metric].notna().any()]
    return table[chosen[:SCORES]].add_prefix("last_")

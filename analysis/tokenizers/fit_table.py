"""A study's measurements as the table that a law is fitted to: a row a measured point, metrics and facts as columns."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pandas as pd

from analysis.fitting.laws.law import Law
from analysis.fitting.reading.points import Points
from analysis.fitting.request import FitRequest
from results.errors import DataError
from results.schema import METRICS

from .frames import StudyFrames
from .measure import selection_note

UNIT = "unit"
NO_CLUSTERS = "none"
"""The word for rows that count each for itself."""


@dataclass(frozen=True)
class StudyRequest(FitRequest):
    """A fit to the table of a study; `about` says what its metric and its clusters are, and is noted with every fit."""

    about: tuple[str, ...] = ()

    def points(self, law: Law, table: pd.DataFrame | None = None) -> Points:
        """As of any table."""
        points = super().points(law, table)
        return replace(points, notes=(*self.about, *points.notes))


def study_request(frames: StudyFrames, metric: str | None, cluster: str | None, **options: object) -> StudyRequest:
    """A fit to the measured points of a study, options as `FitRequest` takes them.

    Rows without the metric are left out. Without `cluster` those of one tokenizer seed are a cluster, since that is the
    statistical unit (of runs of no stage: those of one run); with "none" each row counts for itself. Raises DataError
    where nothing was measured, or the metric of no row.
    """
    table = fit_table(frames)
    about: list[str] = []
    if metric is not None and metric in table:
        table, about = _with_metric(table, metric, frames)
    if cluster is None and table[UNIT].duplicated().any():
        cluster = UNIT
        unit = "tokenizer seed count together: it is the statistical unit" if "pair" in table else "run count together"
        about.append(f"rows of one {unit} (--cluster {NO_CLUSTERS}: each row alone)")
    cluster = None if cluster == NO_CLUSTERS else cluster
    return StudyRequest(table, metric=metric, cluster=cluster, about=tuple(about), **options)  # type: ignore[arg-type]


def fit_table(frames: StudyFrames) -> pd.DataFrame:
    """The measured points of a study, for `fit`, `validate` and `compare`.

    Of two-stage studies a row a generator and budget, with the metric that ranks at its guidance, every other one
    without, and its tokenizer's rFID as columns (`StudyFrames.points`) and `pair`, its tokenizer and size; of runs of
    no stage a row a run, with its metrics and `run.NAME` for each value in which the runs differ; of tokenizers alone a
    row a tokenizer. `unit` names the tokenizer seed, or the run, that a row is of. Further fields in which runs differ
    are columns by their path, such as `tokenizer.losses.perceptual_weight`. Raises DataError where nothing was
    measured.
    """
    table = _points(frames)
    if table.empty:
        raise DataError("the study has no measurements yet; `tokenlaw status` tells what is missing")
    settings = frames.settings[[name for name in frames.settings.columns if name not in table.columns]]
    return table.join(settings, on="run_id").reset_index(drop=True)


def _points(frames: StudyFrames) -> pd.DataFrame:
    if len(points := frames.points):
        seeds = points["family"] + " seed " + points["tokenizer_seed"].astype(str)
        return points.assign(pair=points["family"] + " + " + points["size"], **{UNIT: seeds})
    rows = frames.own[frames.own["guidance"].isna() | (frames.own["guidance"] == 1.0)]
    if rows.empty:
        return frames.tokenizers.assign(**{UNIT: frames.tokenizers["run_id"]})
    keys = ["run_id", "branch"]
    metrics = rows.drop_duplicates([*keys, "metric"], keep="last").pivot(index=keys, columns="metric", values="value")
    facts = rows.drop(columns=["metric", "value", "standard_error"]).drop_duplicates(keys, keep="last")
    return facts.merge(metrics.reset_index(), on=keys).assign(**{UNIT: lambda found: found["run_id"]})


def _with_metric(table: pd.DataFrame, metric: str, frames: StudyFrames) -> tuple[pd.DataFrame, list[str]]:
    """The rows that have the metric, and what is to be said of it."""
    judged = frames.measure if metric == frames.measure.metric else None
    name = judged.name if judged is not None else metric
    has = table[metric].notna()
    if not has.any():
        metrics = sorted(c for c in map(str, table.columns) if c in METRICS or c.startswith("own_"))
        known = ", ".join(c for c in metrics if table[c].notna().any()) or "none"
        raise DataError(f"metric = {metric!r}: {name} was measured of no run of this study; measured: {known}")
    about = []
    if judged is not None and judged.guided:
        about = [f"{metric} is {name}", *filter(None, [selection_note(judged, frames.points)])]
    if not has.all():
        about.append(f"left out {(~has).sum()} of {len(table)} rows: {name} was not measured there")
    return table[has].reset_index(drop=True), about

"""A study's measurements as the table that a law is fitted to: a row a measured point, metrics and facts as columns."""

from __future__ import annotations

import pandas as pd

from results.errors import DataError

from .frames import StudyFrames


def fit_table(frames: StudyFrames) -> pd.DataFrame:
    """The measured points of a study, for `fit`, `validate` and `compare`.

    Of two-stage studies a row a generator and budget, with each unguided metric and its tokenizer's rFID as columns
    (`StudyFrames.points`) and `pair`, its tokenizer and size; of runs of no stage a row a run, with its metrics and
    `run.NAME` for each value in which the runs differ; of tokenizers alone a row a tokenizer. Further fields in which
    runs differ are columns by their path, such as `tokenizer.losses.perceptual_weight`. Raises DataError where nothing
    was measured.
    """
    table = _points(frames)
    if table.empty:
        raise DataError("the study has no measurements yet; `tokenlaw status` tells what is missing")
    settings = frames.settings[[name for name in frames.settings.columns if name not in table.columns]]
    return table.join(settings, on="run_id").reset_index(drop=True)


def _points(frames: StudyFrames) -> pd.DataFrame:
    if len(points := frames.points):
        return points.assign(pair=points["family"] + " + " + points["size"])
    rows = frames.own[frames.own["guidance"].isna() | (frames.own["guidance"] == 1.0)]
    if rows.empty:
        return frames.tokenizers
    keys = ["run_id", "branch"]
    metrics = rows.drop_duplicates([*keys, "metric"], keep="last").pivot(index=keys, columns="metric", values="value")
    facts = rows.drop(columns=["metric", "value", "standard_error"]).drop_duplicates(keys, keep="last")
    return facts.merge(metrics.reset_index(), on=keys)

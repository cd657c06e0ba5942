"""What a study is judged by: a metric, at which guidance, in whose features; what that does to the values."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from results.errors import DataError, UsageError
from results.protocol import TUNED
from results.schema import METRICS, metric_name

from .rows import Record

NONE, BEST = "none", "best"
GUIDANCE_WORDS = (NONE, BEST)
SAMPLED = ("gfid",)
"""Metrics that sampling with guidance changes, beside those of one's own."""
NAMES = {
    "gfid": "gFID", "rfid": "rFID", "kid": "KID", "mind": "MIND", "nats_per_image": "nats per image",
    "nats_per_token": "nats per token", "bits_per_pixel": "bits per pixel", "frechet_distance": "Frechet distance",
}  # fmt: skip
LOSSES = ("nats_per_token", "nats_per_image", "bits_per_pixel", "unigram_normalised_nats")
"""Cross-entropies: they share units, not quality, and rank tokenizers at no other rate."""


@dataclass(frozen=True)
class Measure(Record):
    """The metric that ranks, lower being better, and how it was sampled.

    metric     one of METRICS that falls with quality, or one of one's own (own_...), which must
    guidance   "none", "best" (the lowest value over all scales measured of a row, or that of a scale its authors had
               tuned; the way of arXiv 2412.16326), a scale, or None: without guidance where that was measured,
               else best
    extractor  the feature network of Frechet distances, where several were used
    """

    metric: str = "gfid"
    guidance: float | str | None = None
    extractor: str | None = None

    def __post_init__(self) -> None:
        metric_name(self.metric)
        known = METRICS.get(self.metric)
        if known is not None and known.lower_is_better is not True:
            falling = ", ".join(name for name, metric in METRICS.items() if metric.lower_is_better)
            raise UsageError(
                f"metric = {self.metric!r} does not fall with quality, so no front can be made of it; allowed: "
                f"{falling}, or one of your own (own_...) of which lower is better"
            )
        scale = self.guidance
        bad = isinstance(scale, float | int) and not (math.isfinite(scale) and scale >= 0)
        if bad or (isinstance(scale, str) and scale not in GUIDANCE_WORDS):
            raise UsageError(f"guidance = {scale!r} is not allowed; allowed: none, best, or a scale such as 1.5")

    @classmethod
    def of(cls, metric: str | None = None, guidance: str | None = None, extractor: str | None = None) -> Measure:
        """From words as typed. Raises UsageError for an unknown metric or guidance."""
        scale: float | str | None = guidance
        if guidance is not None and guidance not in GUIDANCE_WORDS:
            try:
                scale = float(guidance)
            except ValueError:
                raise UsageError(
                    f"guidance = {guidance!r} is not allowed; allowed: none, best, or a scale such as 1.5"
                ) from None
        return cls(metric or "gfid", scale, extractor)

    @property
    def name(self) -> str:
        """For people: gFID, gFID at best guidance, gFID at guidance 1.5."""
        name = NAMES.get(self.metric, self.metric)
        if self.guidance == BEST:
            return f"{name} at best guidance"
        return name if self.guidance in (None, NONE, 1.0) else f"{name} at guidance {self.guidance:g}"

    @property
    def label(self) -> str:
        """Of an axis: the name, and of what guidance changes, that there was none."""
        none = self.guidance in (NONE, 1.0) and self.metric in SAMPLED
        return f"{self.name}, no guidance" if none else self.name

    @property
    def guided(self) -> bool:
        """Whether values are (or may be) of guided samples, which can undercut the tokenizer's own floor."""
        return self.guidance not in (None, NONE, 1.0)

    def resolved(self, rows: pd.DataFrame) -> Measure:
        """With the guidance stated, for generators' evaluations `rows`. Raises DataError if none has the metric so, or
        if the best guidance is asked for where there was none to choose."""
        own = rows[rows["metric"] == self.metric]
        if own.empty:
            if self == Measure():
                return replace(self, guidance=NONE)
            measured = ", ".join(sorted(set(rows["metric"]))) or "none"
            raise DataError(f"metric = {self.metric!r} was measured of no generator; measured: {measured}")
        plain = is_unguided(own)
        if self.guidance is None:
            return replace(self, guidance=NONE if plain.any() else BEST)
        if self.guidance == BEST and plain.all():
            raise DataError(f"guidance = {BEST!r}: {self.metric} was measured without guidance only; allowed: {NONE}")
        if self.select(own).empty:
            named = own.loc[~own["tuned"], "guidance"]
            scales = [NONE] if named.isna().any() else []
            scales += sorted({f"{scale:g}" for scale in named.dropna()})
            scales += ["best"] if own["tuned"].any() else []
            raise DataError(
                f"guidance = {self.guidance!r}: {self.metric} was not measured so; measured: {', '.join(scales)}"
            )
        return self

    def select(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Of the rows of the metric those at the guidance; at the best one, the lowest of each run, branch and place,
        with how many there were to choose from in `scales` (0: tuned by its authors, over how many is not known)."""
        if self.guidance == BEST:
            place = ["run_id", "branch", "step", "images"]
            cells = rows.groupby(place, dropna=False)["value"]
            lowest = rows[rows["value"] == cells.transform("min")].drop_duplicates(place)
            scales = cells.transform("size").loc[lowest.index].mask(lowest["tuned"].astype(bool), 0)
            return lowest.assign(scales=scales)
        if self.guidance in (None, NONE, 1.0):
            return rows[is_unguided(rows)]
        return rows[(rows["guidance"] - float(self.guidance)).abs() < 1e-9]


def is_unguided(rows: pd.DataFrame) -> pd.Series:
    """Which evaluations are of samples without guidance, or of what knows none."""
    return (rows["guidance"].isna() | (rows["guidance"] == 1.0)) & ~rows["tuned"]


def is_tuned(protocols: pd.Series) -> pd.Series:
    """Which rows were measured at the scale that was the best of several, by their protocols' texts."""
    return protocols.map({text: _field(text, "guidance_schedule") == TUNED for text in protocols.unique()}).astype(bool)


def other_extractor(rows: pd.DataFrame, extractor: str | None) -> pd.Series:
    """Which rows were measured in another network's features. Raises DataError if none was in this one's."""
    names = rows["protocol_json"].map({text: _field(text, "extractor") for text in rows["protocol_json"].unique()})
    if extractor is None:
        return pd.Series(False, index=rows.index)
    if not (names == extractor).any():
        known = ", ".join(sorted({str(name) for name in names.dropna()})) or "none is known of these rows"
        raise DataError(f"extractor = {extractor!r} measured nothing here; allowed: {known}")
    return names.notna() & (names != extractor)


def _field(text: str, name: str) -> Any:
    return json.loads(text).get(name)


def selection_note(measure: Measure, points: pd.DataFrame) -> str | None:
    """What choosing the best guidance does to the values; None where it was not chosen."""
    if measure.guidance != BEST:
        return None
    scales = points["scales"].dropna() if "scales" in points else pd.Series(dtype=float)
    single = int((scales == 1).sum())
    if single == len(scales):
        return "No guidance was chosen: each value is at the one scale that was measured of it" if single else None
    chosen = [f"the lowest of up to {int(scales.max())} scales"] if scales.max() > 1 else []
    chosen += ["at a scale that its authors tuned"] if (scales == 0).any() else []
    each = "Each value"
    if single:
        each = f"{single} of {len(scales)} values are at the one scale that was measured of them; each other one"
    return (
        f"{each} is {' or '.join(chosen)}, as in arXiv 2412.16326: picked by what it is then reported as, it is too "
        "low, and the more so the more scales were tried"
    )

"""Laws of a study judged by what they did not see, and laws of one's own metrics with intervals and statuses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from analysis.tokenizers.frames import StudyFrames
from analysis.tokenizers.pair_laws import PairCurves, PairLaw, SeedCurve
from analysis.tokenizers.rows import groups
from results.errors import DataError, FitError

from .. import wording
from ..page_data import metric_label
from ..rendering import Facts, Shown, Table, known

FEWEST = 3
"""Budgets that a law must be left with, once the largest is hidden."""
MOST_PAIRS = 48
MOST_METRICS = 12
DRAWS = 2000
REPLICATES = 1000
"""Of the bootstrap: 25 beyond each end of a 95 % interval."""


def validation_table(frames: StudyFrames) -> Table | None:
    """The largest budget of each pair, predicted by the pair's law from the smaller ones; None without four budgets."""
    facts: list[dict[str, Any]] = []
    for pair in frames.curves_of_pairs:
        cut = [(_without_last(curve), curve) for curve in pair.curves if len(curve.x) > FEWEST]
        if cut and len(facts) < MOST_PAIRS:
            facts.append(_held_out(pair, [short for short, _ in cut], [whole for _, whole in cut]))
    columns: dict[str, Shown] = {
        "tokenizer": "family", "generator": "size", "seeds": "seeds",
        "beyond the rest": lambda f: f"{wording.number(f['reach'], 2)} times",
        "hidden, FLOPs": known("flops", wording.flops), "measured": known("measured", wording.number),
        "predicted (95 %)": _predicted,
        "error": lambda f: f"{wording.signed(100 * f['error'], 2)} %",
        "inside": lambda f: "yes" if f["inside"] else "no",
    }  # fmt: skip
    inside = sum(f["inside"] for f in facts)
    note = (
        f"Each pair's largest budget was hidden and predicted from its smaller ones by the law with which the answer "
        f"extrapolates: {inside} of {len(facts)} lie inside their interval. {frames.measure.name}, geometric means "
        "over seeds; the interval is the law's, with the noise of a mean over those seeds."
    )
    return Table.of("validation", "Laws against held-out budgets", facts, columns, note)


def _without_last(curve: SeedCurve) -> SeedCurve:
    return replace(curve, x=curve.x[:-1], y=curve.y[:-1], images=curve.images[:-1])


def _held_out(pair: PairCurves, short: Sequence[SeedCurve], whole: Sequence[SeedCurve]) -> dict[str, Any]:
    law = PairLaw.of(short, "free")
    at = [curve.x[-1] for curve in whole]
    drawn = law.draws(at, DRAWS, seed=0)
    # The noise about the law is that of the points it was fitted to.
    left = [s.y - np.median(_along(law, i, s), axis=0) for i, s in enumerate(short)]
    freedom = max(1, sum(map(len, left)) - len(short) - 1)
    noise = math.sqrt(sum(float((r**2).sum()) for r in left) / freedom / len(short))
    mean = drawn.mean(axis=1) + noise * np.random.default_rng([0, 1]).standard_normal(DRAWS)
    low, high = (float(v) for v in np.exp(np.percentile(mean, [2.5, 97.5])))
    measured = math.exp(float(np.mean([curve.y[-1] for curve in whole])))
    predicted = math.exp(float(np.median(drawn.mean(axis=1))))
    reach = math.exp(max(float(w.x[-1] - s.x[-1]) for w, s in zip(whole, short, strict=True)))
    return {
        "family": pair.family, "size": pair.size, "seeds": len(short), "reach": reach,
        "flops": math.exp(float(np.mean(at))), "measured": measured, "predicted": predicted,
        "predicted_low": low, "predicted_high": high, "error": predicted / measured - 1,
        "inside": low <= measured <= high,
    }  # fmt: skip


def _along(law: PairLaw, seed: int, curve: SeedCurve) -> np.ndarray:
    """Draws of ln gFID of one seed at each of its points (draws, k)."""
    others = list(law.centre)
    columns = []
    for x in curve.x:
        others[seed] = x
        columns.append(law.draws(others, DRAWS, seed=0)[:, seed])
    return np.column_stack(columns)


def _predicted(f: Facts) -> str:
    return wording.number(f["predicted"]) + wording.spread(f["predicted_low"], f["predicted_high"])


def own_fits_table(frames: StudyFrames) -> Table | None:
    """A power law in compute (or images) through all runs of each metric of one's own, and how it predicts the largest.

    A metric that does not fall with compute, or has too few points, is listed with the reason.
    """
    facts: list[dict[str, Any]] = []
    for metric, rows in groups(frames.own, "metric"):
        along = next((c for c in ("path_flops", "images", "step") if (rows[c] > 0).all()), None)
        if along is None or len(facts) >= MOST_METRICS:
            continue
        x = rows[along].to_numpy(dtype=float)
        facts.append({"metric": metric, "along": along} | _fitted(x, rows["value"].to_numpy(dtype=float)))
    names = {"path_flops": "training FLOPs", "images": "training images", "step": "steps"}

    def shown(name: str) -> Shown:
        return lambda f: (
            "–" if f[name] is None else wording.number(f[name]) + _open_spread(f[f"{name}_low"], f[f"{name}_high"])
        )

    columns: dict[str, Shown] = {
        "metric": lambda f: metric_label(f["metric"]), "x": lambda f: names[f["along"]], "rows": "rows",
        "E (95 %)": shown("E"), "A at the middle": shown("A"), "alpha (95 %)": shown("alpha"),
        "error held out": lambda f: "–" if f["held_out"] is None else f"{wording.number(100 * f['held_out'], 2)} %",
        "fit": lambda f: f["status"].replace("_", " "),
    }  # fmt: skip
    note = (
        "Metric = E + A (x / middle)^−alpha, middle being the geometric mean of x, Huber's loss on the logarithm, 95 % "
        f"bootstrap intervals over rows ({REPLICATES} resamples). Error held out: root mean square of the relative "
        "error of the largest x, predicted from all smaller ones. One law for all runs: settings that differ at one x "
        "show as scatter. `tokenlaw fit` fits others."
    )
    return Table.of("fits", "Laws of your metrics", facts, columns, note)


def _fitted(x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    from analysis.fitting.fit import fit
    from analysis.fitting.laws.known_laws import PowerLaw
    from analysis.inference.bootstrap import uncertainty, with_intervals
    from analysis.inference.validation import holdout

    none = dict.fromkeys([f"{p}{end}" for p in ("E", "A", "alpha") for end in ("", "_low", "_high")])
    middle = math.exp(float(np.log(x).mean()))
    data = {"x": x / middle, "metric": y}
    facts: dict[str, Any] = {"rows": len(x), "middle": middle, "held_out": None} | none
    if len(np.unique(x.round(9))) < FEWEST + 1:
        return facts | {"status": f"no fit: {len(np.unique(x))} different x, {FEWEST + 1} are needed"}
    try:
        result = fit(PowerLaw("free"), data, loss="huber", delta=0.1)
    except (DataError, FitError) as error:
        return facts | {"status": f"no fit: {error}"}
    status = str(result.status)
    try:
        result = with_intervals(result, uncertainty(result, replicates=REPLICATES))
    except FitError as error:
        status += f", no intervals: {error}"
    for name, estimate in result.parameters.items():
        facts |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    try:
        facts["held_out"] = holdout(PowerLaw("free"), data, x == x.max(), loss="huber", delta=0.1).rmsle
    except (DataError, FitError) as error:
        status += f", not validated: {error}"
    return facts | {"status": status}


def _open_spread(low: float | None, high: float | None) -> str:
    if low is None and high is None:
        return ""
    return f" ({'open' if low is None else wording.number(low)} to {'open' if high is None else wording.number(high)})"

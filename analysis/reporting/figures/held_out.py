"""How far the study can be trusted beyond its runs: laws against budgets hidden from them, and the regret of choosing
early."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.reporting import wording
from analysis.tokenizers.pair_laws import LAW_DRAWS, PairLaw, SeedCurve, pair_curves
from analysis.tokenizers.pairs import best_pairs, default_budgets
from analysis.tokenizers.rows import groups, records
from results.errors import FitError

from .drawing import axes as scales
from .drawing.page import Page
from .drawing.style import INK, MUTED
from .registry import Evidence, NotDrawn, Plot, Shown

LEAST_KNOWN = 3
"""Budgets of a run that a law is fitted to, at least."""
STEPS = 9
"""Compute values up to which runs are taken as known."""
JOINT_LAW = "joint-law"
"""A table that may take the place of the joint law's held-out points, with columns family, size, path_flops, gfid,
predicted, low, high and, should they be of several kinds, case."""
HELD_OUT = "held out"
CASES = {"a tokenizer, floor measured": "Tokenizers left out", "the largest compute": "Largest budgets left out"}
"""Titles of the panels, by how points were held out."""


def _shortened(curve: SeedCurve) -> SeedCurve:
    """The curve without its largest budget."""
    return replace(curve, x=curve.x[:-1], y=curve.y[:-1], images=curve.images[:-1])


def _check(evidence: Evidence) -> Shown:
    rows: list[dict[str, Any]] = []
    for number, pair in enumerate(evidence.frames.curves_of_pairs):
        curves = [curve for curve in pair.curves if len(curve.x) > LEAST_KNOWN]
        if not curves:
            continue
        law = PairLaw.of([_shortened(curve) for curve in curves], "free")
        drawn = law.draws([curve.x[-1] for curve in curves], LAW_DRAWS, number)
        low, middle, high = np.exp(np.quantile(drawn, [0.025, 0.5, 0.975], axis=0))
        rows += [
            {"family": pair.family, "size": pair.size, "tokenizer_seed": curve.tokenizer_seed,
             "path_flops": float(np.exp(curve.x[-1])), "reach": float(np.exp(curve.x[-1] - curve.x[-2])),
             "gfid": float(np.exp(curve.y[-1])), "predicted": middle[i], "low": low[i], "high": high[i]}
            for i, curve in enumerate(curves)
        ]  # fmt: skip
    if not rows:
        raise NotDrawn(f"no run has {LEAST_KNOWN + 1} budgets, of which the largest could be hidden")
    table = pd.DataFrame(rows)
    fit, words = _errors(table)
    name = evidence.frames.measure.name
    caption = (
        f"Each pair's law, fitted without the largest budget of its runs, against the {name} measured there "
        f"({table['reach'].median():.2g} times the compute of the largest budget known to it). {words}"
    )
    return Shown(table, caption, fit)


def _errors(table: pd.DataFrame) -> tuple[dict[str, Any], str]:
    """How far predictions lie from measurements, as numbers and in a sentence."""
    logs = np.log(table["predicted"].astype(float) / table["gfid"].astype(float))
    inside = (table["gfid"] >= table["low"]) & (table["gfid"] <= table["high"])
    error, bias = float(np.sqrt((logs**2).mean())), float(np.exp(logs.mean()) - 1)
    fit = {"points": len(table), "rmsle": error, "bias": bias, "inside": int(inside.sum())}
    words = (
        f"Root mean square error {100 * (np.exp(error) - 1):.2g} %, bias {wording.signed(100 * bias, 2)} %; "
        f"{int(inside.sum())} of {len(table)} lie in the law's 95 % interval (bars)."
    )
    return fit, words


def extrapolation_check(rows: pd.DataFrame, page: Page) -> Axes:
    """Predicted against measured, on the diagonal where the law was right."""
    return _against(page.axes(0.55 if page.columns == 2 else 0.85), rows, page)


def _against(axis: Axes, rows: pd.DataFrame, page: Page) -> Axes:
    values = [*rows["gfid"], *rows["predicted"]]
    low, high = min(values) / 1.12, max(values) * 1.12
    # Bars are shown whole unless one is so long that the points would be lost.
    bottom = min(low, max(float(rows["low"].min()) / 1.04, low / 2))
    top = max(high, min(float(rows["high"].max()) * 1.04, high * 2))
    axis.plot([low, high], [low, high], color=INK, lw=0.8)
    for (family, size), own in groups(rows, ["family", "size"]):
        colour, marker = page.palette.colours[family], page.palette.markers[size]
        for row in records(own):
            axis.plot([row["gfid"]] * 2, [row["low"], row["high"]], color=colour, lw=0.9, alpha=0.7)
        axis.plot(own["gfid"], own["predicted"], marker, color=colour, ms=4.5)
        own = own.sort_values("gfid")
        line = page.palette.handles([family])[0]
        line.set(marker=marker, ls="", label=f"{family} + {size}", markersize=4.5)
        page.label(axis, f"{family} + {size}", own["gfid"], own["predicted"], colour, handle=line)
    scales.log_value_axis(axis, f"measured {page.measure}", values, "x")
    scales.log_value_axis(axis, f"predicted {page.measure}", [bottom, top])
    axis.set_xlim(low, high)
    axis.set_ylim(bottom, top)
    return axis


def _regret(evidence: Evidence) -> Shown:
    points = evidence.points
    if points.groupby(["family", "size"]).ngroups < 2:
        raise NotDrawn("needs two pairs to choose between; the study has one")
    target = default_budgets(points, 2)[-1]
    curves = evidence.frames.curves_of_pairs
    final = best_pairs(points, target, draws=4000, curves=curves)
    gfids = {(p.family, p.size): p.gfid for p in final.pairs}
    lowest = min(final.pairs, key=lambda p: p.gfid)
    rows: list[dict[str, Any]] = []
    for known in np.geomspace(float(points["path_flops"].min()) * 1.5, target, STEPS):
        seen = points[points["path_flops"] <= known * (1 + 1e-9)]
        if seen.empty:
            continue
        longest = seen.sort_values("path_flops").groupby(["family", "size", "tokenizer_seed", "seed"]).tail(1)
        so_far = longest.groupby(["family", "size"])["gfid"].mean()
        try:
            shortened = pair_curves(seen, evidence.frames.floor_is_comparable)
            by_law = best_pairs(seen, target, draws=4000, curves=shortened).best
        except FitError:
            continue
        choices = {"by the laws": (by_law.family, by_law.size), "lowest so far": so_far.idxmin()}
        for rule, pair in choices.items():
            if pair in gfids:
                rows.append(
                    {"rule": rule, "known_flops": float(known), "target_flops": target, "family": pair[0],
                     "size": pair[1], "gfid": gfids[pair], "best": lowest.name, "best_gfid": lowest.gfid,
                     "regret": gfids[pair] / lowest.gfid - 1}
                )  # fmt: skip
    if not rows:
        raise NotDrawn("no pair that could be chosen early is judged at the largest compute")
    name = evidence.frames.measure.name
    caption = (
        f"Regret of choosing what to train for {wording.flops(target)} FLOPs from the runs up to a smaller compute: "
        f"how much "
        f"higher the {name} of the chosen pair is there than that of the best, {lowest.name}. Solid: the pair most "
        f"probably "
        f"the best by the laws; dashed: the lowest {name} measured so far."
    )
    notes: tuple[str, ...] = ()
    if final.extrapolated:
        notes = (f"At the right end by its law: {wording.listing([p.name for p in final.extrapolated])}.",)
    return Shown(pd.DataFrame(rows), caption, {"target_flops": target, "best": lowest.name}, notes)


def regret(rows: pd.DataFrame, page: Page) -> Axes:
    """Excess over the best in percent, by the compute up to which runs are known."""
    axis = page.axes(0.5 if page.columns == 2 else 0.8)
    looks: Any = {"by the laws": (INK, "-", "o"), "lowest so far": (MUTED, (0, (4, 1.6)), "s")}
    for rule, own in groups(rows, "rule"):
        colour, dash, marker = looks[rule]
        own = own.sort_values("known_flops")
        axis.plot(own["known_flops"], 100 * own["regret"], color=colour, ls=dash, marker=marker, ms=4.0)
        words = {"by the laws": "chosen by the laws", "lowest so far": f"lowest {page.measure} so far"}[rule]
        page.label(axis, words, own["known_flops"], 100 * own["regret"], colour, prefer=0.3)
    top = max(1.0, 100 * float(rows["regret"].max()))
    axis.set_ylim(-0.06 * top, 1.25 * top)
    axis.set_ylabel(f"regret (% of {page.measure})")
    target = scales.power_of_ten(float(rows["target_flops"].iloc[0]))
    scales.compute_axis(axis, label=f"runs known up to (FLOPs), to train with {target}")
    return axis


def _joint_law(evidence: Evidence) -> Shown:
    table = evidence.tables.get(JOINT_LAW)
    notes: tuple[str, ...] = ()
    if table is None:
        # The joint law alone needs the engine of fits.
        from analysis.tokenizers.joint.held_out import held_out_points
        from analysis.tokenizers.joint.table import fitted_table

        try:
            table, left_in = held_out_points(fitted_table(evidence.frames))
        except FitError as problem:
            raise NotDrawn(str(problem)) from problem
        notes = (f"Not left out: {'; '.join(left_in)}.",) if left_in else ()
    needed = ["family", "size", "path_flops", "gfid", "predicted", "low", "high"]
    missing = [column for column in needed if column not in table]
    if missing:
        raise NotDrawn(f"the table of the joint law has no column {', '.join(missing)}")
    known = set(evidence.palette.colours)
    rows = table[table["family"].isin(known) & table["size"].isin(set(evidence.palette.markers))]
    if rows.empty:
        raise NotDrawn("the table of the joint law names no tokenizer and generator of this study")
    rows = rows.assign(case=rows.get("case", HELD_OUT)).reset_index(drop=True)
    fits = {case: _errors(own) for case, own in rows.groupby("case", sort=False)}
    name = evidence.frames.measure.name
    by_case = " ".join(
        f"{CASES.get(str(case), str(case))}: {words[0].lower()}{words[1:]}" for case, (_, words) in fits.items()
    )
    caption = f"The joint law over tokenizers against the {name} of points held out of it. {by_case}"
    return Shown(rows, caption, {str(case): numbers for case, (numbers, _) in fits.items()}, notes)


def joint_law(rows: pd.DataFrame, page: Page) -> list[Axes]:
    """Predicted against measured, a panel for each way of holding points out."""
    cases = list(dict.fromkeys(rows["case"]))
    axes = page.panels(len(cases), 0.85 if len(cases) > 1 or page.columns == 1 else 0.55)
    for axis, case in zip(axes, cases, strict=True):
        page.title(axis, CASES.get(case, case))
        _against(axis, rows[rows["case"] == case], page)
    return axes


PLOTS = (
    Plot("extrapolation-check", "each pair's law against the largest budget, which was hidden from it",
         extrapolation_check, _check, needs=("gfid", "path_flops")),
    Plot("regret", "what choosing a pair from smaller runs costs at the largest compute",
         regret, _regret, needs=("gfid", "path_flops")),
    Plot("joint-law", "the joint law over tokenizers against points held out of it",
         joint_law, _joint_law, needs=("gfid", "path_flops")),
)  # fmt: skip

"""The causal regulariser (CRT) at equal compute and at equal quality: its gain budget by budget, and the multiplier.

As Figs. 7 and 13 of the paper (arXiv 2412.16326), but paired by seed and with intervals.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.reporting import wording
from analysis.tokenizers.comparisons.contrasts import Contrast
from analysis.tokenizers.rows import groups, plain

from .compute import LOSS, cell_means, outer_label
from .drawing import axes as scales
from .drawing.page import Page
from .drawing.style import INK, MUTED
from .fronts import draw_fronts, front_rows, run_rows, seeds_of
from .registry import Evidence, NotDrawn, Plot, Shown
from .thinning import thinned

NONE = "no two of its tokenizers differ in the regulariser alone with a generator size run on both"


def _contrasts(evidence: Evidence) -> tuple[Contrast, ...]:
    if not evidence.answer.regulariser:
        raise NotDrawn(NONE)
    return evidence.answer.regulariser


def _families(contrasts: tuple[Contrast, ...]) -> list[str]:
    return list(dict.fromkeys(f for c in contrasts for f in (c.base, c.treatment)))


def _paired(evidence: Evidence, contrasts: tuple[Contrast, ...]) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Points of the sizes that were run on both sides, and what other sizes were left out."""
    sizes = list(dict.fromkeys(s for c in contrasts for e in c.pooled for s in e.sizes))
    points = evidence.points[evidence.points["family"].isin(_families(contrasts))]
    left = [size for size in dict.fromkeys(points["size"]) if size not in sizes]
    notes = (f"Not run with both: {wording.listing(left)}; left out.",) if left else ()
    return points[points["size"].isin(sizes)], notes


def _effects(contrasts: tuple[Contrast, ...]) -> pd.DataFrame:
    rows = [
        {"kind": "effect", "family": c.treatment, "base": c.base, "metric": e.metric, "images": e.budget,
         "value": e.estimate.value, "low": e.estimate.low, "high": e.estimate.high,
         "per_seed": " ".join(f"{v:.6g}" for v in e.estimate.per_seed)}
        for c in contrasts
        for e in (*c.per_budget, *c.pooled, *c.stage1)
        if e.metric in ("gfid", "nats_per_image", "rfid")
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _regulariser(evidence: Evidence) -> Shown:
    contrasts = _contrasts(evidence)
    points, notes = _paired(evidence, contrasts)
    rows = [cell_means(points, "path_flops", "gfid"), run_rows(points), _effects(contrasts)]
    name = evidence.frames.measure.name
    caption = (
        f"The causal regulariser at equal training compute: {name} with and without it, and its paired effect on "
        f"{name} "
        f"and rFID (ratios) and on cross-entropy (nats per image), by training images and over all of them; "
        f"{seeds_of(points)}, 95 % t intervals, small dots are seeds."
    )
    alone = [c.treatment for c in contrasts if any(e.estimate.low is None for e in c.pooled)]
    notes += (f"One seed, no interval: {wording.listing(alone)}.",) if alone else ()
    return Shown(pd.concat(rows, ignore_index=True), caption, {"contrasts": [plain(c) for c in contrasts]}, notes)


def regulariser(rows: pd.DataFrame, page: Page) -> list[Axes]:
    """The metric with and without, then the paired effects per budget and pooled."""
    effects = rows[rows["kind"] == "effect"]
    metrics = [metric for metric in ("gfid", "nats_per_image") if (effects["metric"] == metric).any()]
    axes = page.panels(1 + len(metrics), 1.08)
    _curves(axes[0], rows, page)
    short = page.measure.split(" at ")[0]
    titles = {"gfid": f"ratio of {short} and rFID", "nats_per_image": "cross-entropy"}
    page.title(axes[0], page.measure)
    for axis, metric in zip(axes[1:], metrics, strict=True):
        _draw_effects(axis, effects, metric, page)
        page.title(axis, titles[metric])
    families = page.palette.present(rows[rows["kind"] == "mean"])
    page.legend([*page.palette.handles(families), *page.palette.size_handles(page.palette.sizes(rows))])
    return axes


def _curves(axis: Axes, rows: pd.DataFrame, page: Page) -> None:
    palette = page.palette
    for (family, size), group in groups(rows[rows["kind"] == "mean"], ["family", "size"]):
        line = group.sort_values("path_flops")
        look: Any = {"color": palette.colours[family], "marker": palette.markers[size], "ls": palette.dashes[family]}
        axis.plot(line["path_flops"], line["gfid"], **look)
    runs = rows[rows["kind"] == "run"]
    for (family, size), group in groups(thinned(runs, page), ["family", "size"]):
        look = {"color": palette.colours[family], "marker": palette.markers[size], "s": 6, "alpha": 0.45, "lw": 0}
        axis.scatter(group["path_flops"], group["gfid"], **look)
    scales.compute_axis(axis, label=page.compute_label)
    scales.log_value_axis(axis, page.measure_label, runs["gfid"])


def _draw_effects(axis: Axes, effects: pd.DataFrame, metric: str, page: Page) -> None:
    """Point and interval at each budget, then the pooled effect and, for the metric that ranks, the ratio of rFID."""
    own = effects[effects["metric"] == metric]
    budgets = sorted(own["images"].dropna().unique())
    with_rfid = metric == "gfid" and (effects["metric"] == "rfid").any()
    names = [wording.images(b) for b in budgets] + ["all"] + (["rFID"] if with_rfid else [])
    treatments = page.palette.present(effects)
    values: list[float] = [1.0] if metric == "gfid" else [0.0]
    for i, family in enumerate(treatments):
        offset = (i - (len(treatments) - 1) / 2) * 0.2
        placed = [
            (len(budgets) if pd.isna(e["images"]) else budgets.index(e["images"]), e)
            for e in own[own["family"] == family].to_dict("records")
        ]
        if with_rfid:
            rfid = effects[(effects["metric"] == "rfid") & (effects["family"] == family)]
            placed += [(len(budgets) + 1, e) for e in rfid.to_dict("records")]
        for position, e in placed:
            x, colour = position + offset, page.palette.colours[family]
            if e["low"] is not None and np.isfinite(e["low"]):
                axis.plot([x, x], [e["low"], e["high"]], color=colour, lw=1.4)
                values += [e["low"], e["high"]]
            seeds = [float(text) for text in e["per_seed"].split()]
            spread = np.linspace(0.12, 0.26, len(seeds)) if len(seeds) > 1 else np.zeros(1)
            axis.plot(x + spread, seeds, ".", color=colour, ms=3.0, alpha=0.6)
            pooled = position >= len(budgets)
            axis.plot(x, e["value"], "D" if pooled else "o", color=colour, ms=5.0 if pooled else 4.2)
            values += [e["value"], *seeds]
    scales.neutral_line(axis, values[0])
    axis.axvline(len(budgets) - 0.5, color=MUTED, lw=0.6)
    crowded = page.columns == 1 or len(names) > 5
    axis.set_xticks(range(len(names)), names, rotation=90 if crowded else 0)
    axis.set_xlim(-0.6, len(names) - 0.3)
    axis.grid(axis="x", visible=False)
    axis.set_xlabel("training images")
    if metric == "gfid":
        scales.log_value_axis(axis, "with / without", values)
    else:
        axis.set_ylabel("with − without (nats)")


def _multiplier_rows(evidence: Evidence) -> pd.DataFrame:
    """The multiplier by level of the metric: each seed (kind `seed`) and the mean with its interval (kind "
    "`multiplier`)."""
    parts = []
    for m in evidence.answer.compute_multiplier:
        if m.estimate is None or not m.curve.size:
            continue
        for seed, row in zip(m.estimate.seeds, m.curve, strict=True):
            parts.append(pd.DataFrame({"gfid": m.curve_gfid, "multiplier": row}).assign(kind="seed", seed=seed))
            parts[-1]["family"], parts[-1]["base"] = m.treatment, m.base
        levels, mean = m.along
        low, high = m.band or (np.full(len(mean), np.nan),) * 2
        table = {"gfid": levels, "multiplier": mean, "low": low, "high": high}
        parts.append(pd.DataFrame(table).assign(kind="multiplier", family=m.treatment, base=m.base))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["kind"])


def _multiplier_facts(evidence: Evidence) -> tuple[dict[str, Any], str, tuple[str, ...]]:
    shown = [(m, m.estimate) for m in evidence.answer.compute_multiplier if m.estimate is not None]
    words = [f"{m.treatment} over {m.base}: {wording.number(e.value)}{wording.span(e)}" for m, e in shown]
    notes = tuple(
        f"{m.treatment}: seed {wording.listing([str(w.seed) for w in m.without_overlap])} left out, its fronts share "
        f"no level."
        for m, _ in shown
        if m.without_overlap
    )
    return {"multipliers": [plain(m) for m, _ in shown]}, wording.listing(words), notes


def _compute_multiplier(evidence: Evidence) -> Shown:
    _contrasts(evidence)
    rows = _multiplier_rows(evidence)
    if rows.empty:
        raise NotDrawn("the fronts with and without regulariser share no level of the metric on any seed")
    fit, words, notes = _multiplier_facts(evidence)
    name = evidence.frames.measure.name
    caption = (
        f"Compute multiplier of the causal regulariser: how many times less training compute reaches the same {name}; "
        f"thin lines are tokenizer seeds, the band is the 95 % t interval over them. On average over the range that "
        f"both "
        f"reach: {words}. The tokenizer's own training is not counted."
    )
    return Shown(rows, caption, fit, notes)


def compute_multiplier(rows: pd.DataFrame, page: Page) -> Axes:
    """One line a regularised tokenizer: the horizontal gap of the fronts."""
    axis = page.axes(0.5 if page.columns == 2 else 0.8)
    draw_multiplier(axis, rows, page)
    return axis


def draw_multiplier(axis: Axes, rows: pd.DataFrame, page: Page) -> None:
    """The multiplier against the level to be reached, better ones to the right."""
    values = [1.0]
    for family in page.palette.present(rows):
        own, colour = rows[rows["family"] == family], page.palette.colours[family]
        for _, seed in groups(own[own["kind"] == "seed"], "seed"):
            axis.plot(seed["gfid"], seed["multiplier"], color=colour, lw=0.7, alpha=0.5)
            values += seed["multiplier"].dropna().tolist()
        mean = own[own["kind"] == "multiplier"]
        axis.fill_between(mean["gfid"], mean["low"], mean["high"], color=colour, alpha=0.15, lw=0)
        axis.plot(mean["gfid"], mean["multiplier"], color=colour, lw=2.0, ls=page.palette.dashes[family])
        handle = page.palette.handles([family])[0]
        page.label(axis, family, mean["gfid"], mean["multiplier"], colour, handle=handle, prefer=0.5, weight="bold")
    axis.axhline(1, color=INK, lw=0.9)
    scales.log_value_axis(axis, f"{page.measure} to be reached (better\u00a0→)", rows["gfid"], "x")
    axis.invert_xaxis()
    scales.log_value_axis(axis, "compute multiplier", values)
    axis.set_ylim(min(values) * 0.85, max(values) * 1.18)


def _crt_gain(evidence: Evidence) -> Shown:
    contrasts = _contrasts(evidence)
    points, notes = _paired(evidence, contrasts)
    families = [f for f in evidence.palette.present(points) if f in _families(contrasts)]
    parts = [front_rows(points, families), run_rows(points, "nats_per_token")]
    if "nats_per_token" in points and points["nats_per_token"].notna().any():
        losses = (
            points[points["nats_per_token"].notna()].drop(columns="gfid").rename(columns={"nats_per_token": "gfid"})
        )
        front = front_rows(losses, families).rename(columns={"gfid": "nats_per_token"})
        parts.append(front.assign(kind="loss front"))
    multiplier = _multiplier_rows(evidence)
    parts.append(multiplier.rename(columns={"seed": "tokenizer_seed"}))
    fit, words, more = _multiplier_facts(evidence)
    name = evidence.frames.measure.name
    caption = (
        f"What the causal regulariser gains: Pareto fronts of held-out cross-entropy and of {name} against training "
        f"compute with and without it, and the compute multiplier at equal {name} with its 95 % interval"
        f"{f' ({words} on average)' if words else ''}; {seeds_of(points)}."
    )
    return Shown(pd.concat([p for p in parts if len(p)], ignore_index=True), caption, fit, (*notes, *more))


def crt_gain(rows: pd.DataFrame, page: Page) -> list[Axes]:
    """Fronts of the loss and of the metric with and without, and the efficiency ratio."""
    loss, ratio = rows[rows["kind"] == "loss front"], rows[rows["kind"].isin(["seed", "multiplier"])]
    axes = page.panels(1 + bool(len(loss)) + bool(len(ratio)), 1.08)
    rest, palette = list(axes), page.palette
    if len(loss):
        axis = rest.pop(0)
        runs = rows[(rows["kind"] == "run") & rows["nats_per_token"].notna()]
        for (family, size), group in groups(runs, ["family", "size"]):
            look: Any = {
                "color": palette.colours[family],
                "marker": palette.markers[size],
                "s": 9,
                "alpha": 0.4,
                "lw": 0,
            }
            axis.scatter(group["path_flops"], group["nats_per_token"], **look)
        for family in palette.present(loss):
            line = loss[loss["family"] == family]
            colour, handle = palette.colours[family], palette.handles([family])[0]
            axis.plot(line["path_flops"], line["nats_per_token"], color=colour, ls=palette.dashes[family])
            page.label(axis, family, line["path_flops"], line["nats_per_token"], colour, handle=handle, weight="bold")
        scales.compute_axis(axis, label=page.compute_label)
        scales.log_value_axis(axis, LOSS, runs["nats_per_token"])
        page.title(axis, "held-out loss")
    axis = rest.pop(0)
    draw_fronts(axis, rows, page)
    scales.compute_axis(axis, label=page.compute_label)
    page.title(axis, page.measure)
    if len(ratio):
        draw_multiplier(rest[0], ratio, page)
        page.title(rest[0], "compute multiplier")
    return axes


def _crt_by_size(evidence: Evidence) -> Shown:
    contrasts = _contrasts(evidence)
    points, notes = _paired(evidence, contrasts)
    rows = pd.concat([cell_means(points, "path_flops", "gfid"), run_rows(points)], ignore_index=True)
    name = evidence.frames.measure.name
    caption = (
        f"{name} against training compute with and without the causal regulariser, a panel a generator size; marks are "
        f"geometric means over {seeds_of(points)}, small dots are runs."
    )
    return Shown(rows, caption, notes=notes)


def crt_by_size(rows: pd.DataFrame, page: Page) -> list[Axes]:
    """A panel a generator size, a line a tokenizer."""
    sizes = page.palette.sizes(rows)
    axes = page.panels(len(sizes), 0.86, sharey=len(sizes) > 1) if len(sizes) > 1 else [page.axes()]
    for axis, size in zip(axes, sizes, strict=True):
        own = rows[rows["size"] == size]
        _curves(axis, own, page)
        for family in page.palette.present(own):
            mean = own[(own["kind"] == "mean") & (own["family"] == family)].sort_values("path_flops")
            colour, handle = page.palette.colours[family], page.palette.handles([family])[0]
            page.label(axis, family, mean["path_flops"], mean["gfid"], colour, handle=handle, weight="bold")
        page.title(axis, f"generator {size}")
    outer_label(axes, page.measure_label)
    return axes


NEEDS = ("gfid", "path_flops")
PLOTS = (
    Plot("regulariser", "the causal regulariser at equal compute: effect on gFID, rFID and cross-entropy by budget",
         regulariser, _regulariser, needs=NEEDS, report=True),
    Plot("crt-gain", "fronts of loss and gFID with and without the causal regulariser, and the multiplier",
         crt_gain, _crt_gain, needs=NEEDS, paper="Fig. 7"),
    Plot("compute-multiplier", "how many times less compute the regularised tokenizer needs for the same gFID",
         compute_multiplier, _compute_multiplier, needs=NEEDS, paper="Fig. 7 (right)", report=True),
    Plot("crt-by-size", "gFID against compute with and without the causal regulariser, a panel a generator size",
         crt_by_size, _crt_by_size, needs=NEEDS, paper="Fig. 13"),
)  # fmt: skip

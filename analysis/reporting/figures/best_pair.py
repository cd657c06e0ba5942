"""What to train at a budget: the best pairs and their probabilities, and reconstruction against generation.

At small compute the tokenizer that reconstructs worse can be the better one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from analysis.reporting import wording
from analysis.reporting.rendering import estimate_of
from analysis.tokenizers.fronts import family_fronts
from analysis.tokenizers.rows import groups, records
from analysis.tokenizers.seed_intervals import over_seeds

from .drawing import axes as scales
from .drawing.page import Page
from .drawing.style import BUDGET_SHADES, INK, MUTED
from .fronts import not_run
from .registry import Evidence, NotDrawn, Plot, Shown

SHOWN = 5
"""Pairs shown at each budget."""
_TIED = "\N{NO-BREAK SPACE}"
VISIBLE = 0.005
"""The least probability that is drawn."""


def _best_pair(evidence: Evidence) -> Shown:
    if not evidence.answer.best_pairs:
        raise NotDrawn("the answer judges no pair at any budget")
    rows = [
        {"path_flops": best.flops, "place": place, "family": p.family, "size": p.size, "gfid": p.gfid, "low": p.low,
         "high": p.high, "probability": p.probability, "extrapolated": p.extrapolated, "reach": p.reach,
         "chosen": p is best.best, "seeds": len(p.seeds)}
        for best in evidence.answer.best_pairs
        for place, p in enumerate(best.pairs[:SHOWN], start=1)
    ]  # fmt: skip
    name = evidence.frames.measure.name
    budgets = wording.listing([wording.flops(best.flops) for best in evidence.answer.best_pairs])
    several = any(best.df for best in evidence.answer.best_pairs)
    caption = f"The pairs of tokenizer and generator with the lowest expected {name} at {budgets} FLOPs"
    caption += (
        ", its 95 % interval and the probability of each to be the best; the chosen one is bold."
        if several
        else "; one tokenizer seed each, so no intervals."
    )
    notes: tuple[str, ...] = ()
    if any(row["extrapolated"] for row in rows):
        notes = ("Hollow: beyond the pair's longest run, by its law.",)
    more = max(len(best.pairs) for best in evidence.answer.best_pairs) - SHOWN
    notes += (f"The {more} pairs behind these are not shown.",) if more > 0 else ()
    fit = {"best": [best.to_dict() for best in evidence.answer.best_pairs]}
    return Shown(pd.DataFrame(rows), caption, fit, notes)


def best_pair(rows: pd.DataFrame, page: Page) -> list[Axes]:
    """A panel a budget: the pairs with the lowest expected value, its interval, and the probability of being best."""
    budgets = list(groups(rows, "path_flops"))
    most = int(rows["place"].max())
    beside = page.columns == 2
    names = [_named(pair, page, len(budgets) if beside else 1) for pair in records(rows)]
    lines = max(name.count("\n") for name in names) + 1
    high = (0.3 + 0.13 * (lines - 1)) * most + 0.62
    share = high * page.style.font_size / 8.0 / page.width
    axes = page.tall(high, len(budgets)) if beside else page.panels(len(budgets), share, across=1)
    for axis, (flops, pairs) in zip(axes, budgets, strict=True):
        for pair in records(pairs):
            y, colour = pair["place"] - 1, page.palette.colours[pair["family"]]
            marker = page.palette.markers[pair["size"]]
            if pair["low"] is not None and np.isfinite(pair["low"]):
                dash = ":" if pair["extrapolated"] else "-"
                axis.plot([pair["low"], pair["high"]], [y, y], color=colour, lw=1.5, ls=dash)
            fill = "white" if pair["extrapolated"] else colour
            axis.plot(pair["gfid"], y, marker, color=colour, mfc=fill, ms=0.62 * page.style.font_size)
            look: Any = {"fontsize": page.small, "weight": "bold" if pair["chosen"] else "normal", "color": INK}
            text = _named(pair, page, len(budgets) if beside else 1)
            # Laid over the panel: a long name must not make it narrower.
            look |= {"transform": axis.get_yaxis_transform(), "va": "bottom", "linespacing": 1.0, "in_layout": False}
            axis.text(0.0, y - 0.16, text, **look)
        axis.set_ylim(most - 0.5, -0.8)
        axis.set_yticks([])
        axis.set_xlabel(f"expected {page.measure}")
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.grid(axis="y", visible=False)
        axis.spines["left"].set_visible(False)
        axis.margins(x=0.08)
        page.title(axis, f"{scales.power_of_ten(flops)} FLOPs")
    return axes


def _named(pair: Mapping[str, Any], page: Page, panels: int) -> str:
    """A pair and its probability, where it is known, in lines that fit into one of so many panels."""
    known = pair["probability"] is not None and np.isfinite(pair["probability"])
    chance = f"   {wording.percent(pair['probability'])}" if known else ""
    # No line is broken before the size or the percent sign.
    joined = f"{pair['family']} + {pair['size']}{chance}".replace("+ ", f"+{_TIED}").replace(" %", f"{_TIED}%")
    return page.wrapped(joined, panels).replace(_TIED, " ")


def _best_tokenizer(evidence: Evidence) -> Shown:
    if evidence.points["family"].nunique() < 2:
        raise NotDrawn("needs two tokenizers; the study has one")
    chances = evidence.chances
    if chances is None:
        raise NotDrawn("needs a pair with several tokenizer seeds, from which the probabilities come")
    notes: tuple[str, ...] = ()
    far = chances[chances["extrapolated"] & (chances["probability"] > VISIBLE)]
    if len(far):
        pairs = sorted(set(far["family"] + " + " + far["size"]))
        named = wording.listing(pairs[:3] + ([f"{len(pairs) - 3} more"] if len(pairs) > 3 else []))
        reach = f"up to {far['reach'].max():.2g} times its longest run"
        notes = (f"Hatched: extrapolated, by the law of {named} ({reach}).",)
    notes += not_run(evidence.points, evidence.palette.present(evidence.points))
    caption = (
        "Probability that the best pair at a training compute uses each tokenizer, summed over generator sizes; the "
        "hierarchical model over tokenizer seeds."
    )
    return Shown(chances, caption, notes=notes)


def best_tokenizer(rows: pd.DataFrame, page: Page) -> Axes:
    """Stacked probabilities against compute, what rests on a law hatched."""
    axis = page.axes(0.42 if page.columns == 2 else 0.75)
    flops = np.sort(rows["path_flops"].unique())
    base = np.zeros(len(flops))
    families = page.palette.present(rows)
    for family in families:
        own = rows[rows["family"] == family]
        total = own.groupby("path_flops")["probability"].sum().reindex(flops, fill_value=0.0).to_numpy()
        by_law = own[own["extrapolated"]].groupby("path_flops")["probability"].sum()
        far = by_law.reindex(flops, fill_value=0.0).to_numpy()
        colour = page.palette.colours[family]
        axis.fill_between(flops, base, base + total, color=colour, alpha=0.8, lw=0)
        if far.max() > VISIBLE:
            hatch: Any = {"facecolor": "none", "edgecolor": "white", "hatch": "////", "lw": 0}
            axis.fill_between(flops, base + total - far, base + total, **hatch)
        axis.plot(flops, base + total, color="white", lw=0.8)
        _name_band(axis, family, flops, base, total, page)
        base = base + total
    scales.compute_axis(axis, label=page.compute_label)
    axis.set_xlim(flops[0], flops[-1])
    axis.set_ylim(0, 1)
    axis.set_ylabel("probability of the\nbest tokenizer" if page.columns == 1 else "probability of best")
    axis.set_yticks([0, 0.5, 1])
    axis.grid(False)
    return axis


def _name_band(axis: Axes, family: str, flops: np.ndarray, base: np.ndarray, height: np.ndarray, page: Page) -> None:
    """The name inside its band where that is thick for the whole text, else an entry of the legend."""
    high = page.width * (0.42 if page.columns == 2 else 0.75) * 0.7
    needed = 1.4 * page.small / 72 / high
    wide = math.ceil(len(flops) * 0.7 * len(family) * page.small / 72 / (0.8 * page.width))
    if wide < len(flops):
        lower = np.array([base[i : i + wide].max() for i in range(len(flops) - wide)])
        upper = np.array([(base + height)[i : i + wide].min() for i in range(len(flops) - wide)])
        room = upper - lower
        if room.max() >= needed:
            # In the middle of where there is most of it, away from the ends.
            roomy = np.flatnonzero(room >= 0.97 * room.max())
            best = int(roomy[len(roomy) // 2])
            at = flops[best + wide // 2], (upper[best] + lower[best]) / 2
            stroke = [withStroke(linewidth=2.4, foreground="white")]
            look: Any = {"fontsize": page.small, "weight": "bold", "color": INK, "path_effects": stroke}
            axis.text(*at, family, ha="center", va="center", **look)
            return
    if height.max() > VISIBLE:
        page.legend([Patch(color=page.palette.colours[family], alpha=0.8, lw=0, label=family)])  # type: ignore[list-item]


def _worse_is_better(evidence: Evidence) -> Shown:
    points, frames = evidence.points, evidence.frames
    rfid = _rfid(evidence)
    if len(rfid) < 2:
        raise NotDrawn(f"needs the rFID of two tokenizers; known of {len(rfid)}")
    if not evidence.answer.best_pairs:
        raise NotDrawn("the answer judges no budget")
    plain = set(frames.families.loc[frames.families["regulariser"].isna(), "family"])
    rows: list[dict[str, Any]] = []
    for best in evidence.answer.best_pairs:
        line: list[dict[str, Any]] = []
        for family in rfid:
            by_seed = family_fronts(points, family).items()
            logs = {seed: float(front.log_gfid(np.log(best.flops))) for seed, front in by_seed}
            usable = {seed: math.exp(value) for seed, value in logs.items() if math.isfinite(value)}
            if usable:
                e = over_seeds(usable, scale="level", paired=False)
                line.append(
                    {"path_flops": best.flops, "family": family, "rfid": rfid[family], "gfid": e.value, "low": e.low,
                     "high": e.high, "seeds": len(e.seeds), "regularised": family not in plain}
                )  # fmt: skip
        lowest = min((row["gfid"] for row in line), default=None)
        rows += [row | {"lowest": row["gfid"] == lowest} for row in line]
    table = pd.DataFrame(rows)
    if table.empty or table.groupby("path_flops")["family"].nunique().max() < 2:
        raise NotDrawn("no budget of the answer lies in the range of two tokenizers")
    name = frames.measure.name
    caption = (
        f"rFID of each tokenizer against the {name} of its Pareto front at {table['path_flops'].nunique()} compute "
        f"budgets. A line that falls to the right says that the tokenizer that reconstructs worse gives the better "
        f"images "
        f"there. Bars are 95 % intervals over tokenizer seeds; the ring is the lowest {name} of its budget."
    )
    absent = [
        f"{family} at {wording.flops(flops)}"
        for flops in sorted(table["path_flops"].unique())
        for family in rfid
        if not ((table["family"] == family) & (table["path_flops"] == flops)).any()
    ]
    notes: tuple[str, ...] = (f"Outside its measured range: {wording.listing(absent)}.",) if absent else ()
    alone = sorted(set(table.loc[table["seeds"] == 1, "family"]))
    notes += (f"One seed, no interval: {wording.listing(alone)}.",) if alone else ()
    return Shown(table, caption, notes=notes)


def _rfid(evidence: Evidence) -> dict[str, float]:
    """rFID of each family, the lowest first."""
    table = evidence.frames.tokenizers if "rfid" in evidence.frames.tokenizers else evidence.frames.points
    if "rfid" not in table:
        return {}
    table = table[table["rfid"].notna() & table["family"].isin(set(evidence.points["family"]))]
    estimates = {str(family): estimate_of(rows, "rfid", "level") for family, rows in groups(table, "family")}
    values = {family: estimate.value for family, estimate in estimates.items() if estimate is not None}
    return dict(sorted(values.items(), key=lambda item: item[1]))


def worse_is_better(rows: pd.DataFrame, page: Page) -> Axes:
    """One line a budget over the plain tokenizers; regularised ones are hollow, not joined."""
    axis = page.axes(0.62 if page.columns == 2 else 0.95)
    budgets = sorted(rows["path_flops"].unique())
    size = 0.75 * page.style.font_size
    for i, flops in enumerate(budgets):
        line = rows[rows["path_flops"] == flops].sort_values("rfid")
        shade = BUDGET_SHADES[min(i + max(0, 3 - len(budgets)), 2)]
        joined = line[~line["regularised"]]
        axis.plot(joined["rfid"], joined["gfid"], color=shade, lw=1.6, zorder=2)
        for row in line.to_dict("records"):
            colour = page.palette.colours[row["family"]]
            if row["low"] is not None and np.isfinite(row["low"]):
                axis.plot([row["rfid"]] * 2, [row["low"], row["high"]], color=colour, lw=1.1, zorder=3)
            look: Any = {"color": colour, "mfc": "white" if row["regularised"] else colour, "mew": 1.4, "zorder": 4}
            axis.plot(row["rfid"], row["gfid"], "o", ms=size, **look)
            if row["lowest"]:
                ring: Any = {"ms": 1.75 * size, "mfc": "none", "mec": INK, "mew": 1.1, "zorder": 5}
                axis.plot(row["rfid"], row["gfid"], "o", **ring)
        text = f"{scales.power_of_ten(flops)} FLOPs"
        page.label(axis, text, joined["rfid"], joined["gfid"], shade if i else "#626d7a", prefer=0.5, weight="bold")
    low, high = float(rows["gfid"].min()), float(rows["gfid"].max())
    span = math.log(max(high / low, 1.2))
    left, right = float(rows["rfid"].min()), float(rows["rfid"].max())
    width = math.log(right / left) or 0.3
    axis.set_xlim(left * math.exp(-0.16 * width), right * math.exp(0.16 * width))
    scales.log_value_axis(axis, "rFID of the tokenizer (reconstructs worse →)", rows["rfid"], "x")
    scales.log_value_axis(axis, f"{page.measure} (generates worse →)", rows["gfid"])
    top = high * math.exp(0.42 * span)
    axis.set_ylim(low * math.exp(-0.12 * span), top)
    for family, own in rows.groupby("family", sort=False):
        x, reach = own["rfid"].iloc[0], own["high"].fillna(own["gfid"]).max()
        colour = page.palette.colours[str(family)]
        axis.plot([x, x], [low, top], color=colour, lw=0.7, alpha=0.35, zorder=1)
        y = np.geomspace(reach * math.exp(0.12 * span), top, 12)[:-1]
        page.label(axis, str(family), np.full(len(y), x), y, colour, prefer=0.9, weight="bold")
    ring = Line2D([], [], ls="", marker="o", mfc="none", mec=INK, ms=1.3 * size, label="lowest at this compute")
    hollow = Line2D([], [], ls="", marker="o", mfc="white", mec=MUTED, ms=size, label="with regulariser")
    page.legend([ring, *([hollow] if rows["regularised"].any() else [])])
    return axis


PLOTS = (
    Plot("worse-is-better", "reconstruction against generation: at small compute the worse tokenizer can be the better",
         worse_is_better, _worse_is_better, needs=("gfid", "path_flops"), report=True),
    Plot("best-pair", "which tokenizer and generator to train at a budget, with intervals and probabilities",
         best_pair, _best_pair, needs=("gfid", "path_flops"), report=True),
    Plot("best-tokenizer", "probability of each tokenizer to be in the best pair, extrapolated parts hatched",
         best_tokenizer, _best_tokenizer, needs=("gfid", "path_flops"), report=True),
)  # fmt: skip

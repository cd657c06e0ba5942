"""Pareto fronts of tokenizers against compute: all of a study, those of one codebook or length, training paid or not.

As Figs. 5 and 6 of the paper (arXiv 2412.16326), with seeds and the interval of a crossover, which it does not show. A
front keeps the lowest value reached up to each compute, so that it never rises.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.reporting import wording
from analysis.tokenizers.compute import Compute
from analysis.tokenizers.fronts import family_fronts, in_order
from analysis.tokenizers.rows import groups, plain
from results.errors import DataError

from .drawing import axes as scales
from .drawing.page import Page
from .drawing.style import INK, MUTED
from .registry import Evidence, NotDrawn, Plot, Shown
from .thinning import thinned

RUN = ["family", "size", "tokenizer_seed", "seed", "images", "path_flops", "gfid"]
BETWEEN = 41
"""Places of a front beside its corners."""


def run_rows(points: pd.DataFrame, *more: str) -> pd.DataFrame:
    """The measured points of a figure, kind `run`."""
    columns = [column for column in dict.fromkeys((*RUN, *more)) if column in points]
    return points[columns].assign(kind="run")


def front_rows(points: pd.DataFrame, families: Sequence[str]) -> pd.DataFrame:
    """The mean front over seeds of each family, kind `front`: columns family, path_flops, gfid, never rising."""
    parts = [pd.DataFrame(columns=["family", "path_flops", "gfid", "kind"])]
    for family in families:
        by_seed = family_fronts(points, family).values()
        low, high = max(front.low for front in by_seed), min(front.high for front in by_seed)
        if not low < high:
            continue
        knots = np.concatenate([np.log(front.flops) for front in by_seed])
        grid = np.unique(np.concatenate([knots, np.linspace(math.log(low), math.log(high), BETWEEN)]))
        grid = grid[(grid >= math.log(low)) & (grid <= math.log(high))]
        mean = np.mean([front.log_gfid(grid) for front in by_seed], axis=0)
        lowest = np.exp(np.minimum.accumulate(mean))
        parts.append(pd.DataFrame({"family": family, "path_flops": np.exp(grid), "gfid": lowest, "kind": "front"}))
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)


def not_run(points: pd.DataFrame, families: Sequence[str]) -> tuple[str, ...]:
    """Pairs of these tokenizers and the study's sizes that were never run: their fronts rest on the other sizes."""
    present = set(zip(points["family"], points["size"], strict=True))
    sizes = in_order(points[points["family"].isin(list(families))])
    missing = [f"{family} + {size}" for family in families for size in sizes if (family, size) not in present]
    if not missing:
        return ()
    named = wording.listing(missing) if len(missing) <= 4 else f"{', '.join(missing[:3])} and {len(missing) - 3} more"
    many = len(missing) > 1
    return (f"Never run: {named}; where {'they' if many else 'it'} might be best, the front is that of other sizes.",)


def seeds_of(points: pd.DataFrame) -> str:
    """On how many tokenizer seeds the points of a caption stand."""
    counts = points.groupby("family")["tokenizer_seed"].nunique()
    low, high = int(counts.min()), int(counts.max())
    if high == 1:
        return "one tokenizer of each kind"
    return f"{low} tokenizer seeds" if low == high else f"{low} to {high} tokenizer seeds"


def _overlay(evidence: Evidence, families: Sequence[str], what: str) -> Shown:
    points = evidence.points[evidence.points["family"].isin(list(families))]
    rows = pd.concat([front_rows(points, families), run_rows(points)], ignore_index=True)
    name = evidence.frames.measure.name
    caption = (
        f"{name} against training compute {what}. Marks are runs, by generator size; lines are Pareto fronts, the "
        f"lowest "
        f"{name} reached up to each compute (thin where no dearer run is better), as geometric means over "
        f"{seeds_of(points)}."
    )
    return Shown(rows, caption, notes=not_run(points, families))


def draw_fronts(axis: Axes, rows: pd.DataFrame, page: Page, *, marks: bool = True) -> None:
    """Runs as marks, fronts as lines with their names beside them."""
    palette, runs = page.palette, rows[rows["kind"] == "run"]
    shown = thinned(runs, page) if marks else runs
    for family in palette.present(rows):
        colour = palette.colours[family]
        for size, group in groups(shown[shown["family"] == family], "size") if marks else ():
            look: Any = {"color": colour, "alpha": 0.4, "lw": 0, "s": (0.5 * page.style.font_size) ** 2}
            axis.scatter(group["path_flops"], group["gfid"], marker=palette.markers[str(size)], **look)
        line = rows[(rows["family"] == family) & (rows["kind"] == "front")]
        if line.empty:
            continue
        _draw_front(axis, line["path_flops"].to_numpy(float), line["gfid"].to_numpy(float), family, page)
        expected = rows[(rows["family"] == family) & (rows["kind"] == "expected")]
        axis.plot(expected["path_flops"], expected["gfid"], color=colour, lw=0.9, zorder=2.5)
        handle = palette.handles([family])[0]
        page.label(axis, family, line["path_flops"], line["gfid"], colour, handle=handle, weight="bold", prefer=0.9)
    scales.log_value_axis(axis, page.measure_label, rows.loc[rows["kind"].isin(["run", "front"]), "gfid"])
    if marks:
        page.legend(palette.size_handles(palette.sizes(runs)))


def _draw_front(axis: Axes, flops: Any, gfid: Any, family: str, page: Page) -> None:
    """Thick where more compute lowers it, thin where it only holds."""
    colour, dash, thick = page.palette.colours[family], page.palette.dashes[family], 0.24 * page.style.font_size
    falls = np.concatenate([np.diff(gfid) < -1e-12 * gfid[:-1], [False]])
    ends = falls | np.concatenate([[False], falls[:-1]])
    axis.plot(flops, np.where(ends, gfid, np.nan), color=colour, lw=thick, ls=dash)
    held = np.concatenate([~falls[:-1], [False]])
    ends = held | np.concatenate([[False], held[:-1]])
    axis.plot(flops, np.where(ends, gfid, np.nan), color=colour, lw=0.8)


def overlay(rows: pd.DataFrame, page: Page) -> Axes:
    """Fronts of several tokenizers over their runs."""
    axis = page.axes()
    draw_fronts(axis, rows, page)
    scales.compute_axis(axis, label=page.compute_label)
    return axis


def _gfid_compute(evidence: Evidence) -> Shown:
    families = evidence.palette.present(evidence.points)
    shown = _overlay(evidence, families, "of every tokenizer")
    compared = evidence.answer.compression
    if not compared:
        return shown
    cross = compared[0].crossover
    low, high = cross.band if cross.band is not None else (np.full_like(cross.log_ratio, np.nan),) * 2
    ratio = pd.DataFrame(
        {"kind": "ratio", "path_flops": np.exp(cross.log_flops), "ratio": np.exp(cross.log_ratio),
         "low": np.exp(low), "high": np.exp(high)}
    )  # fmt: skip
    ratio = ratio.iloc[:: max(1, len(ratio) // 200)]
    name, interval = evidence.frames.measure.name, cross.band is not None
    caption = f"{shown.caption} Below, {name} of {cross.first} over that of {cross.second}"
    caption += f" with its 95 % interval ({cross.method})." if interval else f" ({cross.method})."
    if cross.flops is not None:
        caption += f" They cross at {wording.flops(cross.flops)} FLOPs"
        caption += f", 95 % set {' to '.join(wording.crossover_ends(cross, '< {}', '> {}'))}." if interval else "."
    notes = shown.notes
    parts = [shown.rows, ratio]
    if cross.by_law and evidence.chances is not None:
        chances = evidence.chances[evidence.chances["family"].isin([cross.first, cross.second])]
        lowest = chances.loc[chances.groupby(["family", "path_flops"])["gfid"].idxmin()]
        parts.append(lowest[["family", "size", "path_flops", "gfid", "extrapolated"]].assign(kind="expected"))
        many = wording.listing(cross.by_law)
        notes += (f"Thin curves: expected fronts, which the ratio compares; {many} beyond the longest run by the law.",)
    if cross.flops is not None and not cross.established:
        notes += ("The crossing is not established: one side of it lies within the noise.",)
    fit = {"crossover": cross.to_dict()}
    return Shown(pd.concat(parts, ignore_index=True), caption, fit, notes)


def gfid_compute(rows: pd.DataFrame, page: Page) -> Any:
    """Fronts of every tokenizer; below, the ratio of the two that are compared first, with its interval."""
    ratio = rows[rows["kind"] == "ratio"]
    if ratio.empty:
        return overlay(rows, page)
    top, bottom = page.stacked([3.0, 1.25], 0.8 if page.columns == 2 else 1.1)
    draw_fronts(top, rows, page)
    cross = page.fit["crossover"]
    bottom.fill_between(ratio["path_flops"], ratio["low"], ratio["high"], color=MUTED, alpha=0.28, lw=0)
    bottom.plot(ratio["path_flops"], ratio["ratio"], color=INK)
    scales.neutral_line(bottom, 1.0)
    values = ratio["ratio"].to_numpy()
    low = np.clip(ratio["low"].fillna(1.0), values.min() / 2, None)
    high = np.clip(ratio["high"].fillna(1.0), None, values.max() * 2)
    scales.log_value_axis(bottom, f"ratio of\n{page.measure.split(' at ')[0]}", [*low, *high, *values, 1.0])
    bottom.set_ylim(min(low.min(), values.min()) * 0.94, max(high.max(), values.max()) * 1.06)
    page.label(bottom, f"{cross['first']} / {cross['second']}", ratio["path_flops"], ratio["ratio"], INK, prefer=0.75)
    for axis in (top, bottom):
        _mark_crossing(axis, cross)
    scales.compute_axis(bottom, label=page.compute_label)
    if cross["flops"] is not None:
        which = "expected fronts" if (rows["kind"] == "expected").any() else "fronts"
        text = f"{which} cross at {scales.power_of_ten(cross['flops'])}"
        low_y, high_y = top.get_ylim()
        y = np.geomspace(low_y, high_y, 60)[2:-2]
        page.label(top, text, np.full(len(y), cross["flops"]), y, INK, prefer=0.95)
    return [top, bottom]


def _mark_crossing(axis: Axes, cross: Any) -> None:
    if cross["flops"] is None:
        return
    low, high = cross["interval"]
    if cross["interval"] != [None, None] or cross["established"]:
        span = cross["range_flops"]
        axis.axvspan(low or span[0], high or span[1], color=MUTED, alpha=0.14, lw=0)
    axis.axvline(cross["flops"], color=INK, lw=0.8, ls=":")


def _ladder(evidence: Evidence, varies: str, fixed: str, words: str, fixed_words: str, unit: str) -> Shown:
    """Plain families that differ in `varies` at one value of `fixed`, the longest such ladder."""
    table = evidence.frames.families
    table = table[table["family"].isin(set(evidence.points["family"])) & table[[varies, fixed]].notna().all(axis=1)]
    plain_ones = table[table["regulariser"].isna()]
    ladders = [(value, rows) for value, rows in groups(plain_ones, fixed) if rows[varies].nunique() > 1]
    if not ladders:
        raise NotDrawn(f"needs tokenizers without regulariser of two {words}; at one {fixed_words} the study has one")
    value, rows = max(ladders, key=lambda item: item[1][varies].nunique())
    return _overlay(evidence, list(rows["family"]), f"of tokenizers of several {words}, at {value:.0f} {unit}")


def _tokens(evidence: Evidence) -> Shown:
    return _ladder(evidence, "tokens_per_image", "codebook_size", "numbers of tokens", "codebook size", "codes")


def _codebooks(evidence: Evidence) -> Shown:
    return _ladder(
        evidence, "codebook_size", "tokens_per_image", "codebook sizes", "number of tokens", "tokens per image"
    )


def _total(evidence: Evidence) -> Shown:
    frames = evidence.frames
    if frames.compute.total or frames.compute.serve:
        raise NotDrawn("its budgets pay for more than training the generator already (--total, --serve)")
    points = evidence.points
    families = evidence.palette.present(points)
    try:
        paid = replace(frames, compute=Compute(total=True)).ranked
    except DataError as error:
        raise NotDrawn(str(error)) from None
    if float((paid["path_flops"] / points["path_flops"]).median()) <= 1.0:
        raise NotDrawn("its tokenizers cost nothing to train, by their rows")
    axes = {"generator": points, "total": paid}
    parts = [
        part.assign(axis=axis)
        for axis, table in axes.items()
        for part in (front_rows(table, families), run_rows(table, "tokenizer_flops"))
    ]
    spent = paid.groupby("family")["tokenizer_flops"].median()
    name, share = frames.measure.name, (paid["offset"] / paid["path_flops"]).groupby(paid["size"]).median()
    caption = (
        f"{name} against training compute, of the generator alone and with that of its tokenizer, which one generator "
        f"pays in full. Tokenizers take "
        f"{wording.listing([f'{wording.flops(v)} FLOPs ({f})' for f, v in spent.items()])}."
    )
    fit = {"tokenizer_flops": plain(spent.to_dict()), "median_share_by_size": plain(share.to_dict())}
    return Shown(pd.concat(parts, ignore_index=True), caption, fit, not_run(points, families))


def total_compute(rows: pd.DataFrame, page: Page) -> list[Axes]:
    """The same fronts on both axes of compute."""
    left, right = page.panels(2, 0.8, sharey=True)
    titles = {"generator": "generator alone", "total": "with the tokenizer"}
    labels = {"generator": "training compute of generator (FLOPs)", "total": "training compute of both (FLOPs)"}
    for axis, kind in ((left, "generator"), (right, "total")):
        draw_fronts(axis, rows[rows["axis"] == kind], page)
        scales.compute_axis(axis, label=labels[kind])
        page.title(axis, titles[kind])
    scales.log_value_axis(left, page.measure_label, rows["gfid"])
    if left.get_position().y0 == right.get_position().y0:
        right.set_ylabel("")
    return [left, right]


NEEDS = ("gfid", "path_flops")
PLOTS = (
    Plot("gfid-compute", "gFID against compute: the Pareto front of every tokenizer, and where two of them cross",
         gfid_compute, _gfid_compute, needs=NEEDS, report=True),
    Plot("tokens-overlay", "fronts by number of tokens at one codebook: fewer tokens win until near their floor",
         overlay, _tokens, needs=(*NEEDS, "tokens_per_image"), paper="Fig. 5"),
    Plot("codebook-overlay", "fronts by codebook size at one number of tokens, and where they hand over",
         overlay, _codebooks, needs=(*NEEDS, "codebook_size"), paper="Fig. 6"),
    Plot("total-compute", "the same fronts when the tokenizer's training is paid, too",
         total_compute, _total, needs=(*NEEDS, "tokenizer_flops")),
)  # fmt: skip

"""Loss and quality against training compute by generator size, a panel a tokenizer, with fronts and their laws.

As Fig. 4 of the paper (arXiv 2412.16326); and cross-entropy over tokenizers, which it does not compare.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.tokenizers.rows import geometric_means, groups, plain

from .drawing import axes as scales
from .drawing.page import Page
from .drawing.style import INK
from .fronts import front_rows, run_rows, seeds_of
from .registry import Evidence, NotDrawn, Plot, Shown

PANELS = 6
"""Tokenizers shown at most: those with most runs."""
LOSS = "held-out loss (nats / token)"


def _chosen(evidence: Evidence, points: pd.DataFrame) -> tuple[list[str], tuple[str, ...]]:
    """Families with two budgets or more, the ones with most points, in order of rate; and what is left out."""
    spans = points.groupby("family")["path_flops"].nunique()
    counts = points["family"].value_counts()
    usable = [family for family in evidence.palette.present(points) if spans[family] > 1]
    kept = sorted(usable, key=lambda family: -int(counts[family]))[:PANELS]
    if not kept:
        raise NotDrawn("needs a tokenizer with two budgets; each has one")
    left = len(usable) - len(kept)
    notes = (f"{left} more tokenizers are not shown; the rows beside the figure have them.",) if left > 0 else ()
    return [family for family in usable if family in kept], notes


def cell_means(points: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """Geometric means over seeds of each family, size and budget, kind `mean`."""
    length = points["images"].astype(float).fillna(points["path_flops"].astype(float))
    parts = []
    for (family, size), rows in groups(points.assign(length=length), ["family", "size"]):
        mean = geometric_means(rows, list(dict.fromkeys(["path_flops", x, y])), "length")
        parts.append(mean.reset_index(names="images").assign(family=family, size=size, kind="mean"))
    return pd.concat(parts, ignore_index=True)


def _of(evidence: Evidence, x: str, y: str) -> tuple[pd.DataFrame, list[str], tuple[str, ...]]:
    """Means and runs of the shown families, with the front of y where x is compute."""
    points = evidence.points
    points = points[points[[x, y]].notna().all(axis=1)]
    families, notes = _chosen(evidence, points)
    points = points[points["family"].isin(families)]
    parts = [cell_means(points, x, y), run_rows(points, x, y)]
    if x == "path_flops":
        front = front_rows(points.assign(gfid=points[y]), families)
        parts.append(front.rename(columns={"gfid": y}))
    return pd.concat(parts, ignore_index=True), families, notes


def _compute_loss(evidence: Evidence) -> Shown:
    rows, _, notes = _of(evidence, "path_flops", "nats_per_token")
    caption = (
        "Held-out cross-entropy against training compute by generator size, a panel a tokenizer; marks are geometric "
        f"means over {seeds_of(rows[rows['kind'] == 'run'])}, the dark line is the Pareto front. Losses of different "
        "tokenizers share their unit, not their meaning."
    )
    return Shown(rows, caption, notes=notes)


def _compute_gfid(evidence: Evidence) -> Shown:
    rows, families, notes = _of(evidence, "path_flops", "gfid")
    runs = rows[rows["kind"] == "run"]
    laws = [law for law in evidence.answer.compute_laws if law.floor == "free" and law.family in families and law.laws]
    parts = [rows]
    for law in laws:
        span = runs.loc[runs["family"] == law.family, "path_flops"]
        flops = np.geomspace(span.min(), span.max(), 60)
        drawn = np.exp(np.mean([np.log(seed.gfid(flops)) for seed in law.laws], axis=0))
        parts.append(pd.DataFrame({"family": law.family, "path_flops": flops, "gfid": drawn, "kind": "law"}))
    missing = [law for law in evidence.answer.compute_laws if law.floor == "free" and law.family in families]
    missing = [law for law in missing if not law.laws and law.skipped]
    notes += tuple(f"No law of {law.family}: {law.skipped[0].reason}." for law in missing)
    name = evidence.frames.measure.name
    caption = (
        f"{name} against training compute by generator size, a panel a tokenizer; marks are geometric means over "
        f"{seeds_of(runs)}, the dark line is the Pareto front. Dotted: the law E + A C^-α through each seed's front."
    )
    fit = {"laws": [plain(law) for law in laws]}
    return Shown(pd.concat(parts, ignore_index=True), caption, fit, notes)


def _loss_gfid(evidence: Evidence) -> Shown:
    rows, _, notes = _of(evidence, "nats_per_token", "gfid")
    name = evidence.frames.measure.name
    caption = (
        f"{name} against held-out cross-entropy by generator size, a panel a tokenizer: each line is one size, longer "
        f"training to the left; geometric means over {seeds_of(rows[rows['kind'] == 'run'])}."
    )
    return Shown(rows, caption, notes=notes)


def _by_size(rows: pd.DataFrame, page: Page, x: str, y: str) -> list[Axes]:
    """A panel a tokenizer: a line a size over its runs, the front above them."""
    palette = page.palette
    families = palette.present(rows)
    # Losses of different tokenizers are not to be read off one axis.
    shared = {"sharex": x == "path_flops", "sharey": y == "gfid"} if len(families) > 1 else {}
    axes = page.panels(len(families), 1.05 if len(families) > 2 else 0.86, **shared)
    for axis, family in zip(axes, families, strict=True):
        own = rows[rows["family"] == family]
        for size in palette.sizes(own):
            of_size = own[own["size"] == size]
            runs, mean = of_size[of_size["kind"] == "run"], of_size[of_size["kind"] == "mean"].sort_values("path_flops")
            shade, marker = palette.shades[size], palette.markers[size]
            axis.scatter(runs[x], runs[y], color=shade, marker=marker, s=6, alpha=0.45, lw=0)
            axis.plot(mean[x], mean[y], color=shade, marker=marker, lw=1.1)
            page.label(axis, size, mean[x], mean[y], shade, prefer=0.0, handle=None, weight="bold")
        front = own[own["kind"] == "front"]
        axis.plot(front[x], front[y], color=INK, lw=1.5, zorder=1.5, alpha=0.85)
        law = own[own["kind"] == "law"]
        axis.plot(law[x], law[y], color=INK, lw=1.2, ls=(0, (1, 1.4)), zorder=3)
        for fitted in page.fit.get("laws", ()):
            alpha = fitted["alpha"] if fitted["family"] == family and len(law) else None
            if alpha is not None:
                spread = "" if alpha["low"] is None else f"\n({alpha['low']:.2f} to {alpha['high']:.2f})"
                page.label(axis, f"α = {alpha['value']:.2f}{spread}", law[x], law[y], INK, prefer=0.6)
        page.title(axis, family)
    return axes


def outer_label(axes: list[Axes], label: str) -> None:
    """A y label on the panels of the first column alone, where panels share the axis."""
    left = min(axis.get_position().x0 for axis in axes)
    for axis in axes:
        axis.set_ylabel(label if axis.get_position().x0 <= left + 1e-6 else "")


def _values(axis: Axes, direction: str) -> list[float]:
    """All that the lines of a panel reach along one axis."""
    return [v for line in axis.lines for v in np.asarray(getattr(line, f"get_{direction}data")(), dtype=float)]


def compute_loss(rows: pd.DataFrame, page: Page) -> list[Axes]:
    """Held-out loss against compute by size."""
    axes = _by_size(rows, page, "path_flops", "nats_per_token")
    for axis in axes:
        scales.compute_axis(axis, label=page.compute_label)
        scales.log_value_axis(axis, LOSS, _values(axis, "y"))
    outer_label(axes, LOSS)
    return axes


def compute_gfid(rows: pd.DataFrame, page: Page) -> list[Axes]:
    """gFID against compute by size, with its front and law."""
    axes = _by_size(rows, page, "path_flops", "gfid")
    for axis in axes:
        scales.compute_axis(axis, label=page.compute_label)
        scales.log_value_axis(axis, page.measure_label, rows["gfid"])
    outer_label(axes, page.measure_label)
    return axes


def loss_gfid(rows: pd.DataFrame, page: Page) -> list[Axes]:
    """gFID against held-out loss by size."""
    axes = _by_size(rows, page, "nats_per_token", "gfid")
    for axis in axes:
        scales.log_value_axis(axis, LOSS, _values(axis, "x"), "x")
        scales.log_value_axis(axis, page.measure_label, rows["gfid"])
    outer_label(axes, page.measure_label)
    return axes


def _cross_entropy(evidence: Evidence) -> Shown:
    points = evidence.frames.points
    points = points[points["bits_per_pixel"].notna() & points["path_flops"].notna()]
    if not points["gfid"].notna().any():
        points = points.drop(columns="gfid")
    y = "gfid" if "gfid" in points else "bits_per_pixel"
    rows = cell_means(points, "bits_per_pixel", y)
    caption = (
        f"Cross-entropy falls with compute (bits per pixel, held-out), but ranks no two tokenizers by itself: the same "
        f"bits per pixel go with different gFID. Geometric means over {seeds_of(points)}."
    )
    return Shown(rows, caption)


def cross_entropy(rows: pd.DataFrame, page: Page) -> Any:
    """Bits per pixel against compute, and gFID against bits per pixel, over all tokenizers."""
    palette = page.palette
    both = "gfid" in rows
    axes = page.panels(2 if both else 1, 0.8)
    pairs = [("path_flops", "bits_per_pixel"), ("bits_per_pixel", "gfid")][: len(axes)]
    for axis, (x, y) in zip(axes, pairs, strict=True):
        for (family, size), group in groups(rows, ["family", "size"]):
            line = group.sort_values("path_flops")
            look: Any = {"color": palette.colours[family], "marker": palette.markers[size], "lw": 1.1}
            axis.plot(line[x], line[y], ls=palette.dashes[family], **look)
    scales.compute_axis(axes[0])
    scales.log_value_axis(axes[0], "bits per pixel", rows["bits_per_pixel"])
    page.title(axes[0], "cross-entropy falls with compute")
    if both:
        scales.log_value_axis(axes[1], "bits per pixel", rows["bits_per_pixel"], "x")
        scales.log_value_axis(axes[1], "gFID, no guidance", rows["gfid"].dropna())
        page.title(axes[1], "but ranks no two tokenizers")
    page.legend([*palette.handles(palette.present(rows)), *palette.size_handles(palette.sizes(rows))])
    return axes


PLOTS = (
    Plot("compute-loss", "held-out loss against compute by generator size, with the Pareto front",
         compute_loss, _compute_loss, needs=("path_flops", "nats_per_token"), paper="Fig. 4 (left)"),
    Plot("compute-gfid", "gFID against compute by generator size, with the Pareto front and its law",
         compute_gfid, _compute_gfid, needs=("path_flops", "gfid"), paper="Fig. 4 (centre)"),
    Plot("loss-gfid", "gFID against held-out loss: at one loss the larger generator is not always the better",
         loss_gfid, _loss_gfid, needs=("nats_per_token", "gfid"), paper="Fig. 4 (right)"),
    Plot("cross-entropy", "cross-entropy of all tokenizers: falls with compute, ranks no two of them",
         cross_entropy, _cross_entropy, of="points", needs=("bits_per_pixel", "path_flops"), report=True),
)  # fmt: skip

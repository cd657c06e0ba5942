"""Ablations: the regulariser's weight and depth, the tokenizer's losses under it, and validation loss by data set size.

As Figs. 8, 10 and 12 of the paper (arXiv 2412.16326).
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from analysis.tokenizers.comparisons.contrasts import facets
from analysis.tokenizers.rows import groups
from results.schema import TRUNK

from .compute import LOSS, outer_label
from .drawing import axes as scales
from .drawing.page import Page
from .drawing.style import COLOURS, DASHES, INK
from .registry import Evidence, NotDrawn, Plot, Shown

TERMS = {
    "squared_error": "squared error", "perceptual": "perceptual", "codebook": "codebook", "commitment": "commitment",
    "causal": "causal (without λ)", "adversarial": "adversarial",
}  # fmt: skip
"""Losses of a tokenizer, in the order in which they are drawn."""
UNIQUE = "unique_images"
"""The last part of a setting that says how many different images a run was trained on."""


def _alike(evidence: Evidence) -> pd.DataFrame:
    """Regularised families and the plain one that each differs from in the regulariser alone: columns base, family,
    regulariser_weight, seeds; the plain one with weight 0."""
    table = evidence.frames.families
    bare = table[table["regulariser"].isna()]["family"]
    rows: list[dict[str, Any]] = []
    for base in bare:
        others = table[table["regulariser"].notna()]["family"]
        treated = [f for f in others if facets(evidence.frames, base, f) == ("regulariser",)]
        if treated:
            weights = table.set_index("family")["regulariser_weight"]
            rows += [{"base": base, "family": base, "regulariser_weight": 0.0}]
            rows += [{"base": base, "family": f, "regulariser_weight": float(weights[f])} for f in treated]
    return pd.DataFrame(rows, columns=["base", "family", "regulariser_weight"])


def _scores(evidence: Evidence, families: pd.DataFrame) -> pd.DataFrame:
    """rFID of each tokenizer run and the metric that ranks of its longest generators, by size, kind `rfid`/`gfid`."""
    tokenizers, points = evidence.frames.tokenizers, evidence.points
    parts = []
    if "rfid" in tokenizers:
        own = tokenizers[tokenizers["family"].isin(set(families["family"]))]
        parts.append(own[["family", "tokenizer_seed", "rfid"]].rename(columns={"rfid": "value"}).assign(kind="rfid"))
    own = points[points["family"].isin(set(families["family"]))]
    # One budget that every family has, the largest, at each size.
    for size, rows in groups(own, "size"):
        shared = [set(of["images"]) for _, of in groups(rows, "family")]
        common = set.intersection(*shared) if len(shared) == own["family"].nunique() else set()
        if common:
            at = rows[rows["images"] == max(common)][["family", "tokenizer_seed", "images", "gfid"]]
            parts.append(at.rename(columns={"gfid": "value"}).assign(kind="gfid", size=size))
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["family", "kind", "value"])
    return table.merge(families, on="family", how="inner")


def _weights(evidence: Evidence) -> Shown:
    families = _alike(evidence)
    if families.empty:
        raise NotDrawn("no two of its tokenizers differ in the regulariser alone")
    counts = families.groupby("base")["regulariser_weight"].nunique()
    base = str(counts.idxmax())
    families = families[families["base"] == base]
    rows = _scores(evidence, families)
    name = evidence.frames.measure.name
    caption = (
        f"Weight λ of the causal regulariser on {base}: rFID of the tokenizer and {name} of its generators after the "
        f"same "
        f"training, the largest budget that all have. Marks are tokenizer seeds, lines their means."
    )
    few = int(counts.max())
    notes = (f"{few} weights were run: a trend, not an optimum.",) if few < 4 else ()
    return Shown(rows, caption, {"base": base}, notes)


def _depths(evidence: Evidence) -> Shown:
    settings = evidence.frames.settings
    column = next((c for c in map(str, settings.columns) if c.endswith("regulariser.layers")), None)
    if column is None or settings[column].nunique() < 2:
        raise NotDrawn("needs the causal model with two numbers of layers; the study has one")
    runs = evidence.frames.runs.set_index("run_id")
    depth = settings[column].groupby(runs["family"].reindex(settings.index)).first().dropna()
    families = pd.DataFrame({"family": depth.index, "base": "", "layers": depth.astype(float).to_numpy()})
    rows = _scores(evidence, families)
    caption = (
        "Layers of the causal model: rFID of the tokenizer and "
        f"{evidence.frames.measure.name} of its generators after the same training. Marks are tokenizer seeds."
    )
    return Shown(rows, caption)


def _ablation(rows: pd.DataFrame, page: Page, along: str, label: str) -> list[Axes]:
    kinds = [kind for kind in ("rfid", "gfid") if (rows["kind"] == kind).any()]
    axes = page.panels(len(kinds), 0.8)
    for axis, kind in zip(axes, kinds, strict=True):
        own = rows[rows["kind"] == kind]
        series = groups(own, "size") if kind == "gfid" else [("tokenizer", own)]
        for size, of in series:
            shade, marker = (page.palette.shades[size], page.palette.markers[size]) if kind == "gfid" else (INK, "o")
            axis.plot(of[along], of["value"], marker, color=shade, ms=3.5, alpha=0.55, mew=0)
            mean = of["value"].astype(float).map(math.log).groupby(of[along]).mean().map(math.exp)
            axis.plot(mean.index, mean, marker=marker, color=shade)
            if kind == "gfid":
                text = f"generator {size}"
                page.label(axis, text, mean.index, mean, shade, prefer=0.5)
        name = "rFID" if kind == "rfid" else page.measure_label
        scales.log_value_axis(axis, name, own["value"])
        places = sorted(rows[along].unique())
        if places[0] == 0:
            smallest = min(place for place in places if place > 0)
            axis.set_xscale("symlog", linthresh=smallest, linscale=0.6)
            axis.set_xlim(-0.25 * smallest, places[-1] * 1.4)
        axis.set_xticks(places, [f"{place:g}" for place in places])
        axis.minorticks_off()
        axis.set_xlabel(label)
        page.title(axis, "reconstruction" if kind == "rfid" else "generation")
    return axes


def weight_ablation(rows: pd.DataFrame, page: Page) -> list[Axes]:
    """rFID and the metric that ranks against the regulariser's weight."""
    return _ablation(rows, page, "regulariser_weight", "weight λ of the regulariser")


def depth_ablation(rows: pd.DataFrame, page: Page) -> list[Axes]:
    """rFID and the metric that ranks against the causal model's layers."""
    return _ablation(rows, page, "layers", "layers of the causal model")


def _losses(evidence: Evidence) -> Shown:
    families = _alike(evidence)
    if families.empty:
        raise NotDrawn("no two of its tokenizers differ in the regulariser alone")
    base = str(families.groupby("base")["regulariser_weight"].nunique().idxmax())
    families = families[families["base"] == base]
    curves = evidence.frames.curves
    curves = curves[curves["term"].isin(list(TERMS)) & (curves["branch"] == TRUNK) & (curves["split"] == "train")]
    runs = evidence.frames.runs[["run_id", "stage", "family", "tokenizer_seed"]]
    curves = curves.merge(runs[runs["stage"] == "tokenizer"], on="run_id").merge(families, on="family")
    if curves.empty:
        raise NotDrawn("its tokenizers recorded no loss terms")
    # The mean of the last tenth: single steps are noise.
    last = curves.groupby("run_id")["step"].transform("max")
    end = curves[curves["step"] > 0.9 * last]
    keys = ["family", "regulariser_weight", "tokenizer_seed", "term"]
    rows = end.groupby(keys)["value"].mean().reset_index()
    caption = (
        f"Loss terms of the tokenizer {base} at the end of training (mean of the last tenth) against the weight λ of "
        f"the causal "
        "regulariser; marks are tokenizer seeds, lines their means."
    )
    return Shown(rows, caption, {"base": base})


def tokenizer_losses(rows: pd.DataFrame, page: Page) -> list[Axes]:
    """A panel a loss term, against the weight."""
    terms = [term for term in TERMS if (rows["term"] == term).any()]
    axes = page.panels(len(terms), 0.85)
    places = sorted(rows["regulariser_weight"].unique())
    for axis, term in zip(axes, terms, strict=True):
        own = rows[rows["term"] == term]
        mean = own.groupby("regulariser_weight")["value"].mean()
        axis.plot(own["regulariser_weight"], own["value"], "o", color=COLOURS[0], ms=3.5, alpha=0.55, mew=0)
        axis.plot(mean.index, mean, color=COLOURS[0], marker="o")
        smallest = min(place for place in places if place > 0)
        axis.set_xscale("symlog", linthresh=smallest, linscale=0.6)
        axis.set_xlim(-0.25 * smallest, places[-1] * 1.4)
        axis.set_xticks(places, [f"{place:g}" for place in places])
        axis.minorticks_off()
        axis.set_xlabel("weight λ")
        axis.set_ylabel("training loss")
        axis.margins(y=0.2)
        page.title(axis, TERMS[term])
    outer_label(axes, "training loss")
    return axes


def _data_size(evidence: Evidence) -> Shown:
    settings = evidence.frames.settings
    column = next((c for c in map(str, settings.columns) if c.split(".")[-1] == UNIQUE), None)
    points = evidence.frames.scored if "nats_per_token" not in evidence.frames.points else evidence.frames.points
    if column is None or settings[column].nunique() < 2:
        raise NotDrawn(f"needs runs on two sizes of the training set (a setting named {UNIQUE}); the study has one")
    points = points.join(settings[column].rename(UNIQUE), on="run_id")
    points = points[points[UNIQUE].notna() & points["nats_per_token"].notna()]
    if points[UNIQUE].nunique() < 2:
        raise NotDrawn("the held-out loss is known at one size of the training set")
    longest = points.groupby("run_id")["images"].transform("max")
    columns = ["family", "size", "tokenizer_seed", "seed", "images", UNIQUE, "tokens_per_image", "nats_per_token"]
    rows = points[points["images"] == longest][columns].reset_index(drop=True)
    rows[UNIQUE] = rows[UNIQUE].astype(float)
    caption = (
        "Held-out cross-entropy against the number of different training images, by generator size, each run at its "
        "longest "
        "budget; a curve that is flat to the right has all the data it can use."
    )
    return Shown(rows, caption)


def data_size(rows: pd.DataFrame, page: Page) -> Axes:
    """Held-out loss against unique images, a line a size (dashes tell tokenizers)."""
    axis = page.axes(0.55)
    for i, family in enumerate(page.palette.present(rows)):
        own = rows[rows["family"] == family]
        for size in page.palette.sizes(own):
            mean = own[own["size"] == size].groupby(UNIQUE)["nats_per_token"].mean()
            shade: Any = page.palette.shades[size]
            axis.plot(mean.index, mean, color=shade, marker=page.palette.markers[size], ls=DASHES[i % len(DASHES)])
            page.label(axis, f"{family} + {size}", mean.index, mean, shade)
    scales.compute_axis(axis, "images", "different training images")
    scales.log_value_axis(axis, LOSS, rows["nats_per_token"])
    return axis


PLOTS = (
    Plot("weight-ablation", "rFID and gFID against the weight of the causal regulariser",
         weight_ablation, _weights, needs=("gfid", "regulariser_weight"), paper="Fig. 8 (right)"),
    Plot("depth-ablation", "rFID and gFID against the layers of the causal model",
         depth_ablation, _depths, needs=("gfid",), paper="Fig. 8 (left)"),
    Plot("data-size", "held-out loss against the number of different training images",
         data_size, _data_size, of="points", needs=("nats_per_token",), paper="Fig. 10"),
    Plot("tokenizer-losses", "the tokenizer's loss terms against the weight of the causal regulariser",
         tokenizer_losses, _losses, of="curves", paper="Fig. 12"),
)  # fmt: skip

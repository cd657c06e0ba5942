"""What a tokenizer's rate buys: reconstruction by bits per pixel, use of the codebook, the rate best to train.

As Figs. 3 and 9 of the paper (arXiv 2412.16326); the optimal rate is ours.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.reporting import wording
from analysis.tokenizers.comparisons.rate_optimum import LEAST_RUNGS, rate_optima
from analysis.tokenizers.rows import groups, plain
from results.schema import NATS_AT

from .drawing import axes as scales
from .drawing.page import Page
from .drawing.style import INK, MUTED
from .fronts import not_run
from .registry import Evidence, NotDrawn, Plot, Shown

QUALITY = {"rfid": "rFID", "psnr": "PSNR (dB)", "ms_ssim": "MS-SSIM", "ssim": "SSIM"}
POSITION = re.compile(rf"^(?:own_)?{NATS_AT.pattern}$")
"""The held-out loss at one position of the sequence, from 0 on: a term, or a metric of one's own."""


def tokenizer_rows(evidence: Evidence, metrics: tuple[str, ...]) -> pd.DataFrame:
    """One row a tokenizer run: family, seed, rate, and those of the metrics that were measured."""
    table = evidence.frames.tokenizers
    facts = ["family", "tokenizer_seed", "quantizer", "codebook_size", "tokens_per_image", "image_size", "regulariser",
             "regulariser_weight"]  # fmt: skip
    rows = table[[*facts, *[m for m in metrics if m in table and table[m].notna().any()]]].copy()
    bits = rows["tokens_per_image"] * np.log2(rows["codebook_size"].astype(float))
    rows["bits_per_pixel"] = bits / rows["image_size"].astype(float) ** 2
    return rows.reset_index(drop=True)


def _rate_distortion(evidence: Evidence) -> Shown:
    rows = tokenizer_rows(evidence, tuple(QUALITY))
    rows = rows[rows["bits_per_pixel"].notna()]
    if rows["family"].nunique() < 2:
        raise NotDrawn("needs two tokenizers of a known rate; the study has one")
    if "ms_ssim" in rows:
        rows = rows.drop(columns=[c for c in ("ssim",) if c in rows])
    shown = [QUALITY[m] for m in QUALITY if m in rows]
    caption = (
        f"Rate and distortion: {wording.listing(shown)} of held-out reconstructions against tokens × log2 codes / "
        f"pixels; "
        "a mark is a tokenizer run. Lines join tokenizers without regulariser that differ in the codebook alone "
        "(solid) or in "
        "the number of tokens alone (dotted)."
    )
    absent = [name for m, name in QUALITY.items() if m not in rows and m in ("rfid", "psnr", "ms_ssim")]
    notes = (f"Not measured: {wording.listing([name.split(' ')[0] for name in absent])}.",) if absent else ()
    return Shown(rows, caption, notes=notes)


def rate_distortion(rows: pd.DataFrame, page: Page) -> list[Axes]:
    """A panel a measure of reconstruction, a mark a run, ladders of codebooks and of tokens joined."""
    metrics = [metric for metric in QUALITY if metric in rows]
    axes = page.panels(len(metrics), 1.0)
    for axis, metric in zip(axes, metrics, strict=True):
        means = rows.groupby("family", sort=False).agg(
            {"bits_per_pixel": "mean", metric: "mean", "codebook_size": "first", "tokens_per_image": "first",
             "quantizer": "first"}
        )  # fmt: skip
        bare = means[~means.index.isin(list(page.palette.regularised))]
        for by, dash in (("tokens_per_image", "-"), ("codebook_size", ":")):
            for _, ladder in groups(bare.reset_index(), [by, "quantizer"]):
                line = ladder.sort_values("bits_per_pixel")
                if len(line) > 1:
                    axis.plot(line["bits_per_pixel"], line[metric], color=MUTED, ls=dash, lw=1.1, zorder=1)
        for family in page.palette.present(rows):
            own, colour = rows[rows["family"] == family], page.palette.colours[family]
            hollow = family in page.palette.regularised
            look = _mark(colour, hollow)
            axis.plot(own["bits_per_pixel"], own[metric], "o", **look)
            place: Any = {"handle": Line2D([], [], ls="", marker="o", label=family, **look), "prefer": 0.5}
            page.label(axis, family, own["bits_per_pixel"], own[metric], colour, **place)
        scales.log_value_axis(axis, "bits per pixel", rows["bits_per_pixel"], "x")
        low, high = rows["bits_per_pixel"].min(), rows["bits_per_pixel"].max()
        # Of one rate there is no range to widen.
        room = (high / low) ** 0.3 if high > low else 1.2
        axis.set_xlim(low / room, high * room)
        axis.margins(y=0.18)
        # None in the corner, beside the x axis's first.
        bottom, top = axis.get_ylim()
        axis.set_yticks([tick for tick in axis.get_yticks() if bottom + 0.06 * (top - bottom) < tick <= top])
        axis.set_ylabel(QUALITY[metric])
        page.title(axis, QUALITY[metric].split(" ")[0])
    return axes


def _mark(colour: str, hollow: bool) -> dict[str, Any]:
    """A disc; of a regularised tokenizer a ring, wide enough to show the disc of its base inside."""
    return {"color": colour, "mfc": "none" if hollow else colour, "ms": 6.0 if hollow else 3.4, "mew": 1.1}


def _mark_handles(rows: pd.DataFrame, page: Page) -> list[Line2D]:
    """Legend entries of families as their marks."""
    regularised, colours = page.palette.regularised, page.palette.colours
    return [
        Line2D([], [], ls="", marker="o", label=family, **_mark(colours[family], family in regularised))
        for family in page.palette.present(rows)
    ]


def _utilisation(evidence: Evidence) -> Shown:
    rows = tokenizer_rows(evidence, ("codebook_utilisation", "codebook_perplexity", "rfid"))
    rows = rows[rows["codebook_size"].notna() & rows["codebook_utilisation"].notna()]
    if rows["codebook_size"].nunique() < 2:
        raise NotDrawn("needs two codebook sizes; the study has one")
    caption = (
        "Use of the codebook by its size: the share of codes that occur in held-out images, the effective number "
        "of codes (perplexity) over their number, and rFID; a mark is a tokenizer run, lines are means without "
        "regulariser."
    )
    return Shown(rows, caption)


def utilisation(rows: pd.DataFrame, page: Page) -> list[Axes]:
    """Share of codes used, perplexity over codes, rFID against codebook size."""
    rows = rows.assign(used=100 * rows["codebook_utilisation"])
    titles = {"used": "codes used (%)"}
    if "codebook_perplexity" in rows:
        rows = rows.assign(effective=100 * rows["codebook_perplexity"] / rows["codebook_size"].astype(float))
        titles["effective"] = "perplexity / codes (%)"
    if "rfid" in rows:
        titles["rfid"] = "rFID"
    axes = page.panels(len(titles), 1.0)
    for axis, (metric, title) in zip(axes, titles.items(), strict=True):
        _by_codes(axis, rows, metric, page)
        axis.set_ylabel(title)
        if metric != "rfid":
            axis.set_ylim(0, 108)
        page.title(axis, title.split(" (")[0])
    page.legend(_mark_handles(rows, page))
    return axes


def _by_codes(axis: Axes, rows: pd.DataFrame, metric: str, page: Page, dash: Any = "-") -> None:
    bare = rows[rows["regulariser"].isna()]
    for _, ladder in groups(bare, ["tokens_per_image", "quantizer"]):
        line = ladder.groupby("codebook_size")[metric].mean()
        axis.plot(line.index.astype(float), line, color=MUTED, lw=1.1, ls=dash, zorder=1)
    for family in page.palette.present(rows):
        own, colour = rows[rows["family"] == family], page.palette.colours[family]
        hollow = family in page.palette.regularised
        axis.plot(own["codebook_size"].astype(float), own[metric], "o", **_mark(colour, hollow))
    scales.code_axis(axis, rows["codebook_size"].astype(float))


def _entropy(evidence: Evidence) -> Shown:
    rows = tokenizer_rows(evidence, ("codebook_perplexity", "position_perplexity", "position_utilisation"))
    rows = rows[
        rows["position_perplexity"].notna() & rows["codebook_perplexity"].notna() & rows["codebook_size"].notna()
    ]
    if rows.empty:
        raise NotDrawn("no tokenizer has both perplexities")
    rows["total_bits"] = np.log2(rows["codebook_perplexity"])
    rows["position_bits"] = np.log2(rows["position_perplexity"])
    rows["skewness"] = 1 - rows["position_perplexity"] / rows["codebook_perplexity"]
    caption = (
        "Entropy of the codes by codebook size: over all positions together (solid), and at one position, averaged "
        "over "
        "positions (dotted), against log2 of the codes (thin); and the skewness 1 - 2^(entropy at a position) / "
        "2^(entropy in "
        "total), how much a position alone says of its token."
    )
    return Shown(rows.reset_index(drop=True), caption)


def entropy_by_position(rows: pd.DataFrame, page: Page) -> list[Axes]:
    """Total entropy and that at a position by codebook size, and skewness."""
    left, right = page.panels(2, 0.8)
    for metric, dash, name in (("total_bits", "-", "all positions"), ("position_bits", ":", "at one position")):
        _by_codes(left, rows, metric, page, dash)
        mean = rows[rows["regulariser"].isna()].groupby("codebook_size")[metric].mean()
        page.label(left, name, mean.index.astype(float), mean, INK, prefer=0.7)
    sizes = np.sort(rows["codebook_size"].astype(float).unique())
    left.plot(sizes, np.log2(sizes), color=INK, lw=0.7)
    page.label(left, "log2 codes", sizes, np.log2(sizes), INK, prefer=0.2)
    left.set_ylabel("entropy (bits per token)")
    page.title(left, "entropy")
    _by_codes(right, rows, "skewness", page)
    right.set_ylabel(r"skewness $1 - 2^{H_\mathrm{pos}} / 2^{H}$")
    page.title(right, "skewness")
    page.legend(_mark_handles(rows, page))
    return [left, right]


def _loss_by_position(evidence: Evidence) -> Shown:
    frames = evidence.frames
    terms = frames.curves[frames.curves["split"] == "validation"].rename(columns={"term": "metric"})
    facts = frames.runs[["run_id", "family", "size", "tokenizer_seed"]]
    rows = pd.concat([frames.used, terms.merge(facts, on="run_id")], ignore_index=True)
    place = rows["metric"].str.extract(POSITION)[0]
    rows = rows.assign(position=pd.to_numeric(place))[place.notna()]
    if rows.empty:
        raise NotDrawn(
            "no generator recorded its loss by position (terms nats_at_0, nats_at_1, ... of its validation curves, or "
            "metrics own_nats_at_0, ...)"
        )
    # Of a run with several budgets the longest one.
    last = rows.groupby(["run_id", "position"])["step"].transform("max")
    rows = rows[(rows["step"] == last) | rows["step"].isna()]
    columns = ["family", "size", "tokenizer_seed", "run_id", "branch", "step", "position", "value"]
    caption = (
        "Held-out cross-entropy at each position of the token sequence, in raster order, by tokenizer; means over runs "
        "of the largest generator that has it, at their longest budget."
    )
    return Shown(rows[columns].reset_index(drop=True), caption)


def loss_by_position(rows: pd.DataFrame, page: Page) -> Axes:
    """Loss against position, a line a tokenizer."""
    axis = page.axes(0.5)
    for family in page.palette.present(rows):
        own = rows[rows["family"] == family]
        sizes = page.palette.sizes(own)
        own = own[own["size"] == sizes[-1]] if sizes else own
        mean = own.groupby("position")["value"].mean()
        colour = page.palette.colours[family]
        axis.plot(mean.index, mean, color=colour, ls=page.palette.dashes[family])
        handle = page.palette.handles([family])[0]
        page.label(axis, f"{family} + {sizes[-1]}" if sizes else family, mean.index, mean, colour, handle=handle)
    axis.set_xlabel("position in the sequence")
    axis.set_ylabel("held-out loss (nats)")
    return axis


def _optimal_rate(evidence: Evidence) -> Shown:
    """The best rate against compute: the vertex of the ladder at each budget, else the rate of the probable best."""
    points, frames = evidence.points, evidence.frames
    families = frames.families.dropna(subset=["bits_per_image"]).set_index("family")
    families = families[families["regulariser"].isna() & families.index.isin(set(points["family"]))]
    if families["bits_per_image"].nunique() < 2:
        raise NotDrawn("needs tokenizers without regulariser of two rates")
    parts = []
    for o in rate_optima(frames):
        if o.flops is not None:
            tokens = o.tokens
            parts.append({"kind": "vertex", "path_flops": o.flops, "size": o.size, "bits_per_image": tokens * o.bits,
                          "low": None if o.low is None else tokens * o.low,
                          "high": None if o.high is None else tokens * o.high, "inner": o.inner,
                          "lowest": tokens * min(o.rungs), "highest": tokens * max(o.rungs)})  # fmt: skip
    chances = evidence.chances
    if chances is not None:
        own = chances[chances["family"].isin(families.index)].copy()
        own["bits"] = own["family"].map(families["bits_per_image"])
        for flops, rows in groups(own, "path_flops"):
            weight = rows["probability"] / rows["probability"].sum() if rows["probability"].sum() > 0 else None
            if weight is None:
                continue
            by_rate = weight.groupby(rows["bits"]).sum()
            far = float(weight[rows["extrapolated"]].sum())
            mean = float(np.exp((weight * np.log(rows["bits"])).sum()))
            parts.append({"kind": "expected", "path_flops": flops, "bits_per_image": mean, "extrapolated_share": far,
                          "probability": float(by_rate.max()),
                          "most_probable": float(str(by_rate.idxmax()))})  # fmt: skip
    if not parts:
        raise NotDrawn(f"needs {LEAST_RUNGS} codebooks at one length, or pairs with several tokenizer seeds")
    table = pd.DataFrame(parts)
    caption = (
        "The best rate to train at a compute, in bits per image (tokens × log2 codes), among tokenizers without "
        "regulariser. Line: geometric mean of the rates, weighted by their probability to be in the best pair"
    )
    vertices = (table["kind"] == "vertex").any()
    caption += (
        "; diamonds: vertex of a parabola through a ladder of codebooks, with Fieller's interval." if vertices else "."
    )
    notes = not_run(points, list(families.index))
    if "extrapolated_share" in table and (table["extrapolated_share"] > 0.05).any():
        notes += ("Dashed: more than 5 % of it rests on laws beyond the longest runs.",)
    if not vertices:
        notes += (f"No ladder of {LEAST_RUNGS} codebooks: the rate is known at the marked values alone.",)
    fit = {"rates": plain(families["bits_per_image"].to_dict())}
    return Shown(table, caption, fit, notes)


def optimal_rate(rows: pd.DataFrame, page: Page) -> Axes:
    """Best bits per image against compute, over the rates that were run."""
    axis = page.axes(0.5 if page.columns == 2 else 0.8)
    expected = rows[rows["kind"] == "expected"].sort_values("path_flops")
    if len(expected):
        far = expected["extrapolated_share"].to_numpy(dtype=float) > 0.05
        x, y = expected["path_flops"].to_numpy(dtype=float), expected["bits_per_image"].to_numpy(dtype=float)
        axis.plot(x, np.where(far, np.nan, y), color=INK, lw=1.8)
        # One point more on either side joins the dashes to the line.
        wide = far | np.r_[far[1:], False] | np.r_[False, far[:-1]]
        axis.plot(x, np.where(wide, y, np.nan), color=INK, lw=1.8, ls=(0, (3, 1.5)))
    vertex = rows[rows["kind"] == "vertex"]
    for size in page.palette.sizes(vertex) if len(vertex) else []:
        own, shade = vertex[vertex["size"] == size], page.palette.shades[size]
        for row in own.to_dict("records"):
            low = row["lowest"] if pd.isna(row["low"]) else row["low"]
            high = row["highest"] if pd.isna(row["high"]) else row["high"]
            axis.plot([row["path_flops"]] * 2, [low, high], color=shade, lw=1.2)
        axis.plot(own["path_flops"], own["bits_per_image"], "D", color=shade, ms=4.5)
        page.label(axis, size, own["path_flops"], own["bits_per_image"], shade)
    rates = page.fit["rates"]
    scales.compute_axis(axis, label=page.compute_label)
    low, high = axis.get_xlim()
    for family, bits in rates.items():
        colour = page.palette.colours[family]
        axis.axhline(bits, color=colour, ls=page.palette.dashes[family], lw=0.9, alpha=0.8)
        x = np.geomspace(low, high, 40)[1:-1]
        page.label(axis, family, x, np.full(len(x), bits), colour, prefer=0.05)
    axis.set_xlim(low, high)
    values = [*rates.values(), *rows["bits_per_image"]]
    scales.log_value_axis(axis, "best rate (bits per image)", values)
    axis.set_ylim(min(values) / 1.25, max(values) * 1.25)
    return axis


PLOTS = (
    Plot("rate-distortion", "bits per pixel against rFID, PSNR and MS-SSIM of the tokenizers",
         rate_distortion, _rate_distortion, of="tokenizers", needs=("codebook_size",), paper="Fig. 3"),
    Plot("optimal-rate", "the rate (bits per image) that is best to train, against compute",
         optimal_rate, _optimal_rate, needs=("gfid", "path_flops")),
    Plot("entropy-by-position", "entropy of the codes in total and by position, and their skewness, by codebook size",
         entropy_by_position, _entropy, of="tokenizers", needs=("position_perplexity", "codebook_perplexity"),
         paper="Fig. 9 (left, centre)"),
    Plot("loss-by-position", "held-out loss at each position of the sequence, by tokenizer",
         loss_by_position, _loss_by_position, of="evaluations", paper="Fig. 9 (right)"),
    Plot("utilisation", "share of codes used, effective codes and rFID by codebook size",
         utilisation, _utilisation, of="tokenizers", needs=("codebook_utilisation", "codebook_size"), paper="Fig. 11"),
)  # fmt: skip

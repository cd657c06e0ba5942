"""All tables of a study: what was measured, and what follows from that."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd

from analysis.tokenizers.comparisons.contrasts import Effect
from analysis.tokenizers.comparisons.crossover import Crossover, crossing_over_seeds
from analysis.tokenizers.compute import head_shares
from analysis.tokenizers.frames import SETTINGS, StudyFrames
from analysis.tokenizers.fronts import in_order
from analysis.tokenizers.rows import groups, records
from analysis.tokenizers.seed_intervals import Scale
from results.schema import METRICS

from .. import wording
from ..answer import Answer
from ..rendering import Facts, Shown, Table, cell, estimate_of, estimates_of, known, level, table_estimate
from .comparison_tables import equal_images_table, forms_table, matched_table, multiplier_table
from .fits_table import own_fits_table, validation_table
from .run_table import run_table
from .spaces_table import spaces_table


def all_tables(frames: StudyFrames, answer: Answer) -> list[Table]:
    """Every table for which the study has data, in the order of the report."""
    tables = [
        tokenizer_table(frames),
        crossover_table(answer),
        crossing_detail_table(answer),
        equal_images_table(frames, answer),
        matched_table(frames),
        forms_table(answer, frames.measure.name),
        regulariser_table(answer),
        multiplier_table(answer, frames.measure.name),
        pair_table(answer),
        generator_table(frames),
        law_table(answer),
        validation_table(frames),
        own_table(frames),
        own_fits_table(frames),
        guidance_table(frames),
        spaces_table(frames),
        protocol_table(frames),
        exclusion_table(frames),
        run_table(frames),
    ]
    return [table for table in tables if table is not None]


def _settings(frames: StudyFrames, rows: pd.DataFrame, cell: str | list[str], shown: tuple[str, ...]) -> pd.DataFrame:
    """Fields in which the runs of `rows` differ and that are one value in each cell, by cell; without those `shown`."""
    stage = "tokenizer" if cell == "family" else "generator"
    settings = frames.settings[[c for c in frames.settings.columns if c.startswith(f"{stage}.")]]
    columns = [c for c in SETTINGS if c not in shown]
    table = rows[[*([cell] if isinstance(cell, str) else cell), "run_id", *columns]].join(settings, on="run_id")
    table = table.drop(columns="run_id").map(lambda value: str(value) if isinstance(value, list) else value)
    told = table.groupby(cell, sort=False, dropna=False)
    counts = told.nunique(dropna=False)
    varying = [c for c in counts.columns if (counts[c] == 1).all() and table[c].nunique(dropna=False) > 1]
    return told[varying].first()


def _headings(settings: pd.DataFrame) -> dict[str, Shown]:
    """A column for each setting, headed by its name without the stage."""
    return {name.split(".", 1)[-1].replace("_", " "): name for name in settings.columns}


def tokenizer_table(frames: StudyFrames) -> Table | None:
    """Stage 1: rate, reconstruction and codebook use of each tokenizer, over its seeds."""
    shown = ("codebook_size", "tokens_per_image")
    settings = _settings(frames, frames.tokenizers, "family", shown)
    facts = []
    for family in records(frames.families):
        rows = frames.tokenizers[frames.tokenizers["family"] == family["family"]]
        if rows.empty:
            continue
        metrics = ("rfid", "rfid_floor", "psnr", "ssim", "codebook_perplexity", "codebook_utilisation")
        facts.append(
            {"family": family["family"], "tokens_per_image": family["tokens_per_image"]}
            | {"flops": float(rows["path_flops"].median())}
            | {"codebook_size": family["codebook_size"], "runs": len(rows)}
            | {"_bits_per_pixel": family["bits_per_image"] / family["image_size"] ** 2}
            | {metric: estimate_of(rows, metric, "level") for metric in metrics}
            | settings.loc[family["family"]].to_dict()
        )
    columns: dict[str, Shown] = {
        "tokenizer": "family",
        "tokens": known("tokens_per_image", "{:.0f}".format),
        "codes": known("codebook_size", "{:,.0f}".format),
        **_headings(settings),
        "bits / pixel": known("_bits_per_pixel", wording.number),
        "seeds": "runs", "rFID (95 %)": "rfid", "rFID floor": level("rfid_floor"), "PSNR": level("psnr"),
        "SSIM": level("ssim"), "codes used": level("codebook_utilisation", lambda share: f"{100 * share:.0f} %"),
        "perplexity": level("codebook_perplexity"), "FLOPs": known("flops", wording.flops),
    }  # fmt: skip
    note = (
        "rFID against validation images; the rFID floor has the reference, n and network of gFID. Geometric means over "
        "tokenizer seeds; 95 % t intervals in log space where there are two seeds or more."
    )
    return Table.of("tokenizers", "Tokenizers", facts, columns, note)


def generator_table(frames: StudyFrames) -> Table | None:
    """Stage 2: gFID and cross-entropy of every tokenizer, size and budget, over tokenizer seeds."""
    points = frames.points
    metrics: dict[str, Scale] = {
        "gfid": "level", "nats_per_token": "level", "nats_per_image": "level", "bits_per_pixel": "level",
        "unigram_normalised_nats": "difference",
    }  # fmt: skip
    settings = _settings(frames, frames.runs[frames.runs["stage"] == "generator"], "size", ("train_images",))
    settings_of = {size: settings.loc[size].to_dict() for size in settings.index}
    shares = head_shares(frames.ranked, frames.runs)
    order = {family: i for i, family in enumerate(frames.families["family"])}
    sizes = in_order(points)
    keys = ["family", "size", "images"]
    known_of = ("path_flops", "parameters_other", "parameters_embedding")
    grouped = points.astype(dict.fromkeys(known_of, float)).groupby(keys, dropna=False)
    medians = grouped[list(known_of)].median().assign(runs=grouped.size(), seeds=grouped["tokenizer_seed"].nunique())
    estimates = {metric: estimates_of(points, keys, metric, scale) for metric, scale in metrics.items()}
    facts = []
    cells = records(medians.reset_index())
    for f in sorted(cells, key=lambda f: (order[f["family"]], sizes.index(f["size"]), f["images"])):
        family, size, images = (f[key] for key in keys)
        facts.append(
            {"family": family, "size": size, "images": images, "path_flops": f["path_flops"]}
            # Unknown of rows measured elsewhere.
            | {name: None if np.isnan(f[name]) else int(f[name]) for name in known_of[1:]}
            | {"output_head": shares.get((str(family), str(size)))}
            | {"runs": f["runs"], "_seeds": f["seeds"]}
            | {metric: estimates[metric].get((family, size, images)) for metric in metrics}
            | settings_of[size]
        )

    def parameters(f: Facts) -> str:
        counts = (f["parameters_other"], f["parameters_embedding"])
        return " + ".join("–" if count is None else wording.images(count) for count in counts)

    columns: dict[str, Shown] = {
        "tokenizer": "family", "generator": "size", **_headings(settings),
        "parameters (other + vocabulary)": parameters, "training images": known("images", wording.images),
        "FLOPs": known("path_flops", wording.flops), "output head": lambda f: wording.percent(f["output_head"]),
        "seeds": "_seeds", "gFID": "gfid",
        "nats per token": level("nats_per_token"), "nats per image": level("nats_per_image"),
        "bits per pixel": level("bits_per_pixel"),
        "unigram-normalised nats": level("unigram_normalised_nats", wording.signed),
    }  # fmt: skip
    note = "gFID without guidance. Cross-entropies share units, not quality: they rank no two tokenizers of other rate."
    return Table.of("generators", "Generators", facts, columns, note)


def own_table(frames: StudyFrames) -> Table | None:
    """Metrics of one's own, and all metrics of runs of no stage: by configuration and budget, over seeds."""
    rows = frames.own
    values = [c for c in map(str, frames.settings.columns) if c.startswith("run.") and c in rows]
    facts = []
    for (name, metric, images, guidance), measured in groups(rows, ["name", "metric", "images", "guidance"]):
        estimate = table_estimate(measured)
        settings = {name: measured[name].iloc[0] for name in values}
        facts.append(
            {"name": name, **settings, "metric": metric, "images": images, "guidance": guidance}
            | {"path_flops": float(measured["path_flops"].median()), "runs": len(measured), "value": estimate}
        )
    columns: dict[str, Shown] = {
        "runs": "name", "metric": lambda f: f["metric"].removeprefix("own_").replace("_", " "),
        "training images": known("images", wording.images), "FLOPs": known("path_flops", wording.flops),
        "repetitions": "runs", "mean (95 %)": "value",
    }  # fmt: skip
    if rows["guidance"].nunique() > 1:
        columns["guidance"] = "guidance"
    note = (
        "Measured by the trainer. Geometric means over seeds (plain ones where values may be negative) with 95 % t "
        "intervals where there are two seeds or more."
    )
    return Table.of("own", "Metrics of your own", facts, columns, note)


def guidance_table(frames: StudyFrames) -> Table | None:
    """gFID at each guidance scale at the longest budget; None if only unguided samples were scored."""
    guided = frames.guided
    if guided["guidance"].nunique() < 2:
        return None
    last = guided[guided["images"] == guided.groupby("run_id")["images"].transform("max")]
    cells = last.groupby(["family", "size", "guidance"])["gfid"]
    data = cells.agg(lambda values: float(np.exp(np.log(values).mean()))).reset_index()
    scales = sorted(data["guidance"].unique())
    wide = data.pivot(index=["family", "size"], columns="guidance", values="gfid")
    rows = tuple((str(f), str(s), *[wording.number(wide.loc[(f, s)].get(g)) for g in scales]) for f, s in wide.index)
    columns = ("tokenizer", "generator", *[f"guidance {g:g}" for g in scales])
    note = "Geometric mean over seeds at the longest budget. Guidance can undercut the floor; laws use guidance 1."
    return Table("guidance", "gFID by guidance", columns, rows, data, note)


def protocol_table(frames: StudyFrames) -> Table | None:
    """What each metric's value depends on besides the run."""
    facts: list[dict[str, Any]] = []
    for row in records(frames.protocols):
        fields = json.loads(row["protocol_json"])
        network = f"{fields.get('extractor') or '–'} {(fields.get('extractor_hash') or '')[:8]}".rstrip()
        facts.append(row | {"_reference": fields.get("reference") or "–", "_network": network})
    columns: dict[str, Shown] = {
        "metric": "metric", "protocol": "protocol", "reference": "_reference", "n": known("n", "{:,.0f}".format),
        "network": "_network", "guidance": known("guidance", "{:g}".format), "rows": lambda f: str(f["rows"]),
        "meaning": lambda f: METRICS[f["metric"]].meaning if f["metric"] in METRICS else "",
    }  # fmt: skip
    return Table.of("protocols", "Metric protocols", facts, columns)


def exclusion_table(frames: StudyFrames) -> Table | None:
    """Rows set aside with their reason; failed attempts; diverged runs."""
    causes = frames.failed["cause"].fillna("unknown").value_counts()
    facts = records(frames.exclusions)
    facts += [{"what": "attempts", "reason": f"failed: {cause}", "rows": n} for cause, n in causes.items()]
    diverged = frames.runs.loc[frames.runs["status"] == "diverged", "label"]
    facts += [{"what": "run", "reason": f"{label} diverged", "rows": 1} for label in diverged]
    return Table.of("excluded", "Set aside", facts, {"what": "what", "reason": "reason", "rows": "rows"})


def crossover_table(answer: Answer) -> Table | None:
    """Every comparison of two tokenizers of different rate."""
    facts = []
    for compression in answer.compression:
        x = compression.crossover
        mean = crossing_over_seeds(x)
        facts.append({
            "first": x.first, "second": x.second, "sizes": " ".join(x.design.sizes), "seeds": len(x.seeds),
            "range_low": x.low, "range_high": x.high, "crossover_flops": x.flops, "interval_low": x.interval_low,
            "interval_high": x.interval_high, "excluded": x.excluded, "method": x.method,
            "gfid_ratio_at_low": x.at_low, "gfid_ratio_at_high": x.at_high,
            "mean_of_seed_crossings": None if mean is None else mean.value, "_crossing": _crossing_cell(x),
        })  # fmt: skip
    columns: dict[str, Shown] = {
        "tokenizers": lambda f: f"{f['first']} against {f['second']}",
        "sizes": "sizes",
        "seeds": "seeds",
        "crossover, FLOPs (95 %)": "_crossing",
        "gFID ratio at least compute": lambda f: f"{wording.flops(f['range_low'])}: {cell(f['gfid_ratio_at_low'])}",
        "at most compute": lambda f: f"{wording.flops(f['range_high'])}: {cell(f['gfid_ratio_at_high'])}",
    }
    note = (
        "gFID ratio: the first, more compressed tokenizer over the second, at the ends of the compute range common to "
        "both. Only sizes run with both tokenizers on every seed of the row are compared."
    )
    return Table.of("crossovers", "Where tokenizers cross", facts, columns, note)


def _crossing_cell(x: Crossover) -> str:
    """Crossover with its interval, or that there is none."""
    if x.flops is None:
        return "none" if x.band is None else "none, excluded" if x.excluded else "none, not excluded"
    if x.band is None:
        return wording.flops(x.flops)
    low, high = wording.crossover_ends(x, "< {}", "> {}")
    return f"{wording.flops(x.flops)} ({low} to {high})"


def crossing_detail_table(answer: Answer) -> Table | None:
    """Each seed's own crossing, censored ones marked, and those of the fitted laws."""
    signs = {"above": "> ", "below": "< ", "reversed": "reversed, "}
    facts: list[dict[str, Any]] = []
    for compression in answer.compression:
        x = compression.crossover
        compared = {"first": x.first, "second": x.second, "sizes": " ".join(x.design.sizes)}
        facts += [compared | {"by": "fronts"} | vars(seed) for seed in x.per_seed]
        for law in compression.fitted_laws:
            kind = "laws, E free" if law.floor == "free" else "laws, E = rFID floor"
            for seed, flops in law.per_seed:
                placement = "within" if flops else "none"
                facts.append(compared | {"by": kind, "seed": seed, "placement": placement, "flops": flops})
    columns: dict[str, Shown] = {
        "tokenizers": lambda f: f"{f['first']} against {f['second']}",
        "sizes": lambda f: f["sizes"] if f["by"] == "fronts" else "all",
        "by": "by",
        "seed": "seed",
        "crossing, FLOPs": lambda f: signs.get(f["placement"], "") + wording.flops(f["flops"]),
    }
    # The laws of a pair are the same in each of its comparisons; the last one stands for them.
    shown = {tuple(show(f) if callable(show) else f[show] for show in columns.values()): f for f in facts}
    note = (
        "“>”: the more compressed tokenizer still leads at the largest compute compared; “<”: the less compressed one "
        "leads from the smallest on. Laws: gFID = E + A C^−alpha through each seed's front, sought up to 100 times "
        "beyond the measured range."
    )
    return Table.of("crossings", "Crossings seed by seed", list(shown.values()), columns, note)


def regulariser_table(answer: Answer) -> Table | None:
    """Paired effects of the regulariser, per budget and pooled."""
    names = {
        "gfid": "gFID", "rfid": "rFID", "rfid_floor": "rFID floor", "nats_per_image": "nats per image",
        "compute_multiplier": "compute multiplier at equal gFID",
    }  # fmt: skip
    facts = []
    for contrast, multiplier in zip(answer.regulariser, answer.compute_multiplier, strict=True):
        effects = [*contrast.per_budget, *contrast.pooled, *contrast.stage1]
        if multiplier.estimate is not None:
            effects.append(Effect("compute_multiplier", None, multiplier.sizes, multiplier.estimate))
        for e in effects:
            of_fronts = e.metric == "compute_multiplier"
            place = "fronts" if of_fronts else "all budgets" if e.sizes else "stage 1"
            scale = "ratio" if e.estimate.scale == "ratio" else "difference"
            name = names.get(e.metric, e.metric.replace("_", " "))
            facts.append({
                "base": contrast.base, "treatment": contrast.treatment, "metric": e.metric, "scale": scale,
                "budget": e.budget, "effect": e.estimate, "_place": wording.images(e.budget) if e.budget else place,
                "_sizes": " ".join(e.sizes) or "–", "_name": name if of_fronts else f"{name}, {scale}",
            })  # fmt: skip

    def per_seed(f: Facts) -> str:
        write = wording.signed if f["scale"] == "difference" else wording.number
        return ", ".join(write(value) for value in f["effect"].per_seed)

    columns: dict[str, Shown] = {
        "comparison": lambda f: f"{f['treatment']} / {f['base']}", "metric": "_name", "training images": "_place",
        "sizes": "_sizes", "effect (95 % interval)": "effect", "seeds": per_seed,
    }  # fmt: skip
    note = (
        "Paired: same tokenizer seed, generator seed, size and budget, hence equal stage-2 FLOPs. Ratios in log space; "
        "over all budgets: mean within each seed first, then over seeds."
    )
    return Table.of("regulariser", "The causal regulariser", facts, columns, note)


def pair_table(answer: Answer) -> Table | None:
    """Every pair at every budget with its probability of being best."""
    facts = [
        {"flops": best.flops} | {k: v for k, v in vars(pair).items() if k != "seeds"} | {"seeds": len(pair.seeds)}
        for best in answer.best_pairs
        for pair in best.pairs
    ]

    def gfid(f: Facts) -> str:
        return wording.number(f["gfid"]) + wording.spread(f["low"], f["high"])

    columns: dict[str, Shown] = {
        "FLOPs": known("flops", wording.flops), "tokenizer": "family", "generator": "size",
        "training images": lambda f: (
            ("–" if f["train_images"] is None else wording.images(f["train_images"]))
            + (", by law" if f["extrapolated"] else "")
        ),
        "seeds": "seeds", "expected gFID (95 %)": gfid, "best with": lambda f: wording.percent(f["probability"]),
    }  # fmt: skip
    note = (
        "Hierarchical model of log gFID: tokenizer seeds within tokenizers, one variance for all pairs, Student t. "
        "“by law”: the budget exceeds the pair's longest run, and its law predicts the gFID, with that uncertainty."
    )
    return Table.of("pairs", "Best pair at each budget", facts, columns, note)


def law_table(answer: Answer) -> Table | None:
    """Fitted compute laws of each family and seed."""
    numbers = ("floor", "alpha", "amplitude", "pivot", "r_squared", "points")
    facts: list[dict[str, Any]] = []
    for law in answer.compute_laws:
        family = {"family": law.family, "floor_kind": law.floor}
        facts += [family | vars(fit) for fit in law.laws]
        facts += [family | {"seed": s, "status": reason} | dict.fromkeys(numbers) for s, reason in law.skipped]
    columns: dict[str, Shown] = {
        "tokenizer": "family", "E": lambda f: "free" if f["floor_kind"] == "free" else "rFID floor", "seed": "seed",
        "E value": known("floor", wording.number), "alpha": known("alpha", wording.number),
        "A at the pivot": known("amplitude", wording.number), "pivot, FLOPs": known("pivot", wording.flops),
        "R² of log gFID": known("r_squared", wording.number), "points": "points",
        "fit": lambda f: f["status"].replace("_", " "),
    }  # fmt: skip
    note = (
        "gFID = E + A (C / pivot)^−alpha through each seed's Pareto front, Huber's loss on log gFID. "
        "Few points: a cross-check of the fronts, not a basis for extrapolation."
    )
    return Table.of("laws", "Compute laws", facts, columns, note)

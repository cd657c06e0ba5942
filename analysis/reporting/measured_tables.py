"""Tables of what was measured: tokenizers, generators, own metrics, guidance, protocols, what was set aside, runs."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd

from analysis.tokenizers.frames import SETTINGS, StudyFrames
from analysis.tokenizers.fronts import in_order
from analysis.tokenizers.rows import groups, records
from analysis.tokenizers.seed_intervals import Scale
from results.schema import METRICS

from . import wording
from .rendering import Facts, Shown, Table, estimate_of, known, level


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
    order = {family: i for i, family in enumerate(frames.families["family"])}
    sizes = in_order(points, set(points["size"]))
    cells = dict(groups(points, ["family", "size", "images"]))
    facts = []
    for family, size, images in sorted(cells, key=lambda key: (order[key[0]], sizes.index(key[1]), key[2])):
        rows = cells[family, size, images]
        medians = {c: rows[c].astype(float).median() for c in ("parameters_other", "parameters_embedding")}
        facts.append(
            {"family": family, "size": size, "images": images, "path_flops": float(rows["path_flops"].median())}
            # Unknown of rows measured elsewhere.
            | {name: None if np.isnan(median) else int(median) for name, median in medians.items()}
            | {"runs": len(rows), "_seeds": rows["tokenizer_seed"].nunique()}
            | {metric: estimate_of(rows, metric, scale) for metric, scale in metrics.items()}
            | settings.loc[size].to_dict()
        )

    def parameters(f: Facts) -> str:
        counts = (f["parameters_other"], f["parameters_embedding"])
        return " + ".join("–" if count is None else wording.images(count) for count in counts)

    columns: dict[str, Shown] = {
        "tokenizer": "family", "generator": "size", **_headings(settings),
        "parameters (other + vocabulary)": parameters, "training images": known("images", wording.images),
        "FLOPs": known("path_flops", wording.flops), "seeds": "_seeds", "gFID": "gfid",
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
    for (name, metric, images, guidance), cell in groups(rows, ["name", "metric", "images", "guidance"]):
        estimate = estimate_of(cell, "value", "level") or estimate_of(cell, "value", "difference")
        settings = {name: cell[name].iloc[0] for name in values}
        facts.append(
            {"name": name, **settings, "metric": metric, "images": images, "guidance": guidance}
            | {"path_flops": float(cell["path_flops"].median()), "runs": len(cell), "value": estimate}
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
    facts += [{"metric": "attempts", "reason": f"failed: {cause}", "rows": n} for cause, n in causes.items()]
    diverged = frames.runs.loc[frames.runs["status"] == "diverged", "label"]
    facts += [{"metric": "run", "reason": f"{label} diverged", "rows": 1} for label in diverged]
    return Table.of("excluded", "Set aside", facts, {"what": "metric", "reason": "reason", "rows": "rows"})


def run_table(frames: StudyFrames) -> Table | None:
    """Every run: status, seeds, FLOPs, time, memory, and in the numbers all its facts."""
    runs = frames.runs.sort_values(["stage", "label", "run_id"], ascending=[False, True, True])
    trained = runs["parameters_other"] + runs["parameters_embedding"]
    runs = runs.drop(columns=["spec", "provenance"]).join(frames.settings, on="run_id").assign(_trained=trained)
    columns: dict[str, Shown] = {
        "run": "label", "id": "run_id", "status": "status", "parameters trained": known("_trained", "{:,.0f}".format),
        "FLOPs spent": known("executed_flops", wording.flops), "time": known("wall_seconds", "{:.0f} s".format),
        "peak memory": known("peak_memory_bytes", lambda size: f"{size / 2**20:.0f} MiB"),
    }  # fmt: skip
    return Table.of("runs", "Runs", records(runs), columns)

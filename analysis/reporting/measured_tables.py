"""Tables of what was measured: tokenizers, generators, guidance, protocols, what was set aside, runs."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pandas as pd

from analysis.tokenizers.frames import StudyFrames
from analysis.tokenizers.fronts import in_order
from analysis.tokenizers.rows import groups, records
from results.schema import METRICS

from . import wording
from .rendering import Table, cell, estimate_of, flat, level


def tokenizer_table(frames: StudyFrames) -> Table | None:
    """Stage 1: rate, reconstruction and codebook use of each tokenizer, over its seeds."""
    if frames.tokenizers.empty:
        return None
    rows, data = [], []
    for facet in records(frames.families):
        own = frames.tokenizers[frames.tokenizers["family"] == facet["family"]]
        if own.empty:
            continue
        metrics = {
            m: estimate_of(own, m, "level") for m in ("rfid", "rfid_floor", "psnr", "ssim", "codebook_perplexity")
        }
        used = estimate_of(own, "codebook_utilisation", "level")
        flops = float(own["path_flops"].median())
        rows.append(
            (
                str(facet["family"]),
                _known(facet["tokens_per_image"], lambda v: f"{v:.0f}"),
                _known(facet["codebook_size"], lambda v: f"{v:,.0f}"),
                wording.number(facet["bits_per_image"] / facet["image_size"] ** 2),
                f"{len(own)}",
                cell(metrics["rfid"]),
                level(metrics["rfid_floor"]),
                level(metrics["psnr"]),
                level(metrics["ssim"]),
                "–" if used is None else f"{100 * used.value:.0f} %",
                level(metrics["codebook_perplexity"]),
                wording.flops(flops),
            )
        )
        facts = {"family": facet["family"], "tokens_per_image": facet["tokens_per_image"], "flops": flops}
        facts |= {"codebook_size": facet["codebook_size"], "runs": len(own)}
        for name, estimate in {**metrics, "codebook_utilisation": used}.items():
            facts |= flat(name, estimate)
        data.append(facts)
    columns = (
        "tokenizer", "tokens", "codes", "bits / pixel", "seeds", "rFID (95 %)", "rFID floor", "PSNR", "SSIM",
        "codes used", "perplexity", "FLOPs",
    )  # fmt: skip
    note = (
        "rFID against validation images; the rFID floor has the reference, n and network of gFID. Geometric means over "
        "tokenizer seeds; 95 % t intervals in log space where there are two seeds or more."
    )
    return Table("tokenizers", "Tokenizers", columns, tuple(rows), pd.DataFrame(data), note)


def generator_table(frames: StudyFrames) -> Table | None:
    """Stage 2: gFID and cross-entropy of every tokenizer, size and budget, over tokenizer seeds."""
    points = frames.points
    if points.empty:
        return None
    rows, data = [], []
    cells = dict(groups(points, ["family", "size", "images"]))
    order = {f: i for i, f in enumerate(frames.families["family"])}
    sizes = in_order(points, set(points["size"]))
    keys = sorted(cells, key=lambda k: (order[k[0]], sizes.index(k[1]), k[2]))
    for key in keys:
        own = cells[key]
        gfid, nats = estimate_of(own, "gfid", "level"), estimate_of(own, "nats_per_token", "level")
        image, bits = estimate_of(own, "nats_per_image", "level"), estimate_of(own, "bits_per_pixel", "level")
        unigram = estimate_of(own, "unigram_normalised_nats", "difference")
        flops = float(own["path_flops"].median())
        medians = [own[c].astype(float).median() for c in ("parameters_other", "parameters_embedding")]
        # Unknown of rows measured elsewhere.
        parameters = [None if np.isnan(median) else int(median) for median in medians]
        rows.append(
            (
                str(key[0]),
                str(key[1]),
                " + ".join("–" if p is None else wording.images(p) for p in parameters),
                wording.images(key[2]),
                wording.flops(flops),
                f"{own['tokenizer_seed'].nunique()}",
                cell(gfid),
                level(nats),
                level(image),
                level(bits),
                "–" if unigram is None else wording.signed(unigram.value),
            )
        )
        facts = {"family": key[0], "size": key[1], "images": key[2], "path_flops": flops}
        facts |= {"parameters_other": parameters[0], "parameters_embedding": parameters[1], "runs": len(own)}
        for name, estimate in (
            ("gfid", gfid), ("nats_per_token", nats), ("nats_per_image", image), ("bits_per_pixel", bits),
            ("unigram_normalised_nats", unigram),
        ):  # fmt: skip
            facts |= flat(name, estimate)
        data.append(facts)
    columns = (
        "tokenizer", "generator", "parameters (other + vocabulary)", "training images", "FLOPs", "seeds", "gFID",
        "nats per token", "nats per image", "bits per pixel", "unigram-normalised nats",
    )  # fmt: skip
    note = "gFID without guidance. Cross-entropies share units, not quality: they rank no two tokenizers of other rate."
    return Table("generators", "Generators", columns, tuple(rows), pd.DataFrame(data), note)


def guidance_table(frames: StudyFrames) -> Table | None:
    """gFID at each guidance scale at the longest budget; None if only unguided samples were scored."""
    guided = frames.guided
    if guided.empty or guided["guidance"].nunique() < 2:
        return None
    last = guided[guided["images"] == guided.groupby("run_id")["images"].transform("max")]
    data = (
        last.groupby(["family", "size", "guidance"])["gfid"]
        .agg(lambda v: float(np.exp(np.log(v).mean())))
        .reset_index()
    )
    scales = sorted(data["guidance"].unique())
    wide = data.pivot(index=["family", "size"], columns="guidance", values="gfid")
    rows = tuple((str(f), str(s), *[wording.number(wide.loc[(f, s)].get(g)) for g in scales]) for f, s in wide.index)
    columns = ("tokenizer", "generator", *[f"guidance {g:g}" for g in scales])
    note = "Geometric mean over seeds at the longest budget. Guidance can undercut the floor; laws use guidance 1."
    return Table("guidance", "gFID by guidance", columns, rows, data, note)


def protocol_table(frames: StudyFrames) -> Table:
    """What each metric's value depends on besides the run."""
    rows = []
    for row in records(frames.protocols):
        fields = json.loads(row["protocol_json"])
        reference = f"{fields.get('reference') or '–'}"
        network = str(fields.get("extractor") or "–")
        if fields.get("extractor_hash"):
            network += f" {str(fields['extractor_hash'])[:8]}"
        images = _known(row["n"], lambda v: f"{v:,.0f}")
        scale = "–" if pd.isna(row["guidance"]) else f"{row['guidance']:g}"
        metric = METRICS[row["metric"]].meaning if row["metric"] in METRICS else ""
        rows.append((row["metric"], row["protocol"], reference, images, network, scale, f"{row['rows']}", metric))
    columns = ("metric", "protocol", "reference", "n", "network", "guidance", "rows", "meaning")
    return Table("protocols", "Metric protocols", columns, tuple(rows), frames.protocols)


def exclusion_table(frames: StudyFrames) -> Table | None:
    """Rows set aside with their reason; failed attempts."""
    rows = [(r["metric"], r["reason"], f"{r['rows']}") for r in records(frames.exclusions)]
    data = frames.exclusions.copy()
    if not frames.failed.empty:
        causes = frames.failed["cause"].fillna("unknown").value_counts()
        rows += [
            ("attempts", f"failed: {cause}", f"{count}")
            for cause, count in zip(causes.index.tolist(), causes.tolist(), strict=True)
        ]
        failed = pd.DataFrame({"metric": "attempts", "reason": "failed: " + causes.index, "rows": causes.to_numpy()})
        data = pd.concat([data, failed], ignore_index=True)
    diverged = frames.runs[frames.runs["status"] == "diverged"]
    rows += [("run", f"{label} diverged", "1") for label in diverged["label"]]
    if not rows:
        return None
    return Table("excluded", "Set aside", ("what", "reason", "rows"), tuple(rows), data)


def _known(value: float, text: Callable[[float], str]) -> str:
    """A value as text, a dash where it is not known, as for rows measured elsewhere."""
    return "–" if pd.isna(value) else text(value)


def run_table(frames: StudyFrames) -> Table:
    """Every run: status, seeds, FLOPs, time, memory."""
    runs = frames.runs.sort_values(["stage", "label", "run_id"], ascending=[False, True, True])
    rows = tuple(
        (
            r["label"],
            r["run_id"],
            r["status"],
            _known(r["parameters_other"] + r["parameters_embedding"], lambda v: f"{v:,.0f}"),
            _known(r["executed_flops"], wording.flops),
            _known(r["wall_seconds"], lambda v: f"{v:.0f} s"),
            _known(r["peak_memory_bytes"], lambda v: f"{v / 2**20:.0f} MiB"),
        )
        for r in records(runs)
    )
    columns = ("run", "id", "status", "parameters trained", "FLOPs spent", "time", "peak memory")
    return Table("runs", "Runs", columns, rows, runs.drop(columns=["spec", "provenance"]))

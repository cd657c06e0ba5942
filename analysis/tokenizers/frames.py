"""The three tables as pandas frames ready for analysis: winners only, one protocol a metric, flagged rows set aside.

`load` reads a store or a folder of exported tables; `from_tables` is the pure core. Facts of a run (its tokenizer,
size, parameters, FLOPs) are joined to every evaluation, so nothing below ever parses a label.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from results.errors import DataError
from results.schema import COLUMNS, TABLES, TRUNK
from results.settings import differing, setting_columns

from .compute import Compute
from .measure import Measure, is_tuned, is_unguided, other_extractor
from .names import family_names, size_names
from .pair_laws import PairCurves, pair_curves
from .rows import groups, records, said
from .seed_intervals import Noise

if TYPE_CHECKING:
    from results.store.store import Store

FACTS = (
    "stage", "label", "parent", "seed", "tokenizer_seed", "tokenizer", "tokenizer_family", "generator",
    "generator_family", "data", "image_size", "downsampling", "quantizer", "codebook_size", "tokens_per_image",
    "regulariser", "regulariser_weight", "width", "layers", "learning_rate", "batch_size", "parameters_embedding",
    "parameters_other", "flops_per_image", "tokenizer_flops",
)  # fmt: skip
"""Columns of `runs` that are joined to `evaluations`; `path_flops` is not among them: evaluations have their own."""

DERIVED = ("family", "size")
"""Display names, unique within a study: of a tokenizer configuration without seed, and of a generator (names.py)."""

SETTINGS = (
    "quantizer", "codebook_size", "tokens_per_image", "downsampling", "regulariser", "regulariser_weight", "width",
    "layers", "learning_rate", "batch_size", "train_images", "threads",
)  # fmt: skip
"""Columns of `runs` that a specification sets."""

TRAIN_REFERENCE = ("gfid", "rfid_floor", "real_fid")
"""Metrics that are compared with training images where both splits were measured; all others with validation."""

STRICTLY_POSITIVE = ("gfid", "rfid", "rfid_floor")
"""Metrics whose logarithm is taken."""


@dataclass(frozen=True)
class StudyFrames:
    """A study's tables. `runs` has one row a run (its winning attempt, or its last failure with status failed);
    `evaluations` has every row of the winners with their run's facts and a column `excluded`: null for rows in use,
    else the reason. `curves` as stored, winners only. `failed` counts failed attempts by cause. `measure` is what the
    study is judged by, `compute` what its budgets pay for.
    """

    runs: pd.DataFrame
    curves: pd.DataFrame
    evaluations: pd.DataFrame
    failed: pd.DataFrame
    measure: Measure = field(default_factory=Measure)
    compute: Compute = field(default_factory=Compute)

    @cached_property
    def used(self) -> pd.DataFrame:
        """Evaluations without those that were excluded."""
        return self.evaluations[self.evaluations["excluded"].isna()]

    @cached_property
    def exclusions(self) -> pd.DataFrame:
        """Excluded evaluations counted: columns what (a run for its flag, else a metric), reason, rows."""
        out = self.evaluations[self.evaluations["excluded"].notna()]
        # Labels of runs do not tell regularisers of one weight apart, names of families do.
        flagged = out["flag"].notna()
        named = flagged & (out["stage"] == "tokenizer")
        what = out["metric"].astype(object).mask(flagged, out["label"])
        what[named] = out.loc[named, "family"].astype(str) + "-s" + out.loc[named, "seed"].astype(str)
        out = out.assign(what=what)
        counted = out.groupby(["what", "excluded"], sort=True).size().rename("rows").reset_index()
        return counted.rename(columns={"excluded": "reason"})

    @cached_property
    def protocols(self) -> pd.DataFrame:
        """The protocols in use: metric, guidance, split, protocol, protocol_json, n, rows."""
        keys = ["metric", "guidance", "split", "protocol", "protocol_json", "n"]
        return self.used.groupby(keys, dropna=False, sort=True).size().rename("rows").reset_index()

    @cached_property
    def tokenizers(self) -> pd.DataFrame:
        """One row a tokenizer run: the run's columns and its metrics, one column each."""
        runs = self.runs[(self.runs["stage"] == "tokenizer") & (self.runs["status"] == "done")]
        rows = _preferred_split(self.used[self.used["stage"] == "tokenizer"])
        rows = rows.sort_values("step").drop_duplicates(["run_id", "metric"], keep="last")
        wide = rows.pivot(index="run_id", columns="metric", values="value")
        return runs.merge(wide, left_on="run_id", right_index=True, how="left").reset_index(drop=True)

    @cached_property
    def points(self) -> pd.DataFrame:
        """One row a generator run and budget: run facts, `images`, `path_flops`, and each metric as a
        column: that which
        ranks at its guidance, all others without.

        A point is the end of a decay branch; of a run without decays (cosine schedule) it is the end of the trunk.
        Tokenizer metrics `rfid` and `rfid_floor` of the very tokenizer used are joined under these names.
        """
        rows = self.used[self.used["stage"] == "generator"]
        ranking = rows["metric"] == self.measure.metric
        others = rows[~ranking & is_unguided(rows)]
        rows = _ends(_preferred_split(pd.concat([others, self.measure.select(rows[ranking])])))
        facts = ["run_id", "branch", *FACTS, *DERIVED]
        wide = rows.pivot(index=["run_id", "branch"], columns="metric", values="value").reset_index()
        where = rows.sort_values("step").drop_duplicates(["run_id", "branch"], keep="last")
        points = where[[*facts, "images", "step", "path_flops"]].merge(wide, on=["run_id", "branch"], how="left")
        if "scales" in rows:
            scales = rows[["run_id", "branch", "scales"]].dropna()
            points = points.merge(scales, on=["run_id", "branch"], how="left")
        tokenizers = self.tokenizers
        known = [m for m in ("rfid", "rfid_floor") if m in tokenizers and m not in points]
        scores = tokenizers[["run_id", *known]].rename(columns={"run_id": "parent"})
        points = points.merge(scores, on="parent", how="left")
        if "gfid" not in points:
            points["gfid"] = np.nan
        order = ["family", "size", "tokenizer_seed", "seed", "images", "run_id"]
        return points.sort_values(order).reset_index(drop=True)

    @cached_property
    def ranked(self) -> pd.DataFrame:
        """The points with the metric that ranks, in the column `gfid` whichever it is, at a known compute, which is
        that of `compute`: what fronts and comparisons stand on."""
        scored = self.scored
        return self.compute.of(scored[scored["path_flops"].notna()])

    @cached_property
    def curves_of_pairs(self) -> list[PairCurves]:
        """Every pair of `ranked`, with the laws that were fitted of it."""
        return pair_curves(self.ranked, self.floor_is_comparable)

    @cached_property
    def scored(self) -> pd.DataFrame:
        """As `ranked`, those of unknown compute included."""
        points = self.points
        name = self.measure.metric
        if name != "gfid":
            points = points.assign(gfid=points.get(name, np.nan))
        return points[points["gfid"].notna()]

    @cached_property
    def guided(self) -> pd.DataFrame:
        """gFID at every guidance scale, long: run facts, images, path_flops, guidance, gfid."""
        rows = self.used[(self.used["stage"] == "generator") & (self.used["metric"] == "gfid")]
        rows = _ends(_preferred_split(rows))
        columns = ["run_id", "branch", *FACTS, *DERIVED, "images", "path_flops", "guidance", "tuned", "value"]
        return rows[columns].rename(columns={"value": "gfid"}).reset_index(drop=True)

    @cached_property
    def own(self) -> pd.DataFrame:
        """Metrics of one's own, and every metric of runs of no stage, one row a measurement at the end of a run or of
        a branch: run facts, settings `run.NAME`, images, path_flops, guidance, metric, value.

        `name` says what was run: family and size, or the values in which runs of no stage differ.
        """
        rows = _ends(self.used)
        rows = rows[rows["metric"].str.startswith("own_") | (rows["stage"] == "run")]
        free = [c for c in map(str, self.settings.columns) if c.startswith("run.")]
        varying = [c for c in free if self.settings[c].astype(str).nunique() > 1]
        rows = rows.join(self.settings[varying], on="run_id")
        names = [
            ", ".join(f"{c.removeprefix('run.')} = {said(row[c])}" for c in varying if said(row[c])) or "run"
            if row["stage"] == "run"
            else " + ".join(filter(None, (said(row[name]) for name in DERIVED)))
            for row in records(rows)
        ]
        seeds = rows["tokenizer_seed"].fillna(rows["seed"])
        return rows.assign(name=names, tokenizer_seed=seeds).reset_index(drop=True)

    @cached_property
    def families(self) -> pd.DataFrame:
        """One row a tokenizer configuration, most compressed first: family, the facets, seeds, rate in bits an image.

        `bits_per_image` is tokens x log2(codebook size); `tokenizer_seeds` counts tokenizer runs.
        """
        columns = [
            "family", "tokenizer_family", "tokenizer", "quantizer", "codebook_size", "tokens_per_image",
            "downsampling", "regulariser", "regulariser_weight", "image_size", "spec",
        ]  # fmt: skip
        # Runs of no stage have no tokenizer.
        done = self.runs[(self.runs["status"] == "done") & self.runs["tokenizer_family"].notna()]
        table = done[columns].drop_duplicates("tokenizer_family").copy()
        table["bits_per_image"] = table["tokens_per_image"] * np.log2(table["codebook_size"].astype(float))
        seeds = done.groupby("tokenizer_family")["tokenizer_seed"].nunique()
        table["tokenizer_seeds"] = table["tokenizer_family"].map(seeds)
        order = ["bits_per_image", "regulariser_weight", "family"]
        return table.sort_values(order).reset_index(drop=True)

    @cached_property
    def settings(self) -> pd.DataFrame:
        """A row a run, by its id: the fields in which tokenizers or generators differ and that `runs` does not have
        as columns, such as `tokenizer.losses.perceptual_weight`; free values as `run.NAME`."""
        known = {name: self.runs[name].tolist() for name in self.runs.columns}
        columns = setting_columns(self.runs["spec"].tolist(), known)
        return pd.DataFrame(columns, index=pd.Index(self.runs["run_id"], name="run_id"))

    @cached_property
    def noise(self) -> Noise | None:
        """Noise of log gFID between generator seeds on one tokenizer at one size and budget; None without repeats."""
        points = self.ranked
        cell = ["tokenizer_family", "tokenizer_seed", "size", "images"]
        logs = np.log(points["gfid"].to_numpy(dtype=float))
        cells = points.assign(log=logs).groupby(cell)["log"]
        freedom = cells.count() - 1
        df = int(freedom.sum())
        if df == 0:
            return None
        total = float((cells.var(ddof=1) * freedom).sum())
        return Noise(float(np.sqrt(total / df)), df, f"repeated generator runs on one tokenizer, df {df}")

    @cached_property
    def floor_is_comparable(self) -> bool:
        """Whether rfid_floor was measured against the same reference, n and network as the gFID that ranks, that being
        one without guidance, which can undercut it."""

        def facts(metric: str) -> set[tuple[Any, ...]]:
            protocols = map(json.loads, self.protocols.loc[self.protocols["metric"] == metric, "protocol_json"])
            return {
                tuple(p.get(k) for k in ("reference_hash", "n", "crop", "extractor", "extractor_hash"))
                for p in protocols
            }

        comparable = self.measure.metric == "gfid" and not self.measure.guided
        return comparable and bool(facts("rfid_floor")) and facts("rfid_floor") == facts("gfid")


def load(
    source: Store | Path | str,
    run_ids: Collection[str] | None = None,
    *,
    protocols: Collection[str] | None = None,
    measure: Measure | None = None,
    compute: Compute | None = None,
) -> StudyFrames:
    """The study in a store, or in a folder that holds runs, curves and evaluations.parquet.

    `run_ids` keeps these runs only. `protocols` names (by short hash) which protocol to use where a metric was measured
    under several; `measure` what the study is judged by (default: gFID), `compute` what budgets pay for
    (default: training the generator). Raises DataError for an empty study, mixed protocols or data
    sets; StoreError for damaged files.
    """
    from results.store.store import Store

    if isinstance(source, str | Path):
        path = Path(source)
        source = Store.open_folder(path) if (path / "runs.parquet").exists() else Store(path)
    tables = {name: source.read(name, run_ids).to_pandas() for name in TABLES}
    return from_tables(tables, run_ids, protocols=protocols, measure=measure, compute=compute)


def from_tables(
    tables: Mapping[str, pd.DataFrame],
    run_ids: Collection[str] | None = None,
    *,
    protocols: Collection[str] | None = None,
    measure: Measure | None = None,
    compute: Compute | None = None,
) -> StudyFrames:
    """StudyFrames of the three tables of results.schema by name; see `load` for arguments and errors."""
    for name, frame in tables.items():
        missing = [column.name for column in COLUMNS[name] if column.name not in frame.columns]
        if missing:
            raise DataError(
                f"table {name} has no column {', '.join(missing)}; it is not a tokenlaw table of this schema"
            )
    # What the runs lack is left out of the other two where they are joined.
    runs = tables["runs"] if run_ids is None else tables["runs"][tables["runs"]["run_id"].isin(list(run_ids))]
    if runs.empty:
        asked = "" if run_ids is None else f" among the {len(run_ids)} runs asked for"
        raise DataError(f"the study has no finished run{asked}: nothing to analyse yet; `tokenlaw status` shows why")

    winners, failed = _winners(runs)
    if winners.empty:
        causes = ", ".join(sorted(set(failed["cause"].dropna()))) or "unknown"
        raise DataError(f"all {len(failed)} attempts of the study failed (causes: {causes}): nothing to analyse")
    _one_data_set(winners)
    winners = winners.assign(family=family_names(winners), size=size_names(winners))

    key = ["run_id", "attempt"]
    facts = winners[[*key, *FACTS, *DERIVED, "status"]]
    joined = tables["evaluations"].merge(facts, on=key, how="inner")
    joined["tuned"] = is_tuned(joined["protocol_json"])
    measure = measure or Measure()
    joined["excluded"] = _exclusion(joined, measure)
    evaluations = _one_protocol(joined.drop(columns="status"), protocols, _first_extractors(winners))
    evaluations = evaluations.reset_index(drop=True)
    generated = evaluations[(evaluations["stage"] == "generator") & evaluations["excluded"].isna()]
    return StudyFrames(
        runs=winners.reset_index(drop=True),
        curves=tables["curves"].merge(facts[key], on=key, how="inner").reset_index(drop=True),
        evaluations=evaluations,
        failed=failed.reset_index(drop=True),
        measure=measure.resolved(generated),
        compute=compute or Compute(),
    )


def _winners(runs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The finished attempt of every run (the earliest, should a merged folder hold two), and the failed attempts."""
    failed = runs[runs["status"] == "failed"]
    finished = runs[runs["status"] != "failed"].sort_values(["finished_at", "attempt"])
    return finished.drop_duplicates("run_id", keep="first").sort_values("run_id"), failed


def _one_data_set(runs: pd.DataFrame) -> None:
    """Raises DataError for runs of several data sets. Rows measured elsewhere have no fingerprint: the name counts."""
    staged = runs[runs["stage"] != "run"]
    known = staged[staged["data_fingerprint"].notna()]
    printed = {(str(n), str(f)[:8]) for n, f in zip(known["data"], known["data_fingerprint"], strict=True)}
    elsewhere = staged.loc[staged["data_fingerprint"].isna(), "data"].fillna("unknown")
    sets = [f"{name} {fingerprint}" for name, fingerprint in printed]
    sets += set(elsewhere.astype(str)) - {name for name, _ in printed}
    if len(sets) > 1:
        raise DataError(f"the study mixes data sets ({', '.join(sorted(sets))}); choose the runs of one with run_ids")


def _exclusion(rows: pd.DataFrame, measure: Measure) -> pd.Series:
    """Why a row is set aside, or null: its flag, a diverged run, a value without a logarithm where one is needed,
    another feature network than the one asked for."""
    reason = rows["flag"].astype(object).where(rows["flag"].notna(), None)
    diverged = rows["status"] == "diverged"
    reason = reason.mask(diverged & reason.isna(), "the run diverged")
    value = pd.to_numeric(rows["value"], errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    positive = rows["metric"].isin({*STRICTLY_POSITIVE, measure.metric}).to_numpy()
    unusable = ~np.isfinite(value) | (positive & ~(value > 0))
    reason = reason.mask(unusable & reason.isna(), "not a positive finite number")
    return reason.mask(other_extractor(rows, measure.extractor) & reason.isna(), "another extractor was chosen")


def _first_extractors(runs: pd.DataFrame) -> set[str]:
    """Of runs that name several feature spaces, the one that answers read: the first, as protocols hash it."""
    evaluations = (json.loads(text).get("evaluation") or {} for text in runs["spec"].dropna().unique())
    return {e["extractors"][0]["sha256"][:16] for e in evaluations if e.get("extractors")}


def _one_protocol(rows: pd.DataFrame, chosen: Collection[str] | None, first: Collection[str]) -> pd.DataFrame:
    """Sets rows of protocols not chosen aside, by default those of other extractors than the `first` of their runs;
    raises DataError where a metric is left with several protocols."""
    used = rows[rows["excluded"].isna()]
    for (metric, guidance, _, split), group in groups(used, ["metric", "guidance", "tuned", "split"]):
        present = sorted(set(group["protocol"]))
        if len(present) == 1:
            continue
        kept = [p for p in present if chosen is not None and p in chosen]
        if not kept and first:
            texts = group.drop_duplicates("protocol").set_index("protocol")["protocol_json"]
            kept = [p for p in present if json.loads(texts[p]).get("extractor_hash") in first]
        if len(kept) != 1:
            scale = "" if pd.isna(guidance) else f" at guidance {guidance:g}"
            raise DataError(
                f"{metric}{scale} ({split}) was measured under {len(present)} protocols that must not be compared: "
                f"{_describe(group, present)}; choose one with protocols=[...]"
            )
        other = group.index[group["protocol"] != kept[0]]
        rows.loc[other, "excluded"] = f"protocol not chosen ({kept[0]} was)"
    return rows


def _describe(group: pd.DataFrame, protocols: list[str]) -> str:
    """Each protocol with its rows and those fields in which they differ."""
    texts = group.drop_duplicates("protocol").set_index("protocol")["protocol_json"]
    fields = {p: json.loads(texts[p]) for p in protocols}
    names = differing(list(fields.values()))
    counts = group["protocol"].value_counts()
    shown = {p: ", ".join(f"{name} = {str(fields[p].get(name))[:20]}" for name in names) for p in protocols}
    return " and ".join(f"{p} ({counts[p]} rows; {shown[p]})" for p in protocols)


def _preferred_split(rows: pd.DataFrame) -> pd.DataFrame:
    """One split a metric: training images for gFID and its floor, validation for the rest, whichever exists else."""
    wanted = np.where(rows["metric"].isin(TRAIN_REFERENCE), "train", "validation")
    hit = rows["split"].to_numpy() == wanted
    has = rows.assign(_hit=hit).groupby("metric")["_hit"].transform("any").to_numpy(dtype=bool)
    return rows[hit | ~has]


def _ends(rows: pd.DataFrame) -> pd.DataFrame:
    """The last row of each metric on each decay branch; of runs without decays, on the trunk."""
    forked = rows["run_id"].isin(rows.loc[rows["branch"] != TRUNK, "run_id"])
    rows = rows[(rows["branch"] != TRUNK) | ~forked]
    # Rows measured elsewhere may have images alone.
    rows = rows.sort_values(["step", "images"])
    return rows.drop_duplicates(["run_id", "branch", "metric", "guidance", "tuned"], keep="last")

"""Putting rows that were measured elsewhere into the store, with where they come from; all of a file or nothing.

A run's id is a hash of its source and its name in the column `run`, without that column of its facts. So a file that
is imported again adds nothing, one that has grown adds what is new, and one in which a known run has other values is
refused unless it shall replace it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results.errors import DataError, UsageError
from results.protocol import Protocol
from results.schema import STAGES, TRUNK, arrow_schema
from results.store.compaction import add
from results.store.run_set import SetName, StoredRun
from results.store.segments import IndexBlock, IndexEntry
from results.store.versions import Version
from results.values import canonical_json, choice

from .foreign_table import FACTS, POSITION, RUN, ForeignTable, Row, read_foreign

if TYPE_CHECKING:
    from results.store.store import Store

_TRAIN_REFERENCE = ("gfid", "rfid_floor", "real_fid")
"""Metrics that compare with training images unless the file has a column `split`."""

_WITHOUT_GUIDANCE = (
    "rfid", "rfid_floor", "psnr", "ssim", "ms_ssim", "lpips", "codebook_utilisation", "nats_per_token",
    "nats_per_image",
    "bits_per_pixel", "unigram_normalised_nats",
)  # fmt: skip
"""Metrics of reconstructions and of the loss, which no guidance of sampling changes."""


@dataclass(frozen=True)
class Imported:
    """What an import did: runs added and replaced, runs that were there with the same values, evaluations added.

    `others` are columns that were kept with the runs without a meaning here; `rounded` counts whole numbers that were
    not whole in the file, by column.
    """

    added: int
    replaced: int
    present: int
    rows: int
    others: tuple[str, ...]
    rounded: Mapping[str, int]


@dataclass(frozen=True)
class _Run:
    """A run of the file: its row of `runs` without time and provenance, its evaluations, the first row's number."""

    row: dict[str, Any]
    evaluations: list[dict[str, Any]]
    number: int

    @property
    def name(self) -> SetName:
        return SetName(self.row["run_id"])

    @property
    def digest(self) -> str:
        return _hash([self.row, self.evaluations], 64)


def import_file(
    store: Store,
    path: Path,
    *,
    source: str | None = None,
    columns: Mapping[str, str] | None = None,
    stage: str | None = None,
    replace: bool = False,
    keep: bool = False,
) -> Imported:
    """Add the runs of a CSV or Parquet file to a store.

    source   says where the values come from, for people; the file's name if not given
    columns  maps names of columns of the file to ours
    stage    of all runs; else the column `stage`, else what the columns suggest (see `_stage`)
    keep     takes columns without a meaning here along, as values of the run
    replace  lets runs of the same source that have other values now take the place of the old ones

    Raises DataError that names row and column, UsageError for arguments that cannot be, StoreError.
    """
    if stage is not None:
        choice("stage", stage, STAGES)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    table = read_foreign(path, content, columns or {}, keep=keep)
    origin = source or path.name
    runs = _runs(path, table, origin, stage)
    about = {"source": origin, "file": path.name, "sha256": sha256(content).hexdigest(), "columns": dict(columns or {}),
             "tokenlaw": metadata.version("tokenlaw")}  # fmt: skip
    result: list[Imported] = []

    def make(version: Version) -> tuple[IndexBlock, set[SetName]] | None:
        digests = _digests(store, [run for run in runs if version.entry(run.name) is not None])
        changed = [run for run in runs if digests.get(run.row["run_id"], run.digest) != run.digest]
        if changed and not replace:
            raise UsageError(
                f"{path.name} row {changed[0].number}: run {changed[0].row['label']} of source {origin!r} was imported "
                f"before with other values, as were {len(changed) - 1} others; give --replace to put the new ones in "
                "their place, or another --source to keep both"
            )
        fresh = [run for run in runs if run.row["run_id"] not in digests]
        chosen = fresh + changed
        rows = sum(len(run.evaluations) for run in chosen)
        present = len(runs) - len(chosen)
        result[:] = [Imported(len(fresh), len(changed), present, rows, table.others, table.rounded)]
        return (_block(chosen, about), {run.name for run in changed}) if chosen else None

    add(store.folder, make)
    return result[0]


def imported(store: Store, sources: Iterable[str]) -> set[str]:
    """Ids of the runs that were imported from these sources. Raises UsageError for a source without any."""
    rows = store.read("runs").select(["run_id", "source"]).to_pylist()
    known = {row["source"] for row in rows if row["source"] is not None}
    for source in sources:
        if source not in known:
            names = ", ".join(repr(name) for name in sorted(known)) or "none: nothing was imported yet"
            raise UsageError(f"source = {source!r} is unknown; allowed: {names}")
    return {row["run_id"] for row in rows if row["source"] in set(sources)}


def _digests(store: Store, runs: list[_Run]) -> dict[str, str]:
    """What the stored runs among these were when they were imported."""
    if not runs:
        return {}
    rows = store.read("runs", [run.row["run_id"] for run in runs]).select(["run_id", "provenance"]).to_pylist()
    return {row["run_id"]: json.loads(row["provenance"])["imported"]["rows"] for row in rows}


def _runs(path: Path, table: ForeignTable, source: str, stage: str | None) -> list[_Run]:
    """The rows put together as runs."""
    groups: dict[str, list[Row]] = {}
    for row in table.rows:
        if row.values:
            if RUN in row.facts:
                identity = {"source": source, RUN: row.facts[RUN]}
            else:
                where = {name: row.position.get(name) for name in ("branch", "step", "images", "path_flops")}
                identity = {"source": source, "facts": row.facts, "others": row.others, "where": where}
            groups.setdefault(_hash({"imported": identity}, 12), []).append(row)
    return [_run(path, run_id, rows, source, stage) for run_id, rows in groups.items()]


def _run(path: Path, run_id: str, rows: list[Row], source: str, stage: str | None) -> _Run:
    """One run out of its rows. Raises DataError where they contradict each other."""
    first = rows[0]
    for later in rows[1:]:
        for name in sorted(first.facts.keys() | later.facts.keys()):
            value, other = first.facts.get(name), later.facts.get(name)
            if value != other:
                raise DataError(
                    f"{path.name} row {later.number}: {name} = {other!r} differs from {value!r} in row {first.number} "
                    "of the same run"
                )
    facts = {name: value for name, value in first.facts.items() if name != RUN}
    images = [row.position["images"] for row in rows if "images" in row.position]
    flops = [row.position["path_flops"] for row in rows if "path_flops" in row.position]
    kind = stage or facts.get("stage") or _stage(rows)
    values = {"imported": {"source": source, RUN: first.facts.get(RUN), "facts": facts, "others": first.others}}
    costs = {"train_images": max(images, default=None), "path_flops": max(flops, default=None)}
    row: dict[str, Any] = dict.fromkeys(FACTS) | costs | {"seed": 0, "stage": kind}
    row |= {name: value for name, value in facts.items() if name != "stage"}
    row |= {"run_id": run_id, "attempt": 1, "status": "done", "spec": canonical_json(values), "source": source}
    if kind != "run":
        row |= _names(row, source)
    row["label"] = first.facts.get("label") or first.facts.get(RUN) or _label(row, run_id)
    return _Run(row, _evaluations(path, run_id, rows, row), first.number)


def _stage(rows: list[Row]) -> str:
    """A row with a generator's metric or size is a generator's, one with a tokenizer's metric a tokenizer's."""
    names = {name for row in rows for name in (*row.values, *row.facts)}
    if names & {"gfid", "generator", "generator_family", "nats_per_token", "nats_per_image", "bits_per_pixel"}:
        return "generator"
    return "tokenizer" if names & {"rfid", "psnr", "ssim", "codebook_utilisation"} else "run"


def _names(row: dict[str, Any], source: str) -> dict[str, Any]:
    """Names by which analysis tells configurations apart, where the file has none; seeds count as 0."""
    codes, tokens = row["codebook_size"], row["tokens_per_image"]
    label = row["tokenizer"] or (f"K{codes}-T{tokens}" if codes and tokens else "unknown")
    same = ("downsampling", "quantizer", "codebook_size", "tokens_per_image", "regulariser", "regulariser_weight")
    family = row["tokenizer_family"] or _hash([source, label, *(row[name] for name in same)], 12)
    names: dict[str, Any] = {"tokenizer": label, "tokenizer_family": family}
    if row["tokenizer_seed"] is None:
        names["tokenizer_seed"] = row["seed"] if row["stage"] == "tokenizer" else 0
    if row["regulariser_weight"] is None and row["regulariser"] is None:
        names["regulariser_weight"] = 0.0
    if row["stage"] == "generator":
        size = row["parameters_other"]
        names["generator"] = row["generator"] or ("unknown" if size is None else f"{size / 1e6:.4g}M")
        fields = ("width", "layers", "parameters_other", "learning_rate", "batch_size")
        identity = [names["generator"], *(row[field] for field in fields)]
        names["generator_family"] = row["generator_family"] or _hash(identity, 12)
    return names


def _label(row: dict[str, Any], run_id: str) -> str:
    parts = [row[name] for name in ("tokenizer", "generator") if row[name] not in (None, "unknown")]
    if row["train_images"] is not None:
        parts.append(f"{row['train_images']}")
    return "-".join([*map(str, parts), f"s{row['seed']}"]) if parts else f"imported-{run_id}"


def _evaluations(path: Path, run_id: str, rows: list[Row], run: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of `evaluations`. Raises DataError for a bad protocol or for two rows of one place."""
    evaluations: list[dict[str, Any]] = []
    seen: dict[tuple[Any, ...], int] = {}
    values: dict[tuple[Any, ...], float] = {}
    for row in rows:
        at = row.position
        step = at.get("step")
        if step is None and run["batch_size"] and at.get("images") is not None:
            step = at["images"] // run["batch_size"]
        for metric, value in row.values.items():
            guidance, sampling = at.get("guidance"), row.protocol
            if metric in _WITHOUT_GUIDANCE:
                guidance = None
                sampling = {name: value for name, value in sampling.items() if name != "guidance_schedule"}
            try:
                protocol = Protocol(metric, at.get("n"), guidance=guidance, **sampling)
            except UsageError as error:
                raise DataError(f"{path.name} row {row.number}: {error}") from error
            split = at.get("split") or ("train" if metric in _TRAIN_REFERENCE else "validation")
            branch = at.get("branch", TRUNK)
            key = (metric, branch, step, at.get("images"), guidance, split, protocol.id)
            if key in seen:
                if metric in _WITHOUT_GUIDANCE and value == values[key]:
                    # A table of guided values repeats what a tokenizer has in each of its rows.
                    continue
                raise DataError(
                    f"{path.name} row {row.number} measures {metric} of the same run at the same place as row "
                    f"{seen[key]}; a column must tell them apart, such as run, seed, images or guidance "
                    "(--map COLUMN=NAME)"
                )
            seen[key], values[key] = row.number, value
            known = {name: at.get(name) for name in POSITION} | {"branch": branch, "step": step, "split": split}
            known["guidance"] = guidance
            known |= {"run_id": run_id, "attempt": 1, "metric": metric, "value": value}
            evaluations.append(known | {"protocol": protocol.id, "protocol_json": protocol.json})
    return evaluations


def _block(runs: list[_Run], about: Mapping[str, Any]) -> IndexBlock:
    """The runs as sets, with time and provenance."""
    import pyarrow as pa

    ordered = sorted(runs, key=lambda run: run.name.order)
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    rows, entries = [], []
    for run in ordered:
        provenance = canonical_json({"imported": {**about, "rows": run.digest}})
        rows.append(run.row | {"finished_at": now, "provenance": provenance})
        counts = {"runs": 1, "curves": 0, "evaluations": len(run.evaluations)}
        entries.append(IndexEntry(StoredRun.of_row({"cause": None, "message": None} | rows[-1]), counts, run.digest))
    evaluations = [row for run in ordered for row in run.evaluations]
    tables = {
        (False, "runs"): pa.Table.from_pylist(rows, arrow_schema("runs")),
        (False, "evaluations"): pa.Table.from_pylist(evaluations, arrow_schema("evaluations")),
    }
    return IndexBlock(tables, tuple(entries))


def _hash(values: Any, length: int) -> str:
    return sha256(canonical_json(values).encode()).hexdigest()[:length]

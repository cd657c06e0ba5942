"""Trained generators on disk: of a finished run by its id or its folder, or of a folder that was exported."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from results import Store
from results.errors import UsageError
from scaling.specification.spec import GeneratorRun
from sweeps.study.external_run import parse_any_run

from .artifacts import folder, publish

WEIGHTS = "model.safetensors"
"""As scaling.run names them."""
EXPORTED = "model.json"
"""What an exported folder holds, as scaling.export names it."""


@dataclass(frozen=True)
class TrainedGenerator:
    """A generator run with the files of weights of both stages."""

    run: GeneratorRun
    generator: Path
    tokenizer: Path
    provenance: str
    """JSON: code and packages that trained it."""
    root: Path
    """The data root below which it lies, or of an exported folder the one that was given."""


def is_exported(path: Path) -> bool:
    """Whether `tokenlaw export` or `tokenlaw import` may have written this folder."""
    return (path / EXPORTED).is_file()


def any_generator(root: Path, name: str) -> TrainedGenerator:
    """As trained_generator, and besides a folder that was exported or imported. Raises DataError for a damaged one."""
    folder = Path(name).expanduser()
    if not is_exported(folder):
        return trained_generator(root, name)
    from scaling.export import GENERATOR, TOKENIZER, read_exported

    run, about = read_exported(folder)
    return TrainedGenerator(run, folder / GENERATOR, folder / TOKENIZER, json.dumps(about["provenance"]), root)


def trained_generator(root: Path, name: str) -> TrainedGenerator:
    """The generator run that `name` means: an id, the start of one, or the folder of its artifacts.

    Raises UsageError for a name that is none or means several, for a tokenizer's run, one that is not finished, and
    weights that are gone.
    """
    given = Path(name)
    if "/" in name and given.is_dir():
        given = given.resolve()
        root, name = given.parent.parent, given.name
    allowed = f"allowed: the id of a finished generator run below {root}, its start, or the folder of its artifacts"
    if not re.fullmatch(r"[0-9a-f]{1,12}", name):
        raise UsageError(f"run = {name!r} is no id; {allowed}")
    store = Store(root)
    ids = sorted(run_id for run_id in store.finished() if run_id.startswith(name))
    if not ids:
        begun = sorted(path.name for path in (root / "attempts").glob(f"{name}*") if path.is_dir())
        state = f"run {begun[0]} is not finished (tokenlaw status)" if begun else f"run = {name!r} is unknown"
        raise UsageError(f"{state}; {allowed}")
    if len(ids) > 1:
        raise UsageError(f"run = {name!r} means {len(ids)} runs: {', '.join(ids[:5])}; {allowed}")
    row = store.read("runs", run_ids=ids).to_pylist()[0]
    if row["stage"] != "generator":
        raise UsageError(f"run {ids[0]} ({row['label']}) is a {row['stage']} run; {allowed}")
    if row["status"] != "done":
        raise UsageError(f"run {ids[0]} ({row['label']}) ended as {row['status']}, without weights; {allowed}")
    run = parse_any_run(row["spec"])
    if not isinstance(run, GeneratorRun) or run.trainer is not None:
        raise UsageError(f"run {ids[0]} ({row['label']}) has weights of a trainer of its own; {allowed}")
    generator, tokenizer = (_weights(root, run_id) for run_id in (run.run_id, run.tokenizer.run_id))
    return TrainedGenerator(run, generator, tokenizer, row["provenance"] or "{}", root)


def _weights(root: Path, run_id: str) -> Path:
    """The file of a finished run's weights. Raises UsageError if it is gone."""
    publish(root, run_id)
    path = folder(root, run_id) / WEIGHTS
    if not path.is_file():
        raise UsageError(f"run {run_id} has no weights any more: {path} is not there; submit it again")
    return path

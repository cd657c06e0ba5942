"""A study file: TOML to validated specifications of runs. Pure: the same text gives the same runs.

The format is documented in docs/studies.md. Everything is checked before anything is expanded or written.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results.errors import SpecError, UsageError
from scaling.specification.pictures import PicturesLocation
from scaling.specification.spec import TokenizerRun

from .external_run import AnyRun
from .fields import FREE, Section, as_table, check_keys, check_path, check_tree, nearest, parse, set_at
from .grids.expansion import Expander, Lookup
from .grids.grid import GridBlock, parse_block
from .hardware import Hardware
from .resources import STAGES, Resources, ResourceTable, parse_resources
from .sections import About, Limits, RunSeeds, Seeds, Trackers, Worker
from .stored_tokenizers import find_tokenizer

if TYPE_CHECKING:
    from .fits import StudyFit

__all__ = ["About", "Limits", "Run", "Seeds", "Study", "built_in", "load_study", "parse_study"]

BUILT_IN = Path(__file__).parent / "built_in"
MAX_COMBINATIONS = 200_000
"""Combinations that are expanded at most, exclusions and duplicates included."""

_SECTIONS = (
    "study", "data", "tokenizer", "generator", "evaluation", "run", "grid", "seeds", "worker", "resources", "hardware",
    "limits", "trackers", "fit",
)  # fmt: skip
_LISTS = {"grid", "fit"}
_SPEC_SECTIONS = ("data", "tokenizer", "generator", "evaluation", FREE)
_TYPED: dict[str, tuple[type[Section], ...]] = {
    "study": (About,), "seeds": (Seeds, RunSeeds), "limits": (Limits,), "worker": (Worker,), "hardware": (Hardware,),
    "trackers": (Trackers,),
}  # fmt: skip

Run = AnyRun


def _no_store(start: str) -> TokenizerRun:
    raise SpecError(f"tokenizer.id = {start!r} needs a data root to be looked up in; allowed: studies read with one")


@dataclass(frozen=True)
class Study:
    """A checked study, not yet expanded."""

    about: About
    sections: Mapping[str, Any]
    """The tables data, tokenizer, generator and evaluation as written, or run; generator is absent for tokenizers
    alone."""
    blocks: tuple[tuple[GridBlock, Seeds | RunSeeds], ...]
    limits: Limits
    source: str
    """The path or the built-in name that it was read from."""
    resources: ResourceTable = field(default_factory=lambda: ResourceTable({}))
    """What each run asks of a cluster."""
    worker: Worker | None = None
    """The command that executes runs in place of this package's training."""
    hardware: Hardware | None = None
    """What GPU-hours are estimated with; None: nothing is known of the GPUs."""
    trackers: Trackers = field(default_factory=Trackers)
    """What is told of each run while it runs."""
    fits: tuple[StudyFit, ...] = ()
    """The laws that are to be fitted to what it measures."""
    lookup: Lookup = _no_store
    """Finds a stored tokenizer by the start of its id."""
    notes: list[str] = field(default_factory=list, compare=False)
    """What people should know of the runs, such as points of an IsoFLOP grid left out; filled by `runs`."""
    locations: dict[str, PicturesLocation] = field(default_factory=dict, compare=False)
    """Where a user's own pictures lie, by their fingerprint; filled by `runs`, which looks at them."""
    weights: dict[str, Path] = field(default_factory=dict, compare=False)
    """Where pretrained weights lie, by their fingerprint; filled by `runs`, which reads them."""

    @property
    def name(self) -> str:
        """Name in ledger and reports."""
        return self.about.name

    @property
    def folder(self) -> Path | None:
        """The folder of its file, in which a trainer of its own lies; None for a built-in one."""
        path = Path(self.source)
        return path.resolve().parent if path.is_file() else None

    @property
    def retries(self) -> int:
        """How often a failed run is tried again in one submission."""
        return self.limits.retries

    def runs(self) -> list[Run]:
        """All runs of the study, each once, every tokenizer before the generators that use it.

        Raises SpecError that names field, value and what is allowed, and the combination of axes; DataError for
        pictures of one's own that a run could not use.
        """
        runs: dict[str, Run] = {}
        expander = Expander(self.name, self.sections, self.worker, self.lookup)
        for block, seeds in self.blocks:
            for run in expander.runs(block, seeds):
                runs.setdefault(run.run_id, run)
                if len(runs) > self.limits.runs:
                    raise SpecError(
                        f"study {self.name} has more than {self.limits.runs:,} runs; "
                        f"allowed by limits.runs: {self.limits.runs:,}"
                    )
        self.notes[:] = expander.notes
        self.locations.update(expander.pictures.locations)
        self.weights.update(expander.pretrained.locations)
        if not runs:
            raise SpecError(f"study {self.name} has no runs: exclusions leave nothing of its grid")
        return list(runs.values())


def built_in() -> list[str]:
    """Names of the studies that come with tokenlaw."""
    return sorted(path.stem for path in BUILT_IN.glob("*.toml"))


def load_study(name: str, overrides: Sequence[str] = (), root: Path | None = None) -> Study:
    """The study in a TOML file, or the built-in one of that name, with `--set` overrides such as "seeds.tokenizer=[0]".

    `root` is the data root in which a `tokenizer.id` is looked up; $TOKENLAW_ROOT or ./runs unless given.
    Raises UsageError for an unknown study, SpecError for a bad file or override.
    """
    where = root or Path(os.environ.get("TOKENLAW_ROOT", "runs"))
    path = Path(name)
    if name in built_in() and not path.is_file():
        path = BUILT_IN / f"{name}.toml"
    elif path.is_dir():
        inside = sorted(file.name for file in path.glob("*.toml"))
        raise UsageError(
            f"study = {name!r} is a folder; allowed: a TOML file, such as {path / (inside or ['x.toml'])[0]}"
        )
    elif not path.exists() and path.suffix != ".toml":
        allowed = f"allowed: {', '.join(built_in())}, or the path of a TOML file"
        if "/" in name or os.sep in name or path.suffix:
            raise UsageError(f"study = {name!r} does not exist: no such file or folder; {allowed}")
        raise UsageError(f"study = {name!r} is unknown; {nearest(name, built_in())}{allowed}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise UsageError(f"study = {name!r} cannot be read: {reason}") from error
    return parse_study(text, name, overrides, lambda start: find_tokenizer(where, start))


def parse_study(text: str, source: str, overrides: Sequence[str] = (), lookup: Lookup = _no_store) -> Study:
    """The study that a TOML text describes; `lookup` finds stored tokenizers. Raises SpecError."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"study {source} is not TOML: {error}") from error
    check_keys(document, f"study {source}", _SECTIONS)
    for override in overrides:
        _override(document, override)
    for section in set(_SECTIONS) - _LISTS:
        as_table(document.get(section, {}), section, f"a table, [{section}]")
    sections = {name: document[name] for name in _SPEC_SECTIONS if name in document}
    for name, table in sections.items():
        for key, value in table.items():
            check_tree(f"{name}.{key}", value, f"[{name}]")

    about = parse(About, document.get("study", {}), "[study]")
    limits = parse(Limits, document.get("limits", {}), "[limits]")
    trackers = parse(Trackers, document.get("trackers", {}), "[trackers]")
    resources = parse_resources(document.get("resources", {}))
    hardware = parse(Hardware, document["hardware"], "[hardware]") if "hardware" in document else None
    worker = _worker(document)
    seeds, staged = document.get("seeds", {}), worker is None or not worker.external
    base_seeds = _seeds(staged, "[seeds]", seeds)
    if limits.gpu_hours is not None and hardware is None:
        raise SpecError("limits.gpu_hours cannot be checked without hardware; allowed: with [hardware] profile = ...")
    tables = document.get("grid", [{}])
    if not isinstance(tables, list):
        raise SpecError("grid is a single table; allowed: [[grid]] blocks, with two brackets")
    blocks = [parse_block(table, number, sections) for number, table in enumerate(tables, 1)]
    for block in blocks:
        _check_kind(block, worker, "generator" in sections)
        for override in overrides:
            path = override.partition("=")[0].strip()
            for path_set in block.paths | {f"seeds.{stage}" for stage in block.seeds}:
                if f"{path_set}.".startswith(f"{path}.") or f"{path}.".startswith(f"{path_set}."):
                    raise SpecError(
                        f"--set {path} has no effect: {block.where} sets {path_set}; allowed: fields off the grid"
                    )
    paired = tuple(
        (b, _seeds(staged, f"[{b.where}.seeds]", {**seeds, **b.seeds}) if b.seeds else base_seeds) for b in blocks
    )
    _check_stored(sections, blocks, seeds)
    combinations = sum(_count(block, its_seeds, "generator" in sections) for block, its_seeds in paired)
    if combinations > MAX_COMBINATIONS:
        raise SpecError(
            f"the grid of study {about.name} has {combinations:,} combinations; allowed: up to {MAX_COMBINATIONS:,} "
            "before exclusions"
        )
    fits = _fits(document["fit"]) if "fit" in document else ()
    return Study(about, sections, paired, limits, source, resources, worker, hardware, trackers, fits, lookup)


def _fits(tables: Any) -> tuple[StudyFit, ...]:
    from .fits import parse_fits  # few studies have laws, and all pay for what is imported

    return parse_fits(tables)


def _seeds(staged: bool, where: str, table: Mapping[str, Any]) -> Seeds | RunSeeds:
    return parse(Seeds, table, where) if staged else parse(RunSeeds, table, where)


def _count(block: GridBlock, seeds: Seeds | RunSeeds, generators: bool) -> int:
    if isinstance(seeds, RunSeeds):
        return block.size * len(seeds.run)
    each = 1 if seeds.generator == "same" or not generators else len(seeds.generator)
    budgets = len(block.isoflop.flops) if block.isoflop else 1
    return block.size * budgets * len(seeds.tokenizer) * each


def _worker(document: Mapping[str, Any]) -> Worker | None:
    """The section [worker], checked against the sections beside it."""
    if "worker" not in document:
        if FREE in document:
            raise SpecError("[run] needs a command that executes it; allowed: with [worker] command = [...]")
        return None
    default = {"stage": "run"} if FREE in document else {}
    worker = parse(Worker, default | document["worker"], "[worker]")
    staged = [name for name in _SPEC_SECTIONS if name in document and name != FREE]
    if worker.external and staged:
        raise SpecError(f"[{staged[0]}] stands beside runs of no stage; allowed: [run], or another worker.stage")
    if not worker.external and FREE in document:
        raise SpecError(f'[run] stands beside worker.stage = {list(worker.stages)}; allowed: worker.stage = "run"')
    if "generator" in worker.stages and "generator" not in document:
        raise SpecError("worker.stage names the generator, but there is no [generator]; add that section")
    return worker


def _check_kind(block: GridBlock, worker: Worker | None, generators: bool) -> None:
    """Raise SpecError for an axis that has no meaning for the kind of runs that the study has."""
    external = worker is not None and worker.external
    wrong = sorted(path for path in block.paths if path.startswith("run.") != external)
    if wrong:
        kind, allowed = ("no", "run.<name>") if external else ("a", "fields of data, tokenizer, generator, evaluation")
        raise SpecError(f"{block.where} sets {wrong[0]}, but the study's runs have {kind} stage; allowed: {allowed}")
    if not generators and any(path.startswith("generator.") for path in block.paths):
        raise SpecError(f"{block.where} sets a generator field, but there is no [generator]; add that section")


def _check_stored(sections: Mapping[str, Any], blocks: Sequence[GridBlock], seeds: Mapping[str, Any]) -> None:
    by_id = [block for block in blocks if "tokenizer.id" in block.paths or "id" in sections.get("tokenizer", {})]
    if by_id and "generator" not in sections:
        raise SpecError("tokenizer.id names a stored tokenizer, but there is no [generator] to train; add that section")
    if any("tokenizer" in {**seeds, **block.seeds} for block in by_id):
        raise SpecError("seeds.tokenizer stands beside tokenizer.id, which has a seed already; allowed: one of the two")


def _override(document: dict[str, Any], text: str) -> None:
    """Apply one `a.b=c` of the command line; c is a TOML value, or a bare word for text."""
    path, separator, value = (part.strip() for part in text.partition("="))
    steps = path.split(".")
    if not separator or not value or len(steps) < 2 or not all(steps):
        raise SpecError(f"--set {text!r} is not allowed; allowed: section.field=value, such as seeds.tokenizer=[0]")
    if steps[0] in _SPEC_SECTIONS:
        check_path(path, "--set")
    elif steps[0] in _TYPED:
        fields = {name for model in _TYPED[steps[0]] for name in model.model_fields}
        check_keys({".".join(steps[1:]): None}, f"[{steps[0]}] (set by --set)", fields)
    elif steps[0] == "resources":
        check_keys({steps[1]: None}, "[resources] (set by --set)", STAGES)
        check_keys({".".join(steps[2:]): None}, f"[resources.{steps[1]}] (set by --set)", Resources.model_fields)
    else:
        tables = ", ".join(section for section in _SECTIONS if section not in _LISTS)
        raise SpecError(f"--set {path} is not allowed; allowed sections: {tables}")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError as error:
        if not re.fullmatch(r"[A-Za-z][\w.-]*", value):
            raise SpecError(f"--set {path} = {value} is not a TOML value: {error}") from error
        parsed = value
    set_at(document, path, parsed)

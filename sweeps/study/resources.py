"""What a job asks of a cluster: GPUs, nodes, memory, hours and queue, for each stage, with rules by size.

Resources are no part of a run's identity: the same run on other machines is the same run. A rule's conditions look at
the run itself, defaults included, so that a run that two blocks of a grid name has one answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from results.errors import SpecError, UsageError
from scaling.ranks import Strategy
from scaling.specification.spec import TokenizerRun

from .external_run import STAGES, Stage
from .fields import Section, as_table, check_keys, validated
from .grids.conditions import parse_conditions, value_at

_SECTIONS: dict[Stage, tuple[str, ...]] = {
    "tokenizer": ("data", "tokenizer", "evaluation"),
    "generator": ("data", "tokenizer", "generator", "evaluation"),
    "run": ("run",),
}

_PLAIN = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.,:+-]*$", max_length=200)]
"""Names of partitions, accounts and qualities of service, several with commas."""
_OPTION = re.compile(r"[a-z][a-z0-9-]*")
_OWN_OPTIONS = {
    "time": "hours",
    "mem": "memory_gb",
    **{name.replace("_", "-"): name
       for name in ("partition", "account", "qos", "constraint", "nodes", "cpus_per_task", "gpus_per_node")},
    **dict.fromkeys(
        ("array", "chdir", "dependency", "error", "input", "job-name", "kill-on-invalid-dep", "no-requeue", "ntasks",
         "ntasks-per-node", "open-mode", "output", "parsable", "requeue", "signal", "wait", "wrap"),
        "",
    ),
}  # fmt: skip
"""sbatch options that a field stands for, or ("") that submission sets itself."""


class Resources(Section):
    """What one job gets. Hashable: runs of equal resources may share an array.

    One task runs for each GPU, or one a node without GPUs. `hours` is the job's time limit, which a job reaches only
    to be requeued and resumed. `memory_gb` is for each node; None leaves it to the partition. `microbatch` is the
    most images that a task passes through the model at once: the global batch of the specification stays as it is.
    `strategy` is how the tasks of a run train a generator: `ddp`, each with all of it, or `fsdp2`, each with a part of
    every weight. `recompute_activations` keeps fewer activations and computes them again. `compile`
    trains with networks compiled by torch. None of the four is part of a run's id: numbers stay what they are, up to
    rounding and the order of additions.
    `pack` runs share a job, one after the other, or `pack_parallel` of them side by side; then the job asks for so many
    times the GPUs, CPUs and memory. `hours` stays the time limit of the job: a pack that reaches it goes on with what
    is left.
    """

    gpus_per_node: Annotated[int, Field(ge=0, le=64)] = 0
    nodes: Annotated[int, Field(ge=1, le=100_000)] = 1
    cpus_per_task: Annotated[int, Field(ge=1, le=4096)] = 1
    memory_gb: Annotated[float, Field(gt=0, le=1e6)] | None = None
    hours: Annotated[float, Field(gt=0, le=24 * 366)] = 24.0
    partition: _PLAIN | None = None
    account: _PLAIN | None = None
    qos: _PLAIN | None = None
    constraint: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.,:&|*()\[\]=!+-]+$", max_length=200)] | None = None
    options: tuple[tuple[str, str], ...] = ()
    """Further sbatch options by their long name without dashes, sorted; the value "" stands for an option without
    a value (in a study file: true)."""
    microbatch: Annotated[int, Field(ge=1)] | None = None
    strategy: Strategy = "ddp"
    recompute_activations: bool = False
    compile: bool = False
    pack: Annotated[int, Field(ge=1, le=100_000)] = 1
    pack_parallel: Annotated[int, Field(ge=1, le=4096)] = 1

    @field_validator("options", mode="before")
    @classmethod
    def _options(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        pairs = []
        for name, setting in value.items():
            if not _OPTION.fullmatch(name):
                raise ValueError(f"options.{name} is not an option; allowed: long names of sbatch without dashes")
            if name in _OWN_OPTIONS:
                field = _OWN_OPTIONS[name]
                instead = f"the field {field} sets it" if field else "submission sets it itself"
                raise ValueError(f"options.{name} is not allowed; allowed: options other than this, {instead}")
            if setting is False:
                continue
            if not isinstance(setting, bool | int | float | str) or any(c in str(setting) for c in "\n\r\0"):
                raise ValueError(
                    f"options.{name} = {setting!r} is not allowed; allowed: true, a number, a line of text"
                )
            pairs.append((name, "" if setting is True else str(setting)))
        return tuple(sorted(pairs))

    @model_validator(mode="after")
    def _side_by_side(self) -> Self:
        if self.pack_parallel > self.pack:
            raise ValueError(
                f"pack_parallel = {self.pack_parallel} is not allowed; allowed: at most pack = {self.pack}, the runs "
                "of a job"
            )
        return self

    @property
    def tasks_per_node(self) -> int:
        """Processes on each node: one a GPU, else one."""
        return max(self.gpus_per_node, 1)

    @property
    def tasks(self) -> int:
        """Processes in all: the ranks of a distributed run."""
        return self.nodes * self.tasks_per_node

    @property
    def worker_options(self) -> list[str]:
        """What a worker is told of how to train, besides the microbatch."""
        options = ["--strategy", self.strategy] if self.strategy != "ddp" else []
        options += ["--recompute-activations"] if self.recompute_activations else []
        return options + (["--compile"] if self.compile else [])

    @property
    def gpus(self) -> int:
        """GPUs in all."""
        return self.nodes * self.gpus_per_node

    def with_memory(self, factor: float) -> Resources:
        """The same with `factor` times the memory, if any is asked for: after a job ran out of it."""
        if self.memory_gb is None:
            return self
        return self.model_copy(update={"memory_gb": self.memory_gb * factor})

    def described(self) -> str:
        """For people, such as `2 nodes x 8 GPUs, 24 h, partition gpu`."""
        number, device = (self.gpus_per_node, "GPU") if self.gpus else (self.cpus_per_task, "CPU")
        parts = [f"{number} {device}{'s' * (number > 1)}"]
        if self.nodes > 1:
            parts = [f"{self.nodes} nodes x {number} GPUs"] if self.gpus else [*parts, f"{self.nodes} nodes"]
        parts += [f"{self.memory_gb:g} GB"] if self.memory_gb is not None else []
        parts += [f"{self.hours:g} h"]
        parts += [f"{name} {value}" for name in ("partition", "qos") if (value := getattr(self, name))]
        return ", ".join(parts)


DEFAULT = Resources()
"""What a stage without a section gets."""


@dataclass(frozen=True)
class Rule:
    """Fields that a run gets if the values at these dotted paths meet their conditions."""

    where: Mapping[str, Callable[[Any], bool]]
    fields: Mapping[str, Any]

    def holds(self, run: Any) -> bool:
        """Whether a run meets all conditions."""
        return all(condition(value_at(run, path)) for path, condition in self.where.items())


class ResourceTable:
    """All [resources] of a study, with an answer for every run; runs for which the same rules hold share one object.

    `sections` has for each stage its rules, of which later ones win; the first holds for all, the stage's defaults.
    """

    def __init__(self, sections: Mapping[Stage, Sequence[Rule]]) -> None:
        self._sections = sections
        self._known: dict[tuple[Any, ...], Resources] = {}

    def of(self, run: Any) -> Resources:
        """What a run gets; the defaults of Resources for a stage without a section.

        Raises SpecError if the rules that hold for it contradict each other, its batch or its trainer.
        """
        rules = self._sections.get(run.stage)
        if rules is None:
            return DEFAULT
        where = f"[resources.{run.stage}] for {run.label}:"
        held = tuple(rule.holds(run) for rule in rules)
        resources = self._known.get((run.stage, held))
        if resources is None:
            fields = dict(pair for rule in compress(rules, held) for pair in rule.fields.items())
            resources = self._known[run.stage, held] = validated(Resources, fields, where)
        batch = getattr(run, "batch_size", None)
        if batch is not None and batch < resources.tasks:
            raise SpecError(
                f"{where} batch_size = {batch} cannot be shared by {resources.tasks} tasks, nodes x gpus_per_node; "
                "allowed: at most one an image"
            )
        if isinstance(run, TokenizerRun):
            try:
                run.check_parts(resources.tasks, resources.microbatch)
            except UsageError as error:
                raise SpecError(f"{where} {error}") from error
        if run.trainer is not None and (chosen := _ways(resources.model_dump())):
            name, value = chosen[0]
            raise SpecError(
                f"{where} {name} = {value!r} is not allowed, for the run's own trainer is not told of it; allowed: "
                f"{name} = {Resources.model_fields[name].default!r}"
            )
        return resources


def parse_resources(table: Mapping[str, Any]) -> ResourceTable:
    """The [resources] table of a study. Raises SpecError that names field, value and what is allowed."""
    check_keys(table, "[resources]", STAGES)
    return ResourceTable({stage: _parse_section(stage, table[stage]) for stage in STAGES if stage in table})


def _parse_section(stage: Stage, table: Any) -> list[Rule]:
    where = f"[resources.{stage}]"
    as_table(table, f"resources.{stage}", f"a table, {where}")
    check_keys(table, where, [*Resources.model_fields, "rules"])
    defaults = {name: value for name, value in table.items() if name != "rules"}
    _check_strategy(stage, validated(Resources, defaults, where), where)
    rules = table.get("rules", [])
    if not isinstance(rules, list):
        raise SpecError(f"resources.{stage}.rules is a single table; allowed: [[resources.{stage}.rules]] tables")
    return [Rule({}, defaults), *(_rule(rule, number, stage, defaults) for number, rule in enumerate(rules, 1))]


def _rule(table: Any, number: int, stage: Stage, defaults: Mapping[str, Any]) -> Rule:
    where = f"[[resources.{stage}.rules]] {number}"
    check_keys(as_table(table, where, "a table"), where, [*Resources.model_fields, "where"])
    wanted = table.get("where")
    if not isinstance(wanted, Mapping) or not wanted:
        raise SpecError(
            f"{where} where = {wanted!r} is not allowed; allowed: a table of conditions such as "
            '{ "generator.size" = ["L", "XL"] }'
        )
    conditions = parse_conditions(wanted, f"{where}.where", _SECTIONS[stage])
    fields = {name: value for name, value in table.items() if name != "where"}
    if not fields:
        raise SpecError(f"{where} sets nothing; allowed: {', '.join(Resources.model_fields)}")
    _check_strategy(stage, validated(Resources, {**defaults, **fields}, where), where)
    return Rule(conditions, fields)


def _check_strategy(stage: Stage, resources: Resources, where: str) -> None:
    """Raise SpecError for a strategy that a stage has not: only generators are cut over processes."""
    if stage != "generator" and resources.strategy != "ddp":
        raise SpecError(
            f"{where} strategy = {resources.strategy!r} is not allowed, for only generators are cut over processes; "
            "allowed: 'ddp'"
        )


def _ways(fields: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Fields of how to train that are not the default, with their values."""
    names = ("strategy", "recompute_activations", "compile")
    return [(name, fields[name]) for name in names if fields[name] != Resources.model_fields[name].default]

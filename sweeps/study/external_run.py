"""Runs of no stage: a command and free values, planned, submitted and stored as the runs of our two stages are.

Here is also what treats runs of all kinds alike: parsing, the columns that follow from a specification, estimated time.
"""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from results.errors import SpecError
from results.settings import flat
from scaling.specification.components import NonNegativeInt, PositiveInt
from scaling.specification.explanation import explain
from scaling.specification.spec import GeneratorRun, RunFields, TokenizerRun, canonical_json

Stage = Literal["tokenizer", "generator", "run"]
STAGES: tuple[Stage, ...] = ("tokenizer", "generator", "run")

LABEL_LENGTH = 60
UNKNOWN_SECONDS = 60.0
"""Guessed time of a run of no stage, for order and first ETA only; measured times replace it."""


class ExternalRun(RunFields):
    """A run of no stage: the command that executes it, and the values that it reads from its specification file."""

    stage: Literal["run"] = "run"
    trainer: tuple[str, ...]
    values: dict[str, Any] = Field(default_factory=dict)
    threads: PositiveInt = 1
    seed: NonNegativeInt = 0

    @field_validator("values")
    @classmethod
    def _json(cls, values: dict[str, Any]) -> dict[str, Any]:
        _check_json(values, "run")
        return values

    @property
    def configuration_label(self) -> str:
        """The values for people, such as `depth=4,width=64`; shortened where they are many."""
        leaves = sorted(flat(self.values).items(), key=lambda leaf: leaf[0].split("."))
        texts = ((path, v if isinstance(v, str) else json.dumps(v, separators=(",", ":"))) for path, v in leaves)
        shown = ",".join(map("=".join, texts))
        shown = "".join(c if c.isprintable() and c not in " /\\" else "_" for c in shown)
        return shown if len(shown) <= LABEL_LENGTH else f"{shown[: LABEL_LENGTH - 9]}~{self.family[:8]}"

    @property
    def label(self) -> str:
        """Label for people, with the seed; never parsed."""
        return f"{self.configuration_label or 'run'},s{self.seed}"


AnyRun = TokenizerRun | GeneratorRun | ExternalRun
_ANY_RUN: TypeAdapter[AnyRun] = TypeAdapter(
    Annotated[AnyRun, Field(discriminator="stage")], config=ConfigDict(defer_build=True)
)


def parse_any_run(text: str | bytes) -> AnyRun:
    """A run of either stage or of none from its JSON text. Raises SpecError naming field, value, what is allowed."""
    try:
        return _ANY_RUN.validate_json(text)
    except ValidationError as error:
        raise SpecError(explain(error)) from error


def facts_of(run: AnyRun) -> dict[str, Any]:
    """The columns of `runs` that a specification determines; for a run of no stage those that have a meaning."""
    if not isinstance(run, ExternalRun):
        from scaling.specification.run_columns import run_facts

        return run_facts(run)
    from results.schema import LATER_COLUMNS, RUNS

    known: dict[str, Any] = {"stage": run.stage, "label": run.label, "spec": canonical_json(run)}
    known |= {"seed": run.seed, "threads": run.threads}
    measured = {"run_id", "attempt", "status", "cause", "message", "wall_seconds", "peak_memory_bytes", "started_at",
                "finished_at", "provenance", "source", *LATER_COLUMNS}  # fmt: skip
    return {column.name: known.get(column.name) for column in RUNS if column.name not in measured}


def seconds_of(run: AnyRun) -> float:
    """Estimated seconds of a run on one thread of a laptop."""
    if isinstance(run, ExternalRun):
        return UNKNOWN_SECONDS
    from scaling.specification.run_columns import estimated_seconds

    return estimated_seconds(run)


def shared_seconds(run: AnyRun) -> tuple[str, float]:
    """Of `seconds_of`, what only the first run of a data root pays that has this key: features of training images."""
    if not isinstance(run, TokenizerRun):
        return "", 0.0
    from scaling.specification.run_columns import reference_seconds

    return canonical_json(run.data) + canonical_json(run.evaluation), reference_seconds(run)


def _check_json(value: Any, path: str) -> None:
    """Values must have one stable text: texts, finite numbers, true, false, null, lists and tables of these."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise ValueError(f"{path} has the key {key!r}; allowed: texts")
            _check_json(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for inner in value:
            _check_json(inner, path)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{path} = {value} has no stable text; allowed: finite numbers")
    elif not (value is None or isinstance(value, str | int | float)):
        raise ValueError(f"{path} = {value!r} is not allowed; allowed: texts, numbers, true, false, lists and tables")

"""From the settings of a grid to validated runs. Whatever several runs share is built and validated once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel

from results.errors import SpecError
from scaling.specification.ladder import learning_rate, transformer
from scaling.specification.spec import (
    EvaluationSpec,
    GeneratorRun,
    OptimiserSpec,
    TokenizerRun,
    TransformerSpec,
)

from .conditions import NONE
from .external_run import ExternalRun
from .fields import GENERATOR_SUGAR, Model, validated
from .grid import GridBlock, Settings
from .isoflop import IsoFlop
from .sections import Seeds, Worker

Lookup = Callable[[str], TokenizerRun]
"""Finds a stored tokenizer by the start of its id."""


class Expander:
    """Turns blocks of a grid into runs."""

    def __init__(self, name: str, sections: Mapping[str, Any], worker: Worker | None, lookup: Lookup) -> None:
        self._name, self._sections, self._worker, self._lookup = name, sections, worker, lookup
        self._tokenizers: dict[tuple[Any, ...], TokenizerRun] = {}
        self._generators: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._notes: dict[str, None] = {}

    @property
    def notes(self) -> list[str]:
        """What people should know: points of a grid that were left out. Each once."""
        return list(self._notes)

    def runs(self, block: GridBlock, seeds: Seeds) -> Iterator[TokenizerRun | GeneratorRun]:
        """The runs of a block, every tokenizer before the generators that use it; a run may come more than once.

        Raises SpecError that names the combination of axes, the field, its value and what is allowed.
        """
        budgets = block.isoflop
        points = fitting = 0
        for settings in block.combinations(self._sections):
            where = _Place(self._name, settings)
            key = tuple((path, repr(value)) for path, value in settings.items() if not path.startswith("generator."))
            for tokenizer in self._tokenizers_of(settings, key, seeds, where):
                if "generator" not in self._sections:
                    yield tokenizer
                    continue
                evaluation = self._evaluation(settings, tokenizer, where)
                values = self._generator_values(settings, where) | {"tokenizer": tokenizer, "evaluation": evaluation}
                choices: list[dict[str, Any]] = [{}]
                if budgets is not None:
                    fitted = self._fitted(budgets, values, where)
                    points, fitting = points + len(budgets.flops), fitting + sum(map(len, fitted))
                    choices = [{"train_images": images} for images in fitted]
                if choices:
                    yield tokenizer
                for seed in [tokenizer.seed] if seeds.generator == "same" else seeds.generator:
                    for choice in choices:
                        yield validated(GeneratorRun, {**values, **choice, "seed": seed}, where.of("[generator]"))
        if points and not fitting:
            raise SpecError(
                f"{block.where}.isoflop: none of its {points} points fits; {self.notes[-1]} "
                "allowed: budgets whose images lie within min_images, max_images, the warm-up and the tolerance"
            )

    def external(self, block: GridBlock, seeds: list[int], worker: Worker) -> Iterator[ExternalRun]:
        """The runs of no stage of a block."""
        for settings in block.combinations(self._sections):
            values = _nulls(_apply({"run": self._sections.get("run", {})}, settings)["run"])
            for seed in seeds:
                fields = {"trainer": tuple(worker.command), "values": values, "threads": worker.threads, "seed": seed}
                yield _validated(ExternalRun, fields, _Place(self._name, settings, "[run]"))

    def _tokenizers_of(
        self, settings: Settings, key: tuple[Any, ...], seeds: Seeds, where: _Place
    ) -> Iterator[TokenizerRun]:
        stored = self._by_id(settings)
        for seed in [None] if stored is not None else seeds.tokenizer:
            if (seed, key) not in self._tokenizers:
                tables = _apply(self._sections, settings)
                self._tokenizers[seed, key] = (
                    self._tokenizer(tables, seed, where) if stored is None else self._stored(tables, stored, where)
                )
            yield self._tokenizers[seed, key]

    def _stored(self, tables: Mapping[str, Any], start: Any, where: _Place) -> TokenizerRun:
        others = sorted(set(tables.get("tokenizer", {})) - {"id"})
        if others or tables.get("data"):
            what = f"tokenizer.{others[0]}" if others else "[data]"
            raise SpecError(f"{where.of('[tokenizer]')} sets both tokenizer.id and {what}; allowed: one of the two")
        if not isinstance(start, str):
            raise SpecError(f"{where.of('[tokenizer]')} tokenizer.id = {start!r} is not allowed; allowed: a text")
        return self._lookup(start)

    def _tokenizer(self, tables: Mapping[str, Any], seed: int | None, where: _Place) -> TokenizerRun:
        values = {**_nulls(tables.get("tokenizer", {})), "seed": seed}
        values |= {name: _nulls(tables.get(name, {})) for name in ("data", "evaluation")}
        return _validated(TokenizerRun, self._with_trainer(values, "tokenizer", where), where.of("[tokenizer]"))

    def _with_trainer(self, values: dict[str, Any], stage: str, where: _Place) -> dict[str, Any]:
        if self._worker is None or stage not in self._worker.stages:
            return values
        if values.get("trainer") is not None:
            raise SpecError(f"{where.of(f'[{stage}]')} has two commands; allowed: one of {stage}.trainer and [worker]")
        return values | {"trainer": tuple(self._worker.command)}

    def _generator_values(self, settings: Settings, where: _Place) -> dict[str, Any]:
        """All fields of a generator run but tokenizer, evaluation and seed, its parts validated."""
        key = tuple((path, repr(value)) for path, value in settings.items() if path.startswith("generator."))
        if key not in self._generators:
            self._generators[key] = self._generator(_apply(self._sections, settings), where)
        return self._generators[key]

    def _evaluation(self, settings: Settings, tokenizer: TokenizerRun, where: _Place) -> EvaluationSpec:
        """The tokenizer's; but generators on a tokenizer from the store may be measured by another protocol."""
        tables = self._sections.get("evaluation") or any(path.startswith("evaluation.") for path in settings)
        if not tables or not self._by_id(settings):
            return tokenizer.evaluation
        return _validated(
            EvaluationSpec, _nulls(_apply(self._sections, settings)["evaluation"]), where.of("[evaluation]")
        )

    def _by_id(self, settings: Settings) -> Any:
        return settings.get("tokenizer.id", self._sections.get("tokenizer", {}).get("id"))

    def _generator(self, tables: Mapping[str, Any], place: _Place) -> dict[str, Any]:
        where = place.of("[generator]")
        values = _nulls(tables["generator"])
        size, multiplier, warmup = (values.pop(name, None) for name in GENERATOR_SUGAR)
        if (size is None) == ("transformer" not in values):
            raise SpecError(f"{where} needs a size; allowed: exactly one of generator.size and generator.transformer")
        if size is not None:
            if not isinstance(size, str):
                raise SpecError(f"{where} generator.size = {size!r} is not allowed; allowed: a name of the ladder")
            shape = transformer(size)
        else:
            shape = _validated(TransformerSpec, values["transformer"], f"{where} transformer")
        optimiser = values.get("optimiser", {})
        if not isinstance(optimiser, dict):
            raise SpecError(f"{where} generator.optimiser = {optimiser!r} is not allowed; allowed: a table")
        if multiplier is not None and "learning_rate" in optimiser:
            raise SpecError(f"{where} sets the learning rate twice; allowed: one of learning_rate_multiplier and "
                            "optimiser.learning_rate")  # fmt: skip
        if multiplier is not None and (
            isinstance(multiplier, bool) or not isinstance(multiplier, int | float) or not 0 < multiplier < 1e6
        ):
            raise SpecError(f"{where} generator.learning_rate_multiplier = {multiplier!r} is not allowed; "
                            "allowed: a number above 0")  # fmt: skip
        if (warmup is None) == ("warmup_images" not in optimiser):
            raise SpecError(f"{where} needs a warm-up; allowed: exactly one of generator.warmup_images and "
                            "generator.optimiser.warmup_images")  # fmt: skip
        if warmup is not None:
            optimiser = {**optimiser, "warmup_images": warmup}
        optimiser = {"learning_rate": learning_rate(shape) * (multiplier or 1), **optimiser}
        values["optimiser"] = _validated(OptimiserSpec, optimiser, f"{where} optimiser:")
        return self._with_trainer(values | {"transformer": shape}, "generator", place)

    def _fitted(self, budgets: IsoFlop, values: Mapping[str, Any], where: _Place) -> list[list[int]]:
        """The train_images of each run of an IsoFLOP block for this tokenizer and generator."""
        # Only shape, batch, schedule and warm-up matter, and these are checked against a budget without end.
        fields = {**values, "train_images": [budgets.endless(values)], "seed": 0}
        fitted, notes = budgets.fit(validated(GeneratorRun, fields, where.of("[generator]")))
        self._notes |= dict.fromkeys(notes)
        return fitted


@dataclass(frozen=True)
class _Place:
    """The place of an error for people, composed only when there is one."""

    study: str
    settings: Settings
    section: str = ""

    def of(self, section: str) -> _Place:
        return replace(self, section=section)

    def __str__(self) -> str:
        shown = ", ".join(f"{path} = {value!r}" for path, value in self.settings.items())
        axes = f" ({shown if len(shown) <= 200 else shown[:197] + '...'})" if shown else ""
        return f"study {self.study}{axes}, {self.section}"


def _apply(sections: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """The sections with these dotted paths set."""
    tables = copy.deepcopy(dict(sections))
    for path, value in settings.items():
        steps = path.split(".")
        table = tables
        for step in steps[:-1]:
            inner = table.get(step)
            table[step] = inner if isinstance(inner, dict) else {}
            table = table[step]
        table[steps[-1]] = copy.deepcopy(value)
    return tables


def _nulls(value: Any) -> Any:
    """A copy in which the text "none" is None."""
    if isinstance(value, dict):
        return {key: _nulls(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_nulls(inner) for inner in value]
    return None if value == NONE else value


def _validated(model: type[Model], values: Mapping[str, Any], where: object) -> Model:
    return validated(model, _over_defaults(model, values), where)


def _over_defaults(model: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """A table replaces those fields of its default that it names, unless it is of another kind or data set."""
    merged, fields = dict(values), model.model_fields
    for name, value in values.items():
        field = fields.get(name)
        if field is not None and isinstance(value, dict) and isinstance(field.default, BaseModel):
            default = field.default.model_dump()
            if all(value.get(key, default.get(key)) == default.get(key) for key in ("kind", "name")):
                merged[name] = {**default, **value}
    return merged

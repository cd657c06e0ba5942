"""From the settings of a grid to validated runs. Whatever several runs share is built and validated once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel

from results.errors import SpecError
from scaling.specification.spec import EvaluationSpec, GeneratorRun, TokenizerRun

from ..external_run import AnyRun, ExternalRun
from ..fields import Model, set_at, validated
from ..generator_fields import generator_fields
from ..own_pictures import OwnPictures, is_own
from ..pretrained_tokenizers import PretrainedTokenizers
from ..sections import RunSeeds, Seeds, Worker
from .conditions import NONE
from .grid import GridBlock, Settings
from .isoflop import IsoFlop

Lookup = Callable[[str], TokenizerRun]
"""Finds a stored tokenizer by the start of its id."""


class Expander:
    """Turns blocks of a grid into runs."""

    def __init__(self, name: str, sections: Mapping[str, Any], worker: Worker | None, lookup: Lookup) -> None:
        self._name, self._sections, self._worker, self._lookup = name, sections, worker, lookup
        self._tokenizers: dict[tuple[Any, ...], TokenizerRun] = {}
        self._generators: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._notes: dict[str, None] = {}
        self.pictures, self.pretrained = OwnPictures(), PretrainedTokenizers()

    @property
    def notes(self) -> list[str]:
        """What people should know: points of a grid that were left out. Each once."""
        return [*self._notes, *self.pictures.unseen]

    def runs(self, block: GridBlock, seeds: Seeds | RunSeeds) -> Iterator[AnyRun]:
        """The runs of a block, every tokenizer before the generators that use it; a run may come more than once.

        Raises SpecError that names the combination of axes, the field, its value and what is allowed.
        """
        if isinstance(seeds, RunSeeds):
            yield from self._external(block, seeds.run)
            return
        budgets = block.isoflop
        points = fitting = 0
        for settings in block.combinations(self._sections):
            where = _Place(self._name, settings)
            for tokenizer in self._tokenizers_of(settings, seeds, where):
                if "generator" not in self._sections:
                    yield tokenizer
                    continue
                evaluation = self._evaluation(settings, tokenizer, where)
                values = self._generator_of(settings, where) | {"tokenizer": tokenizer, "evaluation": evaluation}
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
                f"{block.where}.isoflop: none of its {points} points fits; {list(self._notes)[-1]} "
                "allowed: budgets whose images lie within min_images, max_images, the warm-up and the tolerance"
            )

    def _external(self, block: GridBlock, seeds: list[int]) -> Iterator[ExternalRun]:
        assert self._worker is not None
        fields = {"trainer": tuple(self._worker.command), "threads": self._worker.threads}
        for settings in block.combinations(self._sections):
            values = _set({"run": {}, **self._sections}, settings)["run"]
            for seed in seeds:
                where = _Place(self._name, settings, "[run]")
                yield validated(ExternalRun, {**fields, "values": values, "seed": seed}, where)

    def _tokenizers_of(self, settings: Settings, seeds: Seeds, where: _Place) -> Iterator[TokenizerRun]:
        key = _key(settings, of_generator=False)
        # What is taken over is the same for every seed.
        stored, taken = (self._given(settings, key) for key in ("id", "pretrained"))
        for seed in [None] if stored is not None else [0] if taken is not None else seeds.tokenizer:
            if (seed, key) not in self._tokenizers:
                self._tokenizers[seed, key] = self._tokenizer(_set(self._sections, settings), seed, where)
            yield self._tokenizers[seed, key]

    def _given(self, settings: Settings, key: str) -> Any:
        """The start of the id of a stored tokenizer, or the path of a pretrained one; None for one to train."""
        return settings.get(f"tokenizer.{key}", self._sections.get("tokenizer", {}).get(key))

    def _tokenizer(self, tables: dict[str, Any], seed: int | None, place: _Place) -> TokenizerRun:
        where, values = place.of("[tokenizer]"), tables.get("tokenizer", {})
        if "pretrained" in values and "id" not in values:
            return self._taken_over(tables, values, where)
        if "id" not in values:
            values |= {"seed": seed, "data": self._data(tables), "evaluation": tables.get("evaluation", {})}
            return _validated(TokenizerRun, self._with_trainer(values, "tokenizer", place), where)
        start = values.pop("id")
        if values or tables.get("data"):
            what = f"tokenizer.{min(values)}" if values else "[data]"
            raise SpecError(f"{where} sets both tokenizer.id and {what}; allowed: one of the two")
        if not isinstance(start, str):
            raise SpecError(f"{where} tokenizer.id = {start!r} is not allowed; allowed: a text")
        return self._lookup(start)

    def _taken_over(self, tables: dict[str, Any], values: dict[str, Any], where: _Place) -> TokenizerRun:
        """A run with pretrained weights; those of a run of ours see its images where [data] names none."""
        fields, stored = self.pretrained.fields(values, where)
        data = self._data(tables) if tables.get("data") or stored is None else stored.data
        fields |= {"seed": 0, "data": data, "evaluation": tables.get("evaluation", {})}
        run = _validated(TokenizerRun, fields, where)
        self.pretrained.check(values, run, where)
        return run

    def _data(self, tables: Mapping[str, Any]) -> Any:
        """The field `data` of a tokenizer: a table of the catalogue's, or a user's own pictures, looked at."""
        table = tables.get("data", {})
        if is_own(table):
            return self.pictures.pinned(table)
        return {name: value for name, value in table.items() if name != "source"}

    def _with_trainer(self, values: dict[str, Any], stage: str, where: _Place) -> dict[str, Any]:
        if self._worker is None or stage not in self._worker.stages:
            return values
        if values.get("trainer") is not None:
            raise SpecError(f"{where.of(f'[{stage}]')} has two commands; allowed: one of {stage}.trainer and [worker]")
        return values | {"trainer": tuple(self._worker.command)}

    def _evaluation(self, settings: Settings, tokenizer: TokenizerRun, where: _Place) -> EvaluationSpec:
        """The tokenizer's; but generators on a tokenizer from the store may be measured by another protocol."""
        tables = self._sections.get("evaluation") or any(path.startswith("evaluation.") for path in settings)
        if not tables or not self._given(settings, "id"):
            return tokenizer.evaluation
        return _validated(EvaluationSpec, _set(self._sections, settings)["evaluation"], where.of("[evaluation]"))

    def _generator_of(self, settings: Settings, where: _Place) -> dict[str, Any]:
        """All fields of a generator run but tokenizer, evaluation and seed, its parts validated."""
        key = _key(settings, of_generator=True)
        if key not in self._generators:
            self._generators[key] = self._generator(_set(self._sections, settings)["generator"], where)
        return self._generators[key]

    def _generator(self, values: dict[str, Any], place: _Place) -> dict[str, Any]:
        where = str(place.of("[generator]"))
        return self._with_trainer(generator_fields(values, where, _validated), "generator", place)

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


def _key(settings: Settings, *, of_generator: bool) -> tuple[Any, ...]:
    """Tells apart the settings of generators, or all but these."""
    chosen = (item for item in settings.items() if item[0].startswith("generator.") == of_generator)
    return tuple((path, repr(value)) for path, value in chosen)


def _set(sections: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """A copy of the sections with these dotted paths set."""
    tables: dict[str, Any] = _nulls(sections)
    for path, value in settings.items():
        set_at(tables, path, _nulls(value))
    return tables


def _nulls(value: Any) -> Any:
    """A copy in which the text "none" is None."""
    if isinstance(value, Mapping):
        return {key: _nulls(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_nulls(inner) for inner in value]
    return None if value == NONE else value


def _validated(model: type[Model], values: Mapping[str, Any], where: object) -> Model:
    """A table replaces those fields of its default that it names, unless it is of another kind or data set."""
    merged = dict(values)
    for name, field in model.model_fields.items():
        table = values.get(name)
        if isinstance(table, dict) and isinstance(field.default, BaseModel):
            default = field.default.model_dump()
            if all(table.get(key, default.get(key)) == default.get(key) for key in ("kind", "name")):
                merged[name] = {**default, **table}
    return validated(model, merged, where)

"""Keys and tables of a study file, checked: which dotted names it may set is found by walking the specifications."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from results.errors import SpecError
from scaling.specification.explanation import explain
from scaling.specification.pictures import PicturesLocation, PicturesView
from scaling.specification.spec import DataSpec, EvaluationSpec, GeneratorRun, TokenizerRun
from scaling.specification.stamps import StampsTable

Model = TypeVar("Model", bound=BaseModel)

GENERATOR_SUGAR = ("size", "width", "layers", "learning_rate_rule", "learning_rate_multiplier", "warmup_images")
"""Keys of [generator] that are no fields of a specification but derive some."""
TOKENIZER_SUGAR = ("id",)
"""Keys of [tokenizer] that are no fields of a specification: a stored tokenizer, by the start of its id."""
FREE = "run"
"""The section of runs of no stage, whose values are free."""

_SECTIONS: dict[str, tuple[type[BaseModel], ...]] = {
    "data": (DataSpec, PicturesLocation, PicturesView, StampsTable),
    "tokenizer": (TokenizerRun,),
    "generator": (GeneratorRun,),
    "evaluation": (EvaluationSpec,),
}
_ELSEWHERE = {
    "tokenizer.data": "[data]",
    "tokenizer.evaluation": "[evaluation]",
    "tokenizer.seed": "[seeds]",
    "generator.tokenizer": "[tokenizer]",
    "generator.evaluation": "[evaluation]",
    "generator.seed": "[seeds]",
}
_FIXED = {"tokenizer.stage", "generator.stage", "generator.pretrained"}


class Section(BaseModel):
    """Base of all typed tables: immutable, unknown keys refused, no silent conversion between types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)


def parse(model: type[Model], table: Any, where: str, example: str = "a table") -> Model:
    """A table as a model. Raises SpecError that names field, value and what is allowed, with a suggestion."""
    check_keys(as_table(table, where, example), where, model.model_fields)
    return validated(model, table, where)


def validated(model: type[Model], values: Mapping[str, Any], where: object) -> Model:
    """A model of these values. Raises SpecError that begins with `where`."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise SpecError(f"{where} {explain(error)}") from error


def as_table(value: Any, where: str, allowed: str) -> Mapping[str, Any]:
    """`value` if it is a table. Raises SpecError otherwise."""
    if not isinstance(value, Mapping):
        raise SpecError(f"{where} = {value!r} is not allowed; allowed: {allowed}")
    return value


def nearest(name: str, allowed: Iterable[str]) -> str:
    """`did you mean 'x'? ` for the nearest name that is allowed; "" where none is near."""
    near = difflib.get_close_matches(name, sorted(allowed), n=1)
    return f"did you mean {near[0]!r}? " if near else ""


def unknown(key: str, where: str, allowed: Iterable[str]) -> SpecError:
    """The error for a key that does not exist, with the nearest one that does."""
    names = sorted(allowed)
    return SpecError(f"{key!r} is not a key of {where}; {nearest(key, names)}allowed: {', '.join(names)}")


def check_keys(table: Mapping[str, Any], where: str, allowed: Iterable[str]) -> None:
    """Raise SpecError, with a suggestion, for the first key of `table` that is not allowed."""
    names = list(allowed)
    for key in table:
        if key not in names:
            raise unknown(key, where, names)


def check_path(path: str, where: str) -> None:
    """Raise SpecError, with a suggestion, if `path` such as "tokenizer.quantizer.codebook_size" names no field."""
    steps = path.split(".")
    if len(steps) < 2 or not all(steps) or steps[0] not in (*_SECTIONS, FREE):
        raise unknown(steps[0], where, [f"{section}.<field>" for section in (*_SECTIONS, FREE)])
    if steps[0] == FREE:
        return
    for depth in range(1, len(steps)):
        parent = ".".join(steps[:depth])
        child = f"{parent}.{steps[depth]}"
        if child in _ELSEWHERE:
            raise SpecError(f"{where} sets {child}; allowed: {_ELSEWHERE[child]} sets it for both stages")
        fields = _children(parent)
        if fields is None:
            raise SpecError(f"{where} sets {path}, but {parent} is a single value; allowed: {parent}")
        if steps[depth] not in fields:
            raise unknown(steps[depth], f"{parent} (set by {where})", fields)


def check_tree(path: str, value: Any, where: str) -> None:
    """Check `path`, and if its value is a table, every key in it."""
    check_path(path, where)
    if isinstance(value, Mapping):
        for key, inner in value.items():
            check_tree(f"{path}.{key}", inner, where)


def set_at(tables: dict[str, Any], path: str, value: Any) -> None:
    """Set a dotted path. What is no table on the way to it, such as "none", is replaced by one."""
    *steps, last = path.split(".")
    for step in steps:
        if not isinstance(tables.get(step), dict):
            tables[step] = {}
        tables = tables[step]
    tables[last] = value


@cache
def _children(path: str) -> frozenset[str] | None:
    """Names that may follow a valid dotted path; None if the path is a single value."""
    models = _models_at(path)
    if not models:
        return None
    names = {name for model in models for name in model.model_fields}
    names -= {name for name in names if f"{path}.{name}" in _ELSEWHERE or f"{path}.{name}" in _FIXED}
    sugar = {"generator": GENERATOR_SUGAR, "tokenizer": TOKENIZER_SUGAR}.get(path, ())
    return frozenset(names | set(sugar))


@cache
def _models_at(path: str) -> tuple[type[BaseModel], ...]:
    """The specification classes that a dotted path may hold; several for a union such as the quantizers."""
    parent, _, name = path.rpartition(".")
    if not parent:
        return _SECTIONS[name]
    fields = [model.model_fields[name] for model in _models_at(parent) if name in model.model_fields]
    return tuple(model for field in fields for model in _models_in(field.annotation))


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in typing.get_args(annotation) for model in _models_in(argument)]

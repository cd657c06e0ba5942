"""Conditions of a study file on a run: a value, a list of which any will do, or a comparison such as ">= 4096"."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from pydantic import BaseModel

from results.errors import SpecError
from scaling.specification.ladder import size_name
from scaling.specification.learning_rates import followed_rule, learning_rate
from scaling.specification.spec import GeneratorRun

from ..fields import check_path, unknown

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_COMPARISON = re.compile(r"(<=|>=|<|>|!=)\s*(.+)")
NONE = "none"
"""TOML has no null: this text stands for "no value", as in regulariser = "none"."""


def condition(wanted: Any) -> Callable[[Any], bool]:
    """Tells of a value whether it is as wanted: equal, one of a list, or compared with a number (">= 4096", "!= S").

    Raises SpecError for a comparison with what is no number.
    """
    comparison = _COMPARISON.fullmatch(wanted) if isinstance(wanted, str) else None
    if comparison is None:
        # A list means any of its entries, unless the value itself is a list, as budgets are.
        return lambda value: bool(
            value in wanted if isinstance(wanted, list) and not isinstance(value, list) else value == wanted
        )
    sign, text = comparison.groups()
    if sign == "!=":
        return lambda value: str(value) != text
    try:
        bound = float(text)
    except ValueError as error:
        raise SpecError(f"condition {wanted!r} compares with {text!r}; allowed: a number") from error
    compare = _OPERATORS[sign]
    return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and compare(value, bound)


def parse_conditions(
    wanted: Mapping[str, Any], where: str, sections: Collection[str]
) -> dict[str, Callable[[Any], bool]]:
    """Conditions by path. Raises SpecError for a path that names no field of these sections, or a bad comparison."""
    for path in wanted:
        section = path.partition(".")[0]
        if section not in sections:
            raise unknown(section, where, [f"{name}.<field>" for name in sections])
        check_path(path, where)
    return {path: condition(value) for path, value in wanted.items()}


def value_at(run: Any, path: str) -> Any:
    """The value of a run's field by the dotted path of a study file, the ladder's names included.

    None, and what is below it, is the text "none"; budgets and other tuples are lists, as in a study file.
    """
    section, _, field = path.partition(".")
    tokenizer = getattr(run, "tokenizer", run)
    if isinstance(run, GeneratorRun) and section == "generator":
        if field == "size":
            return size_name(run.transformer)
        if field in ("width", "layers"):
            return getattr(run.transformer, field)
        if field == "learning_rate_rule":
            return followed_rule(run.transformer, run.optimiser.learning_rate)
        if field == "warmup_images":
            return run.optimiser.warmup_images
        if field == "learning_rate_multiplier":
            return run.optimiser.learning_rate / learning_rate(run.transformer)
    value: Any = tokenizer if section in ("data", "tokenizer") else run
    within = {"data": ["data"], "run": ["values"], "evaluation": ["evaluation"]}.get(section, [])
    for step in [*within, *field.split(".")]:
        value = value.get(step) if isinstance(value, Mapping) else getattr(value, step, None)
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, tuple):
        return list(value)
    return NONE if value is None else value

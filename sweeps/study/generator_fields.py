"""What the table [generator] derives: the shape from a size, the learning rate and its schedule from a rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from results.errors import SpecError
from scaling.specification.ladder import generic, size_name, transformer
from scaling.specification.learning_rates import LearningRateRule, default_rule, rule
from scaling.specification.spec import GeneratorRun, OptimiserSpec, TransformerSpec

from .fields import GENERATOR_SUGAR, Model, as_table

OF_SIZE = ("width", "layers", "head_dim", "hidden_multiple")
"""Fields of [generator.transformer] that a size gives; beside it the table sets none of them."""


class Validate(Protocol):
    """Makes a model of a table, or raises SpecError that begins with a place."""

    def __call__(self, model: type[Model], values: Mapping[str, Any], where: object) -> Model: ...


def generator_fields(values: dict[str, Any], where: str, validate: Validate) -> dict[str, Any]:
    """The fields of a generator run that [generator] sets, its shape and optimiser as specifications.

    A `learning_rate_rule` that is named brings its warm-up and schedule where none is given; that of the shape's
    ladder, which holds otherwise, gives the rate alone. Raises SpecError that names field, value and what is allowed.
    """
    values = dict(values)
    sugar = {name: values.pop(name, None) for name in GENERATOR_SUGAR}
    optimiser = dict(as_table(values.get("optimiser", {}), f"{where} generator.optimiser", "a table"))
    shape = _shape(sugar, values.get("transformer"), where, validate)
    named = None if sugar["learning_rate_rule"] is None else _located(rule, where)(sugar["learning_rate_rule"])
    _check_rate(sugar, optimiser, where)
    if named is not None:
        shape = named.shaped(shape)
        values, sugar = _with_defaults(values, sugar, optimiser, named)
    if (sugar["warmup_images"] is None) == ("warmup_images" not in optimiser):
        raise SpecError(f"{where} needs a warm-up; allowed: exactly one of generator.warmup_images and "
                        "generator.optimiser.warmup_images")  # fmt: skip
    if sugar["warmup_images"] is not None:
        optimiser["warmup_images"] = sugar["warmup_images"]
    rate = (named or default_rule(shape)).rate(shape)
    optimiser = {"learning_rate": rate * (sugar["learning_rate_multiplier"] or 1), **optimiser}
    values["optimiser"] = validate(OptimiserSpec, optimiser, f"{where} optimiser:")
    return values | {"transformer": shape}


def _shape(sugar: Mapping[str, Any], table: Any, where: str, validate: Validate) -> TransformerSpec:
    """The shape by a size's name, by width and layers, or by a table; of a table beside one of the others, the fields
    that it sets."""
    size, width, layers = sugar["size"], sugar["width"], sugar["layers"]
    options = {} if table is None else as_table(table, f"{where} generator.transformer", "a table")
    ways = (size is not None) + (width is not None)
    if (width is None) != (layers is None) or ways > 1 or (ways == 0 and table is None):
        raise SpecError(f"{where} needs a size; allowed: exactly one of generator.size, generator.transformer with "
                        "width and layers, and generator.width with generator.layers")  # fmt: skip
    if not ways:
        return validate(TransformerSpec, options, f"{where} transformer")
    given = [("width", "width"), ("layers", "layers")] if size is None else [("size", name) for name in OF_SIZE]
    for key, name in given:
        if name in options:
            raise SpecError(f"{where} sets both generator.{key} = {sugar[key]!r} and generator.transformer.{name} = "
                            f"{options[name]!r}; allowed: one of the two")  # fmt: skip
    shape = _of_width(sugar, where) if size is None else _of_size(size, where)
    changed = validate(TransformerSpec, {**shape.model_dump(), **options}, f"{where} transformer")
    if size is not None and (name := size_name(changed)) != size_name(shape):
        # Two ladders have sizes of one width and depth, which QK-norm alone tells apart.
        raise SpecError(f"{where} generator.transformer.qk_norm = {changed.qk_norm} beside generator.size = {size!r} "
                        f"makes a shape that is called {name}; allowed: {shape.qk_norm}, or all of the shape by "
                        "generator.transformer")  # fmt: skip
    return changed


def _of_size(size: Any, where: str) -> TransformerSpec:
    if not isinstance(size, str):
        raise SpecError(f"{where} generator.size = {size!r} is not allowed; allowed: a name of the ladder")
    return transformer(size)


def _of_width(sugar: Mapping[str, Any], where: str) -> TransformerSpec:
    for name in ("width", "layers"):
        value = sugar[name]
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise SpecError(f"{where} generator.{name} = {value!r} is not allowed; allowed: a whole number above 0")
    shape: TransformerSpec = _located(generic, where)(sugar["width"], sugar["layers"])
    return shape


def _check_rate(sugar: Mapping[str, Any], optimiser: Mapping[str, Any], where: str) -> None:
    multiplier = sugar["learning_rate_multiplier"]
    if "learning_rate" in optimiser:
        for name in ("learning_rate_multiplier", "learning_rate_rule"):
            # muP is a rule of the shape as well, which a rate of one's own does not contradict.
            if sugar[name] is not None and (name, sugar[name]) != ("learning_rate_rule", "mup"):
                raise SpecError(f"{where} sets the learning rate twice; allowed: one of {name} and "
                                "optimiser.learning_rate")  # fmt: skip
    elif sugar["width"] is not None and sugar["learning_rate_rule"] is None:
        raise SpecError(f"{where} generator.width = {sugar['width']!r} is on no ladder that has a learning rate; "
                        "allowed: with optimiser.learning_rate or learning_rate_rule")  # fmt: skip
    if multiplier is not None and (
        isinstance(multiplier, bool) or not isinstance(multiplier, int | float) or not 0 < multiplier < 1e6
    ):
        raise SpecError(f"{where} generator.learning_rate_multiplier = {multiplier!r} is not allowed; "
                        "allowed: a number above 0")  # fmt: skip


def _with_defaults(
    values: dict[str, Any], sugar: dict[str, Any], optimiser: Mapping[str, Any], named: LearningRateRule
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Values and sugar with the schedule and warm-up of a rule, where a study gives none."""
    batch = values.get("batch_size", GeneratorRun.model_fields["batch_size"].default)
    defaults = named.defaults(batch) if isinstance(batch, int) else {}
    if "warmup_images" in optimiser:
        defaults.pop("warmup_images", None)
    elif sugar["warmup_images"] is None:
        sugar = sugar | {"warmup_images": defaults.pop("warmup_images", None)}
    defaults.pop("warmup_images", None)
    return defaults | values, sugar


def _located(function: Callable[..., Any], where: str) -> Callable[..., Any]:
    """The function, with errors that begin with the place."""

    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except SpecError as error:
            raise SpecError(f"{where} {error}") from error

    return call

"""What is wrong with a specification, in one line: field, value, what is allowed. No torch."""

from __future__ import annotations

from pydantic import ValidationError

from .components import Frozen
from .models.autoencoders import AUTOENCODER_TAGS
from .models.regularisers import REGULARISER_TAGS

_TAGS = ("tokenizer-run", "generator-run", "catalogue", "pictures", *AUTOENCODER_TAGS, *REGULARISER_TAGS)
"""Names of alternatives in the paths of pydantic's errors, which are no fields."""


def explain(error: ValidationError) -> str:
    """A pydantic error as one line: field, value, what is allowed; several are separated by semicolons."""
    parts = []
    for item in error.errors(include_url=False):
        where = ".".join(str(s) for s in item["loc"] if s not in _TAGS) or "run"
        # a study file knows lists only
        message = item["msg"].removeprefix("Value error, ").replace("a valid tuple", "a valid list")
        shown = repr(item.get("input"))
        if item["type"] == "value_error":
            parts.append(message)
        elif item["type"] == "extra_forbidden":
            parts.append(_no_field(item["loc"], where))
        else:
            parts.append(f"{where} = {shown if len(shown) <= 80 else shown[:77] + '...'}: {message}")
    return "; ".join(dict.fromkeys(parts))


def _kinds(base: type[Frozen]) -> list[type[Frozen]]:
    """All specifications, those that gained fields included."""
    return [model for direct in base.__subclasses__() for model in (direct, *_kinds(direct))]


def _no_field(path: tuple[int | str, ...], where: str) -> str:
    """What to say of a field that does not exist; of one of another `kind`, also which this kind has."""
    kinds = {model.model_fields["kind"].default: model for model in _kinds(Frozen) if "kind" in model.model_fields}
    model = kinds.get(path[-2]) if len(path) > 2 else None
    if model is None:
        return f"{where} is not a field"
    table, kind, field = ".".join(map(str, path[:-2])), path[-2], path[-1]
    fields = {name: info.default for name, info in model.model_fields.items() if name != "kind"}
    name, default = next(iter(fields.items()))
    example = list(default) if isinstance(default, tuple) else default
    return (
        f"{table}.{field} is not a field of {table}.kind = {kind!r}; allowed: {', '.join(fields)}, such as "
        f"{table}.{name} = {example} in its place (in its section, in the grid, or by --set)"
    )

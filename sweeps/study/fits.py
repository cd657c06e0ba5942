"""The [[fit]] blocks of a study file: laws to be fitted to what the study measures, each checked when it is read."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from analysis.fitting.laws.formulas.grammar import is_formula, names_of
from results.errors import SpecError, UsageError

from .fields import Section
from .fields import parse as parse_section

Number = Annotated[float, Field(allow_inf_nan=False)]


class StudyFit(Section):
    """[[fit]]: a law and the columns of the study's measurements that it explains; fields as `tokenlaw fit` has them.

    `bound` gives the two ends of a parameter as a list, with "" for an end that is open.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    law: Annotated[str, Field(min_length=1)]
    metric: str
    params: str | None = None
    tokens: str | None = None
    flops: str | None = None
    x: str | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    group: str | None = None
    cluster: str | None = None
    weights: str | None = None
    residual: Literal["log", "raw"] = "log"
    loss: Literal["huber", "lad", "squares", "envelope"] = "huber"
    delta: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-3
    floor: str | Number = "FREE"
    drop_worst: Annotated[int, Field(ge=0)] = 0
    where: str | None = None
    fix: dict[str, Number] = Field(default_factory=dict)
    tie: dict[str, str] = Field(default_factory=dict)
    bound: dict[str, tuple[float, float]] = Field(default_factory=dict)
    start: dict[str, Number] = Field(default_factory=dict)
    skip_missing: bool = False

    @field_validator("bound", mode="before")
    @classmethod
    def _ends(cls, value: Any) -> Any:
        """Lists of two ends as pairs, an open end as infinity."""
        if not isinstance(value, dict):
            return value
        pairs = {}
        for name, ends in value.items():
            if not isinstance(ends, list) or len(ends) != 2:
                raise ValueError(f'bound.{name} = {ends!r} is not [lower, upper]; "" leaves an end open')
            low, high = (float(sign + "inf") if end == "" else end for end, sign in zip(ends, ("-", ""), strict=True))
            pairs[name] = (low, high)
        return pairs

    @model_validator(mode="after")
    def _formula(self) -> StudyFit:
        """A formula is parsed, and its columns must occur in it; names and files of laws are looked up when fitted."""
        if is_formula(self.law):
            try:
                names = names_of(self.law)
            except UsageError as error:
                raise ValueError(str(error)) from error
            for column in self.columns:
                if column not in names:
                    raise ValueError(f"columns.{column} does not occur in law = {self.law!r}")
        return self

    @property
    def request(self) -> dict[str, Any]:
        """The fields of a FitRequest but its data."""
        return self.model_dump(exclude={"name"})


def parse_fits(tables: Any) -> tuple[StudyFit, ...]:
    """The [[fit]] blocks. Raises SpecError that names the block, field, value and what is allowed."""
    if not isinstance(tables, list):
        raise SpecError("fit is a single table; allowed: [[fit]] blocks, with two brackets")
    fits = tuple(parse_section(StudyFit, table, f"[[fit]] block {number}:") for number, table in enumerate(tables, 1))
    names = [fit.name for fit in fits]
    for name in names:
        if names.count(name) > 1:
            raise SpecError(f"two [[fit]] blocks have name = {name!r}; allowed: a name of its own for each")
    return fits

"""The request of a fit: which table, law, columns and loss; what fit, validate, compare, isoflop and Python share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from results.errors import DataError, TokenlawError, UsageError

from .fit import fit, fit_groups
from .known_laws import law_named
from .law import Law
from .points import Points
from .reading import Roles, filter_rows, points_from_table, read_table
from .result import FitResult
from .user_law import known_name

if TYPE_CHECKING:
    import pandas as pd

FREE = "FREE"


class RequestedLaw(NamedTuple):
    """A law by the name it was asked for, and the parameters that its floor holds fixed."""

    name: str
    law: Law
    fixed: dict[str, float]


@dataclass(frozen=True)
class FitRequest:
    """A fit as it is asked for.

    data: a data frame, or a CSV, TSV or Parquet file. law: a Law, a name or FILE.py:CLASS; several names separated by
    commas where laws are compared. params to group: names of columns; columns: further ones by role
    (unique_tokens=...). where: a condition on the rows. floor: FREE, a number or a column. drop_worst: how many of
    the largest values to leave out. residual, loss and delta as `fit` takes them.
    """

    data: pd.DataFrame | str | Path
    law: Law | str
    params: str | None = None
    tokens: str | None = None
    flops: str | None = None
    x: str | None = None
    metric: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    group: str | None = None
    cluster: str | None = None
    weights: str | None = None
    residual: str = "log"
    loss: str = "huber"
    delta: float = 1e-3
    floor: float | str = FREE
    drop_worst: int = 0
    where: str | None = None

    @cached_property
    def table(self) -> pd.DataFrame:
        """The rows asked for. Raises DataError for a damaged file and rows without a group, UsageError for `where`."""
        table = read_table(self.data) if isinstance(self.data, str | Path) else self.data
        if self.where is not None:
            table = filter_rows(table, self.where)
        if self.group is not None:
            unnamed = table.index[self.column(table, self.group).isna()]
            if len(unnamed):
                raise DataError(f"row {unnamed[0]}, column {self.group!r}: empty, but it names a group")
        return table

    @staticmethod
    def column(table: pd.DataFrame, name: str) -> pd.Series:
        """A column of the table; raises DataError where it is missing."""
        if name not in table.columns:
            raise DataError(f"column {name!r} is missing; the data have: {', '.join(map(str, table.columns))}")
        return table[name]

    @property
    def floor_value(self) -> float | None:
        """The floor as a number; None where it is free or a column."""
        try:
            return float(self.floor)
        except ValueError:
            return None

    @property
    def floor_is_free(self) -> bool:
        """Whether the floor is left to the fit."""
        return str(self.floor).upper() == FREE

    @property
    def fit_options(self) -> dict[str, str | float]:
        """What `fit` is to minimise."""
        return {"residual": self.residual, "loss": self.loss, "delta": self.delta}

    @cached_property
    def laws(self) -> list[RequestedLaw]:
        """The laws asked for, with their floor.

        Raises UsageError for an unknown law, a floor that a law cannot have, and a column that no law takes.
        """
        if isinstance(self.law, Law):
            laws = [self._with_floor(self.law.name, self.law)]
        else:
            names = [known_name(name.strip()) for name in self.law.split(",") if name.strip()]
            laws = [self._with_floor(name, law_named(name)) for name in names]
        if not laws:
            raise UsageError(f"law {self.law!r}: no law is named")
        known = sorted({column for requested in laws for column in requested.law.columns})
        for role in self.columns:
            if role not in known:
                raise UsageError(f"column {role}=...: {self.law} takes no {role!r}; it takes {', '.join(known)}")
        return laws

    @property
    def one_law(self) -> RequestedLaw:
        """The law asked for; raises UsageError where there are several."""
        if len(self.laws) != 1:
            raise UsageError(f"law {self.law!r}: one law is needed, not {len(self.laws)}")
        return self.laws[0]

    def _with_floor(self, name: str, law: Law) -> RequestedLaw:
        if self.floor_is_free:
            return RequestedLaw(name, law, {})
        value = self.floor_value
        if value is not None and not math.isfinite(value):
            raise UsageError(f"floor={self.floor!r} is neither FREE nor a finite number nor a column")
        try:
            return RequestedLaw(name, *law.with_floor(value, name))
        except UsageError as problem:
            raise UsageError(f"floor={self.floor!r}: {problem}") from None

    def points(self, law: Law, table: pd.DataFrame | None = None) -> Points:
        """The points of a law. Raises DataError where every row lies at or below the floor asked for."""
        table = self.table if table is None else table
        floor_column = None if self.floor_is_free or self.floor_value is not None else str(self.floor)
        roles = Roles(
            self.metric, self.params, self.tokens, self.flops, self.x, floor_column, self.weights, self.cluster,
            self.group, self.columns,
        )  # fmt: skip
        points = points_from_table(table, law, roles, residual=self.residual, drop=self.drop_worst)
        if self.floor_is_free:
            return points
        floor = points.columns["floor"] if floor_column else np.float64(str(self.floor))
        under = (points.metric <= floor).nonzero()[0]
        if not len(under):
            return points
        first = f"row {int(points.rows[under[0]])}, column {points.names['metric']!r}: {points.metric[under[0]]:g}"
        if len(under) == len(points):
            raise DataError(f"{first} is not above the floor {self.floor}, nor is any other row")
        note = f"{len(under)} of {len(points)} rows are not above the floor, which no law reaches ({first})"
        return replace(points, notes=(*points.notes, note))

    def fit(self) -> FitResult:
        """The law fitted to all rows."""
        _, law, fixed = self.one_law
        return fit(law, self.points(law), fixed=fixed, **self.fit_options)  # type: ignore[arg-type]

    def fit_groups(self) -> dict[str, FitResult]:
        """The law fitted to the rows of each value of the column `group`, by the value; errors name it."""
        _, law, fixed = self.one_law
        groups = {}
        for label, table in self.table.groupby(self.group, sort=False, observed=True):
            try:
                groups[str(label)] = self.points(law, table)
            except TokenlawError as problem:
                raise type(problem)(f"group {str(label)!r}: {problem}") from None
        return fit_groups(law, groups, fixed=fixed, **self.fit_options)  # type: ignore[arg-type]

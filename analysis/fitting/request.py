"""The request of a fit: which table, law, columns and loss; what fit, validate, compare, isoflop and Python share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from results.errors import DataError, UsageError

from .costs import FLOPS_PER_PARAM_TOKEN
from .fit import fit, fit_groups, of_group
from .known_laws import known_name, law_named
from .law import Law
from .points import Points, drop_worst, filter_rows, make_points, read_table
from .result import FitResult

if TYPE_CHECKING:
    import pandas as pd

FREE, SIGNED = (
    "FREE",
    "SIGNED",
)  # a floor that the fit finds: at least 0 unless the metric is negative, or of either sign
MOST_TO_COMPARE = 200_000  # rows that are searched for copies of each other


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
    (unique_tokens=...). where: a condition on the rows. floor: FREE, SIGNED, a number or a column. drop_worst:
    how many of the largest values to leave out. residual, loss and delta as `fit` takes them.
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
        """A column of the table; raises DataError where it is missing or there are two of that name."""
        if name not in table.columns:
            raise DataError(f"column {name!r} is missing; {_present(table)}")
        if table[name].ndim != 1:
            raise DataError(f"column {name!r} occurs more than once")
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
        return str(self.floor).upper() in (FREE, SIGNED)

    @property
    def _floor_column(self) -> str | None:
        return None if self.floor_is_free or self.floor_value is not None else str(self.floor)

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
        named = [role for role in ("params", "tokens", "flops", "x") if getattr(self, role)]
        law = law.for_columns([*named, *self.columns] or [str(column) for column in self.table.columns])
        if self.floor_is_free:
            signed = str(self.floor).upper() == SIGNED
            return RequestedLaw(name, law.with_signed_floor() if signed else law, {})
        value = self.floor_value
        if value is not None and not math.isfinite(value):
            raise UsageError(f"floor={self.floor!r} is neither FREE nor a finite number nor a column")
        try:
            return RequestedLaw(name, *law.with_floor(value, name))
        except UsageError as problem:
            raise UsageError(f"floor={self.floor!r}: {problem}") from None

    def points(self, law: Law, table: pd.DataFrame | None = None) -> Points:
        """The points of a law. The index of `table` gives the row numbers in messages (0-based data rows).

        Of params, tokens and flops two are enough: C = 6 N D gives the third, and a note says so. A law of one
        variable takes x, or flops, tokens or params where that alone is named. An unnamed role takes the column of
        that name.

        Raises DataError naming row and column, and where every row lies at or below the floor asked for; UsageError
        where a role is missing.
        """
        table = self.table if table is None else table
        points = drop_worst(_with_repeats_noted(self._all_points(law, table), law), self.drop_worst)
        if self.floor_is_free:
            return points
        floor = points.columns["floor"] if self._floor_column else np.float64(str(self.floor))
        under = (points.metric <= floor).nonzero()[0]
        if not len(under):
            return points
        first = f"row {int(points.rows[under[0]])}, column {points.names['metric']!r}: {points.metric[under[0]]:g}"
        if len(under) == len(points):
            raise DataError(f"{first} is not above the floor {self.floor}, nor is any other row")
        note = f"{len(under)} of {len(points)} rows are not above the floor, which no law reaches ({first})"
        return replace(points, notes=(*points.notes, note))

    def _all_points(self, law: Law, table: pd.DataFrame) -> Points:
        """The columns of the table in their roles, as points."""
        data: dict[str, object] = {}
        names: dict[str, str] = {}
        notes: list[str] = []

        def take(role: str, column: str) -> None:
            data[role] = self.column(table, column).to_numpy()
            names[role] = column

        metric = self.metric or next((c for c in ("metric", "loss") if c in table.columns), None)
        if metric is None:
            raise UsageError(f"metric is not named; {_present(table)}")
        take("metric", metric)
        named = {role: getattr(self, role) for role in ("params", "tokens", "flops", "x")}
        named |= {"floor": self._floor_column, **self.columns}
        for role in law.columns:
            if role in law.constant_columns:
                continue
            column = named.get(role)
            if column is None and role == "x":
                given = [r for r in ("flops", "tokens", "params") if named[r]]
                column = named[given[0]] if given else None
                if len(given) > 1:
                    notes.append(f"x = {column} ({given[0]}, the first named of {', '.join(given)})")
            if column is None and role in ("params", "tokens") and self.flops:
                continue  # derived below
            if column is None and role in table.columns:
                column = role
            if column is None and role in law.optional_columns:
                continue
            if column is None:
                raise UsageError(f"law {law.name} needs the column {role!r}: name it; {_present(table)}")
            take(role, column)
        missing = [role for role in ("params", "tokens") if role in law.columns and role not in data]
        if len(missing) == 2:
            raise UsageError(f"law {law.name} needs params or tokens beside flops={self.flops!r}")
        rows = table.index.to_numpy().astype(np.int64)
        if self.flops and "flops" not in data and (missing or set(law.columns) != {"x"}):
            take("flops", self.flops)
        for derived in missing:
            other = "params" if derived == "tokens" else "tokens"
            checked = make_points(data, roles=[other, "flops"], names=names, rows=rows, positive_metric=False)
            data[derived] = checked.columns["flops"] / (FLOPS_PER_PARAM_TOKEN * checked.columns[other])
            names[derived] = f"{self.flops} / (6 {names[other]})"
            letter = {"params": "N", "tokens": "D"}
            notes.append(f"{letter[derived]} = C / (6 {letter[other]}): {derived} from {self.flops} and {names[other]}")
        for role, column in (("weights", self.weights), ("clusters", self.cluster), ("groups", self.group)):
            if column is not None:
                take(role, column)
        return make_points(
            law.filled(data, len(table)),
            roles=[*law.columns, *(["flops"] if "flops" in data else [])],
            signed_roles=law.metric_columns,
            positive_metric=self.residual == "log",
            names=names,
            rows=rows,
            notes=tuple(notes),
        )

    def fit(self) -> FitResult:
        """The law fitted to all rows."""
        _, law, fixed = self.one_law
        return fit(law, self.points(law), fixed=fixed, **self.fit_options)  # type: ignore[arg-type]

    def fit_groups(self) -> dict[str, FitResult]:
        """The law fitted to the rows of each value of the column `group`, by the value; errors name it."""
        _, law, fixed = self.one_law
        groups = {}
        for label, table in self.table.groupby(self.group, sort=False, observed=True):
            with of_group(str(label)):
                groups[str(label)] = self.points(law, table)
        return fit_groups(law, groups, fixed=fixed, **self.fit_options)  # type: ignore[arg-type]


def _present(table: pd.DataFrame) -> str:
    return f"the data have: {', '.join(map(str, table.columns))}"


def _with_repeats_noted(points: Points, law: Law) -> Points:
    """The points with a note where rows repeat earlier ones exactly: a file joined twice, or a run logged twice."""
    if len(points) > MOST_TO_COMPARE:
        return points
    import pandas as pd

    labels = {} if points.groups is None else {"group": points.groups}
    seen = {**{name: points.columns[name] for name in law.columns}, **labels, "the metric": points.metric}
    again = np.flatnonzero(pd.DataFrame(seen).duplicated().to_numpy())
    if not len(again):
        return points
    note = (
        f"{len(again)} of {len(points)} rows repeat an earlier one exactly (first: row {int(points.rows[again[0]])}); "
        "if they are copies, intervals are too narrow"
    )
    return replace(points, notes=(*points.notes, note))

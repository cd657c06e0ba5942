"""The request of a fit: which table, law, columns and loss; what fit, validate, compare, isoflop and Python share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from results.errors import DataError, UsageError

from .costs import FLOPS_PER_PARAM_TOKEN
from .fit import fit, fit_groups, of_group
from .laws.formulas.equation import formula_law
from .laws.formulas.grammar import Source, is_formula, names_of
from .laws.known_laws import known_name, law_named, separate
from .laws.law import Law
from .laws.tied import TiedLaw
from .reading.columns import TableColumns, without_holes
from .reading.points import Points, drop_worst, make_points
from .reading.run_exports import in_long_form
from .reading.tables import Table, filter_rows, present, read_table, with_index_levels
from .result import FitResult

if TYPE_CHECKING:
    import pandas as pd

FREE = "FREE"  # a floor that the fit finds: at least 0 unless the metric is negative
SIGNED = "SIGNED"  # and one of either sign
MOST_TO_COMPARE = 200_000  # rows that are searched for copies of each other
COUNTERS = ("index", "Unnamed: 0")  # columns without a name of their own that number the rows of a file
HINT = " (--skip-missing leaves such rows out)"


class RequestedLaw(NamedTuple):
    """A law by the name it was asked for, and the parameters that its floor holds fixed."""

    name: str
    law: Law
    fixed: dict[str, float]


@dataclass(frozen=True)
class FitRequest:
    """A fit as it is asked for.

    data: a data frame, or a file (CSV, JSON, Parquet, compressed or not). law: a Law, a name, FILE.py:CLASS or a
    formula; several, separated by commas, where laws are compared. params to weights: columns, by name or by arithmetic
    of names ("1 - miou", "mparams*1e6", a name with spaces or signs in backquotes); columns: further ones by role
    (unique_tokens=...), or by their names in a formula (N=params). where: a condition on the rows. floor: FREE,
    SIGNED, a number or a column. drop_worst: how many of the largest values to leave out. units: read numbers such as
    1.3B, 1,000 and 62 %. skip_missing: leave out rows with an empty value, or 0 where a logarithm is taken, in a column
    that is used. residual, loss and delta as `fit` takes them. fix: parameters held at a value; tie: parameters that
    follow others; bound: ends of a formula's parameters; start: values to start one search from; in natural units.
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
    fix: Mapping[str, float] = field(default_factory=dict)
    tie: Mapping[str, str] = field(default_factory=dict)
    bound: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    start: Mapping[str, float] = field(default_factory=dict)
    units: bool = False
    skip_missing: bool = False

    @cached_property
    def table(self) -> pd.DataFrame:
        """The rows asked for. Raises DataError for a damaged file and rows without a group, UsageError for `where`."""
        return self._source.rows

    @cached_property
    def _source(self) -> Table:
        data = self.data
        table = read_table(data) if isinstance(data, str | Path) else Table(with_index_levels(data, numbered=True))
        names = ("params", "tokens", "flops", "x", "metric", "group", "cluster", "weights", "where")
        named = [*(getattr(self, name) for name in names), str(self.floor), *self.columns.values()]
        table = in_long_form(table, [text for text in named if text])
        if self.where is not None:
            table = table._replace(rows=filter_rows(table.rows, self.where))
        if self.group is not None:
            rows, unnamed = table.rows, TableColumns(table.rows).labels(self.group).isna()
            if unnamed.any() and (unnamed.all() or not self.skip_missing):
                first = f"row {rows.index[unnamed][0]}, column {self.group!r}"
                raise DataError(f"{first}: empty, but it names a group{HINT}")
            if unnamed.any():
                note = f"left out {int(unnamed.sum())} of {len(rows)} rows: {self.group!r} is empty"
                table = table._replace(rows=rows[~unnamed], notes=(*table.notes, note))
        return table

    def column(self, table: pd.DataFrame, name: str) -> pd.Series:
        """A column of the table, by name or by arithmetic; raises what `TableColumns.values` raises."""
        return TableColumns(table, units=self.units, holes=self.skip_missing).values(name)

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
            laws = [self._with_floor(*self._law(text)) for text in separate(self.law)]
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

    def _law(self, text: str) -> tuple[str, Law]:
        """A law and what it is called: by its name, or as a formula in which the columns named are columns."""
        if not is_formula(text):
            name = known_name(text)
            if self.bound:
                raise UsageError(f"bound: law {name} has bounds of its own; typed as a formula it takes others")
            return name, law_named(name)
        given = {*self.columns, *(role for role in ("params", "tokens", "flops", "x") if getattr(self, role))}
        names = names_of(text)
        for name, place in names.items():
            if name in self.table.columns and name not in given:
                Source(" ".join(text.split())).fail(place, f"{name!r} is a column of the data: name it (column {name})")
        law = formula_law(text, [name for name in names if name in given], self.bound)
        return law.text, law

    def _with_floor(self, name: str, law: Law) -> RequestedLaw:
        requested = self._floored(name, law)
        unknown = [parameter for parameter in self.fix if parameter not in requested.law.names]
        if unknown and len(separate(str(self.law))) == 1:
            names = ", ".join(requested.law.names)
            raise UsageError(f"fix: law {name} has no parameter {unknown[0]!r}; it has {names}")
        fixed = {parameter: value for parameter, value in self.fix.items() if parameter in requested.law.names}
        tied = TiedLaw(requested.law, self.tie) if self.tie else requested.law
        both = next((parameter for parameter in fixed if parameter in self.tie), None)
        if both is not None:
            raise UsageError(f"fix: {both!r} follows {self.tie[both]!r}; fix that")
        return RequestedLaw(name, tied, {**requested.fixed, **fixed})

    def _floored(self, name: str, law: Law) -> RequestedLaw:
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
        points = drop_worst(_with_repeats_noted(self._all_points(law, table), table), self.drop_worst)
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
        data: dict[str, Any] = {}
        names: dict[str, str] = {}
        columns = TableColumns(table, units=self.units, holes=self.skip_missing)
        notes, usual = columns.notes, self._source.usual
        notes += self._source.notes

        def take(role: str, column: str) -> None:
            read = columns.labels if role in ("clusters", "groups") else columns.values
            data[role], names[role] = read(column).to_numpy(), column

        metric = self.metric or usual.get("metric") or next((c for c in ("metric", "loss") if c in table.columns), None)
        if metric is None:
            raise UsageError(f"metric is not named; {present(table)}")
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
            if column is None and role == "x" and "x" in usual:
                column = usual["x"]
                notes.append(f"x = {column}")
            if column is None and role in law.optional_columns:
                continue
            if column is None:
                raise UsageError(f"law {law.name} needs the column {role!r}: name it; {present(table)}")
            take(role, column)
        missing = [role for role in ("params", "tokens") if role in law.columns and role not in data]
        if len(missing) == 2:
            raise UsageError(f"law {law.name} needs params or tokens beside flops={self.flops!r}")
        if self.flops and "flops" not in data and (missing or set(law.columns) != {"x"}):
            take("flops", self.flops)
        for role, column in (("weights", self.weights), ("clusters", self.cluster), ("groups", self.group)):
            if column is not None:
                take(role, column)
        rows = columns.rows
        if self.skip_missing:
            positive = {*law.columns, "flops"} - set(law.metric_columns)
            data, rows, left_out = without_holes(data, names, rows, positive)
            notes += left_out
        hint = "" if self.skip_missing else HINT
        for derived in missing:
            other = "params" if derived == "tokens" else "tokens"
            checked = make_points(
                data, roles=[other, "flops"], names=names, rows=rows, positive_metric=False, hint=hint
            )
            data[derived] = checked.columns["flops"] / (FLOPS_PER_PARAM_TOKEN * checked.columns[other])
            names[derived] = f"{self.flops} / (6 {names[other]})"
            letter = {"params": "N", "tokens": "D"}
            notes.append(f"{letter[derived]} = C / (6 {letter[other]}): {derived} from {self.flops} and {names[other]}")
        return make_points(
            law.filled(data, len(rows)),
            roles=[*law.columns, *(["flops"] if "flops" in data else [])],
            signed_roles=(*law.metric_columns, *law.signed_columns),
            positive_metric=self.residual == "log",
            names=names,
            rows=rows,
            notes=tuple(notes),
            hint=hint,
        )

    def fit(self) -> FitResult:
        """The law fitted to all rows."""
        _, law, fixed = self.one_law
        return fit(law, self.points(law), fixed=fixed, start=self.start, **self.fit_options)  # type: ignore[arg-type]

    def fit_groups(self) -> dict[str, FitResult]:
        """The law fitted to the rows of each value of the column `group`, by the value; errors name it."""
        _, law, fixed = self.one_law
        groups = {}
        labels = TableColumns(self.table).labels(str(self.group))
        for label, table in self.table.groupby(labels, sort=False, observed=True):
            with of_group(str(label)):
                groups[str(label)] = self.points(law, table)
        return fit_groups(law, groups, fixed=fixed, start=self.start, **self.fit_options)  # type: ignore[arg-type]


def _with_repeats_noted(points: Points, table: pd.DataFrame) -> Points:
    """The points with a note where rows of the table repeat earlier ones: a file joined twice, or a run logged twice.

    A row repeats another where all columns are equal, also those that the fit does not use; COUNTERS aside.
    """
    if len(points) > MOST_TO_COMPARE:
        return points
    judged = table[table.index.isin(points.rows)]
    judged = judged.loc[:, [name not in COUNTERS for name in judged.columns]]
    try:
        again = judged.duplicated().to_numpy()
    except TypeError:  # lists in cells
        again = judged.astype(str).duplicated().to_numpy()
    if not again.any():
        return points
    note = (
        f"{again.sum()} of {len(points)} rows repeat an earlier one exactly (first: row {judged.index[again][0]}); "
        "if they are copies, intervals are too narrow"
    )
    return replace(points, notes=(*points.notes, note))

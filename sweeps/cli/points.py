"""What fit, validate and compare share: options that name columns, and the table and points behind them."""

from __future__ import annotations

import math
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from results.errors import DataError, TokenlawError, UsageError

if TYPE_CHECKING:
    import pandas as pd

    from analysis.fitting.law import Law
    from analysis.fitting.points import Points
    from analysis.fitting.reading import Roles
    from analysis.fitting.result import FitResult

DataArgument = Annotated[Path, typer.Argument(metavar="DATA", help="A CSV, TSV or Parquet file.")]
LawOption = Annotated[
    str,
    typer.Option(
        "--law",
        help="power, shifted-power, chinchilla, kaplan, data-constrained, vocabulary, m1-m4, bnsl-1..3, FILE.py:CLASS",
    ),
]
OwnLawOption = Annotated[
    str | None, typer.Option("--law", metavar="FILE.py:CLASS", help="The fit's law, where it is one of your own.")
]
ParamsOption = Annotated[str | None, typer.Option("--params", help="Column of parameters N.")]
TokensOption = Annotated[str | None, typer.Option("--tokens", help="Column of training tokens D.")]
FlopsOption = Annotated[
    str | None, typer.Option("--flops", help="Column of training FLOPs C; with --params alone, D = C/(6N).")
]
XOption = Annotated[str | None, typer.Option("--x", help="Column of a one-variable law.")]
MetricOption = Annotated[str | None, typer.Option("--metric", help="Column to explain; default: metric or loss.")]
ColumnOption = Annotated[
    list[str] | None,
    typer.Option(
        "--column", metavar="ROLE=COL", help="A further column of a law, as unique_tokens=U; may be repeated."
    ),
]
WhereOption = Annotated[
    str | None,
    typer.Option("--where", help="Keep rows for which this holds, as 'outlier == False' or '`Model Size` > 1e9'."),
]
DropOption = Annotated[int, typer.Option("--drop-worst", help="Leave out the K rows with the largest metric.")]
WeightsOption = Annotated[str | None, typer.Option("--weights", help="Column of row weights, 0 or more.")]
ClusterOption = Annotated[
    str | None, typer.Option("--cluster", help="Column that names whole runs; they are resampled whole.")
]
GroupOption = Annotated[str | None, typer.Option("--group", help="Column of groups, each fitted on its own.")]
ResidualOption = Annotated[str, typer.Option("--residual", help="log or raw.")]
LossOption = Annotated[str, typer.Option("--loss", help="huber, lad, squares or envelope.")]
DeltaOption = Annotated[float, typer.Option("--delta", help="Where the Huber loss turns linear.")]
FloorOption = Annotated[str, typer.Option("--floor", help="FREE, a number, or a column (such as rFID).")]
BootstrapOption = Annotated[int, typer.Option("--bootstrap", help="Replicates; 0 for none.")]
IntervalOption = Annotated[float, typer.Option("--interval", help="Coverage of intervals.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Of the resampling.")]

# the parameter that is the floor of each law
FLOORS = {
    "power": "E",
    "chinchilla": "E",
    "data-constrained": "E",
    "vocabulary": "E",
    "shifted-power": "e",
    "m4": "e",
    "bnsl": "a",
}


@dataclass(frozen=True)
class Request:
    """What fit, validate and compare have in common: the table, the roles of its columns, and how to fit."""

    table: pd.DataFrame
    roles: Roles
    residual: str
    loss: str
    delta: float
    floor: str
    drop: int

    def laws(self, names: str) -> list[tuple[str, Law, dict[str, float]]]:
        """The laws named, with the floor as asked for and the parameters that this holds fixed.

        Raises UsageError for an unknown law, a floor that a law cannot have, and a --column that no law takes.
        """
        from .own_law import known_name

        listed = [known_name(name.strip()) for name in names.split(",") if name.strip()]
        if not listed:
            raise UsageError(f"law {names!r}: no law is named")
        found = [(name, *self._law(name)) for name in listed]
        known = sorted({column for _, law, _ in found for column in law.columns})
        for role in self.roles.others:
            if role not in known:
                raise UsageError(
                    f"--column {role}=...: {', '.join(listed)} takes no {role!r}; it takes {', '.join(known)}"
                )
        return found

    def _law(self, name: str) -> tuple[Law, dict[str, float]]:
        from analysis.fitting.known_laws import law_named

        text, value = self.floor, number(self.floor)
        if text.upper() == "FREE":
            return law_named(name), {}
        if value is not None and not math.isfinite(value):
            raise UsageError(f"--floor {text!r} is neither FREE nor a finite number nor a column")
        if name.lower() in ("power", "m2"):
            return law_named("power", floor="column" if value is None else value), {}
        law = law_named(name)
        own = FLOORS.get(law.name)
        if own not in law.names:
            raise UsageError(f"--floor {text!r}: law {name} has no floor")
        if value is None:
            raise UsageError(f"--floor {text!r}: law {name} takes FREE or a number; a column serves law power alone")
        least = next(q.lower for q in law.parameters if q.name == own)
        if value < least:
            raise UsageError(f"--floor {text!r}: {own} of law {name} is at least {least:g}")
        return law, {own: value}

    def points(self, law: Law, table: pd.DataFrame | None = None) -> Points:
        """The points of the law. Raises DataError where every row lies at or below the floor asked for."""
        from analysis.fitting.reading import points_from_table

        points = points_from_table(
            self.table if table is None else table, law, self.roles, residual=self.residual, drop=self.drop
        )
        if self.floor.upper() == "FREE":
            return points
        value = number(self.floor)
        floor = points.columns["floor"] if value is None else value
        under = (points.metric <= floor).nonzero()[0]
        if not len(under):
            return points
        first = f"row {int(points.rows[under[0]])}, column {points.names['metric']!r}: {points.metric[under[0]]:g}"
        if len(under) == len(points):
            raise DataError(f"{first} is not above the floor {self.floor}, nor is any other row")
        note = f"{len(under)} of {len(points)} rows are not above the floor, which no law reaches ({first})"
        return replace(points, notes=(*points.notes, note))

    def fit(self, name: str, table: pd.DataFrame | None = None) -> FitResult:
        """The law fitted."""
        from analysis.fitting.fit import fit

        [(_, law, fixed)] = self.laws(name)
        return fit(law, self.points(law, table), residual=self.residual, loss=self.loss, delta=self.delta, fixed=fixed)

    def fit_groups(self, name: str, column: str) -> dict[str, FitResult]:
        """The law fitted to the rows of each value of a column, by the value; errors name it."""
        from analysis.fitting.fit import fit_groups

        [(_, law, fixed)] = self.laws(name)
        groups = {}
        for label, table in self.table.groupby(column, sort=False, observed=True):
            try:
                groups[str(label)] = self.points(law, table)
            except TokenlawError as error:
                raise type(error)(f"group {str(label)!r}: {error}") from None
        return fit_groups(law, groups, residual=self.residual, loss=self.loss, delta=self.delta, fixed=fixed)


def one_thread() -> None:
    """Batches of small matrices gain nothing from a BLAS's threads and lose much where cores are shared."""
    if "numpy" not in sys.modules:
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ.setdefault(name, "1")


def number(text: str) -> float | None:
    """The number that a text stands for, None where it stands for none."""
    try:
        return float(text)
    except ValueError:
        return None


def assignments(items: list[str] | None, form: str) -> dict[str, str]:
    """Options such as unique_tokens=1e9 by name; raises UsageError, showing the form, for one that is none."""
    out = {}
    for item in items or []:
        name, sign, text = item.partition("=")
        if not sign or not name or not text:
            raise UsageError(f"--column {item!r} is not {form}")
        out[name] = text
    return out


def check_resampling(bootstrap: int, interval: float, seed: int) -> None:
    """Raise UsageError for a number of replicates, a coverage or a seed that makes no sense."""
    if bootstrap and bootstrap < 20:
        raise UsageError(f"--bootstrap {bootstrap} is neither 0 nor at least 20")
    if not 0 < interval < 1:
        raise UsageError(f"--interval {interval} is not between 0 and 1")
    if seed < 0:
        raise UsageError(f"--seed {seed} is negative")


def request_for(
    data: Path,
    *,
    where: str | None,
    residual: str,
    loss: str,
    delta: float,
    floor: str,
    drop: int,
    columns: list[str] | None,
    **roles: str | None,
) -> Request:
    """The table read and filtered, with the roles of its columns. Raises DataError and UsageError."""
    one_thread()
    from analysis.fitting.reading import Roles, filter_rows, read_table

    others = assignments(columns, "ROLE=COL")
    table = read_table(data)
    if where is not None:
        table = filter_rows(table, where)
    if (group := roles.get("group")) is not None:
        if group not in table.columns:
            raise DataError(f"column {group!r} is missing; the data have: {', '.join(map(str, table.columns))}")
        if table[group].isna().any():
            row = table.index[table[group].isna()][0]
            raise DataError(f"row {row}, column {group!r}: empty, but it names a group")
    if floor.upper() != "FREE" and number(floor) is None:
        roles["floor"] = floor
    return Request(table, Roles(**roles, others=others), residual, loss, delta, floor, drop)

"""Columns of a table by name or by arithmetic of names, numbers as people write them, rows left out for holes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from results.errors import DataError, UsageError

from ..laws.formulas.grammar import FUNCTIONS, Source, Tree, parse_expression
from ..laws.formulas.tape import Tape
from ..laws.law import Array, Columns
from .points import as_numbers, numbers
from .quantities import quantity
from .tables import present

if TYPE_CHECKING:
    import pandas as pd

_SIGNS = frozenset("+-*/^()`,=")


class TableColumns:
    """The columns of a table, by a name or by arithmetic of names.

    units: whether texts such as 1.3B are numbers. holes: whether what has no value (empty, infinite) may stay so.
    notes: what was read otherwise than as it stands, for people; grows as columns are read.
    """

    def __init__(self, table: pd.DataFrame, *, units: bool = False, holes: bool = False) -> None:
        self.table, self.units, self.holes = table, units, holes
        self.notes: list[str] = []

    @property
    def rows(self) -> NDArray[np.int64]:
        """The number of each row (n,)."""
        return self.table.index.to_numpy().astype(np.int64)

    def labels(self, name: str) -> pd.Series:
        """A column as it stands, or by arithmetic. Raises as `values`."""
        if name in self.table.columns:
            return self._exact(name)
        return self._computed(name)

    def values(self, name: str) -> pd.Series:
        """A column of numbers, as it stands but for those that `units` reads; arithmetic of names gives float64.

        A name that a column has is that column, whatever signs it has. Raises DataError for a column that is missing
        or there twice, and, with the row, for what is no number in arithmetic or for a result that is not finite;
        UsageError, with the place, for wrong arithmetic.
        """
        return self._with_units(self.labels(name), name)

    def _exact(self, name: str) -> pd.Series:
        column = self.table[name]
        if column.ndim != 1:
            raise DataError(f"column {name!r} occurs more than once")
        if column.dtype.kind in "iufb" and not isinstance(column.dtype, np.dtype):  # pandas' own, with pd.NA
            return column.astype("float64") if column.isna().any() else column
        return column

    def _with_units(self, column: pd.Series, name: str) -> pd.Series:
        if not self.units or column.dtype.kind in "biufcmM":
            return column
        cells = column.to_numpy(dtype=object).copy()
        read: dict[int, float] = {}
        for number, cell in enumerate(cells):
            if isinstance(cell, str) and not _is_plain(cell):
                value = quantity(cell)
                if value is not None:
                    read[number] = value
        if not read:
            return column
        first = next(iter(read))
        self.notes.append(
            f"--units: {len(read)} of {len(cells)} values of {name!r} have a unit or separators "
            f"(row {self.rows[first]}: {cells[first].strip()!r} is {read[first]:.10g})"
        )
        cells[list(read)] = list(read.values())
        return column._constructor(cells, index=column.index, name=column.name)

    def _computed(self, text: str) -> pd.Series:
        """Arithmetic of columns, (n,) float64, by the grammar of laws; nothing is evaluated as code."""
        import pandas as pd

        if not (_SIGNS & set(text)):
            raise DataError(f"column {text!r} is missing; {present(self.table)}")
        source = Source(text, "column arithmetic")
        try:
            tree = parse_expression(source)
            names = self._names(source, tree)
            tape = Tape(source, tree, columns=names, positive=())
        except UsageError as problem:
            raise UsageError(f"{problem}; {present(self.table)}") from None
        inputs: dict[str, Array] = {}
        for name in names:
            column = self._with_units(self._exact(name), name).to_numpy()
            inputs[name] = (as_numbers if self.holes else numbers)(column, name, self.rows)
        with np.errstate(all="ignore"):
            result = np.broadcast_to(tape.values({}, Columns(inputs))[tape.root], (len(self.table),)).astype(np.float64)
        bad = np.flatnonzero(~np.isfinite(result))
        if bad.size and not self.holes:
            more = f" (and {bad.size - 1} more rows)" if bad.size > 1 else ""
            at = ", ".join(f"{name} = {inputs[name][bad[0]]:g}" for name in names)
            raise DataError(f"row {self.rows[bad[0]]}: {text!r} is {result[bad[0]]:g} where {at}{more}")
        return pd.Series(result, index=self.table.index, name=text)

    def _names(self, source: Source, tree: Tree) -> list[str]:
        names = tree.names()
        if not names:
            source.fail(tree.place, "no column is named here")
        for name, place in names.items():
            if name not in self.table.columns:
                hint = " (the function needs parentheses)" if name in FUNCTIONS else ""
                source.fail(place, f"there is no column {name!r}{hint}")
        return list(names)


def _is_plain(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def without_holes(
    data: Mapping[str, Any], names: Mapping[str, str], rows: NDArray[np.int64], positive: Collection[str]
) -> tuple[dict[str, Any], NDArray[np.int64], tuple[str, ...]]:
    """The columns (n,) by role without the rows that lack a value, the numbers of the rest, and a note that counts.

    A row lacks one where a column is empty, NaN or infinite, or 0 where the role is one of `positive` (step 0).
    Raises DataError where nothing is left.
    """
    import pandas as pd

    reasons: Counter[str] = Counter()
    kept = np.ones(len(rows), dtype=bool)
    for role, column in data.items():
        cells = pd.Series(np.asarray(column))
        blank = cells.isna() | (cells.astype(str).str.strip().eq("") if cells.dtype.kind not in "biufcmM" else False)
        sized = (
            pd.to_numeric(cells, errors="coerce") if role not in ("clusters", "groups") else pd.Series(1.0, cells.index)
        )
        for words, mask in (
            ("empty or NaN", blank),
            ("infinite", np.isinf(sized.to_numpy(dtype=float, na_value=np.nan))),
            ("0", (sized == 0) if role in positive else None),
        ):
            if mask is None:
                continue
            fresh = np.asarray(mask, dtype=bool) & kept
            if fresh.any():
                reasons[f"{names[role]!r} is {words}"] += int(fresh.sum())
                kept &= ~fresh
    if kept.all():
        return dict(data), rows, ()
    counted = ", ".join(f"{count} where {reason}" for reason, count in reasons.items())
    if not kept.any():
        raise DataError(f"skip-missing leaves no rows of {len(rows)}: {counted}")
    cut = {role: np.asarray(column)[kept] for role, column in data.items()}
    return cut, rows[kept], (f"left out {len(rows) - int(kept.sum())} of {len(rows)} rows: {counted}",)

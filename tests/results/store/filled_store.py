"""What the tests of the store have in common: a store with sets of every kind, and all that it says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from results import Store
from results.schema import TABLES

Append = Callable[..., bool]
"""The fixture `append`."""


def content(store: Store) -> dict[str, Any]:
    """All that a store says."""
    tables: dict[str, Any] = {table: store.read(table, include_failed=True).to_pylist() for table in TABLES}
    return tables | {"finished": store.finished(), "results": store.results(), "failures": store.failures()}


def fill(append: Append) -> None:
    for number in range(12):
        append(f"r{number}", rows=number)
    append("r3", attempt=4, status="failed")
    append("r3", attempt=11, status="failed")
    append("r7x", attempt=1, status="failed")
    append("r8d", attempt=2, status="diverged")

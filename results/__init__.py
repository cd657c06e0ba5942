"""What was measured: typed tables in Parquet, and the few calls that write them. Imports nothing else of tokenlaw.

Each name is imported when it is first used: whoever needs an error or a metric's name does not load the store.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import DataError, FitError, RunError, SpecError, StoreError, TokenlawError, UsageError
    from .jsonlines import open_rows
    from .protocol import Protocol
    from .recorder import Recorder
    from .schema import COLUMNS, METRICS, SCHEMA_VERSION, TABLES
    from .store.run_set import StoredRun
    from .store.store import Store

_ERRORS = ("DataError", "FitError", "RunError", "SpecError", "StoreError", "TokenlawError", "UsageError")
_MODULES = {
    **dict.fromkeys(_ERRORS, "errors"),
    **dict.fromkeys(("COLUMNS", "METRICS", "SCHEMA_VERSION", "TABLES"), "schema"),
    **{"Protocol": "protocol", "Recorder": "recorder", "Store": "store.store", "StoredRun": "store.run_set"},
    "open_rows": "jsonlines",
}  # fmt: skip
__all__ = [
    "COLUMNS", "METRICS", "SCHEMA_VERSION", "TABLES", "DataError", "FitError", "Protocol", "Recorder", "RunError",
    "SpecError", "Store", "StoreError", "StoredRun", "TokenlawError", "UsageError", "open_rows",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)

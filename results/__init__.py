"""What was measured: typed tables in Parquet, and the few calls that write them. Imports nothing else of tokenlaw."""

from results.store.run_set import StoredRun
from results.store.store import Store

from .errors import DataError, FitError, RunError, SpecError, StoreError, TokenlawError, UsageError
from .jsonlines import open_rows
from .protocol import Protocol
from .recorder import Recorder
from .schema import COLUMNS, METRICS, SCHEMA_VERSION, TABLES

__all__ = [
    "COLUMNS",
    "METRICS",
    "SCHEMA_VERSION",
    "TABLES",
    "DataError",
    "FitError",
    "Protocol",
    "Recorder",
    "RunError",
    "SpecError",
    "Store",
    "StoreError",
    "StoredRun",
    "TokenlawError",
    "UsageError",
    "open_rows",
]

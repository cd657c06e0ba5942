"""The errors of tokenlaw: one tree, each with the exit code that the command line returns for it."""

from __future__ import annotations


class TokenlawError(Exception):
    """Base of every error that tokenlaw raises on purpose; its message is one line meant for people."""

    exit_code = 1


class UsageError(TokenlawError):
    """What the user asked for cannot be done: the message names the field, its value and what is allowed."""

    exit_code = 2


class SpecError(UsageError):
    """A run or study specification is invalid."""


class DataError(UsageError):
    """Input data (images, tables, CSV or Parquet files) is missing, damaged or unusable; names file, row, column."""


class StoreError(TokenlawError):
    """The store cannot be read or written: damaged file, full disk, unwritable folder, newer schema."""


class OtherRunError(StoreError):
    """What was to be read is whole, and belongs to another run."""


class FitError(TokenlawError):
    """No fit can be computed from the data given (too few points, all equal, a law that does not apply)."""


class RunError(TokenlawError):
    """A run ended without a result; `cause` is one word for the store (error, out_of_memory, interrupted, ...)."""

    def __init__(self, message: str, cause: str = "error") -> None:
        super().__init__(message)
        self.cause = cause

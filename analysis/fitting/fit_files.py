"""Files of fits, as `FitResult.to_json` gives them: of one fit, or of one a group."""

from __future__ import annotations

import json
from pathlib import Path

from results.errors import DataError, UsageError

from .known_laws import LAWS
from .result import FitResult
from .user_law import known_name


def read_fit(path: str | Path, group: str | None = None, law: str | None = None) -> FitResult:
    """The fit in a file, or that of one group of it; `law` is FILE.py:CLASS of a law of the user's own.

    Raises DataError for a damaged file, UsageError for a group or law that is not there.
    """
    file = repr(str(path))
    if not Path(path).is_file():
        raise DataError(f"file {file} does not exist")
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as problem:
        raise DataError(f"file {file} is not JSON: {problem}") from None
    if not isinstance(document, dict):
        raise DataError(f"file {file} is not a fit: its JSON is not an object")
    groups = document.get("groups")
    if groups is not None:
        if group is None:
            raise UsageError(f"{file} holds a fit a group: choose one with --group, of {', '.join(groups)}")
        if group not in groups:
            raise UsageError(f"--group {group!r} is not one of the file's: {', '.join(groups)}")
        document = groups[group]
    elif group is not None:
        raise UsageError(f"--group {group!r}: the file {file} holds one fit without groups")
    name = document.get("law")
    if law is not None and name != known_name(law):
        raise UsageError(f"--law {law!r}: the file {file} holds a fit of law {name}")
    if isinstance(name, str) and name not in LAWS:
        raise UsageError(f"{file} holds a fit of law {name!r}, which is not tokenlaw's: add --law FILE.py:CLASS")
    return FitResult.from_json(document)

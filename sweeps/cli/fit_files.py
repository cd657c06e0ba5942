"""Files that fit --out wrote, and numbers as options give them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results.errors import DataError, UsageError

from .own_law import known_name
from .points import number

if TYPE_CHECKING:
    from collections.abc import Mapping

    from analysis.fitting.result import FitResult


def read_fit(path: Path, group: str | None, law: str | None = None) -> FitResult:
    """The fit in a file, or that of one group of it; `law` is FILE.py:CLASS of a law of the user's own.

    Raises DataError for a damaged file, UsageError for a group or law that is not there.
    """
    from analysis.fitting.known_laws import LAWS
    from analysis.fitting.result import FitResult

    if not path.is_file():
        raise DataError(f"file {str(path)!r} does not exist")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as problem:
        raise DataError(f"file {str(path)!r} is not JSON: {problem}") from None
    if not isinstance(document, dict):
        raise DataError(f"file {str(path)!r} is not a fit: its JSON is not an object")
    groups: Mapping[str, Any] | None = document.get("groups")
    if groups is not None:
        if group is None:
            raise UsageError(f"{str(path)!r} holds a fit a group: choose one with --group, of {', '.join(groups)}")
        if group not in groups:
            raise UsageError(f"--group {group!r} is not one of the file's: {', '.join(groups)}")
        document = groups[group]
    elif group is not None:
        raise UsageError(f"--group {group!r}: the file {str(path)!r} holds one fit without groups")
    own = None if law is None else known_name(law)
    name = document.get("law")
    if own is not None and name != own:
        raise UsageError(f"--law {law!r}: the file {str(path)!r} holds a fit of law {name}")
    if isinstance(name, str) and name not in LAWS:
        raise UsageError(f"{str(path)!r} holds a fit of law {name!r}, which is not tokenlaw's: add --law FILE.py:CLASS")
    return FitResult.from_json(document)


def values(role: str, text: str) -> Any:
    """The finite numbers of an option, separated by commas, as an array; raises UsageError for any other."""
    import numpy as np

    out = []
    for item in text.split(","):
        value = number(item)
        if value is None or not np.isfinite(value):
            raise UsageError(f"--{role} {item!r} is not a number")
        out.append(value)
    return np.array(out)

"""Single values: the checks that name one which cannot be, and the text under which JSON values are hashed."""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from .errors import UsageError


def choice(name: str, value: str, allowed: Iterable[str]) -> str:
    """`value` if it is allowed. Raises UsageError that names it."""
    if value not in allowed:
        raise UsageError(f"{name} = {value!r} is not allowed; allowed: {', '.join(allowed)}")
    return value


def text(name: str, value: Any) -> str:
    """`value` if it is text. Raises UsageError that names it."""
    if not isinstance(value, str):
        raise UsageError(f"{name} = {value!r} is not allowed; allowed: text")
    return value


def whole(name: str, value: Any, least: int = 0) -> int:
    """A Python or NumPy integer or one-element tensor as an int. Raises UsageError that names it."""
    number = least - 1
    if not isinstance(value, bool):
        with suppress(TypeError):
            number = operator.index(value)
    if number < least:
        raise UsageError(f"{name} = {value!r} is not allowed; allowed: a whole number from {least}")
    return number


def real(name: str, value: Any, *, finite: bool = True) -> float:
    """A Python or NumPy number or one-element tensor as a float. Raises UsageError that names it."""
    number = None
    if not isinstance(value, bool | str | bytes):
        with suppress(TypeError, ValueError, OverflowError):
            number = float(value)
    if number is None or (finite and not math.isfinite(number)):
        shown, kind = value if number is None else number, "a finite number" if finite else "a number"
        raise UsageError(f"{name} = {shown!r} is not allowed; allowed: {kind}")
    return number


def canonical_json(values: Any) -> str:
    """The one text of JSON values, by which they are hashed and compared: sorted keys, no spaces."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)

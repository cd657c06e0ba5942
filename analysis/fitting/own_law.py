"""Laws of the user's own: what goes wrong in them ends in one line; their units are checked against their formula."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from results.errors import UsageError

from .laws.law import Array, Columns, Law
from .problem import Scales, parameters_of
from .reading.points import Points

SAME = 1e-6
"""Predictions in natural and in scaled units agree to this, relatively."""


def is_own(law: Law) -> bool:
    """Whether a law is the user's, not one of this package."""
    return not type(law).__module__.startswith("analysis.fitting.")


@contextmanager
def of_law(law: Law) -> Iterator[None]:
    """Let what goes wrong in a law of the user's own end in one line that says where: a UsageError."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, NameError, ArithmeticError) as problem:
        if not is_own(law):
            raise
        reason = (str(problem).splitlines() or [""])[0].strip()
        package = str(Path(__file__).parent)
        frames = [f for f in traceback.extract_tb(problem.__traceback__) if not f.filename.startswith(package)]
        frames = [f for f in frames if "site-packages" not in f.filename and "contextlib" not in f.filename]
        where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
        raise UsageError(f"law {law.name}{where}: {type(problem).__name__}: {reason}") from problem


def check_units(law: Law, points: Points, scales: Scales, coordinates: Array) -> None:
    """Raise UsageError where a law predicts something else in natural units than in scaled ones, at coordinates (p,).

    A floor without `unit={LOSS: 1}`, say, is fitted in units of the median metric: its number would be wrong.
    """
    if not is_own(law):
        return
    p = parameters_of(law, coordinates[None, :])
    columns = law.filled(points.columns, len(points))
    with np.errstate(all="ignore"):
        natural = law.predict(scales.natural(law, p), Columns({name: columns[name] for name in law.columns}))
        scaled = law.predict(p, scales.apply(columns)) * scales.metric
    apart = np.abs(np.real(natural - scaled))
    if np.any(apart > SAME * np.max(np.abs(scaled))):
        raise UsageError(
            f"law {law.name}: its parameters' units do not fit its formula, so their numbers would be wrong: "
            "give each parameter its unit, such as {LOSS: 1} to a floor (docs/laws.md)"
        )

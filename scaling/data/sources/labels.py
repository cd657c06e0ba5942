"""Labels: class numbers from folders, from numbers and from words, under one numbering for both splits."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from results.errors import DataError

from .names import Names

MOST_CLASSES = 1_000_000
"""A label above it is a slip: a number of a picture, say."""
SINGLE_CLASS = ("all",)
"""Classes of pictures without labels."""
_WHOLE = re.compile("-?[0-9]{1,18}")


def numbered(
    texts: Names, classes: tuple[str, ...] | None, where: Callable[[int], str]
) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """Class numbers [n] and class names of labels given as texts.

    Whole numbers are class numbers; `classes` then gives their names, else they are named by themselves. Other texts
    are class names, numbered in sorted order, or by `classes`. Raises DataError that names the picture.
    """
    raws = list(texts.raws())
    distinct = {raw: raw.decode("utf-8", "replace") for raw in set(raws)}
    if all(_WHOLE.fullmatch(text) for text in distinct.values()):
        values = {raw: int(text) for raw, text in distinct.items()}
        bound = len(classes) if classes else MOST_CLASSES
        wrong = next((raw for raw, value in values.items() if not 0 <= value < bound), None)
        if wrong is not None:
            place = where(raws.index(wrong))
            raise DataError(f"{place}: label {values[wrong]} is not allowed; allowed: 0 to {bound - 1:,}")
        names = classes or tuple(str(number) for number in range(max(values.values(), default=0) + 1))
    else:
        names = classes or tuple(sorted(distinct.values()))
        numbers = {name: number for number, name in enumerate(names)}
        strange = next((raw for raw, text in distinct.items() if text not in numbers), None)
        if strange is not None:
            place = where(raws.index(strange))
            raise DataError(f"{place}: label {distinct[strange]!r} is not allowed; allowed: {listed(names)}")
        values = {raw: numbers[text] for raw, text in distinct.items()}
    return np.fromiter((values[raw] for raw in raws), np.int32, len(raws)), names


def by_folder(names: Names) -> list[str] | None:
    """The first folder of each name; None if none has a folder. Raises DataError if only some have."""
    firsts = [name.partition("/") for name in names]
    bare = [index for index, (_, slash, _) in enumerate(firsts) if not slash]
    if len(bare) == len(firsts):
        return None
    if bare:
        raise DataError(
            f"{names[bare[0]]} lies beside folders of classes; allowed: every picture in the folder of its class, or "
            "no such folders"
        )
    return [first for first, _, _ in firsts]


def listed(names: Sequence[str], most: int = 8) -> str:
    """Some names as a list for people."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown}, ... ({len(names):,} in all)"

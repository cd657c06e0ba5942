"""What lies at a path, for people and as JSON: counts, sizes, kinds, damage, classes, copies, leaks between splits."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from results.errors import DataError
from scaling.specification.pictures import PicturesLocation, PicturesView, too_few

from .sources.fingerprint import Prepared, empty_classes, prepare
from .sources.kept import cache_folder
from .sources.labels import listed
from .sources.opening import Opened, open_pictures
from .sources.pictures import Pictures
from .sources.survey import Report, Survey, silent, survey

MOST_SHOWN = 20
"""Damaged files that are named to people; the machine form names all."""


@dataclass(frozen=True)
class SplitFacts:
    """Facts on one split as it lies there.

    shorter_sides: smallest, median and largest, in pixels; copies: pictures whose content occurred before; repeated
    names: base names that occur more than once; classes: pictures by class name
    """

    pictures: int
    damaged: tuple[str, ...]
    kinds: dict[str, int]
    shorter_sides: tuple[int, int, int]
    widths: tuple[int, int, int]
    heights: tuple[int, int, int]
    below_side: int
    copies: int
    copy_example: str
    repeated_names: int
    repeated_example: str
    classes: dict[str, int]
    empty_classes: tuple[str, ...]


@dataclass(frozen=True)
class Inspection:
    """Everything that `tokenlaw data inspect` tells; `problem` is why a study would be refused, or empty."""

    path: str
    source: str
    splits: dict[str, SplitFacts]
    leaks: int
    leak_example: str
    image_size: int
    problem: str
    fingerprint: str
    train_images: int
    validation_images: int
    left_out: int

    def as_json(self) -> dict[str, Any]:
        """The machine form."""
        return asdict(self)


def inspect(
    location: PicturesLocation, view: PicturesView, cache: Path | None = None, report: Report = silent
) -> tuple[Inspection, Prepared | None]:
    """Facts on the pictures, and these as a run would use them, None if it would refuse them.

    Raises DataError if they cannot even be listed.
    """
    cache = cache_folder() if cache is None else cache
    opened = open_pictures(location, cache)
    surveys = {name: survey(pictures, cache, report) for name, pictures in _splits(opened).items()}
    facts = {name: _facts(pictures, surveys[name], view) for name, pictures in _splits(opened).items()}
    leaks, example = _leaks(opened, surveys)
    problem, prepared = "", None
    try:
        prepared = prepare(location, view, cache)
        problem = too_few(location, len(prepared.validation.names))
    except DataError as error:
        problem = str(error)
    return (
        Inspection(
            str(location.folder) if location.folder.exists() else location.path, location.source, facts, leaks, example,
            view.image_size, problem, prepared.fingerprint if prepared else "",
            len(prepared.train.names) if prepared else 0, len(prepared.validation.names) if prepared else 0,
            len(prepared.left_out) if prepared else 0,
        ),
        prepared,
    )  # fmt: skip


def _splits(opened: Opened) -> dict[str, Pictures]:
    if opened.validation is None:
        return {"all": opened.train}
    return {"train": opened.train, "validation": opened.validation}


def _facts(pictures: Pictures, known: Survey, view: PicturesView) -> SplitFacts:
    good = known.good
    shorter = np.minimum(known.widths, known.heights)[good]
    kinds = Counter(known.kinds[good].tolist())
    readable = known.digests.any(axis=1)
    unique, first = np.unique(known.digests[readable].view("V32").reshape(-1), return_index=True)
    copied = np.setdiff1d(np.arange(int(readable.sum())), first)
    base = Counter(name.rpartition("/")[2] for name in pictures.names)
    repeated = [name for name, count in base.items() if count > 1]
    counts = np.bincount(pictures.labels, minlength=len(pictures.class_names))
    return SplitFacts(
        len(known), tuple(known.reasons[index] for index in sorted(known.reasons)),
        {known.kind_names[kind]: count for kind, count in kinds.most_common()},
        _three(shorter), _three(known.widths[good]), _three(known.heights[good]),
        int((shorter < view.image_size).sum()),
        int(readable.sum()) - len(unique),
        pictures.where(int(np.flatnonzero(readable)[copied[0]])) if len(copied) else "",
        len(repeated), min(repeated, default=""),
        dict(zip(pictures.class_names, counts.tolist(), strict=True)),
        tuple(empty_classes(pictures.labels, pictures.class_names)),
    )  # fmt: skip


def _three(values: np.ndarray) -> tuple[int, int, int]:
    """Smallest, median, largest; zeros for nothing."""
    return (int(values.min()), int(np.median(values)), int(values.max())) if len(values) else (0, 0, 0)


def _leaks(opened: Opened, surveys: dict[str, Survey]) -> tuple[int, str]:
    """How many validation pictures are in training too, and one of them."""
    if opened.validation is None:
        return 0, ""
    digests = [surveys[name].digests.view("V32").reshape(-1) for name in ("train", "validation")]
    leaking = np.isin(digests[1], digests[0]) & surveys["validation"].digests.any(axis=1)
    return int(leaking.sum()), opened.validation.where(int(np.argmax(leaking))) if leaking.any() else ""


def in_words(inspection: Inspection) -> str:
    """The inspection as lines for people."""
    lines = [f"{inspection.path} ({inspection.source})"]
    for name, facts in inspection.splits.items():
        title = "" if name == "all" else f"{name}: "
        lines.append(f"\n{title}{facts.pictures:,} pictures in {len(facts.classes):,} classes")
        for text, sides in (("width", facts.widths), ("height", facts.heights), ("shorter side", facts.shorter_sides)):
            lines.append(f"  {text:13} {sides[0]:,} / {sides[1]:,} / {sides[2]:,} pixels (smallest, median, largest)")
        lines.append("  kinds         " + ", ".join(f"{kind} {count:,}" for kind, count in facts.kinds.items()))
        counts = [f"{label} {count:,}" for label, count in facts.classes.items()]
        lines.append(f"  classes       {listed(counts, 12)}")
        if facts.empty_classes:
            lines.append(f"  empty         {listed(facts.empty_classes, 12)}")
        if facts.below_side:
            lines.append(f"  small         {facts.below_side:,} below {inspection.image_size} pixels")
        if facts.copies:
            lines.append(f"  copies        {facts.copies:,} of other pictures, such as {facts.copy_example}")
        if facts.repeated_names:
            lines.append(
                f"  same names    {facts.repeated_names:,} in several folders, such as {facts.repeated_example}"
            )
        if facts.damaged:
            lines.append(f"  damaged       {len(facts.damaged):,}")
            lines += [f"    {reason}" for reason in facts.damaged[:MOST_SHOWN]]
            if len(facts.damaged) > MOST_SHOWN:
                lines.append(f"    ... and {len(facts.damaged) - MOST_SHOWN:,} more (--json names all)")
    if inspection.leaks:
        lines.append(
            f"\n{inspection.leaks:,} validation pictures are in training too, such as {inspection.leak_example}"
        )
    if inspection.problem:
        lines.append(f"\nA study at {inspection.image_size} pixels would be refused: {inspection.problem}")
    else:
        lines.append(
            f"\nA study at {inspection.image_size} pixels would see {inspection.train_images:,} training and "
            f"{inspection.validation_images:,} validation pictures ({inspection.left_out:,} left out); "
            f"fingerprint {inspection.fingerprint[:12]}"
        )
    return "\n".join(lines)

"""What a run uses of a user's pictures, checked and divided, and the fingerprint of its contents.

The fingerprint is the SHA-256 over one line a picture, `split NUL name NUL label NUL sha256`, training first, each
split in the order of its names: it changes with any byte of any picture that is used, and with nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from results.errors import DataError
from scaling.specification.pictures import LEAST_VALIDATION, PicturesLocation, PicturesSpec, PicturesView
from scaling.specification.stamps import composition, fingerprint

from .kept import cache_folder
from .labels import listed
from .opening import open_pictures
from .pictures import Pictures, select
from .splits import draw_validation
from .survey import Report, Survey, silent, survey


@dataclass(frozen=True, eq=False)
class Prepared:
    """Pictures ready for a run, and what was left out, a line each."""

    train: Pictures
    validation: Pictures
    fingerprint: str
    left_out: tuple[str, ...]

    def pinned(self, view: PicturesView) -> PicturesSpec:
        """The part of a run's specification."""
        return PicturesSpec(
            **view.model_dump(), fingerprint=self.fingerprint, classes=len(self.train.class_names),
            train_images=len(self.train.names), validation_images=len(self.validation.names),
        )  # fmt: skip


def prepare(
    location: PicturesLocation, view: PicturesView, cache: Path | None = None, report: Report = silent
) -> Prepared:
    """Open, survey, check and divide pictures; `cache` defaults to the user's.

    Raises DataError that names file and reason: damaged pictures, pictures below the side, classes that are empty or
    missing from validation, unless the location says that they are skipped (or, if small, enlarged).
    """
    cache = cache_folder() if cache is None else cache
    opened = open_pictures(location, cache)
    left_out: list[str] = []
    train, facts = _usable(opened.train, survey(opened.train, cache, report), location, view, left_out)
    if opened.validation is not None:
        validation, others = _usable(
            opened.validation, survey(opened.validation, cache, report), location, view, left_out
        )
    else:
        validates = draw_validation(
            facts.digests, train.labels, location.validation_fraction, location.validation_seed, LEAST_VALIDATION
        )
        if not validates.any():
            raise DataError(
                f"{train.origin}: no class has two different pictures, so none can be kept for validation; allowed: a "
                "validation split, or more pictures"
            )
        everything = train
        train, validation = select(everything, ~validates), select(everything, validates)
        facts, others = facts.take(np.flatnonzero(~validates)), facts.take(np.flatnonzero(validates))
    _check_classes(train, validation, location, left_out)
    digest = hashlib.sha256()
    for name, pictures, known in (("train", train, facts), ("validation", validation, others)):
        _add(digest, name, pictures, known)
    # What is composed is known by what it is composed of, so that a plan need not compose it.
    content = fingerprint(*composition(location.path)) if location.source == "stamps" else digest.hexdigest()
    return Prepared(train, validation, content, tuple(left_out))


def prepare_again(
    spec: PicturesSpec, location: PicturesLocation, cache: Path | None = None, report: Report = silent
) -> Prepared:
    """The pictures of a run that was planned. Raises DataError as `prepare`, and if they are no longer the same."""
    prepared = prepare(location, spec, cache, report)
    if prepared.fingerprint != spec.fingerprint:
        raise DataError(
            f"data.path = {location.path!r} has other pictures than the study was planned with (fingerprint "
            f"{prepared.fingerprint[:12]}..., planned {spec.fingerprint[:12]}...); plan it again, or restore them"
        )
    return prepared


def _add(digest: hashlib._Hash, split: str, pictures: Pictures, facts: Survey) -> None:
    contents = facts.digests.tobytes().hex()
    for index, (name, label) in enumerate(zip(pictures.names.raws(), pictures.labels.tolist(), strict=True)):
        content = contents[64 * index : 64 * (index + 1)]
        digest.update(f"{split}\0".encode() + name + f"\0{label}\0{content}\n".encode())


def _usable(
    pictures: Pictures, facts: Survey, location: PicturesLocation, view: PicturesView, left_out: list[str]
) -> tuple[Pictures, Survey]:
    """The pictures that a run can see. Raises DataError for others, unless they are skipped."""
    if facts.reasons:
        reasons = [facts.reasons[index] for index in sorted(facts.reasons)]
        if location.on_damaged == "refuse":
            raise DataError(f"{_with_others(reasons)}; data.on_damaged = 'skip' leaves damaged pictures out")
        left_out += reasons
    usable = facts.good
    small = usable & (np.minimum(facts.widths, facts.heights) < view.image_size)
    if location.on_small != "enlarge" and small.any():
        reasons = [_too_small(pictures, facts, index, view.image_size) for index in np.flatnonzero(small).tolist()]
        if location.on_small == "refuse":
            raise DataError(f"{_with_others(reasons)}; data.on_small allows 'skip' and 'enlarge'")
        left_out += reasons
        usable &= ~small
    if not usable.any():
        raise DataError(f"{pictures.origin}: all {len(facts):,} pictures are left out; the first: {left_out[0]}")
    if usable.all():
        return pictures, facts
    return select(pictures, usable), facts.take(np.flatnonzero(usable))


def _too_small(pictures: Pictures, facts: Survey, index: int, side: int) -> str:
    size = f"{facts.widths[index]} x {facts.heights[index]} pixels"
    return f"{pictures.where(index)} has {size}, below data.image_size = {side}"


def _with_others(reasons: Sequence[str]) -> str:
    return reasons[0] if len(reasons) == 1 else f"{reasons[0]}; and {len(reasons) - 1:,} more"


def empty_classes(labels: NDArray[np.int32], class_names: tuple[str, ...]) -> list[str]:
    """Classes without a picture."""
    counts = np.bincount(labels, minlength=len(class_names))
    return [name for name, count in zip(class_names, counts, strict=True) if not count]


def _check_classes(train: Pictures, validation: Pictures, location: PicturesLocation, left_out: list[str]) -> None:
    for pictures, split in ((train, "training"), (validation, "validation")):
        missing = empty_classes(pictures.labels, train.class_names)
        if missing:
            text = f"{pictures.origin}: no {split} picture of class {listed(missing)}"
            if location.on_damaged == "refuse":
                raise DataError(f"{text}; data.on_damaged = 'skip' goes on without")
            left_out.append(text)

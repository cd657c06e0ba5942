"""A user's own pictures in a study: the table [data] with a source, checked and pinned by what lies there."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from results.errors import DataError, SpecError, UsageError
from scaling.specification import stamps
from scaling.specification.pictures import UNSEEN, PicturesLocation, PicturesSpec, imagenet_unseen, read_table, too_few

from .external_run import AnyRun, ExternalRun

BUILT_IN_SOURCE = "builtin"
"""A source that is the catalogue; the same as none."""
UNSEEN_NOTE = (
    "data.path is not given, so ImageNet is planned by its published counts; ids are others once its content is known"
)


class OwnPictures:
    """Pins the pictures that tables name, each table once, and knows where the pictures of each fingerprint lie."""

    def __init__(self) -> None:
        self.locations: dict[str, PicturesLocation] = {}
        self.unseen: list[str] = []
        """What people should know of pictures that were planned without being there."""
        self._pinned: dict[str, PicturesSpec] = {}

    def pinned(self, table: Mapping[str, Any]) -> PicturesSpec:
        """What a run's specification says of the pictures of a table with a source; they are looked at for that.

        ImageNet without a path is planned by its published counts, with a fingerprint that no submission takes.

        Raises SpecError for a field, DataError for pictures that a run could not use: nothing is trained on them.
        """
        key = json.dumps(table, sort_keys=True, default=str)
        if key not in self._pinned and is_composed(table):
            location, spec = stamps.pinned(table)
            self._pinned[key] = spec
            self.locations[spec.fingerprint] = location
        if key not in self._pinned and table.get("source") == "imagenet" and "path" not in table:
            self._pinned[key] = imagenet_unseen(read_table({**table, "path": "."})[1])
            self.unseen = [f"{UNSEEN_NOTE}; --set data.path=FOLDER plans with the pictures themselves"]
        if key not in self._pinned:
            from scaling.data.sources.fingerprint import prepare

            location, view = read_table(table)
            spec = prepare(location, view, report=on_terminal).pinned(view)
            if reason := too_few(location, spec.validation_images):
                raise DataError(reason)
            self._pinned[key] = spec
            self.locations[spec.fingerprint] = location
        return self._pinned[key]


def is_composed(table: Mapping[str, Any]) -> bool:
    """Whether a table [data] names the built-in pictures that are composed and then read as a user's own."""
    return table.get("source", BUILT_IN_SOURCE) == BUILT_IN_SOURCE and table.get("name") == stamps.NAME


def check_seen(runs: Iterable[AnyRun]) -> None:
    """Raise UsageError for runs on pictures that were planned without being there, before anything is submitted."""
    for run in runs:
        if not isinstance(run, ExternalRun) and run.tokenizer.data.fingerprint == UNSEEN:
            raise UsageError(
                "data.path is not given, and ImageNet's content is part of what a run is; allowed: --set "
                "data.path=FOLDER, with ImageNet's folder of train and val, or Kaggle's zip"
            )


def is_own(table: Mapping[str, Any]) -> bool:
    """Whether a table [data] names a user's own pictures. Raises SpecError for their fields without a source."""
    source = table.get("source", BUILT_IN_SOURCE)
    if source != BUILT_IN_SOURCE or is_composed(table):
        return True
    fields = {*PicturesLocation.model_fields} - {"source"}
    if wrong := sorted(fields & set(table)):
        raise SpecError(f"data.{wrong[0]} is of pictures of one's own; allowed: with data.source, such as 'folder'")
    return False


def on_terminal(done: int, total: int) -> None:
    """On a terminal, how far a survey of pictures is."""
    if sys.stderr.isatty():
        print(f"\r{done:,} of {total:,} pictures", end="\n" if done >= total else "", file=sys.stderr, flush=True)

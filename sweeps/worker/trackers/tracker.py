"""What a tracker is: a program of others that shows what is measured of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Point:
    """Values of one moment of a branch, by the names under which they are shown."""

    branch: str
    step: int
    values: Mapping[str, float]


class Tracker(Protocol):
    """A program of others that shows a run. Made of the root, the run and what the study says of trackers."""

    def point(self, point: Point) -> None:
        """Show values."""

    def picture(self, branch: str, step: int, path: Path) -> None:
        """Show a PNG."""

    def close(self, result: str) -> None:
        """The attempt has ended so."""

"""What a run and whoever executes it share: folders to work in, and reports of progress. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

KEPT_TO_RESUME = ("checkpoints", "encoded")
"""Folders of an attempt that later attempts go on from, of no use once the run is done."""


@dataclass(frozen=True)
class Progress:
    """What a run reports while it works: phase, share of its estimated work done, detail for people, speed."""

    phase: str
    done: float
    detail: str = ""
    images_per_second: float | None = None


@dataclass(frozen=True)
class Workspace:
    """The folders of one attempt.

    attempt: its own; earlier: those of earlier attempts, newest first, read-only, to resume from;
    parent: the tokenizer's artifacts, for generator runs; cache: re-creatable files shared by all runs;
    pictures: tells where a user's own pictures lie, by their fingerprint; None where there are none;
    pretrained: the same of weights that a run takes over;
    sheets: where a picture of each evaluation goes, BRANCH-STEP.png; None where nobody looks at them.
    """

    attempt: Path
    earlier: tuple[Path, ...]
    parent: Path | None
    cache: Path
    pictures: Path | None = None
    pretrained: Path | None = None
    sheets: Path | None = None

    @property
    def checkpoints(self) -> Path:
        """Where this attempt saves."""
        return self.attempt / "checkpoints"

    @property
    def encoded(self) -> Path:
        """Where this attempt keeps the images that it has encoded, until the run is done."""
        return self.attempt / "encoded"

    @property
    def artifacts(self) -> Path:
        """Where a finished run leaves its weights, tokens and pictures."""
        return self.attempt / "artifacts"

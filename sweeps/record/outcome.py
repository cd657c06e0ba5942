"""How an attempt at a run ended, as its worker tells whoever started it: one line of JSON and an exit code."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Literal

Result = Literal["done", "diverged", "failed", "interrupted", "taken", "blocked", "storage"]

EXIT_CODES: dict[Result, int] = {
    "done": 0,
    "diverged": 0,
    "failed": 1,
    "storage": 1,
    "interrupted": 75,
    "taken": 76,
    "blocked": 77,
}
"""taken: another process works on the run. blocked: its tokenizer is not there. storage: the root cannot be written.
interrupted: stopped, with a checkpoint; the cause is preempted, timeout or interrupted."""


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended, as told to whoever started the worker."""

    run_id: str
    result: Result
    attempt: int | None = None
    cause: str | None = None
    message: str | None = None

    def line(self) -> str:
        """One line of JSON."""
        return json.dumps({"outcome": asdict(self)})

    @classmethod
    def parse(cls, text: str) -> Outcome | None:
        """The last outcome line in a text; None if there is none."""
        for line in reversed(text.splitlines()):
            if line.startswith('{"outcome"'):
                with suppress(ValueError, TypeError, KeyError):
                    return cls(**json.loads(line)["outcome"])
        return None

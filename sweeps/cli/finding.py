"""One thing that `doctor` looked at, and what it thinks of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: good, a warning, or a problem that stops work."""

    verdict: Verdict
    subject: str
    detail: str

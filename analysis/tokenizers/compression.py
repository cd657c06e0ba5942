"""A more compressed tokenizer against a less compressed one: what was measured of the two, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .compute_law import LawCrossover
from .contrasts import Effect
from .crossover import Crossover


@dataclass(frozen=True)
class Compression:
    """Comparison of a more compressed tokenizer (`first`) with a less compressed one: rFID, fronts, laws."""

    first: str
    second: str
    rfid: Effect | None
    crossover: Crossover
    laws: tuple[LawCrossover, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return {
            "more_compressed": self.first,
            "less_compressed": self.second,
            "rfid_ratio": None if self.rfid is None else self.rfid.estimate.to_dict(),
            "crossover": self.crossover.to_dict(),
            "fitted_laws": [law.to_dict() for law in self.laws],
        }

"""A more compressed tokenizer against a less compressed one: what was measured of the two, side by side."""

from __future__ import annotations

from dataclasses import dataclass

from .compute_law import LawCrossover
from .crossover import Crossover
from .rows import Record
from .seed_intervals import SeedEstimate


@dataclass(frozen=True)
class Compression(Record):
    """Comparison of two tokenizers of different rate: ratio of rFID (None: not measured of both), fronts, laws."""

    more_compressed: str
    less_compressed: str
    rfid_ratio: SeedEstimate | None
    crossover: Crossover
    fitted_laws: tuple[LawCrossover, ...]

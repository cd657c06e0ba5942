"""The study's answer: plain sentences with numbers and intervals, whatever their sign, and the same as data.

Three questions. (1) Does the more compressed tokenizer, although it reconstructs worse, give the better images at small
compute, and where do the two cross? (2) What does the causal regulariser change at equal compute? (3) Which tokenizer
and generator should be trained together at a given budget? The sentences say what the data show and, as plainly, what
they do not.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from analysis.tokenizers.compression import Compression
from analysis.tokenizers.compute_law import ComputeLaw, LawCrossover, compute_law, law_crossover
from analysis.tokenizers.contrasts import Contrast, contrast, regulariser_contrasts, tokenizer_effects
from analysis.tokenizers.crossover import Crossover, crossover
from analysis.tokenizers.frames import StudyFrames
from analysis.tokenizers.fronts import designs
from analysis.tokenizers.multiplier import Multiplier, multiplier
from analysis.tokenizers.pairs import BestPairs, best_pairs, default_budgets, expected_crossover
from analysis.tokenizers.rows import records
from results.errors import DataError, FitError

from .sentences import Statement, compression_statements, headline, pair_statements, regulariser_statements


@dataclass(frozen=True)
class Answer:
    """Everything the report begins with. `headline` is one sentence; `statements` are grouped by topic, in order."""

    headline: str
    statements: tuple[Statement, ...]
    compressions: tuple[Compression, ...]
    contrasts: tuple[Contrast, ...]
    multipliers: tuple[Multiplier, ...]
    budgets: tuple[BestPairs, ...]
    laws: tuple[ComputeLaw, ...]
    notes: tuple[str, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """The short answer: the main statements' texts, in order."""
        return tuple(s.text for s in self.statements if s.main)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return {
            "headline": self.headline,
            "statements": [vars(s) for s in self.statements],
            "compression": [c.to_dict() for c in self.compressions],
            "regulariser": [c.to_dict() for c in self.contrasts],
            "compute_multiplier": [m.to_dict() for m in self.multipliers],
            "best_pairs": [b.to_dict() for b in self.budgets],
            "compute_laws": [law.to_dict() for law in self.laws],
            "notes": list(self.notes),
        }

    def to_json(self) -> str:
        """Indented JSON with a final newline; numbers at full precision, missing ones null."""
        return json.dumps(_finite(self.to_dict()), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def answer(frames: StudyFrames, *, budgets: Sequence[float] | None = None, seed: int = 0) -> Answer:
    """The answer of a study. `budgets`: compute budgets in FLOPs for question 3; by default three inside the range.

    Raises DataError if the study has no gFID yet.
    """
    points = frames.points
    if points["gfid"].notna().sum() == 0:
        raise DataError(
            "the study has no gFID yet: no generator run has finished; `tokenlaw status` shows what is open"
        )
    notes: list[str] = []
    laws = _laws(frames)
    compressions = _compressions(frames, laws, notes)
    contrasts = [contrast(frames, a, b) for a, b in regulariser_contrasts(frames) if designs(points, a, b)]
    multipliers = [multiplier(points, c.base, c.treatment, noise=frames.noise) for c in contrasts]
    chosen = tuple(budgets) if budgets is not None else default_budgets(points)
    best = []
    for flops in chosen:
        try:
            best.append(best_pairs(points, flops, seed=seed))
        except FitError as error:
            notes.append(str(error))
    statements = [
        *compression_statements(frames, compressions),
        *regulariser_statements(contrasts, multipliers),
        *pair_statements(best),
    ]
    return Answer(
        headline=headline(compressions, best),
        statements=tuple(statements),
        compressions=tuple(compressions),
        contrasts=tuple(contrasts),
        multipliers=tuple(multipliers),
        budgets=tuple(best),
        laws=tuple(laws),
        notes=tuple(dict.fromkeys(notes)),
    )


def _laws(frames: StudyFrames) -> list[ComputeLaw]:
    """Compute laws of every family that has gFID, with a free floor and, where comparable, with rfid_floor."""
    points = frames.points[frames.points["gfid"].notna()]
    families = [f for f in frames.families["family"] if f in set(points["family"])]
    laws = [compute_law(points, family, "free") for family in families]
    if frames.floor_is_comparable:
        laws += [compute_law(points, family, "rfid_floor") for family in families]
    return laws


def _compressions(frames: StudyFrames, laws: list[ComputeLaw], notes: list[str]) -> list[Compression]:
    """Every two plain tokenizers of different rate, the comparison resting on most seeds and sizes first.

    Where every paired seed has all sizes, the fronts are compared seed by seed. Otherwise the hierarchical model joins
    the sizes with several seeds and those with one, and the balanced comparisons follow it.
    """
    table = frames.families[frames.families["regulariser"].isna()]
    points = frames.points
    measured = set(points.loc[points["gfid"].notna(), "family"])
    rows = records(table.loc[table["family"].isin(measured), ["family", "bits_per_image"]])
    found = []
    for i, a in enumerate(rows):
        for b in rows[i + 1 :]:
            if a["bits_per_image"] == b["bits_per_image"]:
                continue
            first, second = str(a["family"]), str(b["family"])
            effects = tokenizer_effects(frames.tokenizers, second, first)
            rfid = next((e for e in effects if e.metric == "rfid"), None)
            balanced = designs(points, first, second)
            crossings = []
            if len(balanced) > 1:
                joined = expected_crossover(points, first, second)
                crossings += [] if joined is None else [joined]
            for design in balanced:
                try:
                    crossings.append(crossover(points, first, second, design=design, noise=frames.noise))
                except FitError as error:
                    notes.append(str(error))
            found += [Compression(first, second, rfid, c, tuple(_law_crossings(laws, c))) for c in crossings]
    return sorted(found, key=lambda c: (-len(c.crossover.seeds), -len(c.crossover.design.sizes)))


def _law_crossings(laws: list[ComputeLaw], cross: Crossover) -> list[LawCrossover]:
    found = []
    for kind in ("free", "rfid_floor"):
        pair = [
            next((x for x in laws if (x.family, x.floor_kind) == (f, kind)), None) for f in (cross.first, cross.second)
        ]
        if pair[0] is not None and pair[1] is not None:
            result = law_crossover(pair[0], pair[1], cross.low, cross.high)
            if result is not None:
                found.append(result)
    return found


def _finite(value: Any) -> Any:
    """The same structure with plain JSON types: NumPy scalars unwrapped, NaN and infinities as null."""
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value

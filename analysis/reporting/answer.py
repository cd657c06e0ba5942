"""The study's answer: plain sentences with numbers and intervals, whatever their sign, and the same as data.

Three questions. (1) Does the more compressed tokenizer, although it reconstructs worse, give the better images at small
compute, and where do the two cross? (2) What does the causal regulariser change at equal compute? (3) Which tokenizer
and generator should be trained together at a given budget? The sentences say what the data show and, as plainly, what
they do not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from analysis.tokenizers.comparisons.contrasts import (
    Contrast,
    Multiplier,
    contrast,
    multiplier,
    regulariser_contrasts,
    tokenizer_effects,
    tokenizer_scores,
)
from analysis.tokenizers.comparisons.crossover import Crossover, crossover
from analysis.tokenizers.comparisons.expected_crossover import expected_crossover
from analysis.tokenizers.comparisons.loss_ranking import loss_rankings, refuse_loss
from analysis.tokenizers.comparisons.rate_optimum import rate_optima
from analysis.tokenizers.compute_law import Compression, ComputeLaw, FloorKind, LawCrossover, compute_law, law_crossover
from analysis.tokenizers.frames import StudyFrames
from analysis.tokenizers.fronts import designs
from analysis.tokenizers.measure import selection_note
from analysis.tokenizers.pairs import BestPairs, best_pairs, default_budgets
from analysis.tokenizers.rows import Record
from results.errors import FitError

from .extent import FEW, MOST, extent_note, leading, with_laws
from .further_sentences import loss_statements, own_statements, rate_statements
from .sentences import (
    Statement,
    compression_statements,
    headline,
    not_judged_notes,
    pair_statements,
    regulariser_statements,
    without_gfid,
)

RANKED = 12
"""Pairs of a budget that figures show at most."""


@dataclass(frozen=True)
class Answer(Record):
    """Everything the report begins with. `headline` is one sentence; `statements` are grouped by topic, in order."""

    headline: str
    statements: tuple[Statement, ...]
    compression: tuple[Compression, ...]
    regulariser: tuple[Contrast, ...]
    compute_multiplier: tuple[Multiplier, ...]
    best_pairs: tuple[BestPairs, ...]
    compute_laws: tuple[ComputeLaw, ...]
    notes: tuple[str, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """The short answer: the main statements' texts, in order."""
        return tuple(s.text for s in self.statements if s.main)

    @property
    def families(self) -> set[str]:
        """The tokenizers that it names, or ranks among the first pairs of a budget."""
        compared = {f for c in self.compression for f in (c.more_compressed, c.less_compressed)}
        compared |= {f for c in self.regulariser for f in (c.base, c.treatment)}
        return compared | {pair.family for best in self.best_pairs for pair in best.pairs[:RANKED]}

    def to_json(self) -> str:
        """Indented JSON with a final newline; numbers at full precision, missing ones null."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def answer(frames: StudyFrames, *, budgets: Sequence[float] | None = None, seed: int = 0) -> Answer:
    """The answer of a study. `budgets`: compute budgets in FLOPs for question 3; by default three inside the range.

    Without a gFID at known FLOPs the three questions stay open, and the answer says what was measured instead.
    """
    refuse_loss(frames)
    points, name, compute = frames.ranked, frames.measure.name, frames.compute
    optima = rate_optima(frames)
    further = [
        *rate_statements(optima, name, compute),
        *loss_statements(loss_rankings(frames), name, compute),
        *own_statements(frames),
    ]
    if points.empty:
        return Answer(without_gfid(frames), tuple(further), (), (), (), (), (), ())
    notes: list[str] = []
    present = set(points["family"])
    floors: tuple[FloorKind, ...] = ("free", "rfid_floor") if frames.floor_is_comparable else ("free",)
    families = [f for f in leading(frames) if f in present]
    laws = [compute_law(points, f, floor) for floor in floors for f in with_laws(frames, families, len(floors))]
    compressions = _compressions(frames, families, laws, notes)
    compared = _regularised(frames, families)
    contrasts = [contrast(frames, a, b) for a, b in compared if designs(points, a, b)]
    multipliers = [multiplier(points, c.base, c.treatment, noise=frames.noise) for c in contrasts]
    best = []
    for flops in budgets if budgets is not None else default_budgets(points):
        try:
            best.append(best_pairs(points, flops, seed=seed, curves=frames.curves_of_pairs))
        except FitError as error:
            notes.append(str(error))
    statements = [
        *compression_statements(frames, compressions),
        *regulariser_statements(contrasts, multipliers, name, compute),
        *pair_statements(best, frames),
        *further,
    ]
    notes += not_judged_notes(best, compute)
    notes += [n for n in (selection_note(frames.measure, points), extent_note(frames, leading(frames))) if n]
    return Answer(
        headline=headline(compressions, best, name, compute),
        statements=tuple(statements),
        compression=tuple(compressions),
        regulariser=tuple(contrasts),
        compute_multiplier=tuple(multipliers),
        best_pairs=tuple(best),
        compute_laws=tuple(laws),
        notes=tuple(dict.fromkeys(notes)),
    )


def _regularised(frames: StudyFrames, families: list[str]) -> list[tuple[str, str]]:
    """The comparisons of a regulariser; in a large study those of a leading tokenizer."""
    compared = regulariser_contrasts(frames)
    if len(frames.families) <= FEW:
        return compared
    return [pair for pair in compared if set(pair) & set(families)][:MOST]


def _compressions(
    frames: StudyFrames, families: list[str], laws: list[ComputeLaw], notes: list[str]
) -> list[Compression]:
    """Every two plain tokenizers of `families` of different rate, the comparison resting on most seeds and sizes first.

    Where every paired seed has all sizes, the fronts are compared seed by seed. Otherwise the hierarchical model joins
    the sizes with several seeds and those with one, and the balanced comparisons follow it.
    """
    points, table = frames.ranked, frames.families
    # Of a large study the model of noise, too, stands on the tokenizers that are compared.
    points = points[points["family"].isin(families)]
    curves = [pair for pair in frames.curves_of_pairs if pair.family in families]
    plain = table[table["regulariser"].isna() & table["family"].isin(families)]
    # Of tokenizers without a codebook the tokens alone tell the rate.
    rate = "bits_per_image" if plain["bits_per_image"].notna().all() else "tokens_per_image"
    plain = plain.sort_values(rate, kind="stable")
    bits = dict(zip(plain["family"], plain[rate], strict=True))
    compressions = []
    for first, second in combinations(bits, 2):
        if bits[first] == bits[second]:
            continue
        effects = tokenizer_effects(tokenizer_scores(frames), second, first)
        rfid = next((e.estimate for e in effects if e.metric == "rfid"), None)
        balanced = designs(points, first, second)
        expected = expected_crossover(points, first, second, curves=curves)
        # Fronts hold a size flat beyond its last budget; where that would decide, laws take its place.
        joined = expected is not None and (len(balanced) > 1 or expected.by_law)
        crossings = [expected] if joined else []
        for design in balanced:
            try:
                crossings.append(crossover(points, first, second, design=design, noise=frames.noise))
            except FitError as error:
                notes.append(str(error))
        compressions += [
            Compression(first, second, rfid, c, tuple(_law_crossings(laws, c))) for c in crossings if c is not None
        ]
    return sorted(
        compressions,
        key=lambda c: (-len(c.crossover.seeds), not c.crossover.by_law, -len(c.crossover.design.sizes)),
    )


def _law_crossings(laws: list[ComputeLaw], cross: Crossover) -> Iterator[LawCrossover]:
    firsts, seconds = ([law for law in laws if law.family == family] for family in (cross.first, cross.second))
    # Of a large study some have no laws.
    for first, second in zip(firsts, seconds, strict=False):
        crossing = law_crossover(first, second, cross.low, cross.high)
        if crossing is not None:
            yield crossing

"""What a study shows in sentences: numbers with their intervals, whatever their sign, and what is not shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from analysis.tokenizers.contrasts import Contrast, Effect
from analysis.tokenizers.crossover import Crossover, crossing_over_seeds, median_bound
from analysis.tokenizers.frames import StudyFrames
from analysis.tokenizers.multiplier import Multiplier
from analysis.tokenizers.pairs import BestPairs
from analysis.tokenizers.seed_intervals import SeedEstimate

from . import wording

if TYPE_CHECKING:
    from analysis.tokenizers.compression import Compression

Topic = Literal["compression", "regulariser", "pair"]


@dataclass(frozen=True)
class Statement:
    """A few sentences on one topic. `main`: part of the short answer; the others are further comparisons.

    `conditional`: holds for the one tokenizer at hand only, nothing being known about another seed.
    """

    topic: Topic
    text: str
    main: bool = True
    conditional: bool = False


def headline(compressions: Sequence[Compression], best: Sequence[BestPairs]) -> str:
    if compressions:
        c = compressions[0]
        cross = c.crossover
        if cross.flops is not None and cross.expected_direction:
            worse = c.rfid is not None and c.rfid.estimate.value > 1
            which = "The tokenizer that reconstructs worse" if worse else "The more compressed tokenizer"
            verb = "makes" if cross.established else "seems to make"
            return (
                f"{which}, {c.first}, {verb} the better images below {wording.flops(cross.flops)} training FLOPs; "
                f"above, {c.second} does."
            )
        if cross.flops is None:
            span = f"{wording.flops(cross.low)} to {wording.flops(cross.high)}"
            return (
                f"From {span} training FLOPs {cross.lower_before} has the lower mean gFID throughout: "
                f"no crossover with {_other(cross, cross.lower_before)} in the measured range."
            )
        return (
            f"Against expectation the less compressed tokenizer, {cross.lower_before}, has the lower gFID below "
            f"{wording.flops(cross.flops)} training FLOPs, and {cross.lower_after} above."
        )
    if best:
        return f"At {wording.flops(best[-1].flops)} training FLOPs the best pair measured is {best[-1].best.name}."
    return "The study is too small for an answer."


def _other(cross: Crossover, family: str) -> str:
    return cross.second if family == cross.first else cross.first


def compression_statements(frames: StudyFrames, compressions: Sequence[Compression]) -> list[Statement]:
    if not compressions:
        plain = frames.families[frames.families["regulariser"].isna()]["family"]
        reason = (
            f"the study has one tokenizer without regulariser, {plain.iloc[0]}"
            if len(plain) == 1
            else "no two tokenizers of different rate share a seed, a generator size and a range of compute"
        )
        return [Statement("compression", f"Compression cannot be compared: {reason}.")]
    statements = []
    for i, c in enumerate(compressions):
        parts = [_rfid_sentence(frames, c), _ratio_sentence(c), _crossing_sentence(c.crossover), _basis(c.crossover)]
        if i:
            parts.append(seeds_sentence(c.crossover))
        text = " ".join(part for part in parts if part)
        statements.append(Statement("compression", text, main=i == 0, conditional=c.crossover.conditional))
    return statements


def _span(estimate: SeedEstimate) -> str:
    """The interval in brackets, or nothing where there is none."""
    return "" if estimate.low is None else f" ({wording.interval(estimate)})"


def _rfid_sentence(frames: StudyFrames, c: Compression) -> str:
    if c.rfid is None:
        return f"rFID was not measured for both {c.first} and {c.second}."
    estimate = c.rfid.estimate
    table = frames.tokenizers[frames.tokenizers["tokenizer_seed"].isin(estimate.seeds)]
    levels = [wording.number(float(table.loc[table["family"] == f, "rfid"].mean())) for f in (c.first, c.second)]
    shown = f"rFID {levels[0]} against {levels[1]}, ratio {wording.number(estimate.value)}{_span(estimate)}"
    if estimate.low is not None and not estimate.decided:
        return f"{c.first}, the more compressed, and {c.second} cannot be told apart by reconstruction: {shown}."
    verb = "worse" if estimate.value > 1 else "better"
    return f"{c.first}, the more compressed, reconstructs {verb} than {c.second}: {shown}."


def _ratio_sentence(c: Compression) -> str:
    cross = c.crossover
    shown = [
        f"at {wording.flops(at)} training FLOPs {wording.number(e.value)} times{_span(e)} that of {c.second}"
        for at, e in ((cross.low, cross.at_low), (cross.high, cross.at_high))
    ]
    return f"Its gFID is {shown[0]}, and {shown[1].removesuffix(' that of ' + c.second)}."


def _crossing_sentence(cross: Crossover) -> str:
    if cross.flops is not None:
        sides = "" if cross.expected_direction else f" the other way round ({cross.lower_before} leads first)"
        text = f"The two cross{sides} at {wording.flops(cross.flops)} FLOPs{_zone(cross)}"
        return text + ("." if cross.established or cross.band is None else "; the data do not establish it.")
    text = f"No crossover within the measured range: {cross.lower_before} is lower throughout"
    if cross.band is None:
        return text + "."
    if cross.excluded:
        return text + ", beyond the noise at every compute."
    text += " on average, but not beyond the noise everywhere"
    if cross.interval_low is not None and cross.interval_high is None:
        text += f": a crossover above {wording.flops(cross.interval_low)} FLOPs is not excluded"
    elif cross.interval_high is not None and cross.interval_low is None:
        text += f": a crossover below {wording.flops(cross.interval_high)} FLOPs is not excluded"
    return text + "."


def _zone(cross: Crossover) -> str:
    """The confidence set of a crossover, in brackets with its lead."""
    if cross.band is None:
        return ""
    low, high = cross.interval_low, cross.interval_high
    if low is None and high is None:
        return " (95 % interval: the whole measured range and beyond)"
    start = f"from below {wording.flops(cross.low)}, the smallest measured," if low is None else wording.flops(low)
    end = f"beyond {wording.flops(cross.high)}, the largest measured" if high is None else wording.flops(high)
    return f" (95 % interval {start} to {end})"


def _basis(cross: Crossover) -> str:
    sizes = wording.listing(cross.design.sizes)
    generators = f"generator{'s' if len(cross.design.sizes) > 1 else ''} {sizes}"
    if cross.conditional:
        noise = "no intervals" if cross.band is None else "intervals from measurement noise alone"
        return f"[{generators}; one seed: conditional on this tokenizer, {noise}]"
    if not cross.per_seed:
        return f"[{generators}; {cross.method}]"
    n = len(cross.seeds)
    return f"[95 % intervals over {n} paired tokenizer seeds, df {n - 1}; {generators}]"


def seeds_sentence(cross: Crossover) -> str:
    """Each seed's own crossing, censored ones included, and the one-sided statement they allow."""
    if len(cross.per_seed) < 2:
        return ""
    parts = []
    for s in cross.per_seed:
        text = {
            "within": wording.flops(s.flops),
            "above": f"none up to {wording.flops(s.flops)}, where {cross.first} still leads",
            "below": f"none down to {wording.flops(s.flops)}, where {cross.second} leads already",
            "reversed": f"{wording.flops(s.flops)} the other way round",
        }[s.placement]
        parts.append(f"seed {s.seed} {text}")
    own, bound = crossing_over_seeds(cross), median_bound(cross)
    tail = ""
    if own is not None:
        tail = f"; their geometric mean {wording.flops(own.value)}"
    elif bound is not None:
        side, at, confidence = bound
        tail = (
            f"; the median over tokenizer seeds lies {side} {wording.flops(at)} with confidence "
            f"{100 * confidence:.0f} %, by the seeds' order alone"
        )
    return f"Crossings seed by seed: {', '.join(parts)}{tail}."


_NAMES = {"gfid": "gFID", "rfid": "rFID", "nats_per_image": "nats per image"}


def _effect_phrase(effect: Effect) -> str:
    estimate = effect.estimate
    name = _NAMES[effect.metric]
    undecided = estimate.low is not None and not estimate.decided
    verdict = "; no change shown" if undecided else ""
    spread = "" if estimate.low is None else f" ({wording.interval(estimate)}{verdict})"
    if estimate.scale == "difference":
        return f"{name} by {wording.signed(estimate.value)}{spread}"
    return f"{name} by a factor {wording.number(estimate.value)}{spread}"


def regulariser_statements(contrasts: Sequence[Contrast], multipliers: Sequence[Multiplier]) -> list[Statement]:
    if not contrasts:
        return [
            Statement("regulariser", "The causal regulariser was not compared: no two tokenizers differ in it alone.")
        ]
    statements = []
    for c, m in zip(contrasts, multipliers, strict=True):
        effects = [e for e in (c.effect(name) for name in ("nats_per_image", "gfid", "rfid")) if e is not None]
        gfid = c.effect("gfid")
        text = f"At equal compute the causal regulariser ({c.treatment} against {c.base}) changes "
        text += wording.listing([_effect_phrase(e) for e in effects]) + "."
        if m.estimate is not None:
            spread = _span(m.estimate)
            text += f" Compute multiplier at equal gFID: {wording.number(m.estimate.value)}{spread}, above 1 a saving."
        for seed, family in m.without_overlap:
            text += f" On seed {seed} the two reach no common gFID ({family} is lower)."
        if abs(c.tokenizer_flops - 1) > 5e-4:
            text += f" Its stage 1 takes {wording.number(c.tokenizer_flops)} times the FLOPs, not counted in this."
        if gfid is not None:
            n = len(gfid.estimate.seeds)
            basis = (
                f"95 % intervals over {n} paired tokenizer seeds, df {n - 1}" if n > 1 else wording.seeds(gfid.estimate)
            )
            text += f" [{basis}; generator{'s' if len(gfid.sizes) > 1 else ''} {wording.listing(gfid.sizes)}]"
        conditional = gfid is not None and gfid.estimate.conditional
        statements.append(Statement("regulariser", text, conditional=conditional))
    return statements


def pair_statements(best: Sequence[BestPairs]) -> list[Statement]:
    statements = []
    for b in best:
        pair = b.best
        spread = "" if pair.low is None else f" ({wording.number(pair.low)} to {wording.number(pair.high)})"
        text = (
            f"At {wording.flops(b.flops)} FLOPs train {pair.name} on {wording.images(pair.train_images)} images: gFID "
        )
        text += f"{wording.number(pair.gfid)}{spread}"
        if pair.probability is None:
            text += "; one seed each, so no probability of being best can be given"
        elif len(b.pairs) == 1:
            text += ", the only pair measured there"
        else:
            text += f", the best of {len(b.pairs)} pairs with probability {wording.percent(pair.probability)}"
            rest = sorted((p for p in b.pairs if p is not pair), key=lambda p: -(p.probability or 0.0))
            if rest and (rest[0].probability or 0) >= 0.005:
                text += f", then {rest[0].name} with {wording.percent(rest[0].probability)}"
        if pair.held:
            text += " (its longest run costs less than this)"
        statements.append(Statement("pair", text + ".", conditional=pair.probability is None))
    return statements

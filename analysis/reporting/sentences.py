"""What a study shows in sentences: numbers with their intervals, whatever their sign, and what is not shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from analysis.tokenizers.comparisons.contrasts import Contrast, Multiplier, contrast, tokenizer_scores
from analysis.tokenizers.comparisons.crossover import Crossover, crossing_over_seeds, median_bound
from analysis.tokenizers.compute import Compute, head_shares
from analysis.tokenizers.compute_law import Compression
from analysis.tokenizers.frames import StudyFrames
from analysis.tokenizers.fronts import designs, in_order
from analysis.tokenizers.pairs import BestPairs
from analysis.tokenizers.rows import Record
from analysis.tokenizers.seed_intervals import SeedEstimate
from results.errors import FitError

from . import wording
from .rendering import estimate_of

PLAIN_METRIC = "gFID"
"""What the images are judged by unless a sentence names another."""
SHOWN = 6
"""Pairs that are not judged at a budget which its note names."""
TRAINING = f"FLOPs {Compute().words}"
"""What the output head has its share of, whatever else a budget counts."""
LAW_REACH = 3.0
"""How far beyond the largest common compute a crossing of laws is said at all."""

Topic = Literal["compression", "regulariser", "pair", "own"]


@dataclass(frozen=True)
class Statement(Record):
    """A few sentences on one topic. `main`: part of the short answer; the others are further comparisons.

    `conditional`: holds for the one tokenizer at hand only, nothing being known about another seed.
    """

    topic: Topic
    text: str
    main: bool = True
    conditional: bool = False


def headline(
    compressions: Sequence[Compression],
    best: Sequence[BestPairs],
    metric: str = PLAIN_METRIC,
    compute: Compute = Compute(),
) -> str:
    """One sentence: which of the two tokenizers that are compared first is the better one, and at which compute."""
    unit = compute.unit
    # What is counted beside training takes so many words that a comma must end them.
    at = unit if compute.alone else f"{unit},"
    if not compressions:
        if not best:
            return "The study is too small for an answer."
        flops, pair = wording.flops(best[-1].flops), best[-1].best
        if pair.extrapolated:
            value = f"{metric} {wording.number(pair.gfid)}{wording.spread(pair.low, pair.high)}"
            return (
                f"At {flops} {at} the best pair is, by its law, {pair.name}, {value}: an extrapolation, "
                f"{wording.number(pair.reach, 2)} times beyond its longest run."
            )
        by = "" if metric == PLAIN_METRIC else f" by {metric}"
        return f"At {flops} {at} the best pair measured{by} is {pair.name}."
    cross, rfid_ratio = compressions[0].crossover, compressions[0].rfid_ratio
    if cross.flops is None:
        other = cross.second if cross.lower_before == cross.first else cross.first
        return (
            f"From {wording.flops(cross.low)} to {wording.flops(cross.high)} {at} {cross.lower_before} has "
            f"the lower mean {metric} throughout: no crossover with {other} in the measured range."
        )
    if cross.slight is not None:
        return (
            f"From {wording.flops(cross.low)} to {wording.flops(cross.high)} {at} no crossover of {cross.first} "
            f"and {cross.second} is shown: above {wording.flops(cross.flops)} {cross.lower_after} has the lower "
            f"{metric}, below they are level."
        )
    if not cross.expected_direction:
        return (
            f"Against expectation the less compressed tokenizer, {cross.lower_before}, has the lower {metric} below "
            f"{wording.flops(cross.flops)} {unit}, and {cross.lower_after} above."
        )
    worse = rfid_ratio is not None and rfid_ratio.value > 1
    which = "The tokenizer that reconstructs worse" if worse else "The more compressed tokenizer"
    if metric == PLAIN_METRIC:
        verb, does = "makes" if cross.established else "seems to make", "does"
        what = "the better images"
    else:
        verb, does = "has" if cross.established else "seems to have", "has"
        what = f"the lower {metric}"
    return (
        f"{which}, {cross.first}, {verb} {what} below {wording.flops(cross.flops)} {unit}; "
        f"above, {cross.second} {does}."
    )


def compression_statements(frames: StudyFrames, compressions: Sequence[Compression]) -> list[Statement]:
    """Reconstruction, gFID and crossover of every two tokenizers compared, or why there are none."""
    if not compressions:
        plain = frames.families[frames.families["regulariser"].isna()]["family"]
        reason = (
            f"the study has one tokenizer without regulariser, {plain.iloc[0]}"
            if len(plain) == 1
            else "no two tokenizers of different rate share a seed, a generator size and a range of compute"
        )
        return [Statement("compression", f"Compression cannot be compared: {reason}.")]
    statements = []
    compute = frames.compute
    # Once for both ends what is counted, unless it is training alone.
    unit, its = (compute.unit, "Its") if compute.alone else ("FLOPs", f"Counted in {compute.unit}, its")
    for i, c in enumerate(compressions):
        cross = c.crossover
        ends = ((cross.low, cross.at_low), (cross.high, cross.at_high))
        low, high = (
            f"at {wording.flops(at)} {unit} {wording.number(e.value)} times{wording.span(e)}" for at, e in ends
        )
        sentences = [_rfid_sentence(frames, cross.first, cross.second, c.rfid_ratio)]
        name = frames.measure.name
        sentences += [f"{its} {name} is {low} that of {cross.second}, and {high}.", _crossing_sentence(cross, compute)]
        sentences += [_law_sentence(c, compute)]
        sentences += [equal_images_sentence(frames, cross.first, cross.second) if not i else ""]
        sentences += [_basis(cross), seeds_sentence(cross) if i else ""]
        text = " ".join(filter(None, sentences))
        statements.append(Statement("compression", text, main=i == 0, conditional=cross.conditional))
    return statements


def _rfid_sentence(frames: StudyFrames, first: str, second: str, ratio: SeedEstimate | None) -> str:
    if ratio is None:
        return f"rFID was not measured for both {first} and {second}."
    scores = tokenizer_scores(frames)
    table = scores[scores["tokenizer_seed"].isin(ratio.seeds)]
    # The means of the table of tokenizers, so that the ratio is theirs too.
    means = [estimate_of(table[table["family"] == f], "rfid", "level") for f in (first, second)]
    levels = [wording.number(None if mean is None else mean.value) for mean in means]
    shown = f"rFID {levels[0]} against {levels[1]}, ratio {wording.number(ratio.value)}{wording.span(ratio)}"
    if ratio.low is not None and not ratio.decided:
        return f"{first}, the more compressed, and {second} cannot be told apart by reconstruction: {shown}."
    verb = "worse" if ratio.value > 1 else "better"
    return f"{first}, the more compressed, reconstructs {verb} than {second}: {shown}."


def _crossing_sentence(cross: Crossover, compute: Compute) -> str:
    unit = flops_unit(compute)
    if cross.flops is not None:
        sides = "" if cross.expected_direction else f" the other way round ({cross.lower_before} leads first)"
        text = f"The two cross{sides} at {wording.flops(cross.flops)} {unit}{_zone(cross)}"
        if cross.slight is not None:
            lead = f"{100 * (cross.slight - 1):.0f} %"
            return (
                f"No crossover is shown: on one side of {wording.flops(cross.flops)} {unit} the lead is {lead} at "
                "most, less than one run can tell from noise."
            )
        return text + ("." if cross.established or cross.band is None else "; the data do not establish it.")
    text = f"No crossover within the measured range: {cross.lower_before} is lower throughout"
    if cross.band is None:
        return text + "."
    if cross.excluded:
        return text + ", beyond the noise at every compute."
    text += " on average, but not beyond the noise everywhere"
    low, high = cross.interval_low, cross.interval_high
    if (low is None) != (high is None):
        side = f"above {wording.flops(low)}" if high is None else f"below {wording.flops(high)}"
        text += f": a crossover {side} {unit} is not excluded"
    return text + "."


def _law_sentence(c: Compression, compute: Compute) -> str:
    """Where the laws of the two cross if the fronts do not, unless that is too far beyond the data."""
    cross = c.crossover
    law = next((law for law in c.fitted_laws if law.floor == "free"), None)
    if cross.flops is not None or law is None:
        return ""
    places = [flops for _, flops in law.per_seed]
    if not places or None in places:
        return ""
    at = math.exp(sum(math.log(flops) for flops in places if flops) / len(places))
    reach = at / cross.high
    if reach <= 1 or reach > LAW_REACH:
        return f"Nor do their laws cross within {LAW_REACH:g} times that range."
    return (
        f"By their laws, E free, they cross at {wording.flops(at)} {flops_unit(compute)}: an extrapolation, "
        f"{wording.number(reach, 2)} times beyond the largest compute of one of them."
    )


def flops_unit(compute: Compute) -> str:
    """FLOPs of a sentence that follows one that says which; said again where it is not training alone."""
    return "FLOPs" if compute.alone else compute.unit


def equal_images_sentence(frames: StudyFrames, first: str, second: str) -> str:
    """The same two tokenizers at equal training images, and what of their compute is the output head's."""
    points = frames.ranked
    known = points[points["images"].notna()]
    if not designs(known, first, second):
        return ""
    try:
        effects = [e for e in contrast(frames, second, first).per_budget if e.metric == "gfid"]
    except FitError:
        return ""
    if not effects:
        return ""
    ends = [effects[0], *effects[-1:]] if len(effects) > 1 else effects
    said = wording.listing([
        f"at {wording.images(e.budget or 0)} images {wording.number(e.estimate.value)} times{wording.span(e.estimate)}"
        for e in ends
    ])  # fmt: skip
    text = f"At equal training images and size it is {said}"
    shares = head_shares(points, frames.runs)
    heads = {f: [(z, shares[f, z]) for z in in_order(points) if (f, z) in shares] for f in (first, second)}
    if all(heads.values()):
        listed = [
            wording.listing([f"{wording.percent(share)} of {z}" for z, share in heads[f]]) + f" for {f}"
            for f in (first, second)
        ]
        whole = "training FLOPs" if frames.compute.alone else TRAINING
        text += f"; of the {whole} the output head takes {wording.listing(listed)}"
    return text + "."


def _zone(cross: Crossover) -> str:
    """The confidence set of a crossover, in brackets with its lead."""
    if cross.band is None:
        return ""
    if cross.interval_low is None and cross.interval_high is None:
        return " (95 % interval: the whole measured range and beyond)"
    low, high = wording.crossover_ends(
        cross, "from below {}, the smallest measured,", "beyond {}, the largest measured"
    )
    return f" (95 % interval {low} to {high})"


def _basis(cross: Crossover) -> str:
    generators = _generators(cross.design.sizes)
    if cross.conditional:
        noise = "no interval: one seed" if cross.band is None else "intervals from measurement noise alone"
        return f"[{generators}; conditional on this tokenizer, {noise}]"
    if not cross.per_seed:
        return f"[{generators}; {cross.method}]"
    n = len(cross.seeds)
    return f"[95 % intervals over {n} paired tokenizer seeds, df {n - 1}; {generators}]"


def _generators(sizes: Sequence[str]) -> str:
    return f"generator{'s' if len(sizes) > 1 else ''} {wording.listing(sizes)}"


def seeds_sentence(cross: Crossover) -> str:
    """Each seed's own crossing, censored ones included, and the one-sided statement they allow."""
    if len(cross.per_seed) < 2:
        return ""
    texts = {
        "within": "{}",
        "above": f"none up to {{}}, where {cross.first} still leads",
        "below": f"none down to {{}}, where {cross.second} leads already",
        "reversed": "{} the other way round",
    }
    seeds = [f"seed {s.seed} {texts[s.placement].format(wording.flops(s.flops))}" for s in cross.per_seed]
    mean, bound, tail = crossing_over_seeds(cross), median_bound(cross), ""
    if mean is not None:
        tail = f"; their geometric mean {wording.flops(mean.value)}"
    elif bound is not None:
        side, at, confidence = bound
        tail = (
            f"; the median over tokenizer seeds lies {side} {wording.flops(at)} with confidence "
            f"{100 * confidence:.0f} %, by the seeds' order alone"
        )
    return f"Crossings seed by seed: {', '.join(seeds)}{tail}."


_NAMES = {"nats_per_image": "nats per image", "gfid": "gFID", "rfid": "rFID"}


def _effect_phrase(name: str, estimate: SeedEstimate) -> str:
    spread = wording.span(estimate, "" if estimate.decided else "; no change shown")
    if estimate.scale == "difference":
        return f"{name} by {wording.signed(estimate.value)}{spread}"
    return f"{name} by a factor {wording.number(estimate.value)}{spread}"


def regulariser_statements(
    contrasts: Sequence[Contrast],
    multipliers: Sequence[Multiplier],
    metric: str = PLAIN_METRIC,
    compute: Compute = Compute(),
) -> list[Statement]:
    """What the regulariser changes at equal compute, or that nothing was compared."""
    # Runs are paired by their training: where stage 1 is counted too, that is not all of the compute.
    equal = "compute" if compute.alone else "training of the generator"
    counted = "" if compute.alone else f", in {compute.unit}"
    if not contrasts:
        text = "The causal regulariser was not compared: no two tokenizers differ in it alone."
        return [Statement("regulariser", text)]
    statements = []
    for c, m in zip(contrasts, multipliers, strict=True):
        effects = [e for e in map(c.effect, _NAMES) if e is not None]
        gfid = c.effect("gfid")
        names = _NAMES | {"gfid": metric}
        text = f"At equal {equal} the {c.regulariser} regulariser ({c.treatment} against {c.base}) changes "
        text += wording.listing([_effect_phrase(names[e.metric], e.estimate) for e in effects]) + "."
        if m.estimate is not None:
            saved = f"{wording.number(m.estimate.value)}{wording.span(m.estimate)}"
            text += f" Compute multiplier at equal {metric}{counted}: {saved}, above 1 a saving"
            text += f"{_multiplier_curve(m, metric)}."
        for seed, family in m.without_overlap:
            text += f" On seed {seed} the two reach no common {metric} ({family} is lower)."
        if abs(c.tokenizer_flops_ratio - 1) > 5e-4:
            ratio = wording.number(c.tokenizer_flops_ratio)
            text += f" Its stage 1 takes {ratio} times the FLOPs, {_stage1_counted(compute)}."
        if gfid is not None:
            text += f" [{wording.seeds(gfid.estimate)}; {_generators(gfid.sizes)}]"
        statements.append(Statement("regulariser", text, conditional=gfid is not None and gfid.estimate.conditional))
    return statements


def _stage1_counted(compute: Compute) -> str:
    """Whether the compute of a multiplier has the training of the tokenizer in it."""
    if compute.total:
        share = "" if compute.generators == 1 else f"1/{compute.generators} of them "
        return f"{share}counted in the multiplier"
    return "not counted in this" if compute.alone else "left out of this"


def _multiplier_curve(m: Multiplier, metric: str) -> str:
    """How the multiplier changes along the metric, and whether there is any at all."""
    levels, values = m.along
    if not len(levels):
        return ""
    ends = f"{wording.number(values[-1])} at {metric} {wording.number(levels[-1])} and {wording.number(values[0])} at "
    text = f"; along the fronts {ends}{wording.number(levels[0])}"
    top = int(values.argmax())
    if values[top] > 1.03 * max(values[0], values[-1]):
        text += f", at most {wording.number(values[top])} at {wording.number(levels[top])}"
    p = m.no_difference
    return text + (f"; no difference has p = {wording.number(p, 2)}" if p is not None else "; no interval: one seed")


def pair_statements(best: Sequence[BestPairs], frames: StudyFrames) -> list[Statement]:
    """What to train at each budget."""
    statements = []
    shares = head_shares(frames.ranked, frames.runs)
    for b in best:
        pair = b.best
        images = "" if pair.train_images is None else f" on {wording.images(pair.train_images)} images"
        text = (
            f"At {wording.flops(b.flops)} FLOPs {frames.compute.words}, train {pair.name}{images}: "
            f"{frames.measure.name} "
            f"{wording.number(pair.gfid)}{wording.spread(pair.low, pair.high)}"
        )
        if pair.probability is None:
            text += "; no interval: one seed each, so no probability of being best can be given"
        elif len(b.pairs) == 1:
            text += f", {b.alone}"
        else:
            text += f", the best of {len(b.pairs)} pairs with probability {wording.percent(pair.probability)}"
            rest = sorted((p for p in b.pairs if p is not pair), key=lambda p: -(p.probability or 0.0))
            if rest and (rest[0].probability or 0) >= 0.005:
                text += f", then {rest[0].name} with {wording.percent(rest[0].probability)}"
        if b.extrapolated:
            beyond = [f"{p.name} {wording.number(p.reach, 2)} times" for p in b.extrapolated]
            text += f"; this rests on extrapolation by law, beyond their longest runs {wording.listing(beyond)}"
        if (share := shares.get((pair.family, pair.size))) is not None:
            whole = "its training FLOPs" if frames.compute.alone else f"the {TRAINING}"
            text += f"; its output head is {wording.percent(share)} of {whole}"
        statements.append(Statement("pair", text + ".", conditional=pair.probability is None))
    return statements


def not_judged_notes(best: Sequence[BestPairs], compute: Compute) -> list[str]:
    """Of each budget the pairs that were measured, but say nothing there, with the reason."""
    notes = []
    for b in best:
        listed = [f"{left.name}, {left.reason} FLOPs" for left in b.not_judged[:SHOWN]]
        more = len(b.not_judged) - len(listed)
        listed += [f"and {more} more"] if more else []
        if listed:
            notes.append(f"Not judged at {wording.flops(b.flops)} FLOPs {compute.words}: {'; '.join(listed)}")
    return notes


def without_gfid(frames: StudyFrames) -> str:
    """The headline of a study in which no gFID was measured at known FLOPs: what there is instead."""
    stages = frames.runs.loc[frames.runs["status"] == "done", "stage"]
    kinds = {"tokenizer": "tokenizer{}", "generator": "generator{}", "run": "run{} of no stage"}
    numbers = {kind: int((stages == stage).sum()) for stage, kind in kinds.items()}
    runs = wording.listing([f"{n} {kind.format('s' * (n != 1))}" for kind, n in numbers.items() if n])
    metrics = wording.listing(sorted(set(frames.own["metric"])))
    unranked = ", so no tokenizers are compared" if len(frames.families) else ""
    where = " at known FLOPs" if len(frames.scored) else ""
    measured = f" and measured {metrics}" if metrics else ""
    return f"No {frames.measure.name} was measured{where}{unranked}; {runs or 'no run'} finished{measured}."

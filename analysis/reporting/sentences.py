"""What a study shows in sentences: numbers with their intervals, whatever their sign, and what is not shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from analysis.tokenizers.compute_law import Compression
from analysis.tokenizers.contrasts import Contrast, Multiplier
from analysis.tokenizers.crossover import Crossover, crossing_over_seeds, median_bound
from analysis.tokenizers.frames import StudyFrames
from analysis.tokenizers.pairs import BestPairs
from analysis.tokenizers.rows import Record, groups
from analysis.tokenizers.seed_intervals import SeedEstimate

from . import wording

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


def headline(compressions: Sequence[Compression], best: Sequence[BestPairs]) -> str:
    """One sentence: which of the two tokenizers that are compared first is the better one, and at which compute."""
    if not compressions:
        if best:
            return f"At {wording.flops(best[-1].flops)} training FLOPs the best pair measured is {best[-1].best.name}."
        return "The study is too small for an answer."
    cross, rfid_ratio = compressions[0].crossover, compressions[0].rfid_ratio
    if cross.flops is None:
        other = cross.second if cross.lower_before == cross.first else cross.first
        return (
            f"From {wording.flops(cross.low)} to {wording.flops(cross.high)} training FLOPs {cross.lower_before} has "
            f"the lower mean gFID throughout: no crossover with {other} in the measured range."
        )
    if not cross.expected_direction:
        return (
            f"Against expectation the less compressed tokenizer, {cross.lower_before}, has the lower gFID below "
            f"{wording.flops(cross.flops)} training FLOPs, and {cross.lower_after} above."
        )
    worse = rfid_ratio is not None and rfid_ratio.value > 1
    which = "The tokenizer that reconstructs worse" if worse else "The more compressed tokenizer"
    verb = "makes" if cross.established else "seems to make"
    return (
        f"{which}, {cross.first}, {verb} the better images below {wording.flops(cross.flops)} training FLOPs; "
        f"above, {cross.second} does."
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
    for i, c in enumerate(compressions):
        cross = c.crossover
        ends = ((cross.low, cross.at_low), (cross.high, cross.at_high))
        low, high = (
            f"at {wording.flops(at)} training FLOPs {wording.number(e.value)} times{wording.span(e)}" for at, e in ends
        )
        sentences = [_rfid_sentence(frames, cross.first, cross.second, c.rfid_ratio)]
        sentences += [f"Its gFID is {low} that of {cross.second}, and {high}.", _crossing_sentence(cross)]
        sentences += [_basis(cross), seeds_sentence(cross) if i else ""]
        text = " ".join(filter(None, sentences))
        statements.append(Statement("compression", text, main=i == 0, conditional=cross.conditional))
    return statements


def _rfid_sentence(frames: StudyFrames, first: str, second: str, ratio: SeedEstimate | None) -> str:
    if ratio is None:
        return f"rFID was not measured for both {first} and {second}."
    table = frames.tokenizers[frames.tokenizers["tokenizer_seed"].isin(ratio.seeds)]
    levels = [wording.number(float(table.loc[table["family"] == f, "rfid"].mean())) for f in (first, second)]
    shown = f"rFID {levels[0]} against {levels[1]}, ratio {wording.number(ratio.value)}{wording.span(ratio)}"
    if ratio.low is not None and not ratio.decided:
        return f"{first}, the more compressed, and {second} cannot be told apart by reconstruction: {shown}."
    verb = "worse" if ratio.value > 1 else "better"
    return f"{first}, the more compressed, reconstructs {verb} than {second}: {shown}."


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
    low, high = cross.interval_low, cross.interval_high
    if (low is None) != (high is None):
        side = f"above {wording.flops(low)}" if high is None else f"below {wording.flops(high)}"
        text += f": a crossover {side} FLOPs is not excluded"
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
        noise = "no intervals" if cross.band is None else "intervals from measurement noise alone"
        return f"[{generators}; one seed: conditional on this tokenizer, {noise}]"
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


def regulariser_statements(contrasts: Sequence[Contrast], multipliers: Sequence[Multiplier]) -> list[Statement]:
    """What the regulariser changes at equal compute, or that nothing was compared."""
    if not contrasts:
        text = "The causal regulariser was not compared: no two tokenizers differ in it alone."
        return [Statement("regulariser", text)]
    statements = []
    for c, m in zip(contrasts, multipliers, strict=True):
        effects = [e for e in map(c.effect, _NAMES) if e is not None]
        gfid = c.effect("gfid")
        text = f"At equal compute the causal regulariser ({c.treatment} against {c.base}) changes "
        text += wording.listing([_effect_phrase(_NAMES[e.metric], e.estimate) for e in effects]) + "."
        if m.estimate is not None:
            saved = f"{wording.number(m.estimate.value)}{wording.span(m.estimate)}"
            text += f" Compute multiplier at equal gFID: {saved}, above 1 a saving."
        for seed, family in m.without_overlap:
            text += f" On seed {seed} the two reach no common gFID ({family} is lower)."
        if abs(c.tokenizer_flops_ratio - 1) > 5e-4:
            ratio = wording.number(c.tokenizer_flops_ratio)
            text += f" Its stage 1 takes {ratio} times the FLOPs, not counted in this."
        if gfid is not None:
            text += f" [{wording.seeds(gfid.estimate)}; {_generators(gfid.sizes)}]"
        statements.append(Statement("regulariser", text, conditional=gfid is not None and gfid.estimate.conditional))
    return statements


def pair_statements(best: Sequence[BestPairs]) -> list[Statement]:
    """What to train at each budget."""
    statements = []
    for b in best:
        pair = b.best
        text = (
            f"At {wording.flops(b.flops)} FLOPs train {pair.name} on {wording.images(pair.train_images)} images: gFID "
            f"{wording.number(pair.gfid)}{wording.spread(pair.low, pair.high)}"
        )
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


def own_statements(frames: StudyFrames) -> list[Statement]:
    """The range of each metric of one's own over the configurations, whatever direction is the better one."""
    statements = []
    for metric, rows in groups(frames.own, "metric"):
        last = rows[rows["images"].isna() | (rows["images"] == rows.groupby("name")["images"].transform("max"))]
        means = last.groupby("name")["value"].mean()
        seeds = last.groupby("name")["tokenizer_seed"].nunique()
        text = f"{metric}: {wording.number(float(means.iloc[0]))} ({means.index[0]})"
        if len(means) > 1:
            low, high = str(means.idxmin()), str(means.idxmax())
            text = (
                f"{metric} ranges from {wording.number(float(means[low]))} ({low}) to "
                f"{wording.number(float(means[high]))} ({high}) over {len(means)} configurations"
            )
        many = int(seeds.max())
        count = " to ".join(map(str, sorted({int(seeds.min()), many})))
        text += f", mean over {count} seed{'s' * (many > 1)} each."
        statements.append(Statement("own", text, conditional=many == 1))
    return statements


def without_gfid(frames: StudyFrames) -> str:
    """The headline of a study in which no gFID was measured at known FLOPs: what there is instead."""
    stages = frames.runs.loc[frames.runs["status"] == "done", "stage"]
    kinds = {"tokenizer": "tokenizer{}", "generator": "generator{}", "run": "run{} of no stage"}
    numbers = {kind: int((stages == stage).sum()) for stage, kind in kinds.items()}
    runs = wording.listing([f"{n} {kind.format('s' * (n != 1))}" for kind, n in numbers.items() if n])
    metrics = wording.listing(sorted(set(frames.own["metric"])))
    unranked = ", so no tokenizers are compared" if len(frames.families) else ""
    where = " at known FLOPs" if frames.points["gfid"].notna().any() else ""
    measured = f" and measured {metrics}" if metrics else ""
    return f"No gFID was measured{where}{unranked}; {runs or 'no run'} finished{measured}."

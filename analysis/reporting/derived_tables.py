"""Tables of what follows from the measurements: crossovers, regulariser effects, best pairs, compute laws."""

from __future__ import annotations

import pandas as pd

from analysis.tokenizers.crossover import Crossover, crossing_over_seeds

from . import wording
from .answer import Answer
from .rendering import Table, cell, flat


def crossover_table(answer: Answer) -> Table | None:
    """Every comparison of two tokenizers of different rate."""
    if not answer.compressions:
        return None
    rows, data = [], []
    for c in answer.compressions:
        x = c.crossover
        own = crossing_over_seeds(x)
        rows.append(
            (
                f"{x.first} against {x.second}",
                " ".join(x.design.sizes),
                f"{len(x.seeds)}",
                _crossing_cell(x),
                f"{wording.flops(x.low)}: {cell(x.at_low)}",
                f"{wording.flops(x.high)}: {cell(x.at_high)}",
            )
        )
        facts = {
            "first": x.first,
            "second": x.second,
            "sizes": " ".join(x.design.sizes),
            "seeds": len(x.seeds),
            "range_low": x.low,
            "range_high": x.high,
            "crossover_flops": x.flops,
            "interval_low": x.interval_low,
            "interval_high": x.interval_high,
            "excluded": x.excluded,
            "method": x.method,
            **flat("gfid_ratio_at_low", x.at_low),
            **flat("gfid_ratio_at_high", x.at_high),
            "mean_of_seed_crossings": None if own is None else own.value,
        }
        data.append(facts)
    columns = (
        "tokenizers", "sizes", "seeds", "crossover, FLOPs (95 %)", "gFID ratio at least compute", "at most compute",
    )  # fmt: skip
    note = (
        "gFID ratio: the first, more compressed tokenizer over the second, at the ends of the compute range common to "
        "both. Only sizes run with both tokenizers on every seed of the row are compared."
    )
    return Table("crossovers", "Where tokenizers cross", columns, tuple(rows), pd.DataFrame(data), note)


def _crossing_cell(x: Crossover) -> str:
    """Crossover with its interval, or that there is none."""
    if x.flops is None:
        return "none" if x.band is None else "none, excluded" if x.excluded else "none, not excluded"
    if x.band is None:
        return wording.flops(x.flops)
    low = f"< {wording.flops(x.low)}" if x.interval_low is None else wording.flops(x.interval_low)
    high = f"> {wording.flops(x.high)}" if x.interval_high is None else wording.flops(x.interval_high)
    return f"{wording.flops(x.flops)} ({low} to {high})"


def crossing_detail_table(answer: Answer) -> Table | None:
    """Each seed's own crossing, censored ones marked, and those of the fitted laws."""
    signs = {"within": "", "above": "> ", "below": "< ", "reversed": "reversed, "}
    rows, data = [], []
    for c in answer.compressions:
        x = c.crossover
        name = f"{x.first} against {x.second}"
        sizes = " ".join(x.design.sizes)
        found: list[tuple[int, str, str, str, float | None]] = [
            (s.seed, "fronts", f"{signs[s.placement]}{wording.flops(s.flops)}", s.placement, s.flops)
            for s in x.per_seed
        ]
        for law in c.laws:
            kind = "laws, E free" if law.floor_kind == "free" else "laws, E = rFID floor"
            for seed, flops in law.per_seed:
                found.append((seed, kind, wording.flops(flops), "within" if flops else "none", flops))
        for seed, kind, text, placement, flops in found:
            rows.append((name, sizes if kind == "fronts" else "all", kind, f"{seed}", text))
            facts = {"first": x.first, "second": x.second, "sizes": sizes, "by": kind, "seed": seed}
            data.append(facts | {"placement": placement, "flops": flops})
    if not rows:
        return None
    unique = dict(zip(rows, data, strict=True))
    columns = ("tokenizers", "sizes", "by", "seed", "crossing, FLOPs")
    note = (
        "“>”: the more compressed tokenizer still leads at the largest compute compared; “<”: the less compressed one "
        "leads from the smallest on. Laws: gFID = E + A C^−alpha through each seed's front, sought up to 100 times "
        "beyond the measured range."
    )
    return Table(
        "crossings", "Crossings seed by seed", columns, tuple(unique), pd.DataFrame(list(unique.values())), note
    )


def regulariser_table(answer: Answer) -> Table | None:
    """Paired effects of the regulariser, per budget and pooled."""
    if not answer.contrasts:
        return None
    rows, data = [], []
    names = {"gfid": "gFID", "rfid": "rFID", "rfid_floor": "rFID floor", "nats_per_image": "nats per image"}
    for c, m in zip(answer.contrasts, answer.multipliers, strict=True):
        versus = f"{c.treatment} / {c.base}"
        for e in (*c.per_budget, *c.pooled, *c.stage1):
            kind = "ratio" if e.estimate.scale == "ratio" else "difference"
            where = wording.images(e.budget) if e.budget else "all budgets" if e.sizes else "stage 1"
            per_seed = ", ".join(
                (wording.signed if kind == "difference" else wording.number)(v) for v in e.estimate.per_seed
            )
            name = names.get(e.metric, e.metric.replace("_", " "))
            rows.append((versus, f"{name}, {kind}", where, " ".join(e.sizes) or "–", cell(e.estimate), per_seed))
            facts = {"base": c.base, "treatment": c.treatment, "metric": e.metric, "scale": kind, "budget": e.budget}
            data.append(facts | flat("effect", e.estimate))
        if m.estimate is not None:
            per_seed = ", ".join(wording.number(v) for v in m.estimate.per_seed)
            sizes = " ".join(m.design.sizes)
            rows.append((versus, "compute multiplier at equal gFID", "fronts", sizes, cell(m.estimate), per_seed))
            facts = {"base": c.base, "treatment": c.treatment, "metric": "compute_multiplier", "scale": "ratio"}
            data.append(facts | {"budget": None} | flat("effect", m.estimate))
    columns = ("comparison", "metric", "training images", "sizes", "effect (95 % interval)", "seeds")
    note = (
        "Paired: same tokenizer seed, generator seed, size and budget, hence equal stage-2 FLOPs. Ratios in log space; "
        "over all budgets: mean within each seed first, then over seeds."
    )
    return Table("regulariser", "The causal regulariser", columns, tuple(rows), pd.DataFrame(data), note)


def pair_table(answer: Answer) -> Table | None:
    """Every pair at every budget with its probability of being best."""
    if not answer.budgets:
        return None
    rows, data = [], []
    for b in answer.budgets:
        for p in b.pairs:
            spread = "" if p.low is None else f" ({wording.number(p.low)} to {wording.number(p.high)})"
            held = wording.images(p.train_images) + (", held" if p.held else "")
            chance = wording.percent(p.probability)
            rows.append(
                (
                    wording.flops(b.flops),
                    p.family,
                    p.size,
                    held,
                    f"{len(p.seeds)}",
                    f"{wording.number(p.gfid)}{spread}",
                    chance,
                )
            )
            data.append({"flops": b.flops, **{k: v for k, v in vars(p).items() if k != "seeds"}, "seeds": len(p.seeds)})
    columns = ("FLOPs", "tokenizer", "generator", "training images", "seeds", "expected gFID (95 %)", "best with")
    note = (
        "Hierarchical model of log gFID: tokenizer seeds within tokenizers, one variance for all pairs, Student t. "
        "“held”: the budget exceeds the pair's longest run, whose gFID is used as an upper bound."
    )
    return Table("pairs", "Best pair at each budget", columns, tuple(rows), pd.DataFrame(data), note)


def law_table(answer: Answer) -> Table | None:
    """Fitted compute laws of each family and seed."""
    rows: list[tuple[str, ...]] = []
    data = []
    for law in answer.laws:
        kind = "free" if law.floor_kind == "free" else "rFID floor"
        for fit in law.laws:
            rows.append(
                (
                    law.family,
                    kind,
                    f"{fit.seed}",
                    wording.number(fit.floor),
                    wording.number(fit.alpha),
                    wording.number(fit.amplitude),
                    wording.flops(fit.pivot),
                    wording.number(fit.r_squared),
                    f"{fit.points}",
                    fit.status.replace("_", " "),
                )
            )
            data.append({"family": law.family, "floor_kind": law.floor_kind, **vars(fit)})
        for seed, reason in law.skipped:
            rows.append((law.family, kind, f"{seed}", *["–"] * 6, reason))
            data.append({"family": law.family, "floor_kind": law.floor_kind, "seed": seed, "status": reason})
    if not rows:
        return None
    columns = (
        "tokenizer",
        "E",
        "seed",
        "E value",
        "alpha",
        "A at the pivot",
        "pivot, FLOPs",
        "R² of log gFID",
        "points",
        "fit",
    )
    note = (
        "gFID = E + A (C / pivot)^−alpha through each seed's Pareto front, Huber's loss on log gFID. "
        "Few points: a cross-check of the fronts, not a basis for extrapolation."
    )
    return Table("laws", "Compute laws", columns, tuple(rows), pd.DataFrame(data), note)

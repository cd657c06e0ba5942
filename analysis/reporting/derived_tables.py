"""Tables of what follows from the measurements: crossovers, regulariser effects, best pairs, compute laws."""

from __future__ import annotations

from typing import Any

from analysis.tokenizers.crossover import Crossover, crossing_over_seeds
from analysis.tokenizers.seed_intervals import SeedEstimate

from . import wording
from .answer import Answer
from .rendering import Facts, Shown, Table, cell, known


def crossover_table(answer: Answer) -> Table | None:
    """Every comparison of two tokenizers of different rate."""
    facts = []
    for compression in answer.compression:
        x = compression.crossover
        mean = crossing_over_seeds(x)
        facts.append({
            "first": x.first, "second": x.second, "sizes": " ".join(x.design.sizes), "seeds": len(x.seeds),
            "range_low": x.low, "range_high": x.high, "crossover_flops": x.flops, "interval_low": x.interval_low,
            "interval_high": x.interval_high, "excluded": x.excluded, "method": x.method,
            "gfid_ratio_at_low": x.at_low, "gfid_ratio_at_high": x.at_high,
            "mean_of_seed_crossings": None if mean is None else mean.value, "_crossing": _crossing_cell(x),
        })  # fmt: skip
    columns: dict[str, Shown] = {
        "tokenizers": lambda f: f"{f['first']} against {f['second']}",
        "sizes": "sizes",
        "seeds": "seeds",
        "crossover, FLOPs (95 %)": "_crossing",
        "gFID ratio at least compute": lambda f: f"{wording.flops(f['range_low'])}: {cell(f['gfid_ratio_at_low'])}",
        "at most compute": lambda f: f"{wording.flops(f['range_high'])}: {cell(f['gfid_ratio_at_high'])}",
    }
    note = (
        "gFID ratio: the first, more compressed tokenizer over the second, at the ends of the compute range common to "
        "both. Only sizes run with both tokenizers on every seed of the row are compared."
    )
    return Table.of("crossovers", "Where tokenizers cross", facts, columns, note)


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
    signs = {"above": "> ", "below": "< ", "reversed": "reversed, "}
    facts: list[dict[str, Any]] = []
    for compression in answer.compression:
        x = compression.crossover
        crossings: list[tuple[str, int, str, float | None]]
        crossings = [("fronts", s.seed, s.placement, s.flops) for s in x.per_seed]
        for law in compression.fitted_laws:
            kind = "laws, E free" if law.floor == "free" else "laws, E = rFID floor"
            crossings += [(kind, seed, "within" if flops else "none", flops) for seed, flops in law.per_seed]
        facts += [
            {
                "first": x.first, "second": x.second, "sizes": " ".join(x.design.sizes), "by": kind, "seed": seed,
                "placement": placement, "flops": flops,
            }
            for kind, seed, placement, flops in crossings
        ]  # fmt: skip
    columns: dict[str, Shown] = {
        "tokenizers": lambda f: f"{f['first']} against {f['second']}",
        "sizes": lambda f: f["sizes"] if f["by"] == "fronts" else "all",
        "by": "by",
        "seed": "seed",
        "crossing, FLOPs": lambda f: signs.get(f["placement"], "") + wording.flops(f["flops"]),
    }
    # The laws of a pair are the same in each of its comparisons; the last one stands for them.
    shown = {tuple(show(f) if callable(show) else f[show] for show in columns.values()): f for f in facts}
    note = (
        "“>”: the more compressed tokenizer still leads at the largest compute compared; “<”: the less compressed one "
        "leads from the smallest on. Laws: gFID = E + A C^−alpha through each seed's front, sought up to 100 times "
        "beyond the measured range."
    )
    return Table.of("crossings", "Crossings seed by seed", list(shown.values()), columns, note)


def regulariser_table(answer: Answer) -> Table | None:
    """Paired effects of the regulariser, per budget and pooled."""
    names = {
        "gfid": "gFID", "rfid": "rFID", "rfid_floor": "rFID floor", "nats_per_image": "nats per image",
        "compute_multiplier": "compute multiplier at equal gFID",
    }  # fmt: skip
    facts = []
    for contrast, multiplier in zip(answer.regulariser, answer.compute_multiplier, strict=True):
        effects: list[tuple[str, int | None, str, SeedEstimate, tuple[str, ...]]] = []
        for e in (*contrast.per_budget, *contrast.pooled, *contrast.stage1):
            place = wording.images(e.budget) if e.budget else "all budgets" if e.sizes else "stage 1"
            effects.append((e.metric, e.budget, place, e.estimate, e.sizes))
        if multiplier.estimate is not None:
            effects.append(("compute_multiplier", None, "fronts", multiplier.estimate, multiplier.sizes))
        for metric, budget, place, estimate, sizes in effects:
            scale = "ratio" if estimate.scale == "ratio" else "difference"
            name = names.get(metric, metric.replace("_", " "))
            facts.append({
                "base": contrast.base, "treatment": contrast.treatment, "metric": metric, "scale": scale,
                "budget": budget, "effect": estimate, "_place": place, "_sizes": " ".join(sizes) or "–",
                "_name": name if metric == "compute_multiplier" else f"{name}, {scale}",
            })  # fmt: skip

    def per_seed(f: Facts) -> str:
        write = wording.signed if f["scale"] == "difference" else wording.number
        return ", ".join(write(value) for value in f["effect"].per_seed)

    columns: dict[str, Shown] = {
        "comparison": lambda f: f"{f['treatment']} / {f['base']}", "metric": "_name", "training images": "_place",
        "sizes": "_sizes", "effect (95 % interval)": "effect", "seeds": per_seed,
    }  # fmt: skip
    note = (
        "Paired: same tokenizer seed, generator seed, size and budget, hence equal stage-2 FLOPs. Ratios in log space; "
        "over all budgets: mean within each seed first, then over seeds."
    )
    return Table.of("regulariser", "The causal regulariser", facts, columns, note)


def pair_table(answer: Answer) -> Table | None:
    """Every pair at every budget with its probability of being best."""
    facts = [
        {"flops": best.flops} | {k: v for k, v in vars(pair).items() if k != "seeds"} | {"seeds": len(pair.seeds)}
        for best in answer.best_pairs
        for pair in best.pairs
    ]

    def gfid(f: Facts) -> str:
        return wording.number(f["gfid"]) + wording.spread(f["low"], f["high"])

    columns: dict[str, Shown] = {
        "FLOPs": known("flops", wording.flops), "tokenizer": "family", "generator": "size",
        "training images": lambda f: wording.images(f["train_images"]) + (", held" if f["held"] else ""),
        "seeds": "seeds", "expected gFID (95 %)": gfid, "best with": lambda f: wording.percent(f["probability"]),
    }  # fmt: skip
    note = (
        "Hierarchical model of log gFID: tokenizer seeds within tokenizers, one variance for all pairs, Student t. "
        "“held”: the budget exceeds the pair's longest run, whose gFID is used as an upper bound."
    )
    return Table.of("pairs", "Best pair at each budget", facts, columns, note)


def law_table(answer: Answer) -> Table | None:
    """Fitted compute laws of each family and seed."""
    numbers = ("floor", "alpha", "amplitude", "pivot", "r_squared", "points")
    facts: list[dict[str, Any]] = []
    for law in answer.compute_laws:
        family = {"family": law.family, "floor_kind": law.floor}
        facts += [family | vars(fit) for fit in law.laws]
        facts += [family | {"seed": s, "status": reason} | dict.fromkeys(numbers) for s, reason in law.skipped]
    columns: dict[str, Shown] = {
        "tokenizer": "family", "E": lambda f: "free" if f["floor_kind"] == "free" else "rFID floor", "seed": "seed",
        "E value": lambda f: wording.number(f["floor"]), "alpha": lambda f: wording.number(f["alpha"]),
        "A at the pivot": lambda f: wording.number(f["amplitude"]), "pivot, FLOPs": lambda f: wording.flops(f["pivot"]),
        "R² of log gFID": lambda f: wording.number(f["r_squared"]), "points": "points",
        "fit": lambda f: f["status"].replace("_", " "),
    }  # fmt: skip
    note = (
        "gFID = E + A (C / pivot)^−alpha through each seed's Pareto front, Huber's loss on log gFID. "
        "Few points: a cross-check of the fronts, not a basis for extrapolation."
    )
    return Table.of("laws", "Compute laws", facts, columns, note)

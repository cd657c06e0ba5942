"""What optimum says of a study: its measured pairs at a budget, and by the joint law those that were not trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from results.errors import FitError
from sweeps.text import table

from ..sources import Judged, read_source
from .fitting import cell, print_json

if TYPE_CHECKING:
    from analysis.tokenizers.joint.answer import JointPrediction
    from analysis.tokenizers.pairs import BestPairs

SHOWN = 5  # pairs of a budget in the table; --json has all


def from_study(
    source: str,
    root: Path,
    sets: list[str] | None,
    judged: Judged,
    budgets: Any,
    seed: int,
    floor: str,
    within_range: bool,
    named: list[str] | None,
    as_json: bool,
) -> None:
    """Print the best pairs at each budget (None: three of the study's own), measured and predicted.

    named: tokenizers that were not trained, as `--candidate` gives them. Raises UsageError for options that are not
    allowed, FitError where nothing can be judged.
    """
    from analysis.tokenizers.comparisons.loss_ranking import refuse_loss
    from analysis.tokenizers.compute import head_shares
    from analysis.tokenizers.joint.allocation import Tokenizer
    from analysis.tokenizers.joint.answer import DRAWS, JointAnswer
    from analysis.tokenizers.measure import selection_note
    from analysis.tokenizers.pair_laws import floor_named
    from analysis.tokenizers.pairs import best_pairs, default_budgets
    from analysis.tokenizers.standing import Standing

    kind, chosen = floor_named(floor), [Tokenizer.read(text) for text in named or ()]
    frames = read_source(source, root, sets, judged).frames
    refuse_loss(frames)
    points = frames.ranked
    if budgets is None:
        budgets = default_budgets(points)
    curves = frames.curves_of_pairs
    optima = [
        best_pairs(points, float(c), seed=seed, floor=kind, within_range=within_range, curves=curves) for c in budgets
    ]
    joint = None
    predictions: list[JointPrediction] = []
    reason = "pairs beyond their runs are not judged" if within_range else ""
    if not within_range:
        try:
            joint = JointAnswer.of(frames, seed=seed)
            predictions = [joint.at(c, Standing.at(curves, c, DRAWS, seed), chosen, seed) for c in map(float, budgets)]
        except FitError as problem:
            reason = str(problem)
    shares = head_shares(points, frames.runs)
    note = selection_note(frames.measure, points)
    if as_json:
        print_json({
            "source": source, "metric": frames.measure.to_dict(), "compute": frames.compute.to_dict(), "notes": note,
            "head_shares": {f"{family} + {size}": share for (family, size), share in shares.items()},
            "optima": [budget.to_dict() for budget in optima],
            "joint": None if joint is None else joint.to_dict(), "joint_reason": reason or None,
            "predictions": [prediction.to_dict() for prediction in predictions],
        })  # fmt: skip
        return
    _show_pairs(optima, frames.measure.name, shares)
    print(f"FLOPs: those {frames.compute.words}; head: the output head's share of the generator's training FLOPs")
    if note:
        print(f"warning: {note[0].lower()}{note[1:]}")
    if joint is None:
        print(f"tokenizers not trained: no prediction; {reason}")
        return
    show_predictions(predictions, frames.measure.name)
    for words in joint.notes:
        print(f"note: {words}")


def _show_pairs(optima: list[BestPairs], metric: str, shares: dict[tuple[str, str], float]) -> None:
    rows = []
    for budget in optima:
        for p in budget.pairs[:SHOWN]:
            chance = "-" if p.probability is None or len(budget.pairs) == 1 else f"{p.probability:.0%}"
            images = "-" if p.train_images is None else f"{p.train_images:.3g}"
            images += f" (law, {p.reach:.2g}x)" if p.extrapolated else ""
            numbers = [cell(None if v is None else float(f"{v:.4g}")) for v in (p.gfid, p.low, p.high)]
            head = f"{shares[p.family, p.size]:.0%}" if (p.family, p.size) in shares else "-"
            rows.append([f"{budget.flops:.3g}", p.family, p.size, images, head, str(len(p.seeds)), *numbers, chance])
    header = ["FLOPs", "tokenizer", "generator", "training images", "head", "seeds", metric, "95% low", "95% high",
              "best with"]  # fmt: skip
    print(table(header, rows))
    for budget in optima:
        best = budget.best
        chance = "" if best.probability is None else f", best with probability {best.probability:.0%}"
        rank = f"{chance} (of {len(budget.pairs)} pairs)" if len(budget.pairs) > 1 else f", {budget.alone}"
        print(f"at {budget.flops:.3g} FLOPs: {best.name}{rank}")
        others = [p for p in budget.pairs if p is not best]
        if others and best.regret is not None:
            second = min(others, key=lambda p: p.regret or 0.0)
            print(
                f"  expected regret: {100 * best.regret:.2g} % of its {metric}; of the runner-up, {second.name}, "
                f"{100 * (second.regret or 0.0):.2g} %"
            )
        for name, reason in budget.not_judged:
            print(f"  not judged there: {name}, {reason} FLOPs")
        if budget.extrapolated:
            beyond = ", ".join(f"{p.name} ({p.reach:.2g} times)" for p in budget.extrapolated)
            print(
                f"  warning: rests on extrapolation by law beyond the longest run of {beyond}; --within-range "
                f"leaves it out"
            )
    if any(p.extrapolated for budget in optima for p in budget.pairs[:SHOWN]):
        print("law, Nx: the budget is N times the pair's longest run; its law predicts, with that uncertainty")
    if any(budget.df == 0 for budget in optima):
        print("no interval: one seed; no pair was run twice, so there are no intervals and no probabilities")
    elif any(len(p.seeds) == 1 for budget in optima for p in budget.pairs[:SHOWN]):
        print("warning: pairs with one seed borrow the variance of those with several")


def show_predictions(predictions: list[JointPrediction], metric: str) -> None:
    """Print what the joint law would train at each budget: R*, N*, D*, the best tokenizer that was not trained, and all
    pairs, measured or not, beside each other."""
    for prediction in predictions:
        at = f"at {prediction.flops:.3g} FLOPs by the joint law:"
        if (best := prediction.optimum) is not None:
            parts = [
                f"{name} = {e.value:.3g}{unit} ({e.low:.3g} to {e.high:.3g})"
                for name, e, unit in (
                    ("R*", best.rate, " bits an image"), ("N*", best.params, ""), ("D*", best.images, " images"),
                )
            ]  # fmt: skip
            parts.append(f"{metric} {best.gfid.value:.3g} ({best.gfid.low:.3g} to {best.gfid.high:.3g})")
            if (share := best.stage1_share) is not None:
                parts.append(f"stage 1 {share.value:.1%} ({share.low:.1%} to {share.high:.1%}) of both stages")
            print(f"{at} {', '.join(parts)}")
            for words in best.warnings:
                print(f"  warning: {words}")
        if prediction.untrained:
            p = prediction.untrained[0]
            print(
                f"{at} of tokenizers not trained {p.name} comes first: {metric} {p.gfid:.3g} ({p.low:.3g} to "
                f"{p.high:.3g}) with {p.train_images:.3g} images"
            )
        if prediction.measured:
            _show_pool(prediction, metric)
        for words in prediction.notes:
            print(f"  note: {words}")


def _show_pool(prediction: JointPrediction, metric: str) -> None:
    """Measured pairs and those not trained at a budget, judged by the same draws."""
    rows = [
        [f"{prediction.flops:.3g}", p.family, p.size, known, f"{p.probability:.1%}", f"{p.regret:.1%}"]
        for known, pairs in (("measured", prediction.measured), ("law", prediction.untrained))
        for p in pairs[:SHOWN]
    ]
    print(table(["FLOPs", "tokenizer", "generator", "known by", "best of all with", "regret"], rows))
    best = prediction.measured[0]
    print(
        f"at {prediction.flops:.3g} FLOPs any not trained is best with probability {prediction.any_untrained:.0%}; "
        f"expected regret of the best measured, {best.name}: {100 * best.regret:.2g} % of its {metric} (further above "
        "measured pairs are judged among themselves, here beside those not trained)"
    )

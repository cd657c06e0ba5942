"""Where every pair stands at one compute: interpolated between its budgets, by its law beyond them; joint draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from results.errors import FitError

from .hierarchy import posterior
from .pair_laws import LAW_DRAWS, PairCurves, PairLaw

Array = np.ndarray

SLACK = 1e-9
"""In ln FLOPs: closed forms repeat up to a last digit."""


class NotJudged(NamedTuple):
    """A pair that says nothing at a compute, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Standing:
    """The pairs judged at one compute (k of them): expected ln gFID (k,), joint draws (draws, k) or None, and facts."""

    judged: tuple[PairCurves, ...]
    mean: Array
    drawn: Array | None
    sd: float | None
    df: int
    runs: tuple[int, ...]
    seeds: tuple[tuple[int, ...], ...]
    images: tuple[float, ...]
    extrapolated: tuple[bool, ...]
    not_judged: tuple[NotJudged, ...]

    @classmethod
    def at(
        cls,
        curves: Sequence[PairCurves],
        flops: float,
        draws: int,
        seed: int,
        laws: dict[str, PairLaw] | None = None,
        within_range: bool = False,
    ) -> Standing:
        """All pairs that can be judged at compute `flops`: one whose runs begin above is not, nor, with `within_range`,
        one whose runs end below. `laws`: by name, those that stand in for a pair's own. Raises FitError if none can
        be, or for a compute that is none.
        """
        if not (math.isfinite(flops) and flops > 0):
            raise FitError(f"flops = {flops} is no compute budget; allowed: a positive number")
        judged: list[PairCurves] = []
        not_judged, extrapolated, images, seeds = [], [], [], []
        y: list[float] = []
        pair: list[int] = []
        cluster: list[tuple[str, int]] = []
        errors: dict[int, Array] = {}
        for number, candidate in enumerate(curves):
            left = [c.training(flops) for c in candidate.curves]
            begun = [(c, x) for c, x in zip(candidate.curves, left, strict=True) if x >= c.x[0] - SLACK]
            reaching = [(c, x) for c, x in begun if x <= c.x[-1] + SLACK]
            if not begun:
                not_judged.append(NotJudged(candidate.name, f"its runs begin at {_apart(candidate.low, flops)}"))
                continue
            if not reaching and within_range:
                not_judged.append(NotJudged(candidate.name, f"its runs end at {_apart(candidate.high, flops)}"))
                continue
            if reaching:
                # A run that ends below the budget adds nothing where the same pair has runs that reach it.
                chosen, values = reaching, [float(np.interp(x, c.x, c.y)) for c, x in reaching]
            else:
                chosen = begun
                law = (laws or {}).get(candidate.name) or (
                    candidate.law if len(begun) == len(candidate.curves) else PairLaw.of([c for c, _ in begun], "free")
                )
                predicted = law.draws([x for _, x in begun], LAW_DRAWS, seed + number)
                values = predicted.mean(axis=0).tolist()
                errors[len(judged)] = (predicted - predicted.mean(axis=0)).mean(axis=1)
            y += values
            pair += [len(judged)] * len(chosen)
            cluster += [(candidate.family, c.tokenizer_seed) for c, _ in chosen]
            images.append(float(np.mean([c.images_at(x) for c, x in chosen])))
            seeds.append(tuple(sorted({c.tokenizer_seed for c, _ in chosen})))
            extrapolated.append(not reaching)
            judged.append(candidate)
        if not judged:
            raise FitError(f"no run was measured at {flops:.3g} FLOPs{_allowed(curves, flops)}")
        numbers = {name: i for i, name in enumerate(dict.fromkeys(cluster))}
        of_pair = np.array(pair)
        found = posterior(np.array(y), of_pair, np.array([numbers[name] for name in cluster]), draws, seed)
        mean = np.bincount(of_pair, y) / np.bincount(of_pair)
        drawn = None
        if found is not None:
            mean, drawn = found.mean, found.drawn
            for i, error in errors.items():
                # The law is one for all seeds of a pair: its error does not average out over them.
                drawn[:, i] += np.resize(error, draws)
        return cls(
            judged=tuple(judged),
            mean=mean,
            drawn=drawn,
            sd=found.sd if found else None,
            df=found.df if found else 0,
            runs=tuple(np.bincount(of_pair).tolist()),
            seeds=tuple(seeds),
            images=tuple(images),
            extrapolated=tuple(extrapolated),
            not_judged=tuple(not_judged),
        )


def _apart(value: float, flops: float) -> str:
    """A compute at which runs begin or end, with as many digits as tell it from the budget `flops`, at least two."""
    for digits in range(2, 17):
        text = f"{value:.{digits}g}"
        if (float(text) - flops) * (value - flops) > 0 and float(text) != float(f"{flops:.3g}"):
            return text
    return repr(value)


def _allowed(curves: Sequence[PairCurves], flops: float) -> str:
    """Where runs were measured, none of which says anything at `flops`."""
    if not curves:
        return ": none has a known compute"
    below, above = [c.high for c in curves if c.high < flops], [c.low for c in curves if c.low > flops]
    if not above:
        low, high = min(c.low for c in curves), max(below)
        one = high < 1.01 * low
        return f"; within range: {f'{low:.9g}' if one else f'{_up(low)} to {_down(high)}'}"
    begin = _up(min(above))
    if below:
        return f"; within range: up to {_down(max(below))}, and from {begin} on"
    beside = min(c.offset for pair in curves for c in pair.curves)
    added = ""
    if beside >= flops:
        added = f": what is counted beside training the generator (--total, --serve) costs {_down(beside)} at least"
    return f"{added}; the smallest budget that is judged: {begin}"


def _up(value: float) -> str:
    """Three digits, none too few: a budget that is printed as allowed must be."""
    return _rounded(value, math.ceil)


def _down(value: float) -> str:
    return _rounded(value, math.floor)


def _rounded(value: float, whole: Callable[[float], int]) -> str:
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    # A round number may lie a last digit beside its multiple.
    nearest = round(value / unit)
    steps = nearest if abs(value / unit - nearest) < SLACK else whole(value / unit)
    return f"{steps * unit:.3g}"

"""What the joint law says of a study: the form that predicts best, and at a compute what it would train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from results.errors import FitError

from ..frames import StudyFrames
from ..rows import Record, records
from ..standing import Standing
from .allocation import JointOptimum, Prices, Tokenizer, candidates, joint_optimum, untrained_draws
from .comparison import LAW_FLOOR, OWN_FLOOR, Comparison, compare_joint
from .fitting import REPLICATES, JointFit, fit_joint
from .law import EXCESS, FORMS
from .table import fitted_table

DRAWS = 4000
MISFIT_SD, MISFIT_DF = 0.08, 2
"""The prior of the law's error for a tokenizer that it has not seen, in ln gFID: worth two that were left out."""


@dataclass(frozen=True)
class PredictedPair(Record):
    """A tokenizer with a generator size that was not trained: predicted gFID with its 95 % interval, the probability
    that it is the best of all pairs, measured ones included, its expected regret as a share, and the images that the
    compute buys."""

    family: str
    size: str
    gfid: float
    low: float
    high: float
    probability: float
    regret: float
    train_images: float
    rate: float

    @property
    def name(self) -> str:
        """For people: tokenizer and generator."""
        return f"{self.family} + {self.size}"


@dataclass(frozen=True)
class MeasuredPair(Record):
    """A measured pair beside those not trained: the probability that it is the best of all, and its expected regret
    against the best of all, as a share."""

    family: str
    size: str
    probability: float
    regret: float

    @property
    def name(self) -> str:
        """For people: tokenizer and generator."""
        return f"{self.family} + {self.size}"


@dataclass(frozen=True)
class JointPrediction(Record):
    """At one compute: R*, N* and D* (None: `notes` say why), pairs not trained by probability, the probability that
    any of them is better than all measured ones, and the measured ones by regret, judged in the same draws (none: no
    pair was run twice, or none was not trained)."""

    flops: float
    optimum: JointOptimum | None
    untrained: tuple[PredictedPair, ...]
    any_untrained: float | None
    notes: tuple[str, ...]
    measured: tuple[MeasuredPair, ...] = ()


@dataclass(frozen=True)
class JointAnswer:
    """The comparison, the best law that has a formula, fitted with draws, and how far it is off for a tokenizer that it
    has not seen: `misfit`, of ln gFID, from `tested` tokenizers that were left out and a prior worth MISFIT_DF.
    `unpredicted` says why tokenizers not trained have no prediction; None: they have one."""

    comparison: Comparison
    fitted: JointFit
    prices: Prices | None
    misfit: float
    tested: int
    notes: tuple[str, ...]
    unpredicted: str | None = None

    @classmethod
    def of(cls, frames: StudyFrames, *, replicates: int = REPLICATES, seed: int = 0) -> JointAnswer:
        """Of a study. Raises FitError, in one sentence, where it cannot have a joint law."""
        table = fitted_table(frames)
        comparison = compare_joint(table)
        with_loss = bool((table["nats"] > 0).all())
        form = comparison.best_form or ("joint" if with_loss else "direct")
        fitted = fit_joint(table, form, replicates=replicates, seed=seed)
        notes = list(fitted.identified.notes)
        if not fitted.trusted:
            raise FitError("no start of the joint law reached a minimum: it says nothing of this study")
        if lost := [name for name in fitted.result.not_identified if name in EXCESS]:
            notes.append(f"these runs do not determine {', '.join(lost)}")
        error = comparison.error(fitted.form, LAW_FLOOR) or comparison.error(fitted.form, OWN_FLOOR)
        tested = error.tokenizers if error else 0
        squares = MISFIT_DF * MISFIT_SD**2 + (tested * error.rmse**2 if error else 0.0)
        misfit = float(np.sqrt(squares / (MISFIT_DF + tested)))
        if error is None:
            notes.append("no tokenizer could be left out, so how far the law is off for a new one was not tested")
        lacking = [] if fitted.floors is not None else [_without_floors(frames, fitted)]
        try:
            prices = Prices.of(table, frames.compute)
        except FitError as problem:
            prices = None
            lacking.append(str(problem))
        return cls(comparison, fitted, prices, misfit, tested, tuple(notes), "; ".join(lacking) or None)

    def at(
        self, flops: float, standing: Standing | None, chosen: Sequence[Tokenizer] = (), seed: int = 0
    ) -> JointPrediction:
        """What it would train at a compute. `standing`: of the measured pairs there; `chosen`: tokenizers not trained
        that are looked at, by default those between the ones trained."""
        notes: list[str] = []
        if self.unpredicted is not None:
            return JointPrediction(flops, None, (), None, (self.unpredicted,))
        assert self.prices is not None
        try:
            if lost := [name for name in self.fitted.result.not_identified if name in EXCESS]:
                raise FitError(f"no optimum: these runs do not determine {', '.join(lost)}")
            best = joint_optimum(self.fitted, self.prices, flops, seed)
        except FitError as problem:
            best = None
            notes.append(str(problem))
        told = self.fitted.identified.names
        kinds = list(chosen) or candidates(self.fitted.table)
        if not chosen and not told & {"p", "q"}:
            return JointPrediction(
                flops, best, (), None, (*notes, "rates do not vary: no other tokenizer is predicted")
            )
        rows, drawn = untrained_draws(
            self.fitted, self.prices, kinds, flops, (self.misfit, MISFIT_DF + self.tested), DRAWS, seed
        )
        notes += [
            f"{kind.name} is not judged: {flops:.3g} FLOPs buy less than the shortest run of any size"
            for kind in chosen
            if kind.name not in set(rows["family"])
        ]
        assumed = self.prices.assumed(kinds, self.fitted.table)
        if assumed and self.prices.compute.total:
            notes.append(assumed)
        if rows.empty:
            return JointPrediction(flops, best, (), None, tuple(notes))
        measured: list[MeasuredPair] = []
        probability, regret, better = np.full(len(rows), np.nan), np.full(len(rows), np.nan), None
        if standing is not None and standing.drawn is not None:
            # Draws of both are independent, and in no order.
            first = standing.drawn.shape[1]
            pool = np.column_stack([np.resize(standing.drawn, (DRAWS, first)), drawn])
            lowest = pool.argmin(axis=1)
            probabilities = np.bincount(lowest, minlength=pool.shape[1]) / len(pool)
            regrets = np.expm1(pool - pool.min(axis=1, keepdims=True)).mean(axis=0)
            measured = [
                MeasuredPair(pair.family, pair.size, float(probabilities[i]), float(regrets[i]))
                for i, pair in enumerate(standing.judged)
            ]
            measured.sort(key=lambda p: p.regret)
            probability, regret = probabilities[first:], regrets[first:]
            better = float(np.mean(lowest >= first))
        elif standing is not None:
            notes.append("no pair was run twice, so none not trained has a probability beside the measured ones")
        low, high = np.exp(np.quantile(drawn, [0.025, 0.975], axis=0))
        pairs = [
            PredictedPair(
                str(row["family"]), str(row["size"]), float(np.exp(drawn[:, i].mean())), float(low[i]), float(high[i]),
                float(probability[i]), float(regret[i]), float(row["images"]), float(row["rate"]),
            )
            for i, row in enumerate(records(rows))
        ]  # fmt: skip
        pairs.sort(key=lambda p: (-np.nan_to_num(p.probability), p.gfid))
        return JointPrediction(flops, best, tuple(pairs), better, tuple(notes), tuple(measured))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: estimates, the test of p = q, held-out errors, notes."""
        test = self.fitted.rate_alone()
        return {
            "law": self.fitted.form,
            "formula": FORMS[self.fitted.form],
            "status": str(self.fitted.result.status),
            "estimates": {name: e.to_json() for name, e in self.fitted.estimates().items()},
            "rate_alone": None if test is None else {"p_minus_q": test[0].to_json(), "p_value": test[1]},
            "floor": None if self.fitted.floors is None else self.fitted.floors.to_dict(),
            "noise": dict(self.fitted.noise),
            "misfit": self.misfit,
            "misfit_tokenizers": self.tested,
            "comparison": self.comparison.to_dict(),
            "notes": list(self.notes),
        }


def _without_floors(frames: StudyFrames, fitted: JointFit) -> str:
    """Why a study has no law of the floor."""
    points = frames.ranked
    if "rfid_floor" not in points or not (points["rfid_floor"] > 0).any():
        return "tokenizers not trained have no floor: no rfid_floor was measured"
    if frames.floor_is_comparable:
        known = fitted.table.loc[fitted.table["floor"] > 0, "tokenizer"].nunique()
        return f"the law of the floor needs two tokenizers with a measured rfid_floor, not {known}"
    if frames.measure.guided:
        return f"rfid_floor is no floor of {frames.measure.name}: guidance can undercut it"
    if frames.measure.metric != "gfid":
        return f"rfid_floor is no floor of {frames.measure.name}: it is one of gFID"
    return "rfid_floor is no floor of this gFID: they were measured under different protocols"

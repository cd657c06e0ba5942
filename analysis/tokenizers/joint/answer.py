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
class JointPrediction(Record):
    """At one compute: R*, N* and D* (None: `notes` say why), pairs not trained by probability, and the probability that
    any of them is better than all measured ones."""

    flops: float
    optimum: JointOptimum | None
    untrained: tuple[PredictedPair, ...]
    any_untrained: float | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class JointAnswer:
    """The comparison, the best law that has a formula, fitted with draws, and how far it is off for a tokenizer that it
    has not seen: `misfit`, of ln gFID, from `tested` tokenizers that were left out and a prior worth MISFIT_DF."""

    comparison: Comparison
    fitted: JointFit
    prices: Prices | None
    misfit: float
    tested: int
    notes: tuple[str, ...]

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
        try:
            prices = Prices.of(table, frames.compute)
        except FitError as problem:
            prices = None
            notes.append(str(problem))
        return cls(comparison, fitted, prices, misfit, tested, tuple(notes))

    def at(
        self, flops: float, standing: Standing | None, chosen: Sequence[Tokenizer] = (), seed: int = 0
    ) -> JointPrediction:
        """What it would train at a compute. `standing`: of the measured pairs there; `chosen`: tokenizers not trained
        that are looked at, by default those between the ones trained."""
        notes: list[str] = []
        if self.prices is None or self.fitted.floors is None:
            return JointPrediction(flops, None, (), None, ("no rfid_floor or no cost of tokenizers not trained",))
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
        if rows.empty:
            return JointPrediction(flops, best, (), None, tuple(notes))
        pool, probability, regret, better = drawn, np.full(len(rows), np.nan), np.full(len(rows), np.nan), None
        if standing is not None and standing.drawn is not None:
            # Draws of both are independent, and in no order.
            pool = np.column_stack([np.resize(standing.drawn, (DRAWS, standing.drawn.shape[1])), drawn])
            first = pool.shape[1] - len(rows)
            lowest = pool.argmin(axis=1)
            probability = np.bincount(lowest, minlength=pool.shape[1])[first:] / len(pool)
            regret = np.expm1(drawn - pool.min(axis=1, keepdims=True)).mean(axis=0)
            better = float(np.mean(lowest >= first))
        low, high = np.exp(np.quantile(drawn, [0.025, 0.975], axis=0))
        pairs = [
            PredictedPair(
                str(row["family"]), str(row["size"]), float(np.exp(drawn[:, i].mean())), float(low[i]), float(high[i]),
                float(probability[i]), float(regret[i]), float(row["images"]), float(row["rate"]),
            )
            for i, row in enumerate(records(rows))
        ]  # fmt: skip
        pairs.sort(key=lambda p: (-np.nan_to_num(p.probability), p.gfid))
        return JointPrediction(flops, best, tuple(pairs), better, tuple(notes))

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

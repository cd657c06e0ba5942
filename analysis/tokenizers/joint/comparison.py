"""How well the joint law and its rivals predict what they were not fitted to: a tokenizer, the longest runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from results.errors import FitError

from ..rows import Record
from .fitting import JointFit, fit_joint
from .floors import FloorLaw
from .gaussian_process import GaussianProcess
from .law import FORMS, Form
from .table import SAME, Centre, Identified

Array = np.ndarray

OWN_FLOOR, LAW_FLOOR, LONGEST = "a tokenizer, floor measured", "a tokenizer, floor by law", "the largest compute"
RATE_ALONE, PROCESS = "joint, p = q", "Gaussian process"
FOLDS = 8
"""Tokenizers are left out one by one; where they are more, in so many groups."""
EXPONENTS = {"p": "k", "q": "t", "s": "u"}
"""By the column of a tokenizer that each multiplies."""


@dataclass(frozen=True)
class HeldOut(Record):
    """Error of a law on what was held out: root mean square of ln gFID, its mean (predicted over measured) `bias`, over
    `points` of `tokenizers` families."""

    case: str
    law: str
    rmse: float
    bias: float
    points: int
    tokenizers: int


@dataclass(frozen=True)
class Comparison(Record):
    """All laws on all cases; `best` has the lowest mean error over the cases that all laws have. `untested` says which
    tokenizers could not be left out, and why."""

    errors: tuple[HeldOut, ...]
    best: str | None
    untested: tuple[str, ...]

    def error(self, law: str, case: str) -> HeldOut | None:
        """That of one law on one case; None where it was not tested."""
        return next((e for e in self.errors if e.law == law and e.case == case), None)

    @property
    def best_form(self) -> Form | None:
        """The best of the laws that have a formula; None where nothing could be tested."""
        means = _means(self.errors)
        forms = [form for form in FORMS if form in means]
        return min(forms, key=lambda form: means[str(form)], default=None)


def compare_joint(table: pd.DataFrame) -> Comparison:
    """Every form, the joint law with p = q, and a Gaussian process, on what each case holds out of a `joint_table`."""
    left: dict[tuple[str, str], list[tuple[Array, int]]] = {}
    untested = []
    whole = Identified.of(table, Centre.of(table))
    laws = _laws(table, {"p", "q"} <= whole.names and not whole.tied)
    families = [str(name) for name in table.groupby("family")["rate"].first().sort_values().index]
    for group in (families[i::FOLDS] for i in range(min(FOLDS, len(families)))):
        hidden = table["family"].isin(group).to_numpy()
        reason = untestable(table[~hidden], table[hidden])
        if reason:
            untested.append(f"{', '.join(group)}: without it {reason}")
            continue
        for (case, law), error in _errors(table[~hidden], table[hidden], (OWN_FLOOR, LAW_FLOOR), laws):
            left.setdefault((case, law), []).append((error, len(group)))
    longest = table.groupby(["family", "size"])["images"].transform("max")
    spans = table.groupby(["family", "size"])["images"].transform("min") < longest
    hidden = ((table["images"] == longest) & spans).to_numpy()
    if hidden.any():
        for (case, law), error in _errors(table[~hidden], table[hidden], (LONGEST,), laws):
            left.setdefault((case, law), []).append((error, table["family"].nunique()))
    errors = [
        HeldOut(
            case=case,
            law=law,
            rmse=float(np.sqrt(np.mean(np.concatenate([e for e, _ in parts]) ** 2))),
            bias=float(np.mean(np.concatenate([e for e, _ in parts]))),
            points=sum(len(e) for e, _ in parts),
            tokenizers=sum(count for _, count in parts),
        )
        for (case, law), parts in left.items()
    ]
    means = _means(errors)
    best = min(means, key=lambda law: means[law]) if means else None
    return Comparison(tuple(errors), best, tuple(untested))


def _means(errors: Sequence[HeldOut]) -> dict[str, float]:
    """The mean error of each law over the cases, of the laws that have them all."""
    cases = {e.case for e in errors}
    by_law: dict[str, list[float]] = {}
    for e in errors:
        by_law.setdefault(e.law, []).append(e.rmse)
    return {law: float(np.mean(values)) for law, values in by_law.items() if len(values) == len(cases)}


def _laws(table: pd.DataFrame, nested: bool) -> list[str]:
    with_loss = table.loc[table["nats"] > 0, "tokenizer"].nunique() == table["tokenizer"].nunique()
    names = [form for form in FORMS if form != "joint" or with_loss]
    return [*names, *([RATE_ALONE] if nested and with_loss else []), PROCESS]


def untestable(rest: pd.DataFrame, hidden: pd.DataFrame) -> str | None:
    """Why the rest cannot say anything of the tokenizer left out; None where it can."""
    if rest["family"].nunique() < 2:
        return "one tokenizer is left"
    centre = Centre.of(rest)
    told = Identified.of(rest, centre).names
    known, asked = centre.columns(rest), centre.columns(hidden)
    what = {"p": "the codebook's", "q": "the tokens'", "s": "the regulariser's"}
    for name, column in EXPONENTS.items():
        if name not in told and np.abs(known[column][:, None] - asked[column][None, :]).min() > SAME:
            return f"{what[name]} exponent ({name}) is not known"
    return None


def _errors(
    rest: pd.DataFrame, hidden: pd.DataFrame, cases: Sequence[str], laws: Sequence[str]
) -> Iterator[tuple[tuple[str, str], Array]]:
    """ln (predicted / measured) of the hidden rows by case and law."""
    measured = np.log(hidden["gfid"].to_numpy(dtype=float))
    for law in laws:
        if law == PROCESS:
            features = [name for name in FEATURES if np.ptp(FEATURES[name](rest)) > SAME]
            x, at = (np.stack([FEATURES[name](rows) for name in features], axis=1) for rows in (rest, hidden))
            process = GaussianProcess.of(x, np.log(rest["gfid"].to_numpy(dtype=float)))
            error = process.predict(at)[0] - measured
            yield from (((case, law), error) for case in cases)
            continue
        fitted = fit_joint(rest, "joint" if law == RATE_ALONE else law, tied=law == RATE_ALONE)  # type: ignore[arg-type]
        for case in cases:
            floor = _floor(fitted, hidden, case)
            if floor is not None:
                yield (case, law), np.log(fitted.predict(hidden, floor)) - measured


FEATURES = {
    "log C": lambda rows: np.log(rows["path_flops"].to_numpy(dtype=float)),
    "log N": lambda rows: np.log(rows["params"].to_numpy(dtype=float)),
    "log R": lambda rows: np.log(rows["rate"].to_numpy(dtype=float)),
    "weight": lambda rows: rows["weight"].to_numpy(dtype=float),
}


def _floor(fitted: JointFit, hidden: pd.DataFrame, case: str) -> Array | None:
    """F of the hidden rows: as measured, or by the law of the others; of families without one, as fitted."""
    measured = hidden["floor"].to_numpy(dtype=float)
    if case == LAW_FLOOR:
        try:
            floors = FloorLaw.of(fitted.table, fitted.centre)
        except FitError:
            return None
        rates = np.log(fitted.table["rate"].unique())
        if floors.notes and np.abs(rates[:, None] - np.log(hidden["rate"].to_numpy(dtype=float))).min() > SAME:
            return None
        return floors.predict(hidden, fitted.centre)
    if np.isfinite(measured).all():
        return measured
    if case == OWN_FLOOR:
        return None
    lacking = sorted(set(fitted.table.loc[~(fitted.table["floor"] > 0), "family"]))
    fitted_floors = {name: fitted.result.values[f"F{i}"] for i, name in enumerate(lacking)}
    by_family = hidden["family"].map(fitted_floors).to_numpy(dtype=float)
    floor = np.where(np.isfinite(measured), measured, by_family)
    return floor if np.isfinite(floor).all() else None

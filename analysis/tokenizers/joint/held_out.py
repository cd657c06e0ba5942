"""The joint law against points that it was not fitted to, one by one: of tokenizers left out, and of longest runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from analysis.inference.bootstrap import bootstrap
from results.errors import FitError

from .comparison import FOLDS, LONGEST, OWN_FLOOR, untestable
from .fitting import fit_joint, widening
from .law import Form

REPLICATES = 60
"""Of the bootstrap behind the interval of a prediction: its ends are then known to a tenth or so of its width."""


def held_out_points(
    table: pd.DataFrame, *, replicates: int = REPLICATES, seed: int = 0
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Every point of a `fitted_table` that can be hidden from the law: first each tokenizer whole (its measured floor
    known), then the largest budget of every pair. The form is `joint` where all tokenizers have nats per image, else
    `direct`; it is not chosen by these points.

    Columns: case, family, size, tokenizer_seed, path_flops, gfid, predicted, low, high; low and high are the law's
    95 % interval, by a wild bootstrap over tokenizers, without the noise of one measurement. Second: which tokenizers
    are not among them, with the reason, in words. Raises FitError if nothing can be hidden.
    """
    form: Form = "joint" if (table["nats"] > 0).all() else "direct"
    families = [str(name) for name in table.groupby("family")["rate"].first().sort_values().index]
    hidden = [(OWN_FLOOR, table["family"].isin(families[i::FOLDS])) for i in range(min(FOLDS, len(families)))]
    ends = table.groupby(["family", "size"])["images"]
    longest = table["images"] == ends.transform("max")
    hidden.append((LONGEST, longest & (ends.transform("min") < table["images"])))
    parts, left_in = [], []
    for case, rows in hidden:
        rest, asked = table[~rows], table[rows]
        if asked.empty:
            continue
        reason = untestable(rest, asked) if case == OWN_FLOOR else None
        if not reason and not (asked["floor"] > 0).all():
            reason = "its floor is not measured"
        fitted = None if reason else fit_joint(rest, form, seed=seed)
        if fitted is None or not fitted.trusted:
            names = ", ".join(dict.fromkeys(asked["family"])) if case == OWN_FLOOR else "the largest budgets"
            left_in.append(f"{names} (without: {reason or 'no fit'})")
            continue
        floor = asked["floor"].to_numpy(dtype=float)
        predicted = fitted.predict(asked, floor)
        # Widened as predictions: parameters that make up for each other would leave the data if each was moved further.
        drawn = bootstrap(fitted.result, replicates=replicates, kind="wild", seed=seed)
        off = np.log(replace(fitted, drawn=drawn).draws(asked, replicates, seed, floor)) - np.log(predicted)
        off *= widening(rest["tokenizer"].nunique(), 1 + len(fitted.identified.names))
        low, high = predicted * np.exp(np.quantile(off, [0.025, 0.975], axis=0))
        known = asked[["family", "size", "path_flops", "gfid"]].assign(case=case, tokenizer_seed=asked["seed"])
        parts.append(known.assign(predicted=predicted, low=low, high=high))
    if not parts:
        raise FitError(f"nothing can be hidden from the joint law with the rest still telling it: {'; '.join(left_in)}")
    columns = ["case", "family", "size", "tokenizer_seed", "path_flops", "gfid", "predicted", "low", "high"]
    return pd.concat(parts, ignore_index=True)[columns], tuple(left_in)

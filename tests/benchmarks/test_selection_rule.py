"""The selection rule whose figure stands in docs/validation.md."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.inference.validation import rmsle
from results.errors import DataError

from .selection_rule import select


def test_selection_weighs_by_hidden_error_and_beats_its_worst_candidate() -> None:
    x = np.geomspace(1e15, 1e20, 60)
    y = 1.5 + 4 * (x / 1e15) ** -0.3
    data = {"x": x, "metric": y * np.exp(0.003 * np.random.default_rng(0).normal(size=60))}
    seen = {k: v[:40] for k, v in data.items()}
    chosen = select(seen)
    assert sum(chosen.weights.values()) == pytest.approx(1.0)
    assert set(chosen.weights) | set(chosen.failed) == {"m2", "shifted-power", "m4", "bnsl-1"}
    order = sorted(chosen.hidden_rmsle, key=lambda name: chosen.hidden_rmsle[name])
    assert chosen.best == order[0]
    assert chosen.weights[order[0]] == max(chosen.weights.values())
    ahead = {k: v[40:] for k, v in data.items()}
    errors = {n: rmsle(r.predict(ahead), ahead["metric"]) for n, r in chosen.results.items()}
    mixed = rmsle(chosen.predict(ahead), ahead["metric"])
    assert mixed is not None and mixed < max(e for e in errors.values() if e is not None)
    with pytest.raises(DataError, match="not more than 6"):
        select({k: v[:6] for k, v in data.items()})

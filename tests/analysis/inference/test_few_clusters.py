"""Widening for few clusters: the exact t of two groups of clusters, and coverage where clusters share a shift."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import stdtrit

from analysis import law
from analysis.fitting.fit import fit
from analysis.inference.few_clusters import few_cluster_factors

LAW = law("A*exp(b*x)", ("x",))


def _fit(x, logs, clusters):
    data = {"x": np.asarray(x, dtype=float), "metric": np.exp(logs), "clusters": np.asarray(clusters)}
    return fit(LAW, data, loss="squares")


def test_two_groups_of_clusters_of_one_row_give_the_exact_t():
    """Residuals with their leverage given back have 3/2 of the variance, and the contrast has Student's t of 4."""
    random = np.random.default_rng(1)
    x = np.repeat([0.0, 1.0], 3)
    result = _fit(x, 0.2 + 0.5 * x + 0.1 * random.standard_normal(6), np.arange(6))
    factors = few_cluster_factors(result, np.zeros(6, dtype=np.int64))
    slope = list(result.law.names).index("b")
    assert factors[slope] == pytest.approx(np.sqrt(2 / 3) * stdtrit(4, 0.975) / stdtrit(np.inf, 0.975), rel=1e-3)


def test_a_coordinate_that_is_held_keeps_its_draws():
    x = np.repeat([0.0, 1.0], 3)
    data = {"x": x, "metric": np.exp(0.2 + 0.5 * x + 0.01 * np.arange(6) % 0.02), "clusters": np.arange(6)}
    result = fit(LAW, data, loss="squares", fixed={"b": 0.5})
    factors = few_cluster_factors(result, np.zeros(6, dtype=np.int64))
    assert factors[list(result.law.names).index("b")] == 1.0
    assert factors[list(result.law.names).index("A")] > 1.0


def test_intervals_over_few_clusters_with_a_common_shift_cover():
    """Four clusters a group, five rows each, half of the variance a shift of the cluster: 400 draws."""
    random = np.random.default_rng(7)
    clusters = np.repeat(np.arange(8), 5)
    x = (clusters >= 4).astype(float)
    slope, held = list(LAW.names).index("b"), []
    for _ in range(400):
        errors = 0.1 * random.standard_normal(8)[clusters] + 0.1 * random.standard_normal(40)
        result = _fit(x, 0.2 + 0.5 * x + errors, clusters)
        # The spread of the wild bootstrap over clusters, in closed form: its signs are independent.
        residual = np.log(result.predict({"x": x})) - 0.2 - 0.5 * x - errors
        sums = np.array([residual[clusters == c].sum() for c in range(8)]) / (1 - 1 / 20)
        spread = np.sqrt(np.sum((sums / 20) ** 2))
        half = few_cluster_factors(result, np.zeros(40, dtype=np.int64))[slope] * stdtrit(np.inf, 0.975) * spread
        held.append(abs(result.parameters["b"].value - 0.5) <= half)
    assert 0.92 <= np.mean(held) <= 0.98

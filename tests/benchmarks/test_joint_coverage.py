"""The benchmark of coverage on a few studies: every quantity is judged, and intervals hold more than they miss."""

from __future__ import annotations

import numpy as np
import pytest

from .bench_joint_coverage import main


@pytest.mark.slow
def test_intervals_of_a_few_studies_hold_most_truths() -> None:
    held = main(4, 40)
    assert {"alpha", "beta", "p", "q", "s", "gamma", "multiplier"} <= set(held)
    assert {"R*", "N*"} == {name.removesuffix(" at an end") for name in held if "*" in name}
    assert np.mean([hit for hits in held.values() for hit in hits]) > 0.6

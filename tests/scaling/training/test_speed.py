"""What reports of progress say of speed."""

from __future__ import annotations

import torch

from scaling.training.speed import PEAKS, described_rate, peak_flops
from sweeps.study.hardware import PROFILES


def test_rates_for_people() -> None:
    assert described_rate(3.456e10, None) == "34.6 GFLOP/s"
    assert described_rate(1.25e14, PEAKS["A100"]) == "125 TFLOP/s (40 % of peak)"
    assert peak_flops(torch.device("cpu")) is None


def test_peaks_are_those_that_plans_use() -> None:
    for profile in PROFILES.values():
        if profile.device == "gpu":
            assert PEAKS[profile.name.partition("-")[0].upper()] == profile.peak

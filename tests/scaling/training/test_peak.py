"""What a device can do at most, and what reports of progress say of speed."""

from __future__ import annotations

import torch

from scaling.training.peak import GPUS, described_rate, peak_flops
from sweeps.study.hardware import PROFILES


def test_rates_for_people() -> None:
    assert described_rate(3.456e10, None) == "34.6 GFLOP/s"
    assert described_rate(1.25e14, GPUS["A100"]["bfloat16"]) == "125 TFLOP/s (40 % of peak)"
    peak = peak_flops(torch.device("cpu"), "float32")
    assert peak is not None and 1e8 < peak < 1e14


def test_peaks_are_those_that_plans_use() -> None:
    names = {profile.name: profile for profile in PROFILES.values() if profile.device == "gpu"}
    known = {name: GPUS[model] for name in names if (model := name.partition("-")[0].upper()) in GPUS}
    assert known
    for name, peaks in known.items():
        assert abs(peaks["bfloat16"] / names[name].peak - 1) < 0.01

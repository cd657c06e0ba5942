"""How fast a training computes: FLOP/s, and what share that is of what the device could."""

from __future__ import annotations

import torch

PEAKS = {"V100": 1.25e14, "A100": 3.12e14, "L40S": 3.62e14, "H100": 9.895e14, "H200": 9.895e14}
"""FLOP/s of GPUs by a part of their name: dense, in the 16-bit type that training uses there, by the vendor's data
sheets; the profiles of `sweeps.study.hardware` have the same."""


def peak_flops(device: torch.device) -> float | None:
    """Most FLOP/s of a device; None where it is not known, as of CPUs, whose clock and width vary."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def described_rate(flops_per_second: float, peak: float | None) -> str:
    """For people: `12.5 TFLOP/s`, of a device with a known peak `12.5 TFLOP/s (4 % of peak)`."""
    scale, unit = (1e12, "TFLOP/s") if flops_per_second >= 1e12 else (1e9, "GFLOP/s")
    share = f" ({100 * flops_per_second / peak:.0f} % of peak)" if peak else ""
    return f"{flops_per_second / scale:.3g} {unit}{share}"

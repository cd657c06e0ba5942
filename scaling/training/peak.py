"""The arithmetic that a device can do at most, and the share of it that a training reaches."""

from __future__ import annotations

import time

import torch

from scaling.specification.components import Precision

GPUS: dict[str, dict[Precision, float]] = {
    "A100": {"bfloat16": 312e12, "float32": 19.5e12},
    "H100 PCIe": {"bfloat16": 756e12, "float32": 51e12},
    "H100": {"bfloat16": 989e12, "float32": 67e12},
    "H200": {"bfloat16": 989e12, "float32": 67e12},
    "A10G": {"bfloat16": 70e12, "float32": 35e12},
    "L40S": {"bfloat16": 362e12, "float32": 91.6e12},
    "L4": {"bfloat16": 121e12, "float32": 30.3e12},
}
"""Dense FLOPs a second by part of a GPU's name, the first that fits, from NVIDIA's data sheets; products in float32 are
not shortened to TF32 here."""
SIDE, REPEATS = 512, 3


def peak_flops(device: torch.device, precision: Precision) -> float | None:
    """FLOPs a second of one process's device: a GPU's published peak, None for one that is not known; of a CPU what
    the best of a few square products reaches now, with the threads of this process."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        return next((peaks[precision] for known, peaks in GPUS.items() if known in name), None)
    if device.type != "cpu":
        return None
    matrix = torch.ones(SIDE, SIDE, dtype=getattr(torch, precision))
    seconds = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        matrix @ matrix
        seconds.append(time.perf_counter() - begun)
    return 2 * SIDE**3 / min(seconds)


def described_rate(flops_per_second: float, peak: float | None) -> str:
    """For people: `12.5 TFLOP/s`, of a device with a known peak `12.5 TFLOP/s (4 % of peak)`."""
    scale, unit = (1e12, "TFLOP/s") if flops_per_second >= 1e12 else (1e9, "GFLOP/s")
    share = f" ({100 * flops_per_second / peak:.0f} % of peak)" if peak else ""
    return f"{flops_per_second / scale:.3g} {unit}{share}"

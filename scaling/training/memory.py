"""Whether a device can hold what a training keeps between steps."""

from __future__ import annotations

import os

import torch

from results.errors import UsageError
from scaling.specification.costs import flops
from scaling.specification.spec import RunSpec, TokenizerRun

BYTES = 16
"""Of a trained parameter: float32 weight, gradient and both of AdamW's moments."""


def device_memory(device: torch.device) -> int | None:
    """Bytes of a GPU, or of this machine for a CPU; None where that is not told."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if device.type != "cpu" or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_memory(spec: RunSpec, device: torch.device, shares: int = 1) -> None:
    """Raise UsageError for a training whose weights, gradients and moments alone, cut into `shares`, are more than a
    device has; of a tokenizer it names the codebook where that is the most of it."""
    counts, memory = flops.parameters(spec), device_memory(device)
    needed = BYTES * counts.total / shares
    if memory is None or needed <= memory:
        return
    what = f"{spec.label} has {counts.total:,} parameters, which"
    if isinstance(spec, TokenizerRun) and counts.embedding > counts.other:
        quantizer = spec.quantizer
        what = f"quantizer.codebook_size = {quantizer.codebook_size} x code_dim = {quantizer.code_dim}"
    raise UsageError(
        f"{what} takes {needed / 1e9:,.1f} GB for weights, gradients and moments, and {device.type} has "
        f"{memory / 1e9:,.1f} GB; allowed: less than that, or strategy = 'fsdp2' for a generator of several processes"
    )

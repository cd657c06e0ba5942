"""Whether the budgets of a plan overlap: generator sizes of one tokenizer whose ranges of compute leave a gap."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from sweeps.study.external_run import ExternalRun

from .planned_run import PlannedRun

NOTE = "between them one of the two is known by its law alone; more training images of the smaller one close the gap"


def gaps(runs: Iterable[PlannedRun]) -> list[str]:
    """A sentence for each tokenizer and neighbouring sizes where the smaller ends before the larger begins, such as
    `K16-T16: XS ends at 9.3e10 FLOPs, S begins at 1.8e11`."""
    spans: dict[str, dict[str, tuple[float, float]]] = {}
    for run in runs:
        if run.stage != "generator" or isinstance(run.spec, ExternalRun) or not run.train_images:
            continue
        each = float(run.facts["flops_per_image"] or 0)
        if not each:
            continue
        sizes = spans.setdefault(str(run.facts["tokenizer"]), {})
        low, high = sizes.get(run.size, (float("inf"), 0.0))
        sizes[run.size] = min(low, each * min(run.train_images)), max(high, each * max(run.train_images))
    notes = []
    for tokenizer, sizes in spans.items():
        ordered = sorted(sizes.items(), key=lambda item: item[1])
        for (small, (_, end)), (large, (begin, _)) in pairwise(ordered):
            if end < begin:
                notes.append(f"{tokenizer}: {small} ends at {end:.1e} FLOPs, {large} begins at {begin:.1e}: {NOTE}")
    return [note.replace("e+", "e") for note in notes]

"""Whether the budgets of a plan overlap: generator sizes of one tokenizer whose ranges of compute leave a gap."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from sweeps.study.external_run import ExternalRun

from .planned_run import PlannedRun

CLOSE = 1.05
"""Budgets meant to be equal differ this much at most: images are whole batches."""
NAMED = 3
"""Tokenizers that a sentence names at most."""
NOTE = "between them one of the two is known by its law alone; more training images of the smaller one close the gap"


def gaps(runs: Iterable[PlannedRun]) -> list[str]:
    """A sentence for every two neighbouring sizes where the smaller ends before the larger begins, such as
    `K16-T16: XS ends at 9.3e10 FLOPs, S begins at 1.8e11`; of several tokenizers the least and the most."""
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
    found: dict[tuple[str, str], list[tuple[str, float, float]]] = {}
    for tokenizer, sizes in spans.items():
        ordered = sorted(sizes.items(), key=lambda item: item[1])
        for (small, (_, end)), (large, (begin, _)) in pairwise(ordered):
            if end * CLOSE < begin:
                found.setdefault((small, large), []).append((tokenizer, end, begin))
    notes = []
    for (small, large), each_of in found.items():
        tokenizers, ends, begins = zip(*each_of, strict=True)
        named = ", ".join(tokenizers[:NAMED])
        named += f" and {len(tokenizers) - NAMED} more" if len(tokenizers) > NAMED else ""
        notes.append(f"{named}: {small} ends at {_span(ends)} FLOPs, {large} begins at {_span(begins)}: {NOTE}")
    return notes


def _span(values: Sequence[float]) -> str:
    """The least and the most of some FLOPs: `6.4e09 to 8.9e09`."""
    return " to ".join(dict.fromkeys(f"{value:.1e}".replace("e+", "e") for value in (min(values), max(values))))

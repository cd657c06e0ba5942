"""Report, optimum and a fit of a synthetic study of 10,000 runs, beside their limits.

    python tests/benchmarks/bench_large_report.py [RUNS=10000]

The study of bench_large_study.py: its frames are made once, and each command's work is timed on frames of its own, as
if it was called alone. The profile of processor time is of this process; the page is left in a temporary folder.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench_large_study import synthetic_tables

from analysis.reporting.report import write_report
from analysis.tokenizers.compute_law import compute_law
from analysis.tokenizers.frames import StudyFrames, from_tables
from analysis.tokenizers.pairs import best_pairs, default_budgets

LIMITS = {"frames, fits, optimum": (60.0, 4.0), "report": (60.0, None)}
PAGE_MB = 15.0


def main() -> None:
    """Print seconds and processor seconds of each part, the page's size and the peak of memory."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    tables = synthetic_tables(count)

    def timed(what: str, work: Callable[[], Any]) -> tuple[Any, float]:
        wall, processor = time.perf_counter(), time.process_time()
        result = work()
        seconds = time.perf_counter() - wall
        print(f"{what:<24} {seconds:7.1f} s  {time.process_time() - processor:7.1f} processor s", flush=True)
        return result, seconds

    def fits(frames: StudyFrames) -> list[Any]:
        return [law for family in frames.families["family"][:6] for law in compute_law(frames.ranked, family).laws]

    def optimum(frames: StudyFrames) -> list[Any]:
        budgets = default_budgets(frames.ranked)
        return [best_pairs(frames.ranked, flops, curves=frames.curves_of_pairs) for flops in budgets]

    frames, first = timed("frames", lambda: from_tables(tables))
    print(f"  {len(frames.runs):,} runs, {len(frames.evaluations):,} evaluations, {len(frames.families)} tokenizers")
    _, second = timed("laws of fronts", lambda: fits(frames))
    _, third = timed("optimum, three budgets", lambda: optimum(frames))
    seconds, gigabytes = LIMITS["frames, fits, optimum"]
    print(
        f"  together {first + second + third:.1f} s (limit {seconds:.0f} s), peak {_peak():.2f} GiB (limit {gigabytes} GB)"
    )
    with tempfile.TemporaryDirectory() as folder:
        fresh = from_tables(tables)
        report, wall = timed("report", lambda: write_report(fresh, Path(folder), title="Many runs"))
        size = report.index.stat().st_size / 1e6
        print(
            f"  {wall:.1f} s (limit {LIMITS['report'][0]:.0f} s), {size:.2f} MB (limit {PAGE_MB:.0f} MB), peak {_peak():.2f} GiB"
        )


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()

"""Report, optimum and a fit of a synthetic study of 10,000 runs, beside their limits.

    python tests/benchmarks/bench_large_report.py [RUNS=10000] [FOLDER]

The study of bench_large_study.py. The report is timed on frames of its own, as if it was called alone; with FOLDER it
is kept there. Seconds grow with what else the machine does; processor seconds less so.
"""

from __future__ import annotations

import resource
import shutil
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

SECONDS, GIGABYTES, PAGE_MB = 60.0, 4.0, 15.0
"""Limits of a study of 10,000 runs: of frames, fits and optimum together, and of the report; its page."""


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
    together = first + second + third
    print(f"  together {together:.1f} s (limit {SECONDS:.0f} s), peak {_peak():.2f} GiB (limit {GIGABYTES:.0f} GB)")
    with tempfile.TemporaryDirectory() as folder:
        fresh = from_tables(tables)
        report, wall = timed("report", lambda: write_report(fresh, Path(folder), title="Many runs"))
        size = report.index.stat().st_size / 1e6
        limits = f"{wall:.1f} s (limit {SECONDS:.0f} s), {size:.2f} MB (limit {PAGE_MB:.0f} MB)"
        print(f"  {limits}, peak {_peak():.2f} GiB")
        if len(sys.argv) > 2:
            shutil.copytree(folder, sys.argv[2], dirs_exist_ok=True)


def _peak() -> float:
    """Largest memory of this process so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()

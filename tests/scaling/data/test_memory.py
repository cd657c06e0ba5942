"""Memory of an epoch over many pictures does not grow with their number."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks/bench_pictures.py"
ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_an_epoch_over_20000_pictures_in_shards_takes_little_memory() -> None:
    command = [sys.executable, str(BENCHMARK), "memory", "20000"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=1500, env={"PYTHONPATH": str(ROOT), "PATH": ""}
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    alone = float(lines[0].split("alone ")[1].removesuffix(" MB").replace(",", ""))
    peaks = [float(line.split("peak ")[1].removesuffix(" MB").replace(",", "")) for line in lines[1:5]]
    assert max(peaks) < alone + 150, done.stdout

"""Samples that real processes draw together: the figures of one, two and four of them are the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scaling.ranks import Place

from ..training.test_distributed import run_ranks
from .sampled_process import judged

PROGRAM = Path(__file__).with_name("sampled_process.py")


def together(size: int, folder: Path) -> list[dict[str, float]]:
    """The figures as each of `size` processes has them."""
    folder.mkdir()
    run_ranks(PROGRAM, size, folder)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(size)]


@pytest.mark.slow
def test_one_two_and_four_processes_give_the_same_figures(tmp_path: Path) -> None:
    alone = judged(Place())
    assert alone["FID"] > 0 and 0 < alone["pixels"] < 255
    for size in (2, 4):
        for figures in together(size, tmp_path / str(size)):
            assert figures == pytest.approx(alone, rel=1e-9, abs=1e-9)

"""What optimum and next say of a study: which compute they count, what stands alone, and what can be asked instead."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from sweeps.cli.app import app

STUDY = str(Path(__file__).parents[4] / "docs" / "studies" / "fashion")


def invoke(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == code, result.output
    return result.output


def test_optimum_calls_no_pair_the_best_of_one() -> None:
    text = invoke("optimum", STUDY, "--serve", "1e8", "--flops", "1e14", "--within-range", code=1)
    assert "--serve) costs" not in text and "within range: up to" in text
    text = invoke("optimum", STUDY, "--serve", "1e8", "--flops", "1e14")
    assert "at 1e+14 FLOPs: K16-T16 + XS, the only pair judged there\n" in text
    assert "of 1 pairs" not in text and "100%" not in text.split("at 1e+14")[0]
    text = invoke("optimum", STUDY, "--flops", "1.5e10", "--within-range")
    assert "at 1.5e+10 FLOPs: K16-T16 + XS, the only pair measured there\n" in text


def test_budgets_that_pay_for_no_run_name_the_least_that_does() -> None:
    words = ("optimum", STUDY, "--total", "--generators", "7", "--within-range", "--flops")
    text = invoke(*words, "1.6e11", code=1)
    assert "(--total, --serve) costs 3.61e+11 at least; the smallest budget that is judged: 3.74e+11" in text
    assert "at 3.74e+11 FLOPs: " in invoke(*words, "3.74e11")
    beyond = invoke("optimum", STUDY, "--within-range", "--flops", "1e16", code=1)
    assert "no run was measured at 1e+16 FLOPs; within range: 1.17e+10 to 2.21e+12" in beyond


def test_optimum_refuses_the_best_guidance_of_a_study_without() -> None:
    assert "measured without guidance only; allowed: none" in invoke("optimum", STUDY, "--guidance", "best", code=2)


def test_next_says_which_compute_it_decides_at() -> None:
    words = ("next", STUDY, "--flops", "1e12", "--budget", "1e11", "--trained-only")
    assert "at 1e+12 FLOPs of training the generator alone the expected regret" in invoke(*words)
    total = (*words, "--total", "--generators", "7")
    assert "at 1e+12 FLOPs of training the generator and 1/7 of its tokenizer's the expected" in invoke(*total)
    assert json.loads(invoke(*total, "--json"))["compute"]["generators"] == 7

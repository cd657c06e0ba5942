"""The fitting commands in this process, as a user types them, and points to fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import typer
from typer.testing import CliRunner

from sweeps.cli.laws import compare, fit, optimum

app = typer.Typer()
for command in (fit.fit, fit.predict, optimum.optimum, compare.validate, compare.compare, optimum.isoflop):
    app.command()(command)
runner = CliRunner()


def run(*words: object) -> str:
    result = runner.invoke(app, [str(w) for w in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def run_json(*words: object) -> Any:
    return json.loads(run(*words, "--json"))


def write_points(path: Path) -> Path:
    """80 points of a Chinchilla law with noise, in two families and runs of four."""
    rng = np.random.default_rng(0)
    params, tokens = np.exp(rng.uniform(16, 22, 80)), np.exp(rng.uniform(20, 26, 80))
    loss = 1.7 + 400 / params**0.34 + 2000 / tokens**0.37
    table = pd.DataFrame(
        {
            "N": params,
            "D": tokens,
            "C": 6 * params * tokens,
            "loss": loss * np.exp(0.005 * rng.normal(size=80)),
            "family": np.repeat(["VQ", "CRT"], 40),
            "run": np.arange(80) // 4,
            "times": rng.integers(1, 3, 80),
            "late": (np.arange(80) >= 70).astype(int),
        }
    )
    table.to_csv(path, index=False)
    return path


def write_fit(csv: Path, out: Path) -> Path:
    """The file of a fit to these points."""
    run(
        "fit",
        csv,
        "--law",
        "chinchilla",
        "--params",
        "N",
        "--tokens",
        "D",
        "--flops",
        "C",
        "--bootstrap",
        100,
        "--out",
        out,
    )
    return out

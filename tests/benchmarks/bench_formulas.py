"""Laws as formulas: time beside the laws that ship, and R2 on the held-out rows of ScaleBench (arXiv 2604.22753).

Usage: python tests/benchmarks/bench_formulas.py [speed] [TASK ...]  with ../shared/data beside the clone; times are
CPU seconds of this process, the best of three for speed. "paper" is the mean R2 that its fit to all data reaches.
"""

from __future__ import annotations

import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.fitting.fit import fit
from analysis.fitting.laws.formulas.equation import formula_law
from analysis.fitting.result import FitResult
from analysis.inference.bootstrap import bootstrap

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[2] / "shared" / "data"
PAPER = {"moe": 0.81, "data_constrained": 0.79, "farseer": 0.91, "lr_bsz": 0.04}


def timed(law: object, points: dict[str, np.ndarray], times: int = 3) -> tuple[float, FitResult]:
    """CPU seconds of a fit, the best of several, and the fit."""
    best = np.inf
    for _ in range(times):
        begun = time.process_time()
        result = fit(law, points)  # type: ignore[arg-type]
        best = min(best, time.process_time() - begun)
    return float(best), result


def speed() -> None:
    """Chinchilla, Kaplan and data-constrained by name and by formula, and 4000 bootstraps of the first."""
    sys.path.insert(0, str(HERE.parents[1] / "tests" / "analysis" / "fitting" / "formulas"))
    from test_law import DATA_CONSTRAINED

    table = pd.read_csv(DATA / "chinchilla_replication.csv")
    n, c = table["Model Size"].to_numpy(float), table["Training FLOP"].to_numpy(float)
    chinchilla = {"N": n, "D": c / (6 * n), "metric": table["loss"].to_numpy(float)}
    table = pd.read_parquet(DATA / "scalebench" / "data_constrained_train.parquet")
    repeated = {"N": table.params, "D": table.tokens, "U": table.unique_tokens, "metric": table.loss}
    names = {"N": "params", "D": "tokens", "U": "unique_tokens"}
    for name, text, points in (
        ("chinchilla", "E + A/N^alpha + B/D^beta", chinchilla),
        ("kaplan", "((Nc/N)^(aN/aD) + Dc/D)^aD", chinchilla),
        ("data-constrained", DATA_CONSTRAINED, {k: v.to_numpy(float) for k, v in repeated.items()}),
    ):
        law = formula_law(text, [column for column in points if column != "metric"])
        by_name, right = timed(name, {names.get(k, k): v for k, v in points.items()})
        by_formula, got = timed(law, points)
        begun = time.process_time()
        replicates = 4000 if name == "chinchilla" else 0
        if replicates:
            bootstrap(got, replicates=replicates)
        print(
            f"{name:<17} by name {by_name * 1e3:7.1f} ms, by formula {by_formula * 1e3:7.1f} ms: "
            f"{by_formula / by_name:.2f} times; objective {got.objective / right.objective - 1:+.1e} relative to that"
            + (f"; {replicates} bootstraps {time.process_time() - begun:.2f} s" if replicates else "")
        )


def scalebench(task: str) -> None:
    """R2 of every law of a task on its test rows, clipped to [-1, 1], and the mean."""
    with (HERE / "scalebench.toml").open("rb") as file:
        told = tomllib.load(file)[task]
    train, test = (pd.read_parquet(DATA / "scalebench" / f"{task}_{split}.parquet") for split in ("train", "test"))
    seen = test[told["metric"]].to_numpy(float)
    scores = []
    for number, text in enumerate(told["laws"], start=1):
        law = formula_law(text, list(told["columns"]))
        points = {name: train[column].to_numpy(float) for name, column in told["columns"].items()}
        seconds, result = timed(law, points | {"metric": train[told["metric"]].to_numpy(float)}, times=1)
        predicted = result.predict({name: test[column].to_numpy(float) for name, column in told["columns"].items()})
        score = 1 - np.sum((seen - predicted) ** 2) / np.sum((seen - seen.mean()) ** 2)
        scores.append(float(np.clip(score, -1, 1)))
        ended = f"R2 {scores[-1]:6.3f}  {result.status.value}  {seconds:.1f} s"
        print(f"{task} {number:>2}  {len(law.names):>2} parameters  {ended}", flush=True)
    print(f"{task}: mean R2 {np.mean(scores):.3f} of {len(scores)} laws (paper, all data: {PAPER[task]})", flush=True)


if __name__ == "__main__":
    wanted = sys.argv[1:] or ["speed", *PAPER]
    for what in wanted:
        speed() if what == "speed" else scalebench(what)

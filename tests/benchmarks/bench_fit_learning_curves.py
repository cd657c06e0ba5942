"""The 92 learning curves of Alabdulmohsin et al. 2022: fit Training == 1, predict Training == 0, mean RMSLE and time.

    OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 python tests/benchmarks/bench_fit_learning_curves.py

Prints the table by domain for M1 to M4 and BNSL-1, the time of the whole table, how the fits ended, and the selection
rule beside every single law on the half of the tasks that did not shape it (split by a hash of the task's name).
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from selection_rule import select  # beside this file

from analysis.fitting.fit import fit, fit_groups
from analysis.inference.validation import rmsle

DATA = Path(__file__).parents[2].parent / "shared" / "data"
OPTIONS = {"starts": 4, "max_iterations": 800}
LAWS = ("m1", "m2", "m3", "m4", "bnsl-1")
MORE = "shifted-power"  # a candidate of the selection rule that is not in the published table
PUBLISHED = {  # mean RMSLE by domain with exactly minimised objectives of the authors' residuals
    "IC": (0.1046, 0.0859, 0.0591, 0.0520, 0.0414),
    "NMT": (0.222, 0.162, 0.0131, 0.152, 0.0105),
    "LM": (0.0140, 0.0109, 0.0034, 0.0108, 0.0008),
    "BB": (0.0148, 0.0148, 0.0105, 0.0164, 0.0129),
}


def tasks() -> list[tuple[str, str, pd.DataFrame, pd.DataFrame]]:
    """(domain, name, rows to fit, rows to predict) of the 92 tasks."""
    parts = [pd.read_csv(DATA / f"alabdulmohsin_benchmark.{kind}.csv") for kind in ("vision", "lang")]
    table = pd.concat(parts, ignore_index=True)
    out = []
    for key, rows in table.groupby(["Domain", "Task", "Model"]):
        out.append((key[0], "/".join(key), rows[rows.Training == 1], rows[rows.Training == 0]))
    return out


def half_of(name: str) -> int:
    """0 for the half of the tasks on which the selection rule was designed, 1 for the other."""
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % 2


def columns(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """The rows as points of a one-variable law."""
    return {"x": rows["Seen Examples"].to_numpy(), "metric": rows["Loss"].to_numpy()}


def main() -> None:
    """Print the tables."""
    everything = tasks()
    ended: dict[str, Counter[str]] = {law: Counter() for law in LAWS}
    fit("m4", columns(everything[0][2]))  # imports and caches, outside the clock
    began, cpu = time.perf_counter(), time.process_time()
    curves = {name: columns(seen) for _, name, seen, _ in everything}
    rows: list[dict[str, object]] = [{"domain": domain, "name": name} for domain, name, _, _ in everything]
    for law in LAWS:
        results = fit_groups(law, curves, loss="squares", **OPTIONS)
        for row, (_, name, _, hidden) in zip(rows, everything, strict=True):
            ended[law][results[name].status.value] += 1
            row[law] = rmsle(results[name].predict(columns(hidden)), hidden["Loss"])
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    table = pd.DataFrame(rows)
    print(f"{len(table)} tasks, log residuals, least squares: {wall:.1f} s ({cpu:.1f} s of CPU) for the whole table")
    means = table.groupby("domain")[list(LAWS)].mean()
    for domain, published in PUBLISHED.items():
        cells = zip(LAWS, published, strict=True)
        print(f"{domain:4}", *(f"{law} {means.loc[domain, law]:.4f} ({p:.4f})" for law, p in cells))
    sizes = table.groupby("domain").size()
    for k, law in enumerate(LAWS):
        listed = sum(PUBLISHED[d][k] * sizes[d] for d in PUBLISHED) / sizes.sum()
        print(f"all  {law:7} {table[law].mean():.4f}, published {listed:.4f}: {table[law].mean() / listed - 1:+.1%}")
    for law in LAWS:
        print(f"{law:7} ended:", ", ".join(f"{count} {status}" for status, count in ended[law].most_common()))
    began = time.perf_counter()
    chosen = []
    for (_, name, seen, hidden), row in zip(everything, rows, strict=True):
        selection = select(columns(seen))
        mixed = rmsle(selection.predict(columns(hidden)), hidden["Loss"])
        single = rmsle(selection.results[selection.best].predict(columns(hidden)), hidden["Loss"])
        logs = [np.log(r.predict(columns(hidden))) for r in selection.results.values()]
        equal = rmsle(np.exp(np.mean(logs, axis=0)), hidden["Loss"])
        row[MORE] = rmsle(fit(MORE, columns(seen), loss="squares", **OPTIONS).predict(columns(hidden)), hidden["Loss"])
        chosen.append(
            {**row, "half": half_of(name), "rule": mixed, "rule's best law alone": single, "equal weights": equal}
        )
    print(f"selection rule, {time.perf_counter() - began:.1f} s; mean RMSLE:")
    for half, title in ((0, "half it was designed on"), (1, "other half")):
        part = pd.DataFrame(chosen).query(f"half == {half}")
        parts = [f"{c} {part[c].mean():.4f}" for c in (*LAWS, MORE, "rule's best law alone", "equal weights", "rule")]
        print(f"{title} ({len(part)} tasks):", ", ".join(parts))


if __name__ == "__main__":
    main()

"""Coverage of nominal 95 % intervals on synthetic Chinchilla laws.

    python tests/benchmarks/bench_fit_coverage.py [LAWS=1000] [REPLICATES=200]

Random laws, n = 60 and 240 rows, 1 % noise in log loss, Gaussian or Student-t with 3 degrees of freedom; log-Huber
loss with delta 1e-3, as the command line does by default. Counts how often the intervals of the row bootstrap, the
wild bootstrap and the profile hold each true parameter. An open end counts as holding everything on its side.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from analysis.fitting.fit import fit
from analysis.inference.bootstrap import bootstrap, with_intervals
from analysis.inference.profile import with_profile

NAMES = ("E", "A", "B", "alpha", "beta")


def random_law(rng: np.random.Generator) -> dict[str, float]:
    """A Chinchilla law each of whose terms matters in the middle of the data."""
    alpha, beta = rng.uniform(0.25, 0.5, 2)
    a, b = np.exp(rng.uniform(np.log(0.2), 0, 2))
    return {"E": rng.uniform(1, 2.5), "A": a * 2e8**alpha, "B": b * 1e10**beta, "alpha": alpha, "beta": beta}


def draw_points(law: dict[str, float], n: int, noise: str, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """n rows, log-uniform in N and D."""
    params = np.exp(rng.uniform(np.log(1e7), np.log(5e9), n))
    tokens = np.exp(rng.uniform(np.log(5e8), np.log(2e11), n))
    mean = law["E"] + law["A"] / params ** law["alpha"] + law["B"] / tokens ** law["beta"]
    error = rng.normal(size=n) if noise == "gaussian" else rng.standard_t(3, n)
    return {"params": params, "tokens": tokens, "metric": mean * np.exp(0.01 * error)}


def main() -> None:
    """Print the table."""
    laws = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    replicates = int(sys.argv[2]) if len(sys.argv) > 2 else 200
    print(f"{laws} laws, {replicates} replicates")
    print("n    noise     method   " + "  ".join(f"{name:>6}" for name in NAMES) + "    mean   s")
    for n in (60, 240):
        for noise in ("gaussian", "student"):
            rng = np.random.default_rng(2024)
            hits: dict[str, np.ndarray] = {m: np.zeros(len(NAMES)) for m in ("rows", "wild", "profile")}
            seconds = dict.fromkeys(hits, 0.0)
            for _ in range(laws):
                law = random_law(rng)
                result = fit("chinchilla", draw_points(law, n, noise, rng))
                for method in hits:
                    began = time.process_time()
                    if method == "profile":
                        full = with_profile(result)
                    else:
                        full = with_intervals(result, bootstrap(result, replicates=replicates, kind=method))
                    seconds[method] += time.process_time() - began
                    for k, name in enumerate(NAMES):
                        e = full.parameters[name]
                        low = -np.inf if e.low is None else e.low
                        high = np.inf if e.high is None else e.high
                        hits[method][k] += low <= law[name] <= high
            for method, count in hits.items():
                shares = count / laws
                cells = "  ".join(f"{s:6.1%}" for s in shares)
                print(f"{n:<4} {noise:9} {method:8} {cells}  {shares.mean():6.1%} {seconds[method]:5.0f}", flush=True)


if __name__ == "__main__":
    main()

"""Speed of the fit and of 4000 bootstraps on the 240 Chinchilla points, beside scipy in the same run.

    OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 python tests/benchmarks/bench_fit_speed.py [STARTS=4500] [REPLICATES=200]

Seconds are CPU seconds of this process (one thread), so that other work on the machine counts less. scipy gets what the
replication notebook of Besiroglu et al. 2024 did: L-BFGS-B from 4500 starts (the grid of Hoffmann et al. 2022) with
numerical gradients, and one BFGS start a bootstrap replicate, from Hoffmann et al.'s parameters, with the gradients of
autograd (where that package is installed); beside it BFGS with scipy's numerical gradients and with exact hand-written
ones. With smaller arguments its time is scaled up, and said.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import minimize

from analysis.fitting.fit import fit
from analysis.inference.bootstrap import bootstrap
from analysis.inference.profile import profile

DATA = Path(__file__).parents[2].parent / "shared" / "data"
BEST = 1.018274017801e-3
HOFFMANN = np.array([6.0073404, 6.0179186, 0.5267228, 0.33917084, 0.2849083])  # log A, log B, log E, alpha, beta


def seconds(work: Callable[[], object], times: int) -> tuple[float, float]:
    """Least and median CPU seconds of `times` calls."""
    taken = []
    for _ in range(times):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return float(min(taken)), float(np.median(taken))


def main() -> None:
    """Print the times and ratios."""
    starts = int(sys.argv[1]) if len(sys.argv) > 1 else 4500
    replicates = int(sys.argv[2]) if len(sys.argv) > 2 else 200
    table = pd.read_csv(DATA / "chinchilla_replication.csv")
    n, c, loss = (table[k].to_numpy() for k in ("Model Size", "Training FLOP", "loss"))
    keep = loss < np.sort(loss)[-5]
    n, d, loss = n[keep], c[keep] / (6 * n[keep]), loss[keep]
    points = {"params": n, "tokens": d, "metric": loss}
    result = fit("chinchilla", points)
    print(
        f"objective / best known - 1 = {result.objective / BEST - 1:+.1e}, {result.starts_agreeing} of 8 starts agree"
    )
    fastest, median = seconds(lambda: fit("chinchilla", points), 21)
    print(f"fit: {1e3 * fastest:.1f} ms least, {1e3 * median:.1f} ms median of 21")
    quick, half = seconds(lambda: bootstrap(result), 5)
    print(f"4000 bootstraps: {quick:.2f} s least, {half:.2f} s median of 5")
    profiled, _ = seconds(lambda: profile(result), 5)
    print(f"profile of 5 parameters: {1e3 * profiled:.0f} ms least")

    log_n, log_d, log_loss = np.log(n), np.log(d), np.log(loss)

    def objective(theta: np.ndarray, w: np.ndarray | float = 1.0) -> tuple[float, np.ndarray]:
        """The log-sum-exp form of Hoffmann et al. with its exact gradient."""
        a, b, e, alpha, beta = theta
        by_n, by_d = np.exp(np.clip(a - alpha * log_n, -300, 300)), np.exp(np.clip(b - beta * log_d, -300, 300))
        total = by_n + by_d + np.exp(e)
        r = np.log(total) - log_loss
        size = np.abs(r)
        pull = w * np.clip(r, -1e-3, 1e-3) / total
        first, second = pull * by_n, pull * by_d
        gradient = [first.sum(), second.sum(), pull.sum() * np.exp(e), -first @ log_n, -second @ log_d]
        value = np.sum(w * np.where(size < 1e-3, 0.5 * r**2, 1e-3 * (size - 0.5e-3)))
        return float(value), np.array(gradient)

    def value_alone(theta: np.ndarray, w: np.ndarray | float = 1.0) -> float:
        """The objective without its gradient."""
        a, b, e, alpha, beta = theta
        by_n, by_d = np.exp(np.clip(a - alpha * log_n, -300, 300)), np.exp(np.clip(b - beta * log_d, -300, 300))
        size = np.abs(np.log(by_n + by_d + np.exp(e)) - log_loss)
        return float(np.sum(w * np.where(size < 1e-3, 0.5 * size**2, 1e-3 * (size - 0.5e-3))))

    grid = list(
        itertools.product(
            range(0, 30, 5), range(0, 30, 5), np.arange(-1, 1.5, 0.5), np.arange(0, 2.5, 0.5), np.arange(0, 2.5, 0.5)
        )
    )
    chosen = grid[:: max(1, len(grid) // starts)][:starts]
    for title, exact in (("numerical gradients, as published", False), ("exact gradients", True)):
        began, reached = time.process_time(), 0
        for one in chosen:
            work = objective if exact else value_alone
            found = minimize(work, np.array(one, dtype=float), jac=exact, method="L-BFGS-B")
            reached += found.fun < BEST * (1 + 1e-3)
        took = (time.process_time() - began) * len(grid) / len(chosen)
        scaled = "" if len(chosen) == len(grid) else f" (scaled from {len(chosen)})"
        near = f"{reached / len(chosen):.1%} within 1e-3 of the best"
        print(f"scipy L-BFGS-B, {title}, from {len(grid)} starts{scaled}: {took:.1f} s; {near}")
        print(f"    the fit is {took / fastest:.0f} times faster ({took / median:.0f} by medians)", flush=True)

    weights = np.random.default_rng(0).multinomial(len(n), np.full(len(n), 1 / len(n)), size=replicates)
    ours = bootstrap(result, resamples=np.stack([np.repeat(np.arange(len(n)), w) for w in weights]))
    best = np.array([objective(_coordinates(ours.parameters, k), w)[0] for k, w in enumerate(weights)])
    variants: list[tuple[str, Callable[..., object], object, dict[str, float]]] = [
        ("numerical gradients", value_alone, None, {}),
        ("exact gradients", objective, True, {}),
        ("exact gradients, gtol 1e-9", objective, True, {"gtol": 1e-9}),
    ]
    traced = _autograd(log_n, log_d, log_loss)
    if traced is not None:
        variants.insert(0, ("autograd's gradients, as published", *traced, {}))
    for title, work, slope, options in variants:
        began = time.process_time()
        found = [minimize(work, HOFFMANN, args=(w,), jac=slope, method="BFGS", options=options).x for w in weights]
        took = (time.process_time() - began) * 4000 / replicates
        values = np.array([objective(theta, w)[0] for theta, w in zip(found, weights, strict=True)])
        near = np.mean(values <= best * (1 + 1e-4))
        print(f"scipy BFGS, {title}: {took:.0f} s for 4000 (scaled from {replicates}); {near:.0%} within 1e-4 of ours")
        print(f"    the bootstrap is {took / quick:.0f} times faster ({took / half:.0f} by medians)", flush=True)


def _autograd(log_n: np.ndarray, log_d: np.ndarray, log_loss: np.ndarray) -> tuple[Callable, Callable] | None:
    """The weighted objective written for autograd, and its gradient; None where the package is not installed."""
    try:
        import autograd.numpy as anp
        from autograd import grad
    except ImportError:
        return None

    def work(theta: np.ndarray, w: np.ndarray) -> float:
        a, b, e, alpha, beta = theta
        size = anp.abs(anp.log(anp.exp(a - alpha * log_n) + anp.exp(b - beta * log_d) + anp.exp(e)) - log_loss)
        return anp.sum(w * anp.where(size < 1e-3, 0.5 * size**2, 1e-3 * (size - 0.5e-3)))

    return work, grad(work)


def _coordinates(p: Mapping[str, np.ndarray], k: int) -> np.ndarray:
    return np.array([np.log(p["A"][k]), np.log(p["B"][k]), np.log(p["E"][k]), p["alpha"][k], p["beta"][k]])


if __name__ == "__main__":
    main()

"""How exact fits of the 92 learning curves are, with noise added too, and what fitting them side by side saves.

    OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 python tests/benchmarks/bench_fit_exactness.py

Prints, with the options of bench_fit_learning_curves.py: how far M3, M4 and BNSL-1 end above the best of 24 polished
starts of 1500 iterations, for the curves and for noisy copies; how many copies that differ from their curve in the
twelfth digit end with another status; in how many curves a law ends above one that it contains; and how long the
curves take one after the other and side by side.
"""

from __future__ import annotations

import time

import numpy as np
from bench_fit_learning_curves import OPTIONS, columns, tasks

from analysis.fitting.fit import fit, fit_groups

Curves = dict[str, dict[str, np.ndarray]]
LAWS = ("m3", "m4", "bnsl-1")
NESTED = (
    ("m1", "m2"), ("m2", "m4"), ("m2", "shifted-power"), ("m3", "bnsl-1"), ("shifted-power", "bnsl-1"),
    ("bnsl-1", "bnsl-2"), ("bnsl-2", "bnsl-3"),
)  # fmt: skip


def with_noise(curves: Curves, noise: float, copies: int) -> dict[tuple[str, int], dict[str, np.ndarray]]:
    """Copies of each curve whose metric is multiplied by 1 + noise times a normal variable."""
    rng = np.random.default_rng(0)
    return {
        (name, copy): {"x": one["x"], "metric": one["metric"] * (1 + noise * rng.standard_normal(len(one["x"])))}
        for name, one in curves.items()
        for copy in range(copies)
    }


def exactness(title: str, curves: dict, law: str) -> None:
    """Print how far objectives lie above those of long runs from many starts."""
    short = fit_groups(law, curves, loss="squares", **OPTIONS)
    long = fit_groups(law, curves, loss="squares", starts=24, max_iterations=1500)
    excess = np.array([one.objective / min(one.objective, long[name].objective) - 1 for name, one in short.items()])
    above = ", ".join(f"{int(np.sum(excess > limit))} by more than {limit:g}" for limit in (1e-8, 1e-5, 1e-3))
    print(f"{law:7} {title}, {len(excess)} fits above the long run: {above}; largest {excess.max():.1e}", flush=True)


def rounding(curves: Curves, law: str) -> None:
    """Print how many copies that are equal to eleven digits end with another status than their curve."""
    known = fit_groups(law, curves, loss="squares", **OPTIONS)
    found = fit_groups(law, with_noise(curves, 1e-11, 4), loss="squares", **OPTIONS)
    other = sum(one.status is not known[name].status for (name, _), one in found.items())
    print(f"{law:7} equal to eleven digits: {other} of {len(found)} end with another status", flush=True)


def nesting(curves: Curves) -> None:
    """Print in how many curves a law fits worse than one that it contains: what no exact minimum does."""
    named = dict.fromkeys(law for pair in NESTED for law in pair)
    found = {law: fit_groups(law, curves, loss="squares") for law in named}
    for inner, outer in NESTED:
        rise = [found[outer][name].objective / found[inner][name].objective - 1 for name in curves]
        print(f"{outer} above {inner}, which it contains: {int(np.sum(np.array(rise) > 1e-6))} of {len(rise)}")


def side_by_side(curves: Curves, law: str) -> None:
    """Print how long all curves take side by side, and one after the other."""
    began = time.perf_counter()
    fit_groups(law, curves, loss="squares", **OPTIONS)
    middle = time.perf_counter()
    for one in curves.values():
        fit(law, one, loss="squares", **OPTIONS)
    together, alone = middle - began, time.perf_counter() - middle
    print(f"{law:7} side by side {together:.1f} s, one after the other {alone:.1f} s: {alone / together:.1f} times")


def main() -> None:
    """Print everything."""
    curves = {name: columns(seen) for _, name, seen, _ in tasks()}
    fit("m4", next(iter(curves.values())))  # imports and caches, outside the clock
    for law in ("m1", "m2", *LAWS):
        side_by_side(curves, law)
    for law in LAWS:
        exactness("as published", curves, law)
    for law in LAWS:
        rounding(curves, law)
    nesting(curves)
    for law in LAWS:
        for noise in (0.005, 0.02):
            exactness(f"with {noise:.1%} noise", with_noise(curves, noise, 1), law)


if __name__ == "__main__":
    main()

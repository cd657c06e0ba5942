"""Do standard errors of Frechet distances cover at 2,048 dimensions? `bench_wide_errors.py [VALUES STATED [N [D]]]`.

A stated error costs a decomposition and its rows, a distance less. So the scatter is that of many distances, of
moments drawn without their rows (Bartlett 1933: the scatter matrix of n Gaussian rows is L T T' L', T lower triangular,
chi-squared roots on its diagonal and normal numbers below it; the mean is normal), and errors are stated for a few sets
of rows. An interval covers if it holds the mean distance at this n; each stated error is tried at each distance, which
supposes that the two are independent: the stated ones scatter by a percent or two.
"""

from __future__ import annotations

import sys
import time

import torch
from torch import Tensor

from scaling.evaluation.sets import frechet, frechet_error
from scaling.evaluation.sets.moments import Moments

NOMINAL = 1.96


def pair(d: int) -> tuple[Tensor, Moments]:
    """Scales float64 [d] of independent Gaussian features, over one and a half decades as those of networks are, and
    moments of a reference with another mean and a rotated, larger covariance."""
    generator = torch.Generator().manual_seed(1)
    scales = torch.logspace(0, -1.5, d, dtype=torch.float64)
    # A reflection, I - 2 v v', turns every feature a little, at no cost of an orthogonal factor.
    v = torch.randn(d, generator=generator, dtype=torch.float64)
    v = v / v.norm()
    root = torch.diag(scales) - 2 * v[:, None] * (v * scales)[None]
    return scales, Moments(10**9, 0.1 * scales, 1.5 * root @ root.T * (10**9 - 1))


def moments_of(n: int, scales: Tensor, generator: torch.Generator) -> Moments:
    """Moments of n rows of independent Gaussian features with these scales, drawn without the rows."""
    d = len(scales)
    normal = torch.randn(d, d, generator=generator, dtype=torch.float64).tril(-1)
    shapes = (n - 1 - torch.arange(d, dtype=torch.float64)) / 2
    # torch's gamma draws take no generator: Wilson and Hilferty's cube is good to 1e-4 at so many degrees of freedom.
    freedom = 2 * shapes
    z = torch.randn(d, generator=generator, dtype=torch.float64)
    chi_squared = freedom * (1 - 2 / (9 * freedom) + z * (2 / (9 * freedom)).sqrt()) ** 3
    factor = (normal + torch.diag(chi_squared.sqrt())) * scales[:, None]
    mean = scales * torch.randn(d, generator=generator, dtype=torch.float64) / n**0.5
    return Moments(n, mean, factor @ factor.T)


def cover(values: Tensor, stated: Tensor) -> tuple[float, float, float]:
    """Share of intervals that hold the mean value, and its binomial 95 % interval by the number of values (Wilson)."""
    n = len(values)
    share = float(((values - values.mean()).abs()[:, None] < NOMINAL * stated[None]).double().mean())
    centre = (share + NOMINAL**2 / (2 * n)) / (1 + NOMINAL**2 / n)
    half = NOMINAL / (1 + NOMINAL**2 / n) * (share * (1 - share) / n + NOMINAL**2 / (4 * n**2)) ** 0.5
    return share, centre - half, centre + half


def measure(values: int, stated: int, n: int, d: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Distances float64 [values] at n rows, and stated errors float64 [stated]."""
    scales, reference = pair(d)
    generator = torch.Generator().manual_seed(seed)
    errors = []
    for number in range(stated):
        rows = torch.randn(n, d, generator=generator, dtype=torch.float64) * scales
        errors.append(frechet_error.standard_error(rows, reference, seed=number))
        print(f"{number + 1} of {stated} errors, {time.process_time():.0f} s", file=sys.stderr, flush=True)
    distances = []
    for number in range(values):
        distances.append(frechet.distance(moments_of(n, scales, generator), reference))
        if number % 10 == 9:
            print(f"{number + 1} of {values} distances, {time.process_time():.0f} s", file=sys.stderr, flush=True)
    return torch.tensor(distances, dtype=torch.float64), torch.tensor(errors, dtype=torch.float64)


if __name__ == "__main__":
    words = [int(word) for word in sys.argv[1:]]
    value_count, stated_count, size, width = (*words, *(150, 10, 5_120, 2_048)[len(words) :])
    distances, errors = measure(value_count, stated_count, size, width)
    share, low, high = cover(distances, errors)
    print(
        f"d {width}, n {size}: {value_count} distances of mean {distances.mean():.4f}, scatter {distances.std():.5f}; "
        f"{stated_count} stated errors of mean {errors.mean():.5f}, scatter {errors.std():.1g}: stated / scatter "
        f"{errors.mean() / distances.std():.3f}, nominal 95 % covers {100 * share:.1f} % "
        f"(binomial {100 * low:.1f} to {100 * high:.1f})"
    )

"""Do standard errors of Frechet distances cover at 2,048 dimensions? `bench_wide_errors.py [VALUES STATED [N [D]]]`.

The scatter is that of many distances, of Gaussian features drawn without their rows (Bartlett 1933: the scatter matrix
of n rows is L T T' L', T lower triangular, chi-squared roots on its diagonal and normal numbers below it; the mean is
normal); errors are stated for a few sets of rows. An interval covers if it holds the mean distance at this n; each
stated error is tried at each distance, which supposes that the two are independent: the stated ones scatter by a
percent or two.
"""

from __future__ import annotations

import sys
import time

import torch
from torch import Tensor

from scaling.evaluation.sets import frechet
from scaling.evaluation.sets.frechet_error import standard_error
from scaling.evaluation.sets.moments import Moments

NOMINAL = 1.96


class Pair:
    """Independent Gaussian features with scales over one and a half decades, as those of networks have them, and a
    reference with another mean and a covariance B that is rotated and half as large again."""

    def __init__(self, d: int) -> None:
        generator = torch.Generator().manual_seed(1)
        self.scales = torch.logspace(0, -1.5, d, dtype=torch.float64)
        # A reflection, I - 2 v v', turns every feature a little, and costs no product of matrices.
        v = torch.randn(d, generator=generator, dtype=torch.float64)
        self.v = v / v.norm()
        self.mean = 0.1 * self.scales
        root = self.reflected(torch.diag(self.scales))
        self.reference = Moments(10**9, self.mean, 1.5 * root @ root.T * (10**9 - 1))

    def reflected(self, matrix: Tensor) -> Tensor:
        """(I - 2 v v') matrix."""
        return matrix - 2 * torch.outer(self.v, self.v @ matrix)

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Mean [d] of n rows, and a factor F [d, d] of their scatter, F F'."""
        d = len(self.scales)
        normal = torch.randn(d, d, generator=generator, dtype=torch.float64).tril(-1)
        freedom = n - 1 - torch.arange(d, dtype=torch.float64)
        # torch's gamma draws take no generator: Wilson and Hilferty's cube is good to 1e-4 at so many degrees.
        z = torch.randn(d, generator=generator, dtype=torch.float64)
        chi_squared = freedom * (1 - 2 / (9 * freedom) + z * (2 / (9 * freedom)).sqrt()) ** 3
        factor = (normal + torch.diag(chi_squared.sqrt())) * self.scales[:, None]
        return self.scales * torch.randn(d, generator=generator, dtype=torch.float64) / n**0.5, factor

    def distance(self, mean: Tensor, factor: Tensor, n: int) -> float:
        """That of frechet.distance, with one product: B is (I - 2 v v') S (I - 2 v v')' with S = 1.5 diag(scales^2)."""
        overlap = self.scales[:, None] * self.reflected(factor) * (1.5 / (n - 1)) ** 0.5
        roots = torch.linalg.eigvalsh(overlap @ overlap.T).clamp(min=0).sqrt()
        traces = factor.square().sum() / (n - 1) + 1.5 * self.scales.square().sum()
        return float((mean - self.mean).square().sum() + traces - 2 * roots.sum())


def cover(values: Tensor, stated: Tensor) -> tuple[float, float, float]:
    """Share of intervals that hold the mean value, and its binomial 95 % interval by the number of values (Wilson)."""
    n = len(values)
    share = float(((values - values.mean()).abs()[:, None] < NOMINAL * stated[None]).double().mean())
    centre = (share + NOMINAL**2 / (2 * n)) / (1 + NOMINAL**2 / n)
    half = NOMINAL / (1 + NOMINAL**2 / n) * (share * (1 - share) / n + NOMINAL**2 / (4 * n**2)) ** 0.5
    return share, centre - half, centre + half


def measure(values: int, stated: int, n: int, d: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Distances float64 [values] at n rows, and stated errors float64 [stated]."""
    pair, generator = Pair(d), torch.Generator().manual_seed(seed)
    errors = []
    for number in range(stated):
        rows = torch.randn(n, d, generator=generator, dtype=torch.float64) * pair.scales
        errors.append(standard_error(rows, pair.reference, seed=number))
        print(f"{number + 1} of {stated} errors, {time.process_time():.0f} s", file=sys.stderr, flush=True)
    distances = []
    for number in range(values):
        mean, factor = pair.draw(n, generator)
        distances.append(pair.distance(mean, factor, n))
        if number == 0:
            package = frechet.distance(Moments(n, mean, factor @ factor.T), pair.reference)
            assert abs(package - distances[0]) < 1e-6 * package, f"{package} and {distances[0]}"
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

"""The standard error of a Frechet distance: from the distance without each row, and what two and three rows share.

D of n rows varies by terms of one row, of pairs, of triples: Var D = sum a_k (Hoeffding 1948). At a fixed n / d all of
them stay, however many rows there are. What the distance changes by when one row is left out holds the terms of k rows
k times, so the usual jackknife states

    J = sum k a_k        (n - 1 times the variance of D without one row; too large: Efron and Stein 1981),

and the second and third differences, over what is left without two and three rows, state

    P = sum C(k, 2) a_k  and  T = sum C(k, 3) a_k.

Var D is the integral over s from 0 to 1 of V(s) = sum k a_k s^(k-1), which is J, 2 P and 6 T in value and first two
derivatives at s = 1. V is continued by the fraction J (1 + u (1 - s)) / (1 + w (1 - s)) that has them: exact for
terms of one row and of two, and for the logarithm of the determinant of a Gaussian scatter, a_k = 2 (d / n)^k / k.

Distances without a few rows come from one decomposition. The sum of roots that a distance holds is an integral,
tr M^1/2 = 1/pi int log det(1 + M / t^2) dt over t > 0, and leaving out k rows changes that determinant by the one of a
k by k matrix. Over log t the trapezoidal rule converges as exp(-pi^2 / step).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .frechet import covariance_root
from .moments import Moments, MomentsStream

LEAST_ROWS = 25
"""Below, an error would itself be known to no more than a fifth."""
TRIPLES = 2_048
"""Drawn for P and T: a 2 % error of P, which is about a fourth of J at n = 2.5 d."""
PAIRS = ((0, 1), (0, 2), (1, 2))
"""Of a triple."""
STEP, REACH = 0.5, 12
"""Of the rule in log t, around the largest root of M: an error of 3e-9, and of exp(-24) beyond its ends."""
CHUNK = 512
"""Sets of rows that are left out at a time."""


def standard_error(features: Tensor, reference: Moments | Tensor, seed: int = 0) -> float:
    """Of the distance of features [n, d] to fixed moments, or to the rows [n, d] of the same images' originals.

    Of the draw of these rows alone; `seed` chooses the triples. Simulated up to 2,048 dimensions, what was in
    docs/metrics.md. Raises ValueError below 25 rows, and for rows that do not match.
    """
    count = len(features)
    if count < LEAST_ROWS:
        raise ValueError(f"a Frechet distance with standard error needs at least {LEAST_ROWS} images, not {count}")
    deleted = Deletions.of(features, reference)
    triples = _triples(count, torch.Generator().manual_seed(seed))
    without_one = deleted.distances(torch.arange(count)[:, None], [(0,)])[0]
    singles = without_one[triples]
    *pairs, without_three = deleted.distances(triples, [*PAIRS, (0, 1, 2)])
    seconds = [
        deleted.whole - singles[:, i] - singles[:, j] + pair for (i, j), pair in zip(PAIRS, pairs, strict=True)
    ]  # fmt: skip
    thirds = deleted.whole - singles.sum(dim=1) + torch.stack(pairs).sum(dim=0) - without_three
    jackknife = (count - 1) ** 2 / count * float(without_one.var())
    shared_by_two = math.comb(count, 2) * float(torch.cat(seconds).var())
    shared_by_three = math.comb(count, 3) * float(thirds.var())
    return variance(jackknife, shared_by_two, shared_by_three) ** 0.5


def variance(jackknife: float, pairs: float, triples: float) -> float:
    """Var D = sum a_k from sum k a_k, sum C(k, 2) a_k and sum C(k, 3) a_k, as the head of this file has it.

    The integrand never falls below 0: at most the whole of J is of terms of pairs, which are half of it.
    """
    if jackknife <= 0 or pairs <= 0:
        return max(jackknife, 0.0)
    w = 3 * triples / (2 * pairs)
    u = max(w - 2 * pairs / jackknife, -1.0)
    if w < 1e-6:
        return jackknife * (1 + u / 2)
    return jackknife * (u / w + (1 - u / w) * math.log1p(w) / w)


@dataclass(frozen=True, eq=False)
class Deletions:
    """Distances of what is left of some rows without any k of them.

    With A = R R' of the features, R'BR = U L U' and M = AB, t^2 + M has the determinant of t^2 + L. A row's deviation c
    has the coordinates U'R^-1 c, and that of its original, where both are left out, e, U'R'e; `to_own` and `to_other`
    [d, r] take deviations there.
    """

    features: Tensor
    originals: Tensor | None
    moments: Moments
    other: Moments
    eigenvalues: Tensor
    to_own: Tensor
    to_other: Tensor

    @staticmethod
    def of(features: Tensor, reference: Moments | Tensor) -> Deletions:
        """Of features [n, d] against fixed moments, or against rows [n, d] that are left out with theirs. Raises
        ValueError for rows that do not match."""
        if isinstance(reference, Tensor) and reference.shape != features.shape:
            raise ValueError(f"features {list(features.shape)} and originals {list(reference.shape)} do not match")
        moments = _streamed(features)
        originals = reference if isinstance(reference, Tensor) else None
        other = reference if isinstance(reference, Moments) else _streamed(reference)
        root, failed = torch.linalg.cholesky_ex(moments.covariance)
        if int(failed) or moments.count <= len(moments.mean):
            root = covariance_root(moments.covariance)
            inverse = root / root.square().sum(dim=0)
        else:
            inverse = torch.linalg.solve_triangular(root.T, torch.eye(len(root), dtype=root.dtype), upper=True)
        values, vectors = torch.linalg.eigh(root.T @ other.covariance @ root)
        values = values.clamp(min=0)
        return Deletions(features, originals, moments, other, values, inverse @ vectors, root @ vectors)

    @property
    def whole(self) -> float:
        """The distance of all rows."""
        traces = self.moments.covariance.trace() + self.other.covariance.trace() - 2 * self.eigenvalues.sqrt().sum()
        return float((self.moments.mean - self.other.mean).square().sum() + traces)

    def distances(self, sets: Tensor, members: Sequence[tuple[int, ...]]) -> list[Tensor]:
        """float64 [p] for each of `members`: without those rows of each of sets, int [p, k], whose places they are."""
        # The nodes t and their weights; geometric series stand for what lies beyond the ends, where t times the
        # integrand falls as t and as 1 / t.
        offsets = torch.arange(-REACH, REACH + STEP / 2, STEP, dtype=torch.float64)
        largest = float(self.eigenvalues.amax().sqrt()) if len(self.eigenvalues) else 0.0
        nodes = (largest or 1.0) * offsets.exp()
        weights = STEP / math.pi * nodes
        weights[[0, -1]] /= 1 - math.exp(-STEP)
        grid = _Grid(nodes, weights, 1 / (nodes.square() + self.eigenvalues[:, None]))

        def deviations(side: Tensor, mean: Tensor, rows: Tensor) -> Tensor:
            return side[rows.flatten()].to("cpu", torch.float64).sub(mean).unflatten(0, rows.shape)

        parts = []
        for rows in sets.split(CHUNK):
            own = deviations(self.features, self.moments.mean, rows)
            coordinates = own @ self.to_own
            sides = [own, coordinates]
            if self.originals is not None:
                original = deviations(self.originals, self.other.mean, rows)
                sides += [original, original @ self.to_other]
            parts.append([self._distances(grid, *(side[:, list(places)] for side in sides)) for places in members])
        return [torch.cat(list(values)) for values in zip(*parts, strict=True)]

    def _distances(
        self, grid: _Grid, own: Tensor, coordinates: Tensor, original: Tensor | None = None, there: Tensor | None = None
    ) -> Tensor:
        """Without k rows of deviations `own` [p, k, d] and coordinates [p, k, r], and those of their originals."""
        n, k = self.moments.count, own.shape[1]
        left = n - 1 - k
        # Scatter of what is left: all of it less C shares C', C the deviations of the k rows from the mean of all n.
        shares = torch.eye(k, dtype=torch.float64) + 1 / (n - k)

        def products(first: Tensor, second: Tensor) -> Tensor:
            """[p, t, k, k]: of coordinates [p, k, r] of each two rows under 1 / (t^2 + L), times what they share."""
            cells = [(first[:, i] * second[:, j]) @ grid.resolvent for i in range(k) for j in range(k)]
            return torch.stack(cells, dim=-1).unflatten(-1, (k, k)) @ shares / (n - 1)

        def trace(scatter: Tensor, removed: Tensor) -> Tensor:
            total = removed.square().sum(dim=(1, 2)) + removed.sum(dim=1).square().sum(dim=1) / (n - k)
            return (scatter.trace() - total) / left

        weighted = coordinates * self.eigenvalues.sqrt()
        identity = torch.eye(k, dtype=torch.float64)
        changed = identity - products(weighted, weighted)
        shift = self.moments.mean - self.other.mean - own.sum(dim=1) / (n - k)
        rescaled = (n - 1) / left
        if original is None or there is None:
            traces = trace(self.moments.scatter, own) + self.other.covariance.trace()
            rescaled **= 0.5
        else:
            # Both factors of M = AB change: log det(t^2 + AB) is that of the matrix of blocks (t, A; -B, t).
            t = grid.nodes[:, None, None]
            top = torch.cat([changed, -t * products(coordinates, there)], dim=-1)
            low = torch.cat([t * products(there, coordinates), identity - products(there, there)], dim=-1)
            changed = torch.cat([top, low], dim=-2)
            shift = shift + original.sum(dim=1) / (n - k)
            traces = trace(self.moments.scatter, own) + trace(self.other.scatter, original)
        # Where removal leaves M a lower rank, the determinant falls to 0 as t^2: rounding must not take it below.
        logs = torch.linalg.det(changed).clamp(min=torch.finfo(torch.float64).tiny).log()
        roots = (self.eigenvalues.sqrt().sum() + logs @ grid.weights) * rescaled
        return shift.square().sum(dim=1) + traces - 2 * roots


@dataclass(frozen=True, eq=False)
class _Grid:
    """Nodes t [q] of the integral, their weights [q], and 1 / (t^2 + L) [r, q]."""

    nodes: Tensor
    weights: Tensor
    resolvent: Tensor


def _streamed(rows: Tensor) -> Moments:
    """Their moments; rows may be mapped from a file, and are never in memory at once."""
    stream = MomentsStream()
    stream.add(rows)
    return stream.moments


def _triples(count: int, generator: torch.Generator) -> Tensor:
    """int64 [TRIPLES, 3]: different numbers below `count` in each row."""
    first, second, third = (torch.randint(count - i, (TRIPLES,), generator=generator) for i in range(3))
    second = second + (second >= first).long()
    third = third + (third >= torch.minimum(first, second)).long()
    third = third + (third >= torch.maximum(first, second)).long()
    return torch.stack([first, second, third], dim=1)

"""Studies drawn from a known joint law, with effects of tokenizer seed, trunk and fork, and budgets of unequal length.

Sizes of the effects as measured in docs/studies/fashion: 5 % between tokenizers of one configuration, of which their
floor carries most, 1 % between runs, 1.5 % between forks (gFID), 0.3 % (cross-entropy).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from analysis.tokenizers.compute import Compute
from analysis.tokenizers.measure import Measure

SIZES = {"XS": (13_792, 32), "S": (107_648, 64), "M": (420_000, 96)}
"""Parameters outside the vocabulary, and width."""
PLAIN = ((16, 16, 0.0), (256, 16, 0.0), (1024, 16, 0.0), (64, 64, 0.0), (1024, 64, 0.0))
TOKENIZER, TRUNK, FORK, FORK_LOSS, OWN_LUCK = 0.05, 0.01, 0.015, 0.003, 0.02


@dataclass(frozen=True)
class Truth:
    """The law of the joint fit, N and D around the centres of a study of SIZES and 8k to 131k images."""

    a: float = 0.6
    b: float = 5.0
    alpha: float = 0.30
    beta: float = 0.65
    p: float = 0.6
    q: float = 0.45
    s: float = 0.3
    kappa: float = 1.2
    gamma: float = 1.05
    f0: float = 2.0
    phi: float = 0.6
    psi: float = -0.03
    half: float = 0.25

    def floor(self, codes: Any, tokens: Any, weight: Any = 0.0) -> Any:
        """F of a tokenizer, its luck aside."""
        u = weight / (weight + self.half)
        return np.exp(self.f0 - self.phi * np.log(tokens * np.log2(codes) / 150) + self.psi * u)

    def excess(self, codes: Any, tokens: Any, weight: Any, params: Any, images: Any) -> Any:
        """X in nats per image."""
        u = weight / (weight + self.half)
        scale = np.exp(self.p * np.log(np.log2(codes) / 7) + self.q * np.log(tokens / 28) - self.s * u)
        return (self.a * (params / 6e4) ** -self.alpha + self.b * (images / 3e4) ** -self.beta) * scale

    def gfid(self, codes: Any, tokens: Any, weight: Any, params: Any, images: Any) -> Any:
        """Expected gFID."""
        return self.floor(codes, tokens, weight) + self.kappa * (
            self.excess(codes, tokens, weight, params, images) ** self.gamma
        )

    @classmethod
    def drawn(cls, random: np.random.Generator) -> Truth:
        """One of many: constants around those of the default."""
        return cls(
            a=float(np.exp(random.normal(np.log(0.6), 0.4))),
            b=float(np.exp(random.normal(np.log(5.0), 0.25))),
            alpha=float(random.uniform(0.2, 0.5)),
            beta=float(random.uniform(0.5, 0.8)),
            p=float(random.uniform(0.3, 0.9)),
            q=float(random.uniform(0.3, 0.9)),
            s=float(random.uniform(0.0, 0.5)),
            kappa=float(random.uniform(0.8, 1.6)),
            gamma=float(random.uniform(0.9, 1.2)),
            phi=float(random.uniform(0.4, 0.8)),
            psi=float(random.uniform(-0.1, 0.1)),
        )


def per_image(codes: float, tokens: float, size: str) -> float:
    """Training FLOPs of an image."""
    params, width = SIZES[size]
    return 6.0 * tokens * (params + width * codes) + 12.0 * width * tokens**2


@dataclass(frozen=True)
class SyntheticStudy:
    """The rows of a study as `StudyFrames.ranked` has them, and the truth behind them."""

    truth: Truth
    points: pd.DataFrame
    kinds: tuple[tuple[float, float, float], ...]
    frames: Any = field(repr=False)

    def best(self, flops: float, sizes: Sequence[str] = tuple(SIZES)) -> str:
        """The pair of lowest true gFID at a compute, of those whose runs begin below it."""
        begun = self.points[self.points["path_flops"] <= flops * (1 + 1e-9)]
        pairs = sorted(set(zip(begun["family"], begun["size"], strict=True)))
        return min((f"{f} + {z}" for f, z in pairs), key=lambda name: self.value(name, flops))

    def value(self, pair: str, flops: float) -> float:
        """True gFID of a pair at a compute."""
        family, size = pair.split(" + ")
        codes, tokens, weight = next(kind for kind in self.kinds if name_of(kind) == family)
        return float(self.truth.gfid(codes, tokens, weight, SIZES[size][0], flops / per_image(codes, tokens, size)))


def name_of(kind: tuple[float, float, float]) -> str:
    """A tokenizer's family."""
    codes, tokens, weight = kind
    return f"K{codes:g}-T{tokens:g}" + (f"-crt{weight:g}" if weight else "")


def draw_study(
    number: int,
    *,
    kinds: Sequence[tuple[float, float, float]] = (*PLAIN, (1024, 16, 0.25)),
    sizes: Sequence[str] = ("XS", "S", "M"),
    seeds: int = 3,
    budgets: tuple[int, int] = (13, 17),
    unequal: bool = True,
    truth: Truth | None = None,
) -> SyntheticStudy:
    """Study `number`: every tokenizer with every size on each seed, budgets 2^budgets[0] up to 2^budgets[1] images, of
    which with `unequal` up to two of the longest are missing for each pair."""
    random = np.random.default_rng((number, 314))
    truth = truth or Truth.drawn(random)
    rows = []
    for kind in kinds:
        codes, tokens, weight = kind
        family = name_of(kind)
        height = 0.55 * np.log(codes)
        for seed in range(seeds):
            luck = random.normal(0, TOKENIZER)
            floor = truth.floor(codes, tokens, weight) * np.exp(luck)
            own = random.normal(0, OWN_LUCK)
            for size in sizes:
                params, width = SIZES[size]
                each, trunk = per_image(codes, tokens, size), random.normal(0, TRUNK)
                # The same for every seed of a pair.
                shorter = int(np.random.default_rng((number, len(family), int(codes), params)).integers(0, 3))
                last = budgets[1] - (shorter if unequal else 0)
                for images in 2.0 ** np.arange(budgets[0], last + 1):
                    x = truth.excess(codes, tokens, weight, params, images)
                    gfid = (floor + truth.kappa * x**truth.gamma * np.exp(own)) * np.exp(trunk + random.normal(0, FORK))
                    nats = (tokens * height + x) * np.exp(random.normal(0, FORK_LOSS))
                    rows.append(
                        {
                            "run_id": f"{family}-{size}-{seed}", "family": family, "size": size,
                            "tokenizer_seed": seed, "seed": seed, "images": images, "path_flops": each * images,
                            "gfid": gfid, "nats_per_image": nats, "rfid_floor": floor, "parameters_other": params,
                            "codebook_size": codes, "tokens_per_image": tokens, "regulariser_weight": weight,
                            "width": width, "flops_per_image": each, "tokenizer_flops": 2.5e12,
                        }
                    )  # fmt: skip
    points = pd.DataFrame(rows)
    frames = SimpleNamespace(ranked=points, floor_is_comparable=True, compute=Compute(), measure=Measure())
    return SyntheticStudy(truth, points, tuple(kinds), frames)

"""What a compute budget pays for: training the generator, its tokenizer's share, sampling; and what the head costs.

Analysis knows costs from the columns of `runs` alone. A generator's `flops_per_image` is three times its forward pass
(backward costs twice that), so sampling an image costs a third of it, with keys and values cached; with guidance, twice
that. The decoder of the tokenizer and evaluation are not counted. The output head is a product of T positions, width d
and K codes: 2 T d K forward, 6 T d K in training. A factorised head, which the specification names, has A + B + d in
place of K: A high and B = ceil(sqrt(K)) low halves of a code, and a matrix of the width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from results.errors import DataError, UsageError
from results.settings import parts

from .rows import Record


@dataclass(frozen=True)
class Compute(Record):
    """What is counted beside training the generator.

    total       the tokenizer's training, shared by `generators` generators
    serve       this many sampled images, twice the cost each where `guided`
    """

    total: bool = False
    generators: int = 1
    serve: float = 0.0
    guided: bool = False

    def __post_init__(self) -> None:
        if self.generators < 1:
            raise UsageError(f"generators = {self.generators} is not allowed; allowed: a whole number from 1 on")
        if self.generators > 1 and not self.total:
            raise UsageError(f"generators = {self.generators} shares the tokenizer's training, which --total counts")
        if not (math.isfinite(self.serve) and self.serve >= 0):
            raise UsageError(f"serve = {self.serve} is not allowed; allowed: a number of images from 0 on")

    @property
    def alone(self) -> bool:
        """Whether nothing is counted beside training the generator."""
        return not self.total and not self.serve

    @property
    def words(self) -> str:
        """What it counts, after a number of FLOPs: `of training the generator alone`."""
        parts = ["of training the generator"]
        if self.total:
            parts.append("of its tokenizer" if self.generators == 1 else f"1/{self.generators} of its tokenizer's")
        if self.serve:
            parts.append(f"of sampling {self.serve:.3g} images{' with guidance' if self.guided else ''}")
        return f"{parts[0]} alone" if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"

    @property
    def label(self) -> str:
        """Of an axis: `training FLOPs of the generator`, or what else is counted."""
        return "training FLOPs of the generator" if self.alone else f"FLOPs {self.words}"

    @property
    def unit(self) -> str:
        """Of a number in a sentence: `training FLOPs`, or FLOPs and what else is counted."""
        return "training FLOPs" if self.alone else f"FLOPs {self.words}"

    def of(self, points: pd.DataFrame) -> pd.DataFrame:
        """The points with `path_flops` on this axis, and in `offset` what of it is not training the generator.

        Raises DataError where a column that it needs is unknown of a row.
        """
        if self.alone:
            return points
        offset = np.zeros(len(points))
        if self.total:
            offset += _known(points, "tokenizer_flops", "--total") / self.generators
        if self.serve:
            known = points["flops_per_image"].astype(float)
            # Of rows measured elsewhere it follows from their images.
            known = known.fillna(points["path_flops"].astype(float) / points["images"].astype(float))
            points = points.assign(flops_per_image=known)
            passes = 2.0 if self.guided else 1.0
            offset += passes * self.serve * _known(points, "flops_per_image", "--serve") / 3
        return points.assign(path_flops=points["path_flops"] + offset, offset=offset)


def _known(points: pd.DataFrame, column: str, option: str) -> np.ndarray:
    values = points[column].to_numpy(dtype=float)
    if np.isnan(values).any():
        row = points[np.isnan(values)].iloc[0]
        raise DataError(f"{option} needs {column}, which is not known of {row['family']} + {row['size']}")
    return values


def head_shares(points: pd.DataFrame, runs: pd.DataFrame) -> dict[tuple[str, str], float]:
    """The share of the output head in the training FLOPs of each (family, size); without those whose costs are not
    known. `runs` has the specifications of the points' runs."""
    tokens, width = points["tokens_per_image"].astype(float), points["width"].astype(float)
    codes = points["codebook_size"].astype(float)
    judged = runs[runs["run_id"].isin(points["run_id"])]
    factorised = {run for run, spec in zip(judged["run_id"], judged["spec"], strict=True) if _is_factorised(spec)}
    low = np.ceil(np.sqrt(codes))
    outputs = codes.mask(points["run_id"].isin(factorised), np.ceil(codes / low) + low + width)
    shares = 6 * tokens * width * outputs / points["flops_per_image"]
    medians: Any = shares.astype(float).groupby([points["family"], points["size"]], sort=True, dropna=False).median()
    return {(str(f), str(z)): share for (f, z), share in medians.items() if math.isfinite(share) and 0 < share < 1}


def _is_factorised(spec: str) -> bool:
    return bool(parts(spec).get("generator", {}).get("transformer.head") == "factorised")

"""What the joint law is fitted to, a row a generator and budget with rate and floor of its tokenizer; what varies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from results.errors import FitError

from ..frames import StudyFrames

NEEDED = {
    "gfid": "gfid", "path_flops": "path_flops", "parameters_other": "params", "images": "images",
    "codebook_size": "codes", "tokens_per_image": "tokens",
}  # fmt: skip
"""Columns of points without which a row says nothing to the law, and what they are called in its table."""
LOSS = "nats_per_image"
FEWEST_ROWS = 8
MOST_ROWS, MOST_TOKENIZERS = 2000, 120
"""A joint law has an irreducible loss for each tokenizer: beyond these its fit takes minutes."""
SAME = 1e-6


def joint_table(frames: StudyFrames) -> pd.DataFrame:
    """The points of a study as the joint law reads them: family, size, seed, tokenizer (one a family and seed), params
    N without the vocabulary, images D, path_flops, gfid (the metric that ranks), nats an image and rfid_floor (NaN
    where not measured or not comparable), codes K, tokens T, weight of the causal regulariser (0 without), rate R = T
    log2 K in bits.

    Raises FitError where fewer than FEWEST_ROWS points have all that the law needs.
    """
    points = frames.ranked.reset_index(drop=True)
    table = pd.DataFrame({name: points[column].astype(float) for column, name in NEEDED.items()})
    table["weight"] = points["regulariser_weight"].astype(float).fillna(0.0)
    table["nats"] = points[LOSS].astype(float) if LOSS in points else np.nan
    comparable = frames.floor_is_comparable and "rfid_floor" in points
    table["floor"] = points["rfid_floor"].astype(float) if comparable else np.nan
    for name in ("family", "size"):
        table[name] = points[name].astype(str)
    table["seed"] = points["tokenizer_seed"].astype(int)
    table["tokenizer"] = table["family"] + " seed " + table["seed"].astype(str)
    # What the axis of compute has beside training the generator.
    table["offset"] = points["offset"].astype(float) if "offset" in points else 0.0
    for name in ("width", "tokenizer_flops", "flops_per_image"):
        table[name] = points[name].astype(float) if name in points else np.nan
    table = table[table[list(NEEDED.values())].notna().all(axis=1)]
    if len(table) < FEWEST_ROWS:
        raise FitError(
            f"the joint law needs {FEWEST_ROWS} points with parameters, images, codebook and tokens known; "
            f"the study has {len(table)}"
        )
    return table.assign(rate=table["tokens"] * np.log2(table["codes"])).reset_index(drop=True)


def fitted_table(frames: StudyFrames) -> pd.DataFrame:
    """The `joint_table` of a study that a joint law can be fitted to. Raises FitError, in one sentence, for one
    tokenizer alone or for more than a fit takes."""
    table = joint_table(frames)
    if table["family"].nunique() < 2:
        raise FitError("one tokenizer alone was trained: a law over tokenizers needs two or more")
    if len(table) > MOST_ROWS or table["tokenizer"].nunique() > MOST_TOKENIZERS:
        raise FitError(
            f"{len(table)} points of {table['tokenizer'].nunique()} tokenizers are more than the joint law takes "
            f"({MOST_ROWS} of {MOST_TOKENIZERS})"
        )
    return table


@dataclass(frozen=True)
class Centre:
    """The means of logs around which the law's columns are centred, and the weight at which u is one half."""

    params: float
    images: float
    bits: float
    tokens: float
    half: float

    @classmethod
    def of(cls, table: pd.DataFrame) -> Centre:
        """Means over rows for N and D, over tokenizers for log2 K and T; w_half: the median weight above 0, or 1."""
        first = table.drop_duplicates("tokenizer")
        positive = first["weight"][first["weight"] > 0]
        return cls(
            params=float(np.log(table["params"]).mean()),
            images=float(np.log(table["images"]).mean()),
            bits=float(np.log(np.log2(first["codes"])).mean()),
            tokens=float(np.log(first["tokens"]).mean()),
            half=float(positive.median()) if len(positive) else 1.0,
        )

    def columns(self, table: pd.DataFrame) -> dict[str, np.ndarray]:
        """The columns of the law that follow from the configuration, each (n,): log_n, log_d, k, t and u."""
        weight = table["weight"].to_numpy(dtype=float)
        return {
            "log_n": np.log(table["params"].to_numpy(dtype=float)) - self.params,
            "log_d": np.log(table["images"].to_numpy(dtype=float)) - self.images,
            "k": np.log(np.log2(table["codes"].to_numpy(dtype=float))) - self.bits,
            "t": np.log(table["tokens"].to_numpy(dtype=float)) - self.tokens,
            "u": weight / (weight + self.half),
        }


@dataclass(frozen=True)
class Identified:
    """Which exponents a set of tokenizers can tell: `held` are at a value, `tied` says that p = q is assumed; `notes`
    say why, in sentences."""

    held: Mapping[str, float]
    tied: bool
    notes: tuple[str, ...]

    @classmethod
    def of(cls, table: pd.DataFrame, centre: Centre) -> Identified:
        """From the tokenizers' configurations alone; whether sizes and budgets are enough likewise."""
        first = table.drop_duplicates("family")
        x = centre.columns(first)
        held: dict[str, float] = {}
        notes = []
        varies = {name: float(np.ptp(x[name])) > SAME for name in ("k", "t", "u")}
        if not varies["k"]:
            held["p"] = 0.0
            notes.append("all tokenizers have one codebook size: what codes do (p) is not known")
        if not varies["t"]:
            held["q"] = 0.0
            notes.append("all tokenizers have one number of tokens: what tokens do (q) is not known")
        if not varies["u"]:
            held["s"] = 0.0
            notes.append("no two weights of the causal regulariser: what it does (s) is not known")
        tied = False
        free = [name for name in ("k", "t", "u") if varies[name]]
        if np.linalg.matrix_rank(_centred(x, free), tol=1e-4) < len(free):
            if varies["k"] and varies["t"]:
                tied = True
                notes.append("codes and tokens change together: only the rate can be known (p = q is assumed)")
                shared = {"r": x["k"] + x["t"], "u": x["u"]}
                if varies["u"] and np.linalg.matrix_rank(_centred(shared, ["r", "u"]), tol=1e-4) < 2:
                    held["s"] = 0.0
                    notes.append("the regulariser changes with the rate: what it does (s) cannot be told apart")
            else:
                held["s"] = 0.0
                notes.append("the regulariser changes with the codebook: what it does (s) cannot be told apart")
        rates = len({round(float(v), 6) for v in first["rate"]})
        if rates == 2:
            notes.append("two rates give an exponent of rate, but no test of its form")
        for column, name, what in (("params", "alpha", "generator size"), ("images", "beta", "training length")):
            if table[column].nunique() < 2:
                held[name] = 0.3
                notes.append(f"one {what} alone: {name} is not known, and held at 0.3")
            elif column == "params" and table[column].nunique() == 2:
                notes.append(f"two {what}s: {name} rests on the floor and on gFID, not on a curve")
        return cls(held, tied, tuple(notes))

    @property
    def names(self) -> frozenset[str]:
        """The exponents of tokenizers that are told: of p, q and s."""
        return frozenset({"p", "q", "s"} - set(self.held))


def _centred(columns: Mapping[str, np.ndarray], names: list[str]) -> np.ndarray:
    matrix = np.stack([columns[name] for name in names], axis=1) if names else np.zeros((1, 0))
    return matrix - matrix.mean(axis=0)

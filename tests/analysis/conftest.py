"""Synthetic studies with a known truth, as the three tables that a real study leaves behind."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from results.schema import COLUMNS, arrow_schema

GENERATORS = {"XS": (32, 1, 10_000), "S": (64, 2, 90_000), "M": (96, 4, 420_000)}
"""Width, layers and parameters outside the vocabulary."""

Truth = Callable[["Family", str, int, float], float]


@dataclass(frozen=True)
class Family:
    """A tokenizer configuration with its true rFID and the constants of its gFID law floor + A N^-a + B D^-b."""

    codebook_size: int
    tokens: int
    rfid: float
    floor: float
    data_term: float
    size_term: float
    regulariser_weight: float = 0.0
    extra_label: str = ""

    @property
    def label(self) -> str:
        weight = f"-crt{self.regulariser_weight:g}" if self.regulariser_weight else ""
        return f"K{self.codebook_size}-T{self.tokens}{weight}{self.extra_label}"

    def spec(self, seed: int) -> dict[str, Any]:
        regulariser = {"kind": "causal", "weight": self.regulariser_weight} if self.regulariser_weight else None
        return {
            "stage": "tokenizer",
            "autoencoder": {"downsampling": 8 if self.tokens == 16 else 4},
            "quantizer": {"kind": "vq", "codebook_size": self.codebook_size},
            "regulariser": regulariser,
            "label": self.extra_label,
            "seed": seed,
        }


PLAIN = Family(4096, 16, rfid=0.57, floor=0.45, data_term=9.0e4, size_term=60.0)
COMPRESSED = Family(256, 16, rfid=0.79, floor=0.80, data_term=1.0e4, size_term=12.0)
REGULARISED = Family(4096, 16, rfid=0.64, floor=0.50, data_term=7.0e4, size_term=52.0, regulariser_weight=0.5)
LONG = Family(256, 64, rfid=0.31, floor=0.25, data_term=1.4e5, size_term=110.0)
FAMILIES = {"plain": PLAIN, "compressed": COMPRESSED, "regularised": REGULARISED, "long": LONG}


def law(family: Family, size: str, budget: int, flops: float) -> float:
    """The default truth: floor + A N^-0.5 + B D^-1.05, N without vocabulary, D in images."""
    return family.floor + family.size_term * GENERATORS[size][2] ** -0.5 + family.data_term * budget**-1.05


@dataclass
class Study:
    """Rows in the making; `frames()` gives the StudyFrames, `tables()` the three DataFrames by name."""

    runs: list[dict[str, Any]] = field(default_factory=list)
    curves: list[dict[str, Any]] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)

    def arrow(self) -> dict[str, pa.Table]:
        """The three tables as a store keeps them."""
        rows = {"runs": self.runs, "curves": self.curves, "evaluations": self.evaluations}
        return {name: pa.Table.from_pylist(rows[name], arrow_schema(name)) for name in COLUMNS}

    def tables(self) -> dict[str, pd.DataFrame]:
        """The three tables as pandas reads them."""
        return {name: table.to_pandas() for name, table in self.arrow().items()}

    def frames(self, **options: Any) -> Any:
        from analysis.tokenizers.frames import from_tables

        return from_tables(self.tables(), **options)


def flops_per_image(family: Family, size: str) -> float:
    width, _, parameters = GENERATORS[size]
    return 6.0 * (parameters + family.codebook_size * width) * family.tokens


def identity(*parts: object) -> str:
    return sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:12]


def protocol(metric: str, n: int, guidance: float | None, reference: str) -> tuple[str, str]:
    fields = {"metric": metric, "n": n, "guidance": guidance, "reference": reference, "reference_hash": reference * 2}
    text = json.dumps(fields | {"extractor_hash": "abc", "crop": "pad32", "seed": 0}, sort_keys=True)
    return sha256(text.encode()).hexdigest()[:8], text


def _run_row(
    run_id: str, family: Family, tokenizer_seed: int, seed: int, size: str | None, **values: Any
) -> dict[str, Any]:
    width, layers, parameters = GENERATORS[size] if size else (32, None, 250_000)
    row = {
        "run_id": run_id,
        "attempt": 1,
        "stage": "generator" if size else "tokenizer",
        "label": f"{family.label}-{size}-s{tokenizer_seed}.{seed}" if size else f"{family.label}-s{seed}",
        "status": "done",
        "cause": None,
        "message": None,
        "spec": json.dumps(family.spec(tokenizer_seed)),
        "parent": identity(family.spec(tokenizer_seed)) if size else None,
        "seed": seed,
        "tokenizer_seed": tokenizer_seed,
        "tokenizer": family.label,
        "tokenizer_family": identity(family.spec(0), "family"),
        "generator": size,
        "generator_family": identity("generator", size) if size else None,
        "data": "fashion-mnist",
        "data_fingerprint": "d1fd84a8" * 8,
        "image_size": 32,
        "downsampling": 8 if family.tokens == 16 else 4,
        "quantizer": "vq",
        "codebook_size": family.codebook_size,
        "tokens_per_image": family.tokens,
        "regulariser": "causal" if family.regulariser_weight else None,
        "regulariser_weight": family.regulariser_weight,
        "width": width,
        "layers": layers,
        "learning_rate": 4e-3,
        "batch_size": 128,
        "train_images": 64_000,
        "parameters_embedding": family.codebook_size * width,
        "parameters_other": parameters,
        "parameters_frozen": 0 if size else 100_000,
        "flops_per_image": 3.0e7,
        "path_flops": 2.0e12,
        "executed_flops": 2.6e12,
        "tokenizer_flops": 2.0e12 * (1.03 if family.regulariser_weight else 1.0),
        "threads": 1,
        "wall_seconds": 61.5,
        "peak_memory_bytes": 7 * 10**8,
        "started_at": "2027-01-01T00:00:00Z",
        "finished_at": "2027-01-01T00:01:01Z",
        "provenance": json.dumps(
            {"git": "0123abc", "python": "3.11.9", "torch": "2.6.0", "cpu": "x86-64", "host": "node1"}
        ),
    }
    return row | values


def build_study(
    families: Sequence[Family] = (COMPRESSED, PLAIN, REGULARISED, LONG),
    *,
    sizes: Mapping[str, Sequence[str]] | Sequence[str] = ("XS", "S", "M"),
    seeds: Mapping[str, Sequence[int]] | Sequence[int] = (0, 1, 2),
    budgets: Sequence[int] = (16_000, 32_000, 64_000, 128_000, 256_000),
    truth: Truth = law,
    tokenizer_noise: float = 0.05,
    noise: float = 0.03,
    repeats: int = 1,
    seed: int = 1,
) -> Study:
    """A study drawn from `truth`: log gFID gets one shift a tokenizer (sd tokenizer_noise) and one a point (sd noise).

    `sizes` and `seeds` may be mappings from a family's label. `repeats` runs each generator with that many seeds.
    """
    random = np.random.default_rng(seed)
    study = Study()
    for family in families:
        own_sizes = sizes[family.label] if isinstance(sizes, Mapping) else sizes
        own_seeds = seeds[family.label] if isinstance(seeds, Mapping) else seeds
        for s in own_seeds:
            shift = random.normal(0, tokenizer_noise)
            _tokenizer(study, family, s, shift, random)
            for size in own_sizes:
                for g in range(s, s + repeats):
                    _generator(study, family, s, g, size, budgets, truth, shift, noise, random)
    return study


def _evaluate(
    study: Study, run: Mapping[str, Any], branch: str, images: int, path: float, **metrics: tuple[float, int, Any, str]
) -> None:
    for metric, (value, n, guidance, split) in metrics.items():
        name = metric.split("__")[0]
        short, text = protocol(name, n, guidance, split)
        row = {"run_id": run["run_id"], "attempt": 1, "branch": branch, "step": images // 128, "images": images}
        row |= {
            "path_flops": path,
            "metric": name,
            "value": value,
            "standard_error": None,
            "n": n,
            "guidance": guidance,
        }
        study.evaluations.append(row | {"split": split, "protocol": short, "protocol_json": text, "flag": None})


def _tokenizer(study: Study, family: Family, seed: int, shift: float, random: np.random.Generator) -> None:
    run = _run_row(identity(family.spec(seed)), family, seed, seed, None)
    study.runs.append(run)
    rfid = family.rfid * float(np.exp(shift + random.normal(0, 0.02)))
    _evaluate(
        study,
        run,
        "trunk",
        64_000,
        run["path_flops"],
        rfid=(rfid, 10_000, None, "validation"),
        rfid_floor=(rfid * family.floor / family.rfid, 10_000, None, "train"),
        real_fid=(0.0056, 10_000, None, "train"),
        psnr=(20.4 - 3 * rfid, 10_000, None, "validation"),
        ssim=(0.80 - 0.2 * rfid, 10_000, None, "validation"),
        codebook_utilisation=(0.97, 10_000, None, "validation"),
        codebook_perplexity=(0.6 * family.codebook_size, 10_000, None, "validation"),
        unigram_entropy=(float(np.log(0.6 * family.codebook_size)), 10_000, None, "validation"),
    )
    for k in range(1, 17):
        images = 4_000 * k
        for term, value in (("squared_error", 0.02 + 0.1 / k), ("perceptual", 0.1 + 0.5 / k)):
            row = {"run_id": run["run_id"], "attempt": 1, "branch": "trunk", "step": images // 64, "images": images}
            study.curves.append(
                row
                | {
                    "tokens": images * family.tokens,
                    "flops": 3e7 * images,
                    "split": "train",
                    "term": term,
                    "value": value,
                }
            )


def _generator(
    study: Study,
    family: Family,
    tokenizer_seed: int,
    seed: int,
    size: str,
    budgets: Sequence[int],
    truth: Truth,
    shift: float,
    noise: float,
    random: np.random.Generator,
) -> None:
    each = flops_per_image(family, size)
    run_id = identity(family.spec(tokenizer_seed), size, seed)
    run = _run_row(
        run_id,
        family,
        tokenizer_seed,
        seed,
        size,
        flops_per_image=each,
        train_images=max(budgets),
        path_flops=each * max(budgets),
    )
    study.runs.append(run)
    entropy = 0.55 * float(np.log(family.codebook_size)) * (1 - 0.25 * family.regulariser_weight)

    def nats_at(images: int) -> float:
        return entropy * (1 + 4.0 * (images * GENERATORS[size][2]) ** -0.12)

    for budget in budgets:
        gfid = truth(family, size, budget, each * budget) * float(np.exp(shift + random.normal(0, noise)))
        nats = nats_at(budget) + float(random.normal(0, 0.01))
        _evaluate(
            study,
            run,
            f"decay@{budget}",
            budget,
            each * budget,
            gfid=(gfid, 10_000, 1.0, "train"),
            gfid__guided=(0.8 * gfid, 10_000, 1.5, "train"),
            nats_per_token=(nats, 10_000, None, "validation"),
            nats_per_image=(nats * family.tokens, 10_000, None, "validation"),
            bits_per_pixel=(nats * family.tokens / np.log(2) / 1024, 10_000, None, "validation"),
            unigram_normalised_nats=(nats - float(np.log(0.6 * family.codebook_size)), 10_000, None, "validation"),
            memorisation_ratio=(1.0 + 0.1 * gfid - 2e-7 * budget, 2_000, 1.0, "train"),
            near_copy_fraction=(0.012, 2_000, 1.0, "train"),
        )
    top = max(budgets)
    for images in np.unique(np.geomspace(1_000, 0.8 * top, 24).astype(int)):
        for split, gap in (("train", -0.01), ("validation", 0.0)):
            row = {"run_id": run_id, "attempt": 1, "branch": "trunk", "step": int(images) // 128, "images": int(images)}
            study.curves.append(
                row
                | {
                    "tokens": int(images) * family.tokens,
                    "flops": each * float(images),
                    "split": split,
                    "term": "cross_entropy",
                    "value": nats_at(int(images)) * 1.03 + gap,
                }
            )


@pytest.fixture(scope="session")
def make_study() -> Callable[..., Study]:
    """The builder itself; see `build_study`."""
    return build_study


@pytest.fixture(scope="session")
def known() -> dict[str, Family]:
    """The four families of the default study: plain, compressed, regularised, long."""
    return FAMILIES


@pytest.fixture(scope="session")
def demo_like() -> Study:
    """A study shaped like the demo: two tokenizers and CRT with three seeds, 64 tokens with one seed at one size."""
    sizes = {
        COMPRESSED.label: ("XS", "S", "M"),
        PLAIN.label: ("XS", "S", "M"),
        REGULARISED.label: ("S",),
        LONG.label: ("S",),
    }
    seeds = {COMPRESSED.label: (0, 1, 2), PLAIN.label: (0, 1, 2), REGULARISED.label: (0, 1, 2), LONG.label: (0,)}
    return build_study(sizes=sizes, seeds=seeds)


@pytest.fixture(scope="session")
def own_study() -> Study:
    """Runs of no stage with a metric of their own, over width and depth on two seeds, and a curve each."""
    study = Study()
    for width, depth, seed in ((w, d, s) for w in (4, 8, 16) for d in (1, 2) for s in (0, 1)):
        values = {"width": width, "net": {"depth": depth}, "fixed": "a"}
        run_id, flops = identity(values, seed), 100.0 * width * depth
        absent = {column.name: None for column in COLUMNS["runs"] if column.required is not True}
        study.runs.append(
            absent
            | {"run_id": run_id, "attempt": 1, "stage": "run", "label": f"w{width}d{depth},s{seed}", "status": "done"}
            | {"spec": json.dumps({"stage": "run", "seed": seed, "values": values}), "seed": seed, "provenance": "{}"}
            | {"finished_at": "2027-01-01T00:01:01Z", "wall_seconds": 2.0, "executed_flops": flops}
        )
        row = {"run_id": run_id, "attempt": 1, "branch": "trunk"}
        for step in (10, 20):
            curve = {"step": step, "images": step, "tokens": None, "flops": flops, "split": "train", "term": "loss"}
            study.curves.append(row | curve | {"value": 5.0 / step})
        short, text = protocol("own_missed", 10, None, "train")
        value = 8.0 / width / depth * (1.1 if seed else 1 / 1.1)
        study.evaluations.append(
            row
            | {"step": 20, "images": 20, "path_flops": flops, "metric": "own_missed", "value": value, "n": 10}
            | {"standard_error": None, "guidance": None, "split": "train", "protocol": short, "protocol_json": text}
            | {"flag": None}
        )
    return study

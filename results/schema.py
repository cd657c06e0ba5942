"""The three tables (runs, curves, evaluations): their columns with type, unit and meaning, and the schema version.

All three are keyed by (run_id, attempt, branch, step). `branch` is "trunk", or "decay@B" for the decay forked for the
budget of B training images. Facts are columns; nothing is ever parsed out of a label. What has no meaning for a run (a
tokenizer's width for a run of no stage) or is not known of it (the memory of a run measured elsewhere) is null.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from .errors import UsageError

if TYPE_CHECKING:
    import pyarrow

SCHEMA_VERSION = 3
"""Raised whenever a column comes, changes its meaning or may newly be null; readers refuse what is newer than they are.

1  runs of tokenizers and generators
2  also runs of no stage and rows measured elsewhere: column `source`, and columns that mean nothing for them may be
   null. Tables of version 1 are read as they are, with `source` null.
3  columns `images_per_second`, `model_flops_share`, `device_memory_bytes`; null in what earlier versions wrote.
"""

ColumnType = Literal["string", "int64", "float64", "bool"]
TABLES = ("runs", "curves", "evaluations")
STAGES = ("tokenizer", "generator", "run")
"""`run` is a run of no stage, of a trainer of one's own."""
STATUSES = ("done", "failed", "diverged")
"""What a stored run can be: `done` and `diverged` are results, `failed` is an attempt that may be tried again."""

TRUNK = "trunk"
SPLITS = ("train", "validation")


def decay_branch(budget: int) -> str:
    """Name of the branch that decays the learning rate for a budget of `budget` training images."""
    return f"decay@{budget}"


@dataclass(frozen=True)
class Column:
    """One column of a table: its name, storage type, unit ("" for none) and meaning.

    `required` ones are never null. "staged" ones are never null in a tokenizer's or generator's run of ours, but may be
    in a run of no stage or in a row measured elsewhere.
    """

    name: str
    type: ColumnType
    unit: str
    meaning: str
    required: bool | Literal["staged"] = False


_KEY = (
    Column("run_id", "string", "", "hash of the full specification", True),
    Column("attempt", "int64", "", "which attempt at this run wrote the row, from 1", True),
)

RUNS: tuple[Column, ...] = (
    *_KEY,
    Column("stage", "string", "", "tokenizer, generator, or run for one of no stage", True),
    Column("label", "string", "", "for people; derived, never parsed", True),
    Column("status", "string", "", "done, failed or diverged", True),
    Column("cause", "string", "", "one word: why it failed or diverged; null when done"),
    Column("message", "string", "", "last line of the failure; null when done"),
    Column("spec", "string", "JSON", "the canonical full specification", True),
    Column("parent", "string", "", "run_id of the tokenizer of a generator run; null for tokenizers"),
    Column("seed", "int64", "", "seed of this run", True),
    Column("tokenizer_seed", "int64", "", "seed of the tokenizer (equal to seed for tokenizer runs)", "staged"),
    Column("tokenizer", "string", "", "label of the tokenizer configuration without its seed", "staged"),
    Column("tokenizer_family", "string", "", "hash of the tokenizer's specification without its seed", "staged"),
    Column("generator", "string", "", "label of the generator's size; null for tokenizer runs"),
    Column("generator_family", "string", "", "hash of the generator's own fields without seed; null for tokenizers"),
    Column("data", "string", "", "name of the data set", "staged"),
    Column("data_fingerprint", "string", "SHA-256", "what the images are, by content", "staged"),
    Column("image_size", "int64", "pixels", "side of the images that metrics see", "staged"),
    Column("downsampling", "int64", "", "factor between image side and token grid side", "staged"),
    Column("quantizer", "string", "", "kind of the quantizer, such as vq", "staged"),
    Column("codebook_size", "int64", "", "number of codes", "staged"),
    Column("tokens_per_image", "int64", "", "length of an image's token sequence", "staged"),
    Column("regulariser", "string", "", "kind of the regulariser, such as causal; null without"),
    Column("regulariser_weight", "float64", "", "weight of the regulariser's loss; 0 without", "staged"),
    Column("width", "int64", "", "residual width of the generator, or base channels of the autoencoder", "staged"),
    Column("layers", "int64", "", "transformer layers of the generator; null for tokenizer runs"),
    Column("learning_rate", "float64", "", "peak learning rate", "staged"),
    Column("batch_size", "int64", "images", "images a step", "staged"),
    Column("train_images", "int64", "images", "training images, repeats counted, of the longest budget", "staged"),
    Column("parameters_embedding", "int64", "", "vocabulary parameters: embeddings, head, codebook", "staged"),
    Column("parameters_other", "int64", "", "all other parameters that are trained", "staged"),
    Column("parameters_frozen", "int64", "", "parameters used in training but frozen, discarded afterwards", "staged"),
    Column("flops_per_image", "float64", "FLOP", "training FLOPs of one image, forward and backward", "staged"),
    Column("path_flops", "float64", "FLOP", "training FLOPs of the longest budget as a run of its own", "staged"),
    Column("executed_flops", "float64", "FLOP", "training FLOPs that were really spent, decays included", "staged"),
    Column("tokenizer_flops", "float64", "FLOP", "training FLOPs of the tokenizer used", "staged"),
    Column("threads", "int64", "", "CPU threads of the run (part of the specification)", "staged"),
    Column("wall_seconds", "float64", "s", "wall time over all attempts that led to this row", "staged"),
    Column("peak_memory_bytes", "int64", "bytes", "peak resident memory of the process", "staged"),
    Column("started_at", "string", "ISO 8601 UTC", "start of the attempt", "staged"),
    Column("finished_at", "string", "ISO 8601 UTC", "end of the attempt, or when it was imported", True),
    Column("provenance", "string", "JSON", "git sha and diff hash, versions, hardware, host", True),
    Column("source", "string", "", "where a row measured elsewhere comes from; null for runs of ours"),
    Column(
        "images_per_second",
        "float64",
        "1/s",
        "training images a second of the last attempt, all processes; no evaluations",
    ),
    Column(
        "model_flops_share",
        "float64",
        "fraction",
        "training FLOPs a second over the devices' peak: a GPU's published one, a CPU's matrix products then",
    ),
    Column(
        "device_memory_bytes", "int64", "bytes", "peak memory that training held on a process's GPU; null without one"
    ),
)

LATER_COLUMNS = {"source": 2, "images_per_second": 3, "model_flops_share": 3, "device_memory_bytes": 3}
"""Columns of `runs` that came later, in order, with the version that brought them."""

CURVES: tuple[Column, ...] = (
    *_KEY,
    Column("branch", "string", "", "trunk or decay@B", True),
    Column("step", "int64", "", "optimiser steps since the start of the run along this branch", True),
    Column("images", "int64", "images", "training images seen along this branch"),
    Column("tokens", "int64", "tokens", "training tokens seen along this branch"),
    Column("flops", "float64", "FLOP", "training FLOPs along this branch"),
    Column("split", "string", "", "train or validation", True),
    Column("term", "string", "", "name of the loss term or other quantity", True),
    Column("value", "float64", "of the term", "its value, averaged since the previous row of this term", True),
)

EVALUATIONS: tuple[Column, ...] = (
    *_KEY,
    Column("branch", "string", "", "trunk or decay@B", True),
    Column("step", "int64", "", "optimiser steps since the start of the run along this branch"),
    Column("images", "int64", "images", "training images seen along this branch"),
    Column("path_flops", "float64", "FLOP", "training FLOPs that a run of this budget alone would cost"),
    Column("metric", "string", "", "a name of METRICS, or one of one's own: own_...", True),
    Column("value", "float64", "of the metric", "the measurement", True),
    Column("standard_error", "float64", "of the metric", "its standard error where one is known"),
    Column("n", "int64", "", "images (or samples) it was measured on"),
    Column("guidance", "float64", "", "classifier-free guidance scale; 1 is no guidance; null where it has no meaning"),
    Column("split", "string", "", "train or validation: whose images it compares with", True),
    Column("protocol", "string", "", "short hash of protocol_json: values of two protocols are never compared", True),
    Column("protocol_json", "string", "JSON", "all that the value depends on besides the run", True),
    Column("flag", "string", "", "reason not to use this row; null for good rows"),
)

COLUMNS: dict[str, tuple[Column, ...]] = {"runs": RUNS, "curves": CURVES, "evaluations": EVALUATIONS}


def missing_fact(row: Mapping[str, Any]) -> str | None:
    """Name of the first column of `runs` that a row of it lacks although its stage and source require it."""
    staged = row.get("stage") != "run" and row.get("source") is None
    lacking = (column for column in RUNS if row.get(column.name) is None)
    return next((column.name for column in lacking if column.required is True or (column.required and staged)), None)


@dataclass(frozen=True)
class Metric:
    """What a metric is: its unit, whether lower is better (None: neither), and one line of meaning."""

    name: str
    unit: str
    lower_is_better: bool | None
    meaning: str


_METRICS = (
    Metric("rfid", "", True, "Frechet distance of reconstructed validation images to validation images"),
    Metric("rfid_floor", "", True, "reconstructed validation images against the reference, n and network of gfid"),
    Metric("gfid", "", True, "Frechet distance of generated images to training images"),
    Metric("real_fid", "", True, "held-out real images against the reference of gfid at its n: the noise floor"),
    Metric(
        "frechet_distance",
        "",
        True,
        "Frechet distance of given images to a reference, in its protocol's features",
    ),
    Metric("kid", "", True, "kernel distance (1801.01401) of given images to a reference: no bias in n"),
    Metric("inception_score", "", False, "spread of images over classes a classifier is sure of (1606.03498)"),
    Metric("precision", "fraction", False, "images within the reference's manifold (1904.06991)"),
    Metric("recall", "fraction", False, "reference images within the manifold of the given ones (1904.06991)"),
    Metric("mind", "", True, "sliced Wasserstein distance of features on the scale of FID (2605.06797)"),
    Metric("psnr", "dB", False, "peak signal-to-noise ratio of reconstructions, mean over images"),
    Metric("ssim", "", False, "structural similarity of reconstructions, mean over images"),
    Metric("ms_ssim", "", False, "structural similarity over five scales of reconstructions, mean over images"),
    Metric("lpips", "", True, "distance of reconstructions in calibrated features (1801.03924), mean over images"),
    Metric("codebook_utilisation", "fraction", False, "codes used at least once on the validation images"),
    Metric("codebook_perplexity", "codes", None, "exp of the entropy of the code frequencies"),
    Metric("position_utilisation", "fraction", None, "codes used at one position, mean over positions"),
    Metric("position_perplexity", "codes", None, "exp of the code frequencies' entropy at one position, mean of it"),
    Metric("unigram_entropy", "nats per token", None, "entropy of tokens under the training token frequencies"),
    Metric("latent_norm", "", None, "mean l2 norm of the latents before normalisation"),
    Metric("latent_variance", "", None, "total variance over dimensions of the latents that are quantised"),
    Metric("causal_explained_variance", "fraction", None, "share of latent variance that the causal model predicts"),
    Metric("nats_per_token", "nats", True, "held-out cross-entropy a token"),
    Metric("nats_per_image", "nats", True, "held-out cross-entropy an image: nats per token x tokens per image"),
    Metric("bits_per_pixel", "bits", True, "nats per image / ln 2 / pixels"),
    Metric("unigram_normalised_nats", "nats", True, "nats per token less the unigram cross-entropy (2407.13623)"),
    Metric("memorisation_ratio", "", None, "nearest-neighbour distance to training images: samples / held-out"),
    Metric("near_copy_fraction", "fraction", True, "samples closer to a training image than 99 % of held-out are"),
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _METRICS}
NATS_AT = re.compile(r"nats_at_(\d+)")
"""Terms of `curves` that are held-out cross-entropies at one position of the token sequence, counted from 0."""
OWN_METRIC = re.compile(r"own_[a-z0-9_]+")
"""Metrics of one's own, which METRICS does not describe: the prefix tells them from a misspelt name."""


def metric_name(name: object) -> str:
    """`name` if it is one of METRICS or matches OWN_METRIC. Raises UsageError, with the names that may be meant."""
    if isinstance(name, str) and (name in METRICS or OWN_METRIC.fullmatch(name)):
        return name
    hint = ""
    if isinstance(name, str) and (plain := re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_").removeprefix("own_")):
        near = difflib.get_close_matches(plain, METRICS, n=2, cutoff=0.6)
        near, own = ([plain], []) if plain in METRICS else (near, [f"'own_{plain}' for a metric of your own"])
        hint = f"did you mean {' or '.join([*map(repr, near), *own])}? "
    raise UsageError(
        f"metric = {name!r} is unknown; {hint}allowed: {', '.join(METRICS)}, or a name of your own such as "
        "own_clip_score"
    )


@cache
def arrow_schema(table: str) -> pyarrow.Schema:
    """The pyarrow schema of one of TABLES; the schema version is in its metadata under `tokenlaw_schema`."""
    import pyarrow as pa

    types = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_()}
    fields = [pa.field(c.name, types[c.type], nullable=c.required is not True) for c in COLUMNS[table]]
    return pa.schema(fields, metadata={b"tokenlaw_schema": str(SCHEMA_VERSION).encode()})

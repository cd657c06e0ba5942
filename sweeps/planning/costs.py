"""What runs cost: hours of GPUs or cores, by a hardware profile until the store knows how long such runs really take,
and the disk that their checkpoints and artifacts need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from scaling.specification.spec import GeneratorRun, TokenizerRun
from sweeps.study.hardware import Hardware

if TYPE_CHECKING:
    from results.store.run_set import StoredRun

    from .planned_run import PlannedRun

Unit = Literal["GPU", "core"]
Source = Literal["done", "measured", "profile", "guess", "time limit", "unknown"]
SOURCES: dict[Source, str] = {
    "done": "what it took",
    "measured": "what runs of its stage and size took, by FLOPs",
    "profile": "the hardware profile",
    "guess": "a guess for one core of a laptop",
    "time limit": "its time limit, an upper bound",
    "unknown": "nothing: name a [hardware] profile",
}

CHECKPOINTS_KEPT = 2
"""Checkpoints of an attempt on disk at a time, as scaling.training.checkpoint keeps them."""
SHARD_IMAGES, MOST_SHARDS = 5_000, 200
"""Images of a shard of a token cache, and about how many shards a split has at most: scaling.tokenizer.encoding's."""
_WEIGHTS, _ADAM = 4, 8
"""Bytes a parameter: float32 weights, and the two float32 moments of AdamW."""


@dataclass(frozen=True)
class Cost:
    """Hours of GPUs or cores that a run takes, and where the number is from. None: not known."""

    hours: float | None
    source: Source


def unit_of(runs: Iterable[PlannedRun], hardware: Hardware | None) -> Unit:
    """GPU if the hardware profile is one, or without a profile if any run asks for one; else core."""
    if hardware is not None:
        return "GPU" if hardware.device.device == "gpu" else "core"
    return "GPU" if any(run.resources.gpus for run in runs) else "core"


def costs(
    runs: Iterable[PlannedRun], hardware: Hardware | None, results: Mapping[str, StoredRun] | None = None
) -> dict[str, Cost]:
    """Hours of each run by id.

    results  what the store says of runs that are done. Their wall time, times the devices that they ask for, replaces
             estimates for runs of the same stage and size in proportion to FLOPs. In GPU-hours that holds only for runs
             that ask for GPUs, since others were measured on CPUs.
    """
    listed = list(runs)
    unit = unit_of(listed, hardware)
    took: dict[str, float] = {}
    groups: dict[tuple[str, str], list[PlannedRun]] = {}
    for run in listed:
        summary = (results or {}).get(run.run_id)
        devices = run.resources.gpus if unit == "GPU" else run.spec.threads
        if summary is not None and summary.status == "done" and summary.wall_seconds > 0 and devices:
            took[run.run_id] = summary.wall_seconds * devices / 3600
            groups.setdefault((run.stage, run.size), []).append(run)
    # FLOPs are what runs of a stage and size share; runs of no stage have none and count alike.
    hours_a_unit = {
        key: sum(took[run.run_id] for run in members) / sum(run.flops or 1.0 for run in members)
        for key, members in groups.items()
    }

    def cost(run: PlannedRun) -> Cost:
        rate = hours_a_unit.get((run.stage, run.size))
        if run.run_id in took:
            return Cost(took[run.run_id], "done")
        if rate is not None and (unit == "core" or run.resources.gpus):
            return Cost(rate * (run.flops or 1.0), "measured")
        return _estimated(run, unit, hardware)

    return {run.run_id: cost(run) for run in listed}


def _estimated(run: PlannedRun, unit: Unit, hardware: Hardware | None) -> Cost:
    if not run.flops:
        devices = run.resources.gpus if unit == "GPU" else run.resources.tasks * run.resources.cpus_per_task
        return Cost(run.resources.hours * devices, "time limit")
    if hardware is None:
        return Cost(None, "unknown") if unit == "GPU" else Cost(run.seconds / 3600, "guess")
    return Cost(run.flops / hardware.rate / 3600, "profile")


def checkpoint_bytes(run: PlannedRun) -> int:
    """Disk that a run's checkpoints take at most while it runs; they are removed when it is done.

    Weights and AdamW's moments; the tokenizer's running average, causal model and discriminator; during a forked decay
    the state at the fork as well. 0 for a trainer of one's own, of which nothing is known.
    """
    spec = run.spec
    if spec.trainer is not None or run.parameters is None:
        return 0
    each = (_WEIGHTS + _ADAM) * run.parameters
    if isinstance(spec, TokenizerRun):
        each += _WEIGHTS * run.parameters if spec.ema_decay else 0
        each += (_WEIGHTS + _ADAM) * _helper_parameters(run)
    elif isinstance(spec, GeneratorRun) and spec.schedule == "warmup-stable-decay":
        each *= 2
    return CHECKPOINTS_KEPT * each


def artifact_bytes(run: PlannedRun) -> int:
    """Disk that a done run keeps: its weights, and of a tokenizer the tokens and labels (int32) of all images.

    0 for a trainer of one's own.
    """
    spec = run.spec
    if spec.trainer is not None or run.parameters is None:
        return 0
    tokens = 0
    if isinstance(spec, TokenizerRun):
        images = spec.data.fixed_views * spec.data.train_images + spec.data.validation_images
        tokens = images * ((2 if spec.codebook_size <= 2**16 else 4) * spec.tokens_per_image + 4)
    return _WEIGHTS * run.parameters + tokens


def state_bytes(run: PlannedRun) -> int:
    """Memory of each device for what training holds between steps: float32 weights, gradients and AdamW's moments, and
    a tokenizer's running average, causal model and discriminator. Under `fsdp2` each of a generator's tasks keeps its
    part of the first three. Activations come on top; `microbatch` bounds them. 0 for a trainer of one's own."""
    spec = run.spec
    if spec.trainer is not None or run.parameters is None:
        return 0
    total = (2 * _WEIGHTS + _ADAM) * run.parameters
    if isinstance(spec, TokenizerRun):
        total += _WEIGHTS * run.parameters if spec.ema_decay else 0
        total += (2 * _WEIGHTS + _ADAM) * _helper_parameters(run)
    elif run.resources.strategy == "fsdp2":
        total = -(-total // run.resources.tasks)
    return total


def artifact_files(run: PlannedRun) -> int:
    """Files and folders (inodes) that a done run keeps beside its rows: weights, pictures, and a tokenizer's shards
    of tokens. 0 for a trainer of one's own."""
    spec = run.spec
    if spec.trainer is not None:
        return 0
    if not isinstance(spec, TokenizerRun):
        return 4
    train = spec.data.fixed_views * spec.data.train_images
    shards = sum(min(-(-images // SHARD_IMAGES), MOST_SHARDS) for images in (train, spec.data.validation_images))
    return 3 + 2 + shards


def _helper_parameters(run: PlannedRun) -> int:
    """Of a tokenizer's frozen helpers, those that the causal regulariser and the discriminator train."""
    from scaling.specification.feature_networks import perceptual_cost

    spec = run.spec
    assert isinstance(spec, TokenizerRun)
    if spec.regulariser is None and spec.adversarial is None:
        return 0
    perceptual = perceptual_cost(spec.losses.network_name, spec.encoded_size, spec.data.channels).parameters
    return int(run.facts["parameters_frozen"]) - (perceptual if spec.losses.perceptual_weight else 0)

"""One run, end to end: from a specification to recorded rows and artifacts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from results.errors import DataError, RunError, UsageError
from results.recorder import Recorder
from results.schema import TRUNK
from scaling.data.images import LabelledImages, Split
from scaling.data.run_images import RunImages
from scaling.data.sources import weights
from scaling.data.tokens import TokenSplit, load_tokens, mapped, save_tokens
from scaling.evaluation.measuring.measure_generator import SHOWN, GeneratorMeasurement, labels_in_turn
from scaling.evaluation.measuring.measure_tokenizer import measure_tokenizer
from scaling.evaluation.measuring.sampled import Sampler
from scaling.evaluation.networks.run_networks import check_networks, judges
from scaling.generator.transformer import Generator
from scaling.networks import recompute_activations
from scaling.specification.run_columns import estimated_seconds, evaluation_seconds
from scaling.specification.spec import GeneratorRun, RunSpec, TokenizerRun
from scaling.specification.workspace import Progress, Workspace
from scaling.tokenizer.encoding import encode_split, weights_of
from scaling.tokenizer.model import Tokenizer
from scaling.tokenizer.pretrained import STORED, load_pretrained
from scaling.tokenizer.pretrained import read_pretrained as read_pretrained
from scaling.training.distributed import Ranks, connected
from scaling.training.generator import GeneratorTraining
from scaling.training.loop import CHECKPOINT_SECONDS, Report, TrainingLoop
from scaling.training.memory import check_memory
from scaling.training.schedule import segments
from scaling.training.stage import StageTraining
from scaling.training.tokenizer import TokenizerTraining

from . import preview
from .ranks import Place, Strategy

MODEL, TOKENS, PREVIEW, NEIGHBOURS = STORED, "tokens", "preview.png", "neighbours.png"
"""Artifacts of a finished run."""

SPLITS: tuple[Split, ...] = ("train", "validation")


def execute(
    spec: RunSpec,
    workspace: Workspace,
    recorder: Recorder,
    report: Report,
    stop: Callable[[], bool],
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    *,
    microbatch: int | None = None,
    place: Place | None = None,
    strategy: Strategy = "ddp",
    recompute: bool = False,
    compiled: bool = False,
) -> None:
    """Train and measure one run, or finish one that was interrupted.

    Rows go to `recorder`, weights, tokens and pictures to workspace.artifacts, by the first of several processes.

    microbatch  images that a process holds at a time; None for its whole part of the global batch
    place       which of several processes this is; None for the only one
    strategy    how several processes train a generator: each with all of it, or with a part of every weight
    recompute   keep fewer activations and compute them again in the backward pass: the same numbers

    compiled    train with networks compiled by torch; measurements are never compiled

    None of these changes results by more than rounding and the order of additions.
    Raises RunError with a cause (`diverged`, `interrupted`), DataError for images, artifacts or weights that
    cannot be read, StoreError for a full disk, UsageError for a strategy that a tokenizer has not, a
    generator of pretrained weights, where torch cannot compile, or for
    weights that are larger than memory.
    """
    if strategy != "ddp" and isinstance(spec, TokenizerRun):
        raise UsageError(f"strategy = {strategy!r} is not allowed for tokenizers; allowed: ddp")
    if isinstance(spec, GeneratorRun) and spec.pretrained is not None:
        raise UsageError(
            f"generator.pretrained = {spec.pretrained.fingerprint[:12]}... leaves nothing to train; allowed: none, or "
            "`tokenlaw evaluate` of the folder that holds these weights"
        )
    check_networks(spec)
    workspace.artifacts.mkdir(parents=True, exist_ok=True)
    with connected(place, spec.threads) as ranks:
        check_memory(spec, ranks.device, ranks.size if strategy == "fsdp2" else 1)
        execution = _Execution(workspace, recorder, report, stop, checkpoint_seconds, ranks, microbatch)
        execution.strategy, execution.recompute, execution.compiled = strategy, recompute, compiled
        if isinstance(spec, TokenizerRun):
            execution.tokenizer(spec)
        else:
            execution.generator(spec)
    report(Progress("done", 1.0))


def _steps(spec: RunSpec, images: int) -> int:
    return images // spec.batch_size


def _draw(sampler: Sampler, measurement: GeneratorMeasurement | None, model: Generator) -> None:
    """Draw what an evaluation needs, together with the other processes; the first measures it."""
    samples = sampler.all(model, SHOWN)
    if measurement is not None:
        measurement.samples = samples


@dataclass
class _Execution:
    """One process's part of a run."""

    workspace: Workspace
    recorder: Recorder
    report: Report
    stop: Callable[[], bool]
    checkpoint_seconds: float
    ranks: Ranks
    microbatch: int | None
    strategy: Strategy = "ddp"
    recompute: bool = False
    compiled: bool = False
    latest: Progress = field(default_factory=lambda: Progress("start", 0.0))

    def tokenizer(self, spec: TokenizerRun) -> None:
        """Train a tokenizer, or take one over; then measure it and encode all images."""
        share = evaluation_seconds(spec) / estimated_seconds(spec)
        artifacts = self.workspace.artifacts

        def encode(model: Tokenizer, part: tuple[int, int]) -> dict[Split, list[Path]]:
            # Measured in float32 whatever the training's precision: the protocol knows one arithmetic.
            self._follow(Progress("tokens", 1 - share, "reading all images"))
            splits = {split: images.split(split) for split in SPLITS}
            return self._encode(model, splits, 1 - share, 1 - share / 2, part)

        def measure(model: Tokenizer, recorder: Recorder) -> None:
            shards = encode(model, (0, 1))
            labels = {split: images.split(split).labels for split in SPLITS}
            tokens = {split: TokenSplit(mapped(shards[split]), labels[split]) for split in SPLITS}
            self._follow(Progress("evaluate", 1 - share / 2))
            shown = measure_tokenizer(spec, model, images, tokens, self.workspace.cache, recorder, self._evaluating)
            model.save(artifacts / MODEL)
            save_tokens(artifacts / TOKENS, spec, shards, labels, weights_of(model), model.pixels_of)
            preview.pair_sheet(artifacts / PREVIEW, *shown)
            if self.workspace.sheets is not None:
                preview.pair_sheet(self.workspace.sheets / f"{TRUNK}-{_steps(spec, spec.executed_images)}.png", *shown)

        images, ranks = self._images(spec), self.ranks
        if spec.pretrained is not None:
            path = weights.recall(self.workspace.pretrained, spec.pretrained.fingerprint)
            model = load_pretrained(spec, path).to(ranks.device)
            with torch.inference_mode():
                if ranks.size > 1:
                    encode(model, (ranks.rank, ranks.size))
                ranks.by_first(lambda: measure(model, self.recorder))
            return
        training = TokenizerTraining(spec, images.split("train"), measure, ranks, self.microbatch)
        if ranks.size > 1:  # Each encodes its part of the images; the first then finds all shards.
            training.prepare_measurement = lambda model: encode(model, (ranks.rank, ranks.size))
        self._train(spec, training, share)

    def _images(self, spec: RunSpec) -> RunImages:
        return RunImages(spec.tokenizer.data, self.workspace.pictures, spec.threads)

    def _encode(
        self,
        model: Tokenizer,
        images: Mapping[Split, LabelledImages],
        begin: float,
        end: float,
        part: tuple[int, int],
    ) -> dict[Split, list[Path]]:
        """Shards of a part of the images as tokens, while the share of the run that is done goes from `begin` to `end`.

        See encode_split.
        """
        folder, total = self.workspace.encoded, sum(map(len, images.values()))
        earlier = [attempt / folder.name for attempt in self.workspace.earlier]
        shards: dict[Split, list[Path]] = {}
        before = 0
        for split, labelled in images.items():

            def step(done: int, speed: float | None, before: int = before) -> None:
                place = f"{before + done:,} of {total:,} images"
                share = begin + (end - begin) * (before + done) / total
                self._follow(Progress("tokens", share, f"encoding {place}", speed))
                if self.stop():
                    raise RunError(f"stopped at {place} encoded; these and a checkpoint are kept", "interrupted")

            shards[split] = encode_split(model, labelled, split, folder, earlier, step, part)
            before += len(labelled)
        return shards

    def generator(self, spec: GeneratorRun) -> None:
        """Train a generator on its tokenizer's tokens, measuring it at each budget."""
        parent, artifacts = self.workspace.parent, self.workspace.artifacts
        if parent is None:
            raise DataError(
                f"generator run {spec.run_id} needs the artifacts of tokenizer {spec.tokenizer.run_id}; none given"
            )
        tokenizer = Tokenizer.load(spec.tokenizer, parent / MODEL).to(self.ranks.device)
        tokens, validation = load_tokens(spec.tokenizer, parent, tokenizer.pixels_of)
        cache, sampler, measurement = self.workspace.cache, None, None
        if spec.evaluation.sampling is not None:
            networks = [judge.network for judge in judges(spec.tokenizer.data, spec.evaluation, self.ranks.device)]
            labels = labels_in_turn(spec, tokens)
            sampler = Sampler(spec, tokenizer, networks, labels, self.ranks, self._evaluating)
        if self.ranks.first:
            measurement = GeneratorMeasurement(
                spec, tokenizer, tokens, validation, self._images(spec), cache, self._evaluating, sampler
            )
        evaluation = None if measurement is None else partial(self._measured, spec, measurement)
        training = GeneratorTraining(spec, tokens, evaluation, self.ranks, self.microbatch, self.strategy)
        if sampler is not None:
            training.prepare_measurement = partial(_draw, sampler, measurement)
        self._train(spec, training, evaluation_seconds(spec) / estimated_seconds(spec))
        if measurement is None:
            return
        training.save(artifacts / MODEL)
        # The last evaluation is never behind a checkpoint, so whoever gets here has done it in this process.
        assert measurement.last is not None
        samples, labels, nearest = measurement.last
        preview.sample_sheet(artifacts / PREVIEW, samples, labels, spec.tokenizer.data.classes)
        preview.pair_sheet(artifacts / NEIGHBOURS, samples, nearest)

    def _measured(
        self, spec: GeneratorRun, measurement: GeneratorMeasurement, model: Generator, branch: str, images: int,
        recorder: Recorder,
    ) -> None:  # fmt: skip
        """Measure a generator at a budget, and leave a picture where somebody looks at it."""
        measurement(model, branch, images, recorder)
        if self.workspace.sheets is not None and measurement.last is not None:
            sheet = self.workspace.sheets / f"{branch}-{_steps(spec, images)}.png"
            preview.sample_sheet(sheet, *measurement.last[:2], spec.tokenizer.data.classes)

    def _train(self, spec: RunSpec, training: StageTraining, share: float) -> None:
        for module in training.modules.values():
            recompute_activations(module, self.recompute)
        if self.compiled:
            training.compile()
        TrainingLoop(
            training, segments(spec), self.workspace, self.recorder, self._follow, self.stop, share,
            self.checkpoint_seconds, self.ranks,
        ).run()  # fmt: skip

    def _follow(self, progress: Progress) -> None:
        self.latest = progress
        self.report(progress)

    def _evaluating(self, detail: str) -> None:
        """Called between the steps of an evaluation, and of what it needs, either of which may take longer than the
        grace time of a stop."""
        begun = self.latest.phase != "start"
        if begun:
            self.report(Progress("evaluate", self.latest.done, detail))
        if self.stop():
            place = f"while evaluating ({detail}); a checkpoint is kept" if begun else f"before training ({detail})"
            raise RunError(f"stopped {place}", "interrupted")

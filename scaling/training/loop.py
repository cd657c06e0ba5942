"""The training loop that both stages share: segments, logging, forks, checkpoints, progress, interruption."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from results.errors import RunError, StoreError
from results.recorder import Recorder
from scaling.networks import in_double
from scaling.specification.workspace import Progress, Workspace

from . import checkpoint
from .distributed import ALONE, Ranks
from .peak import described_rate, peak_flops
from .schedule import ScheduleSegment
from .sharding import whole_state
from .stage import StageTraining, below

LOG_STEPS = 16
"""Steps between rows of the curves; there is also one at the end of a segment."""

SAID = ("squared_error", "perceptual", "adversarial", "discriminator", "causal")
"""Terms that reports of progress name beside the loss."""

CHECKPOINT_SECONDS = 20.0
"""Least time between two checkpoints."""
SAVING_SHARE = 0.05
"""Share of the time that checkpoints may take; large ones come less often."""

ROWS_BEFORE = "rows-before-evaluation.jsonl"


Report = Callable[[Progress], None]


@dataclass
class TrainingLoop:
    """Executes all segments of a stage's training, resuming from the furthest checkpoint; the rows are the recorder's.

    `evaluation_share` is the share of the run's estimated time that evaluations take, for the progress only. Of
    several processes the first writes and evaluates; a request to stop that reaches any of them stops all.
    """

    stage: StageTraining
    segments: tuple[ScheduleSegment, ...]
    workspace: Workspace
    recorder: Recorder
    report: Report
    stop: Callable[[], bool]
    evaluation_share: float
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    ranks: Ranks = ALONE

    def __post_init__(self) -> None:
        # The state between steps: place on the schedule, the trunk's tensors at a fork, sums since the last row.
        self.index, self.images = 0, self.segments[0].start
        self.fork: dict[str, Tensor] | None = None
        self.sums: dict[str, Tensor] = {}
        self.last_save, self.saving = time.monotonic(), 0.0
        self.trained_images, self.trained_seconds = 0, 0.0
        peak = peak_flops(self.ranks.device, self.stage.precision)
        self.peak = None if peak is None else peak * self.ranks.size
        """Of all processes; None where it is not known."""

    def run(self) -> None:
        """Raises RunError: `diverged` for a loss that is not finite, `interrupted` after `stop()` turned true."""
        self._resume()
        while self.index < len(self.segments):
            segment = self.segments[self.index]
            if segment.decays and self.images == segment.start and self.fork is None:
                self._save()  # Killed within this fork, a run trains nothing but the fork again.
                self.fork = self.stage.state()
            self._train(segment)
            if segment.evaluated:
                self.report(Progress("evaluate", self._share(), segment.branch))
                if self.stage.sharded:
                    self._save()  # Whole tensors need all processes, which an evaluation that is stopped has not.
                self._prepare_evaluation()
                self.ranks.by_first(lambda segment=segment: self._evaluate(segment))  # type: ignore[misc]
            self.index += 1
            if self.index < len(self.segments):
                if segment.decays and self.fork is not None:
                    self.stage.load(self.fork)
                    self.fork = None
                self.images = self.segments[self.index].start
                if segment.evaluated:
                    self._save()  # An evaluation is never done twice.
        self._tell_speed()

    def _tell_speed(self) -> None:
        """Record how fast this attempt trained, what share of the peak that is, and what it took of a GPU's memory."""
        device = self.ranks.device
        if self.trained_images:
            speed = self.trained_images / self.trained_seconds
            self.recorder.facts(images_per_second=speed)
            if self.peak is not None:
                share = speed * self.stage.flops_per_image / self.peak
                self.recorder.facts(model_flops_share=share)
        if device.type == "cuda":
            self.recorder.facts(device_memory_bytes=torch.cuda.max_memory_allocated(device))

    def _train(self, segment: ScheduleSegment) -> None:
        """The steps of one segment."""
        batch = self.stage.batch_size
        begun, clock = self.images, time.monotonic()
        while self.images < segment.end:
            terms = self.stage.step(segment, self.images)
            self.images += batch
            # In the order of the terms also after a resume, in every process.
            sums = self.sums
            self.sums = {k: sums[k] + value if k in sums else in_double(value) for k, value in terms.items()}
            steps = (self.images - segment.start) // batch
            if steps % LOG_STEPS == 0 or self.images >= segment.end:
                means = self._log(segment, steps % LOG_STEPS or LOG_STEPS)
                now = time.monotonic()
                speed = (self.images - begun) / max(now - clock, 1e-9)
                self.trained_images += self.images - begun
                self.trained_seconds += max(now - clock, 1e-9)
                begun, clock = self.images, now
                self.report(Progress("train", self._share(), self._said(segment, means, speed), speed))
            if self.ranks.any(self.stop()):
                self._save()
                place = f"{self.images} images of {segment.branch}"
                raise RunError(f"stopped at {place}; a checkpoint is kept", "interrupted")
            if not self.sums and self.ranks.told(self._due()):
                self._save()
                clock = time.monotonic()

    def _said(self, segment: ScheduleSegment, means: dict[str, float], speed: float) -> str:
        """Losses and speed for people."""
        terms = [f"{name} {means[name]:.4g}" for name in SAID if name in means]
        rate = described_rate(speed * self.stage.flops_per_image, self.peak)
        return f"{segment.branch} loss {means['loss']:.4f}, {', '.join([*terms, rate])}"

    def _log(self, segment: ScheduleSegment, count: int) -> dict[str, float]:
        """Record the means over the `count` steps since the last row, and return them. Raises RunError where the loss
        is not finite."""
        stage, images = self.stage, self.images
        means: dict[str, Any] = {name: float(value) / count for name, value in self.ranks.sum_terms(self.sums).items()}
        self.sums = {}
        self.recorder.curve(
            branch=segment.branch,
            step=images // stage.batch_size,
            images=images,
            tokens=images * stage.tokens_per_image,
            flops=images * stage.flops_per_image,
            **means,
        )
        for name in ("loss", "discriminator"):
            if not math.isfinite(means.get(name, 0.0)):
                raise RunError(f"{name} is {means[name]} at {images} images of {segment.branch}", cause="diverged")
        return means

    def _prepare_evaluation(self) -> None:
        """The part of all processes. Where one is stopped all stop, and a checkpoint is kept."""
        stopped: RunError | None = None
        try:
            with self._measuring():
                self.stage.prepare_evaluation()
        except RunError as error:
            stopped = error
        if self.ranks.any(stopped is not None):
            self._save()
            raise stopped or RunError("stopped with another process; a checkpoint is kept", "interrupted")

    def _evaluate(self, segment: ScheduleSegment) -> None:
        """Measure at the end of a segment. Stopped in between, a checkpoint of the moment before it is kept."""
        before = self.workspace.attempt / ROWS_BEFORE
        self.recorder.save(before)
        try:
            with self._measuring():
                self.stage.evaluate(segment, self.images, self.recorder)
        except RunError as error:
            if error.cause == "interrupted":
                self.recorder.restore(before)
                if not self.stage.sharded:
                    self._write(self.stage.state(), self.sums)
            raise
        finally:
            before.unlink(missing_ok=True)

    @contextmanager
    def _measuring(self) -> Iterator[None]:
        """Without gradients, and by networks as they are written: measurements know one arithmetic."""
        # The stance alone costs a second of imports.
        with torch.inference_mode(), torch.compiler.set_stance("force_eager") if self.stage.compiled else nullcontext():
            yield

    def _share(self) -> float:
        """Share of the run's estimated time that is over."""
        past = self.segments[: self.index]
        images = sum(s.end - s.start for s in past) + self.images - self.segments[self.index].start
        total = sum(s.end - s.start for s in self.segments)
        evaluated = sum(s.evaluated for s in past) / sum(s.evaluated for s in self.segments)
        return (1 - self.evaluation_share) * images / total + self.evaluation_share * evaluated

    # --- checkpoints ---

    def _resume(self) -> None:
        """Go to the furthest checkpoint of this and earlier attempts, the same in all processes.

        Raises RunError for one of another run.
        """
        folders = [attempt / "checkpoints" for attempt in (self.workspace.attempt, *self.workspace.earlier)]
        found: list[tuple[Path, checkpoint.Position, dict[str, Tensor]] | None] = []
        self.ranks.by_first(lambda: found.append(checkpoint.load_newest(folders, self.recorder, self._check_fork)))
        newest = found[0] if found else None
        path = self.ranks.told(str(newest[0]) if newest else None)
        if path is None:
            return
        position, tensors = newest[1:] if newest else checkpoint.load(Path(path), self.recorder)
        self.index, self.images = position.segment, position.images
        self.stage.load(below("active.", tensors))
        self.fork = below("fork.", tensors) or None
        if self.ranks.first:
            self.sums = {name: value.to(self.ranks.device) for name, value in below("sums.", tensors).items()}
        place = f"{self.segments[self.index].branch} at {self.images} images"
        attempt = Path(path).parent.parent.name
        self.report(Progress("resume", self._share(), f"from {place}, of attempt {attempt}"))

    def _check_fork(self, position: checkpoint.Position, tensors: dict[str, Tensor]) -> None:
        """Raise StoreError for a checkpoint within a fork that lacks the trunk's tensors where segments are left, which
        start from these: they would go on from decayed weights."""
        segment, left = self.segments[position.segment], self.segments[position.segment + 1 :]
        if segment.decays and position.images > segment.start and left and not below("fork.", tensors):
            raise StoreError(
                f"it is of {segment.branch} at {position.images} images and has no tensors fork.*, from which "
                f"{left[0].branch} starts"
            )

    def _due(self) -> bool:
        return time.monotonic() - self.last_save > max(self.checkpoint_seconds, self.saving / SAVING_SHARE)

    def _save(self) -> None:
        """Save a checkpoint, by the first process for all."""
        sums = self.ranks.sum_terms(self.sums) if self.sums else {}
        if not self.stage.sharded:
            self.ranks.by_first(lambda: self._write(self.stage.state(), sums))
            return
        state = whole_state(self.stage.state(), self.ranks.first)
        fork = whole_state(self.fork or {}, self.ranks.first)
        self.ranks.by_first(lambda: self._write(state, sums, fork))

    def _write(self, state: dict[str, Tensor], sums: dict[str, Tensor], fork: dict[str, Tensor] | None = None) -> None:
        begun = time.monotonic()
        tensors = {f"active.{name}": value for name, value in state.items()}
        tensors |= {f"fork.{name}": value for name, value in (fork or self.fork or {}).items()}
        tensors |= {f"sums.{name}": value for name, value in sums.items()}
        folder = self.workspace.checkpoints
        checkpoint.save(folder, checkpoint.Position(self.index, self.images), tensors, self.recorder)
        checkpoint.retire(folder, [attempt / "checkpoints" for attempt in self.workspace.earlier])
        self.last_save = time.monotonic()
        self.saving = self.last_save - begun

"""Rows of one model's evaluations after so many training images, each with the protocol of its metric."""

from __future__ import annotations

from dataclasses import dataclass

from results.protocol import Protocol
from results.recorder import Recorder
from scaling.data.images import Split
from scaling.specification import flops
from scaling.specification.spec import RunSpec, TokenizerRun

from .fid import reference_hash


@dataclass(frozen=True)
class Measurements:
    """Records what is measured of a run on a branch after `images` training images."""

    run: RunSpec
    recorder: Recorder
    branch: str
    images: int

    @property
    def tokenizer(self) -> TokenizerRun:
        """The run itself, or a generator's tokenizer: its data and protocol are those of the metrics."""
        return self.run if isinstance(self.run, TokenizerRun) else self.run.tokenizer

    def held_out(self, metric: str, value: float, n: int, error: float | None = None) -> None:
        """A value on `n` validation images, with its standard error."""
        data = self.tokenizer.data
        protocol = Protocol(metric, n, reference=f"{data.name}/validation", crop=f"pad{data.image_size}")
        self._record(protocol, value, "validation", error)

    def of_features(
        self,
        metric: str,
        value: float,
        n: int,
        split: Split,
        *,
        guidance: float | None = None,
        error: float | None = None,
    ) -> None:
        """A distance of `n` images to those of a split, in the features of the FID network."""
        data, evaluation = self.tokenizer.data, self.tokenizer.evaluation
        protocol = Protocol(
            metric,
            n,
            reference=f"{data.name}/{split}",
            reference_hash=reference_hash(data, split),
            crop=f"pad{data.image_size}",
            extractor="fid",
            extractor_hash=evaluation.fid_network[:16],
            guidance=guidance,
            seed=evaluation.seed,
        )
        self._record(protocol, value, split, error)

    def _record(self, protocol: Protocol, value: float, split: Split, error: float | None) -> None:
        self.recorder.evaluation(
            branch=self.branch,
            step=self.images // self.run.batch_size,
            images=self.images,
            path_flops=flops.flops_per_image(self.run) * self.images,
            metric=protocol.metric,
            value=value,
            standard_error=error,
            n=protocol.n,
            protocol=protocol,
            split=split,
        )

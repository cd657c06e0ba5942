"""Rows of one model's evaluations after so many training images, each with the protocol of its metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from results.protocol import Protocol
from results.recorder import Recorder
from scaling.data.images import Split
from scaling.specification import flops
from scaling.specification.spec import RunSpec

from .fid import reference_hash
from .networks.run_networks import extractor


@dataclass(frozen=True)
class Measurements:
    """Records what is measured of a run on a branch after `images` training images."""

    run: RunSpec
    recorder: Recorder
    branch: str
    images: int
    flag: str | None = None
    """Why none of these is to be used; None for good ones."""

    def held_out(self, metric: str, value: float, n: int, error: float | None = None) -> None:
        """A value on `n` validation images, with its standard error."""
        self._record(metric, value, n, "validation", error)

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
        """A distance of `n` images to those of a split, in the features of the run's network."""
        data, evaluation = self.run.tokenizer.data, self.run.tokenizer.evaluation
        judge = extractor(data, evaluation)
        network = {"extractor": judge.name, "extractor_hash": judge.sha256[:16], "seed": evaluation.seed}
        fields = {"reference_hash": reference_hash(data, split), "guidance": guidance, **network}
        self._record(metric, value, n, split, error, **fields)

    def _record(self, metric: str, value: float, n: int, split: Split, error: float | None, **features: Any) -> None:
        data = self.run.tokenizer.data
        protocol = Protocol(metric, n, reference=f"{data.name}/{split}", crop=data.preprocessing, **features)
        self.recorder.evaluation(
            branch=self.branch,
            step=self.images // self.run.batch_size,
            images=self.images,
            path_flops=flops.flops_per_image(self.run) * self.images,
            metric=metric,
            value=value,
            standard_error=error,
            n=n,
            protocol=protocol,
            split=split,
            flag=self.flag,
        )

"""Rows of one model's evaluations after so many training images, each with the protocol of its metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from results.protocol import TUNED, Protocol
from results.recorder import Recorder
from scaling.data.images import Split
from scaling.specification.costs import flops
from scaling.specification.sampling import SamplingSpec
from scaling.specification.spec import GeneratorRun, RunSpec

from ..fid import reference_hash
from ..networks.run_networks import Judge
from ..set_figures import SetFigure


def sampling_fields(spec: SamplingSpec, tuned: bool = False) -> dict[str, Any]:
    """What a protocol says of how images were drawn: the microbatch, and all that is not the default.

    A schedule over tokens stands among the settings where the scale was tuned, which is said in its place.
    """
    fields: dict[str, Any] = {"microbatch": spec.microbatch}
    for name in ("temperature", "top_k", "top_p", "guidance_schedule"):
        if getattr(spec, name) != SamplingSpec.model_fields[name].default:
            fields[name] = getattr(spec, name)
    settings = [f"{name}={getattr(spec, name)}" for name in ("classes", "guided")
                if getattr(spec, name) != SamplingSpec.model_fields[name].default]  # fmt: skip
    if tuned:
        settings += [f"over-tokens={schedule}"] if (schedule := fields.get("guidance_schedule")) else []
        fields["guidance_schedule"] = TUNED
    return fields | ({"settings": " ".join(settings)} if settings else {})


@dataclass(frozen=True)
class Measurements:
    """Records what is measured of a run on a branch after `images` training images."""

    run: RunSpec
    recorder: Recorder
    branch: str
    images: int
    flag: str | None = None
    """Why none of these is to be used; None for good ones."""

    def held_out(self, metric: str, value: float, n: int, error: float | None = None, **network: str) -> None:
        """A value on `n` validation images, with its standard error and the network behind it, if there is one."""
        self._record(metric, value, n, "validation", error, **network)

    def by_position(self, nats: Sequence[float]) -> None:
        """Held-out nats at each position of the sequence, as terms of `curves` (schema.NATS_AT)."""
        run, images = self.run, self.images
        self.recorder.curve(
            branch=self.branch, step=images // run.batch_size, images=images,
            tokens=images * run.tokenizer.tokens_per_image, flops=flops.flops_per_image(run) * images,
            split="validation", **{f"nats_at_{position}": value for position, value in enumerate(nats)},
        )  # fmt: skip

    def of_features(
        self,
        metric: str,
        value: float,
        n: int,
        split: Split,
        judge: Judge,
        *,
        guidance: float | None = None,
        error: float | None = None,
        sampled: SamplingSpec | None = None,
        tuned: bool = False,
    ) -> None:
        """A distance of `n` images to those of a split, in the features of a network.

        `sampled` is how these images were drawn, by number; `tuned` says that the scale was the best of several.
        """
        data, seed = self.run.tokenizer.data, self.run.tokenizer.evaluation.seed
        fields = {"reference_hash": reference_hash(data, split), "guidance": guidance, **judge.protocol, "seed": seed}
        if sampled is not None:
            fields |= sampling_fields(sampled, tuned)
        self._record(metric, value, n, split, error, **fields)

    def of_set(self, figure: SetFigure, n: int, judge: Judge, guidance: float) -> None:
        """A figure of `n` generated images, against training images where it is a comparison."""
        fields: dict[str, Any] = {"guidance": guidance, **judge.protocol}
        if isinstance(self.run, GeneratorRun) and self.run.evaluation.sampling is not None:
            fields |= sampling_fields(self.run.evaluation.sampling)
        fields["settings"] = " ".join(filter(None, (figure.settings, fields.get("settings"))))
        if figure.metric != "inception_score":
            fields["reference_hash"] = reference_hash(self.run.tokenizer.data, "train")
        self._record(figure.metric, figure.value, n, "train", figure.standard_error, **fields, seed=figure.seed)

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

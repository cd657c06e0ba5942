"""What is measured of a generator at a budget: held-out rate, gFID with and without guidance, memorisation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from results.errors import DataError
from results.recorder import Recorder
from results.schema import TRUNK
from scaling import randomness
from scaling.data.images import Split
from scaling.data.run_images import RunImages
from scaling.data.tokens import TokenSplit
from scaling.generator.numbered import labels_in_proportion
from scaling.generator.sampling import sample
from scaling.generator.transformer import Generator
from scaling.networks import device_of
from scaling.specification.evaluation import OF_RECONSTRUCTIONS
from scaling.specification.spec import GeneratorRun
from scaling.tokenizer.model import Tokenizer

from .. import fid, rate
from ..memorisation import memorisation, nearest_neighbours, training_features
from ..networks.features import extract_features
from ..networks.run_networks import Judge, judges
from ..set_figures import compare, score
from ..sets.moments import Moments
from .measurements import Measurements
from .run_reference import training_moments
from .sampled import TUNING_IMAGES, Drawn, Sampler, Samples

SAMPLE_BATCH = 500
NOT_ANNEALED = "of the trunk, whose learning rate has not decayed"
"""Flag of what is measured during training (`evaluate_images`)."""

SHOWN, NEIGHBOURS_SHOWN = 500, 20
"""Samples of an evaluation that are kept for people, and those shown beside their nearest training image."""
MEMORISATION_SAMPLES = 2_000
"""Samples whose nearest training images are sought; the share of near copies is then good to about 0.003."""


class Shown(NamedTuple):
    """Samples, their labels, and the nearest training images of the first of them; pixels are uint8 [n, c, S, S]."""

    samples: Tensor
    labels: Tensor
    nearest: Tensor


def labels_in_turn(run: GeneratorRun, train: TokenSplit) -> Tensor:
    """The row of classes that a run's samples have in turn, by its specification."""
    data, sampling = run.tokenizer.data, run.evaluation.sampling
    if sampling is not None and sampling.classes == "balanced":
        return torch.arange(data.classes)
    return labels_in_proportion(train.labels, data.classes, run.evaluation.samples)


class GeneratorMeasurement:
    """Measures one run's model at its budgets; holds what does not change between them.

    With a `sampler`, images are drawn by number, by all processes, before this is called: `samples` holds them then.
    """

    def __init__(
        self,
        run: GeneratorRun,
        tokenizer: Tokenizer,
        train: TokenSplit,
        validation: TokenSplit,
        images: RunImages,
        cache: Path,
        step_done: Callable[[str], None],
        sampler: Sampler | None = None,
    ) -> None:
        self.run, self.tokenizer, self.validation = run, tokenizer, validation
        self.images, self.cache, self.step_done = images, cache, step_done
        self.judges = judges(run.tokenizer.data, run.evaluation, device_of(tokenizer))
        self.references = [
            training_moments(images, judge, cache, lambda: step_done("features of the training images"))
            for judge in self.judges
        ]
        self.labels = labels_in_turn(run, train)
        self.samples: Samples | None = None
        if sampler is not None and run.evaluation.tuned_guidance:
            sampler.tuning = fid.reference_moments(
                images, "train", self.judges[0].network, cache, lambda: step_done("features to tune by"),
                n=TUNING_IMAGES,
            )  # fmt: skip
        self.unigram = rate.unigram_cross_entropy(train.tokens, validation.tokens, run.tokenizer.codebook_size)
        self.last: Shown | None = None
        """Of the last evaluation without guidance, for people."""

    def generate(self, model: Generator, guidance: float) -> Iterator[Tensor]:
        """run.evaluation.samples images of the labels, uint8 [SAMPLE_BATCH, c, S, S] at a time, on the model's device.

        Each image is named by its number: another number of samples begins with the same images.
        """
        n, seed = self.run.evaluation.samples, self.run.evaluation.seed
        length = self.run.tokenizer.tokens_per_image
        uniforms = torch.rand(n, length, generator=randomness.generator(seed, "sampling"))
        for start in range(0, n, SAMPLE_BATCH):
            rows = slice(start, start + SAMPLE_BATCH)
            tokens = sample(model, self.labels[rows], uniforms[rows], guidance=guidance)
            yield self.tokenizer.pixels_of(tokens)
            self.step_done(f"sampling {min(start + SAMPLE_BATCH, n)}/{n}")

    def __call__(self, model: Generator, branch: str, images: int, recorder: Recorder) -> None:
        """Record all evaluations of a branch that ends after `images` images; of the trunk, flagged."""
        run = self.run
        record = Measurements(run, recorder, branch, images, NOT_ANNEALED if branch == TRUNK else None)
        self._rate(model, record)
        for guidance in run.evaluation.guidance:
            drawn = self._drawn(model, guidance)
            self._judge(drawn, guidance, record)
            if guidance == 1.0 and images == run.train_images[-1]:
                self._memorisation(drawn.pixels, drawn.spaces[0], record)
        if self.samples is not None and self.samples.chosen is not None and self.samples.at_chosen is not None:
            self._judge(self.samples.at_chosen, self.samples.chosen, record, tuned=True)
        self.samples = None

    def _drawn(self, model: Generator, guidance: float) -> Drawn:
        """Samples at a scale: those that all processes drew, or drawn now."""
        if self.samples is not None:
            return self.samples.by_scale[guidance]
        parts: list[list[Tensor]] = []
        shown: list[Tensor] = []
        for pixels in self.generate(model, guidance):
            parts.append(
                [extract_features(j.network, pixels, step=lambda: self.step_done("gFID")) for j in self.judges]
            )
            shown += [pixels.cpu()] if len(shown) * SAMPLE_BATCH < SHOWN else []
        spaces = tuple(torch.cat(rows) for rows in zip(*parts, strict=True))
        return Drawn(spaces, torch.cat(shown)[:SHOWN])

    def _judge(self, drawn: Drawn, guidance: float, record: Measurements, tuned: bool = False) -> None:
        """Record the distance to the training images in every feature space; at a tuned scale also to the held-out
        ones, as the paper; and what is named besides."""
        run = self.run
        for judge, reference, features in zip(self.judges, self.references, drawn.spaces, strict=True):
            if not torch.isfinite(features).all():
                raise DataError(f"samples of {run.label} have features that are not finite")
            references: list[tuple[Split, Moments]] = [("train", reference)]
            if tuned:
                held_out = fid.reference_moments(
                    self.images, "validation", judge.network, self.cache, lambda: self.step_done("gFID")
                )
                references.append(("validation", held_out))
            for split, moments in references:
                estimate = fid.frechet_estimate(features, moments, run.evaluation.seed)
                record.of_features(
                    "gfid", estimate.value, len(features), split, judge, guidance=guidance,
                    error=estimate.standard_error, sampled=run.evaluation.sampling, tuned=tuned,
                )  # fmt: skip
            if not tuned:
                self._sets(judge, features, guidance, record)

    def _sets(self, judge: Judge, features: Tensor, guidance: float, record: Measurements) -> None:
        """The metrics that are named besides gFID, against as many training images as there are samples."""

        def step() -> None:
            self.step_done("further metrics")

        evaluation = self.run.evaluation
        for metric in evaluation.metrics:
            if metric == "is":
                if judge.classify is not None:
                    with torch.inference_mode():
                        logits = judge.classify(features.to(device_of(judge.network)))
                    record.of_set(score(logits.double().cpu()), len(features), judge, guidance)
                continue
            if metric in OF_RECONSTRUCTIONS:
                continue
            rows, _ = training_features(self.images, judge.network, judge.sha256, self.cache, step)
            chosen = fid.held_out_indices(len(rows), len(features), evaluation.seed)
            for figure in compare(metric, features, rows[chosen], evaluation.seed):
                record.of_set(figure, len(features), judge, guidance)

    def _rate(self, model: Generator, record: Measurements) -> None:
        measured = rate.measure(
            model,
            self.validation.tokens,
            self.validation.labels,
            unigram=self.unigram,
            pixels=self.run.tokenizer.data.image_size**2,
            step=lambda: self.step_done("held-out rate"),
        )
        record.by_position(measured.by_position)
        to_bits = measured.bits_per_pixel / measured.nats_per_token if measured.nats_per_token else 0.0
        for metric, value, scale in (
            ("nats_per_token", measured.nats_per_token, 1.0),
            ("nats_per_image", measured.nats_per_image, measured.tokens_per_image),
            ("bits_per_pixel", measured.bits_per_pixel, to_bits),
            ("unigram_normalised_nats", measured.unigram_normalised, 1.0),
        ):
            record.held_out(metric, value, len(self.validation.labels), measured.standard_error * scale)

    def _memorisation(self, pixels: Tensor, features: Tensor, record: Measurements) -> None:
        def step() -> None:
            self.step_done("memorisation")

        step()
        judge = self.judges[0]
        train, held_out = training_features(self.images, judge.network, judge.sha256, self.cache, step)
        compared = features[:MEMORISATION_SAMPLES]
        try:
            copying = memorisation(compared, train, held_out)
        except ValueError as error:
            # Of a user's own pictures; nothing else that was measured should be lost for it.
            print(f"memorisation is not measured: {error}", flush=True)
            neighbours = nearest_neighbours(compared, train)
        else:
            neighbours = copying.samples
            for metric in ("memorisation_ratio", "near_copy_fraction"):
                record.of_features(
                    metric, getattr(copying, metric), len(compared), "train", judge, guidance=1.0,
                    sampled=self.run.evaluation.sampling,
                )  # fmt: skip
        nearest = self.images.central("train").take(neighbours.indices[:NEIGHBOURS_SHOWN])
        shown = torch.arange(len(pixels)) % len(self.labels)
        self.last = Shown(pixels, self.labels[shown], nearest)

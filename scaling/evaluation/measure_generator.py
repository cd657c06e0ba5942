"""What is measured of a generator at a budget: held-out rate, gFID with and without guidance, memorisation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from results.errors import DataError
from results.recorder import Recorder
from scaling import randomness
from scaling.data.images import load_images
from scaling.data.tokens import TokenSplit
from scaling.generator.sampling import sample
from scaling.generator.transformer import Generator
from scaling.specification.spec import GeneratorRun
from scaling.tokenizer.model import Tokenizer

from . import fid, rate
from .features import extract_features, load_network
from .measurements import Measurements
from .memorisation import memorisation, training_features

SAMPLE_BATCH = 500

MEMORISATION_SAMPLES = 2_000
"""Samples whose nearest training images are sought; the share of near copies is then good to about 0.003."""


class GeneratorMeasurement:
    """Measures one run's model at its budgets; holds what does not change between them."""

    def __init__(
        self,
        run: GeneratorRun,
        tokenizer: Tokenizer,
        train: TokenSplit,
        validation: TokenSplit,
        cache: Path,
        step_done: Callable[[str], None],
    ) -> None:
        self.run, self.tokenizer, self.validation, self.cache = run, tokenizer, validation, cache
        self.step_done = step_done
        self.network = load_network("fid")
        self.reference = fid.reference_moments(
            run.tokenizer.data, "train", self.network, cache, lambda: step_done("features of the training images")
        )
        self.unigram = rate.unigram_cross_entropy(train.tokens, validation.tokens, run.tokenizer.codebook_size)
        self.last: tuple[Tensor, Tensor] | None = None
        """Samples of the last evaluation and the nearest training image of each, both uint8 [n, c, S, S]."""

    def generate(self, model: Generator, guidance: float) -> Tensor:
        """run.evaluation.samples images, uint8, of every class equally often, in turn."""
        n, seed = self.run.evaluation.samples, self.run.evaluation.seed
        labels = torch.arange(n) % self.run.tokenizer.data.classes
        length = self.run.tokenizer.tokens_per_image
        uniforms = torch.rand(n, length, generator=randomness.generator(seed, "sampling"))
        parts = []
        for start in range(0, n, SAMPLE_BATCH):
            rows = slice(start, start + SAMPLE_BATCH)
            tokens = sample(model, labels[rows], uniforms[rows], guidance=guidance)
            parts.append(self.tokenizer.pixels_of(tokens))
            self.step_done(f"sampling {min(start + SAMPLE_BATCH, n)}/{n}")
        return torch.cat(parts)

    def __call__(self, model: Generator, branch: str, images: int, recorder: Recorder) -> None:
        """Record all evaluations of a branch that ends after `images` images."""
        run = self.run
        record = Measurements(run, recorder, branch, images)
        self._rate(model, record)
        for guidance in run.evaluation.guidance:
            pixels = self.generate(model, guidance)
            features = extract_features(self.network, pixels, step=lambda: self.step_done("gFID"))
            if not torch.isfinite(features).all():
                raise DataError(f"samples of {run.label} at {images} images have features that are not finite")
            estimate = fid.frechet_estimate(features, self.reference, run.evaluation.seed)
            record.of_features(
                "gfid", estimate.value, len(pixels), "train", guidance=guidance, error=estimate.standard_error
            )
            if guidance == 1.0 and images == run.train_images[-1]:
                self._memorisation(pixels, features, record)

    def _rate(self, model: Generator, record: Measurements) -> None:
        measured = rate.measure(
            model,
            self.validation.tokens,
            self.validation.labels,
            unigram=self.unigram,
            pixels=self.run.tokenizer.data.image_size**2,
            step=lambda: self.step_done("held-out rate"),
        )
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
        data = self.run.tokenizer.data
        train, held_out = training_features(data, self.network, self.run.evaluation.fid_network, self.cache, step)
        copying = memorisation(features[:MEMORISATION_SAMPLES], train, held_out)
        n = len(copying.samples.indices)
        for metric in ("memorisation_ratio", "near_copy_fraction"):
            record.of_features(metric, getattr(copying, metric), n, "train", guidance=1.0)
        nearest = load_images(data, "train").pixels[copying.samples.indices]
        self.last = pixels[:n], nearest

"""A stored generator's images as a set to judge, and the images of its own study as what they are compared with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

from results.errors import UsageError
from scaling.data.images import Split
from scaling.data.run_images import RunImages
from scaling.data.tokens import load_tokens
from scaling.generator.numbered import NumberedImages, labels_in_proportion
from scaling.generator.stored import check_guidance, load_generator
from scaling.tokenizer.model import Tokenizer

from .fid import reference_hash
from .figures import StoredGenerator
from .reference import ImageSource

TRAIN, VALIDATION = "train", "validation"
"""References by name: the images that the generator's tokenizer was trained on, and those held out."""


def check_stored(stored: StoredGenerator) -> None:
    """Raises UsageError for guidance that the run cannot have, or fewer than one image; nothing is read."""
    check_guidance(stored.run, stored.guidance)
    if stored.n < 1:
        raise UsageError(f"n = {stored.n} is not allowed; allowed: 1 or more")


def drawn_images(stored: StoredGenerator, device: str) -> ImageSource:
    """The images 0 .. n - 1 of a stored generator, drawn anew whenever they are asked for; nothing of them is kept.

    Image i depends on (seed, i), its class and the sampling alone: they are those of `tokenlaw sample` with this seed,
    and those that the run itself was judged by where it names the same sampling. Raises DataError for weights or, where
    classes are in proportion, tokens that cannot be read.
    """
    check_stored(stored)
    run, spec = stored.run, stored.sampling
    data = run.tokenizer.data
    labels = torch.arange(data.classes)
    if spec.classes == "proportional":
        train, _ = load_tokens(run.tokenizer, stored.tokenizer.parent)
        labels = labels_in_proportion(train.labels, data.classes, stored.n)
    images = NumberedImages(spec, stored.seed, labels)

    def batches(size: int) -> Iterator[Tensor]:
        model = load_generator(run, stored.generator).to(device)
        tokenizer = Tokenizer.load(run.tokenizer, stored.tokenizer).to(device)
        for microbatch in images.microbatches(stored.n):
            begin = images.numbers(microbatch).start
            pixels = tokenizer.pixels_of(images.tokens(model, microbatch, stored.guidance))
            yield from pixels[: stored.n - begin].split(size)

    facts = f"{run.run_id}|{stored.n}|{stored.seed}|{stored.guidance:g}|{spec.model_dump_json()}"
    content = hashlib.sha256(facts.encode()).hexdigest()
    return ImageSource(f"run {run.run_id} ({run.label})", stored.n, content, data.preprocessing, batches)


def study_images(stored: StoredGenerator, split: Split) -> ImageSource:
    """The images of a split that the run was planned with, each once. Raises DataError where they are not found."""
    data = stored.run.tokenizer.data
    images = RunImages(data, stored.pictures, stored.run.threads)
    count = data.train_images if split == TRAIN else data.validation_images

    def batches(size: int) -> Iterator[Tensor]:
        return images.central(split).in_order(size)

    return ImageSource(f"{data.name}/{split}", count, reference_hash(data, split), data.preprocessing, batches)

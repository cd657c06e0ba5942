"""Images by number: image i depends on the seed, on i, on its class and on the microbatch's size, and on nothing else.

Microbatch b holds the images b m .. b m + m - 1 and is always run whole: rounding, which differs between batch sizes,
is then the same for any number of images, of processes and of microbatches held at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scaling import randomness
from scaling.specification.sampling import SamplingSpec

from .sampling import sample
from .transformer import Generator


def uniforms(seed: int, purpose: str, numbers: range, length: int) -> Tensor:
    """Uniform numbers in [0, 1), float32 [len(numbers), length], each row from a generator of its own."""
    rows = [torch.rand(length, generator=randomness.generator(seed, purpose, number)) for number in numbers]
    return torch.stack(rows)


def labels_in_proportion(labels: Tensor, classes: int, n: int) -> Tensor:
    """n labels, int64: each class as often as among `labels`, up to rounding, and spread evenly over the n.

    Where all are equally often, the classes in turn. Otherwise a distance to the training images would measure the
    shares of classes first.
    """
    counts = torch.bincount(labels, minlength=classes)
    if counts.min() == counts.max():
        return torch.arange(n) % classes
    quotas = counts.double() * n / len(labels)
    wanted = quotas.floor().long()
    wanted[(quotas - wanted).argsort(descending=True, stable=True)[: n - int(wanted.sum())]] += 1
    chosen = torch.arange(classes).repeat_interleave(wanted)
    ranks = torch.arange(n) - (wanted.cumsum(0) - wanted)[chosen]
    return chosen[((ranks + 0.5) / wanted[chosen]).argsort(stable=True)]


@dataclass(frozen=True, eq=False)
class NumberedImages:
    """An endless row of images of one model to come: image i has the class labels[i % len(labels)].

    labels   int64 [c]: the classes in turn, or any longer row of them
    purpose  names the draws, so that those of a search are not those that are judged
    """

    spec: SamplingSpec
    seed: int
    labels: Tensor
    purpose: str = "sampling"

    def microbatches(self, n: int, rank: int = 0, ranks: int = 1) -> range:
        """Numbers of the microbatches that hold images 0 .. n - 1; of several processes those of one of them."""
        return range(rank, -(-n // self.spec.microbatch), ranks)

    def numbers(self, microbatch: int) -> range:
        """Numbers of the images of a microbatch."""
        return range(microbatch * self.spec.microbatch, (microbatch + 1) * self.spec.microbatch)

    def labels_of(self, numbers: range) -> Tensor:
        """int64 labels of images by number."""
        return self.labels[torch.tensor(numbers) % len(self.labels)]

    def tokens(self, model: Generator, microbatch: int, guidance: float) -> Tensor:
        """Tokens int64 [m, T] of a microbatch, on the model's device."""
        numbers = self.numbers(microbatch)
        return sample(
            model, self.labels_of(numbers), uniforms(self.seed, self.purpose, numbers, model.tokens_per_image),
            guidance=guidance, temperature=self.spec.temperature, top_k=self.spec.top_k, top_p=self.spec.top_p,
            schedule=self.spec.guidance_schedule, guided=self.spec.guided,
        )  # fmt: skip

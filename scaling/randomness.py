"""Named randomness: every draw comes from a generator seeded by (run seed, purpose, index).

So results depend neither on the number of workers nor on where a run was interrupted.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import torch
from torch import Generator, Tensor


def generator(seed: int, purpose: str, index: int = 0) -> Generator:
    """A CPU generator whose stream is named by the three arguments."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{index}".encode(), digest_size=8).digest()
    # torch takes a signed 64-bit seed; the top bit is dropped to stay in range.
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def batch_indices(seed: int, purpose: str, start: int, count: int, size: int) -> Tensor:
    """Indices [count] of the images start .. start + count of an endless stream over a set of `size` images.

    Each epoch is its own permutation, so position alone decides what is seen; a batch may span two epochs.
    """
    stretches = []
    while count:
        epoch, offset = divmod(start, size)
        order = _permutation(seed, purpose, epoch, size)
        stretch = order[offset : offset + count]
        stretches.append(stretch)
        start, count = start + len(stretch), count - len(stretch)
    return torch.cat(stretches)


@lru_cache(maxsize=4)  # A run reads one epoch, sometimes two at a boundary, and returns to one after a decay.
def _permutation(seed: int, purpose: str, epoch: int, size: int) -> Tensor:
    return torch.randperm(size, generator=generator(seed, purpose, epoch))


def seed_modules(seed: int, purpose: str) -> None:
    """Seed torch's global generator, from which module constructors draw their initial weights."""
    torch.manual_seed(generator(seed, purpose).initial_seed())

"""The images of a split as tokens of one tokenizer, in shards that outlive an interruption.

    <attempt>/encoded/train-000005000-000010000.safetensors    tokens [5000, T] of these images, in their order

Batches are the same wherever the encoding was interrupted, and nothing is drawn, so the tokens are those of an encoding
in one go. An attempt writes shards into its own folder alone, whole by rename, and reads those of earlier attempts. A
shard names the weights that made it, and holds a checksum: one of other weights, or a damaged one, is encoded again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from results.errors import DataError, RunError
from results.store import atomic
from scaling.data.images import LabelledImages
from scaling.data.tokens import mapped, token_type
from scaling.sealed_tensors import seal, unseal

from .model import Tokenizer

BATCH = 250
"""Images that are encoded at a time; a request to stop is looked for after each."""
SHARD = 20 * BATCH
"""Images of a shard: an attempt that is killed without a warning loses at most so many."""
MOST_SHARDS = 200
"""Shards of a split, about: of millions of images a shard holds more, for file systems that count files."""

Step = Callable[[int, float | None], None]
"""Called after each batch and each shard found, with the images that are done, and images per second of those encoded
here; may raise RunError to stop."""


def encode_split(
    model: Tokenizer,
    images: LabelledImages,
    split: str,
    own: Path,
    earlier: Sequence[Path],
    step: Step,
    share: tuple[int, int] = (0, 1),
) -> list[Path]:
    """Shards of the tokens of images in their order; see Tokenizer.tokens_of for what they hold.

    own      folder for shards, of this attempt alone
    earlier  those of earlier attempts, whose shards get a name in `own`
    share    which of how many processes this is: each encodes every so-manieth shard

    What was encoded when `step` raises RunError is written before that goes on. Raises StoreError for a full disk,
    DataError for images that cannot be read.
    """
    shards = _Shards(model, split, (own, *earlier), len(images))
    reading, at = images.in_order(BATCH), 0
    paths: list[Path] = []
    finished = encoded = 0
    clock = time.monotonic()
    process, processes = share
    size = shard_size(len(images))
    for first in range(process * size, len(images), processes * size):
        done, last = first, min(first + size, len(images))
        parts: list[Path] = []
        while done < last:
            shard = shards.at(done)
            if shard is not None:
                path, count = shard
                parts.append(path)
                done, finished = done + count, finished + count
                step(finished, None)
                continue
            fresh: list[Tensor] = []
            start = done
            if at != start:
                reading, at = images.in_order(BATCH, start), start
            try:
                while done < last:
                    chunk = next(reading)
                    fresh.append(model.tokens_of(chunk, BATCH))
                    done, finished, encoded = done + len(chunk), finished + len(chunk), encoded + len(chunk)
                    at = done
                    step(finished, encoded / max(time.monotonic() - clock, 1e-9))
            except RunError:
                shards.write(start, torch.cat(fresh))
                raise
            parts.append(shards.write(start, torch.cat(fresh)))
        # Cut where an encoding in one go cuts, so that an interruption leaves no trace.
        paths.append(parts[0] if len(parts) == 1 else shards.write(first, mapped(parts)[:]))
    return paths


def shard_size(images: int) -> int:
    """Images of a shard: more than SHARD where that would make too many files."""
    return max(SHARD, -(-images // MOST_SHARDS // BATCH) * BATCH)


@dataclass
class _Shards:
    """The shards of a split of `size` images in several folders, of which the first is written to."""

    model: Tokenizer
    split: str
    folders: tuple[Path, ...]
    size: int

    def __post_init__(self) -> None:
        self.weights = weights_of(self.model)

    def at(self, start: int) -> tuple[Path, int] | None:
        """The longest good shard that begins at an image, in the first folder, and its length; None for none."""
        name = f"{self.split}-{start:09d}-{'[0-9]' * 9}.safetensors"
        paths = [path for folder in self.folders for path in folder.glob(name)]
        for path in sorted(paths, key=lambda path: path.name, reverse=True):
            end = int(path.stem[-9:])
            whole = start < end <= self.size and (end % BATCH == 0 or end == self.size)
            if whole and self._is_good(path, end - start):
                if path.parent != self.folders[0]:
                    kept = atomic.make_folder(self.folders[0]) / path.name
                    atomic.link_or_copy(path, kept)
                    return kept, end - start
                return path, end - start
        return None

    def write(self, start: int, tokens: Tensor) -> Path:
        """Keep the tokens of the images from `start` on. Raises StoreError."""
        folder = atomic.make_folder(self.folders[0])
        name = f"{self.split}-{start:09d}-{start + len(tokens):09d}.safetensors"
        stored = tokens.to(token_type(self.model.spec.codebook_size))
        atomic.write(folder / name, seal({"tokens": stored}, weights=self.weights))
        return folder / name

    def _is_good(self, path: Path, count: int) -> bool:
        """Whether a shard can be used; one that cannot is named on standard output, which is the attempt's log."""
        spec = self.model.spec
        expected, kind = (count, spec.tokens_per_image), token_type(spec.codebook_size)
        try:
            # Read whole: a file that is mapped into memory must not go away, and others may remove this one.
            tensors, facts = unseal(path.read_bytes())
            tokens = tensors["tokens"]
            if facts["weights"] != self.weights:
                raise DataError("it is of other weights")
            if tokens.dtype != kind or tokens.shape != expected:
                raise DataError(f"it holds {tokens.dtype} {list(tokens.shape)} instead of {list(expected)}")
        except (OSError, KeyError, DataError) as error:
            attempt = path.parent.parent.name
            print(f"{path.name} of attempt {attempt} is passed over, and encoded again: {error}", flush=True)
            return False
        return True


def weights_of(model: Tokenizer) -> str:
    """SHA-256 of all that the tokens of an image depend on, but for the type of CPU."""
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    return hashlib.sha256(model.spec.run_id.encode() + save(state)).hexdigest()

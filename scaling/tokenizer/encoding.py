"""The images of a split as tokens of one tokenizer, in shards that outlive an interruption.

    <attempt>/encoded/train-000005000-000010000.safetensors    tokens int32 [5000, T] of these images, in their order

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
from scaling.sealed_tensors import seal, unseal

from .model import Tokenizer

BATCH = 250
"""Images that are encoded at a time; a request to stop is looked for after each."""
SHARD = 20 * BATCH
"""Images of a shard: an attempt that is killed without a warning loses at most so many."""

Step = Callable[[int, float | None], None]
"""Called after each batch and each shard found, with the images that are done, and images per second of those encoded
here; may raise RunError to stop."""


def encode_split(
    model: Tokenizer, images: LabelledImages, split: str, own: Path, earlier: Sequence[Path], step: Step
) -> Tensor:
    """Tokens int32 [n, T] of images in their order; see Tokenizer.tokens_of.

    own      folder for shards, of this attempt alone
    earlier  those of earlier attempts

    What was encoded when `step` raises RunError is written before that goes on. Raises StoreError for a full disk,
    DataError for images that cannot be read.
    """
    shards = _Shards(model, split, (own, *earlier), len(images))
    reading, at = images.in_order(BATCH), 0
    parts: list[Tensor] = []
    done = encoded = 0
    clock = time.monotonic()
    while done < len(images):
        shard = shards.at(done)
        if shard is not None:
            parts.append(shard)
            done += len(shard)
            step(done, None)
            continue
        fresh: list[Tensor] = []
        start, end = done, min((done // SHARD + 1) * SHARD, len(images))
        if at != start:
            reading, at = images.in_order(BATCH, start), start
        try:
            while done < end:
                chunk = next(reading)
                fresh.append(model.tokens_of(chunk, BATCH))
                done, encoded = done + len(chunk), encoded + len(chunk)
                at = done
                step(done, encoded / max(time.monotonic() - clock, 1e-9))
        except RunError:
            shards.write(start, torch.cat(fresh))
            raise
        shards.write(start, torch.cat(fresh))
        parts += fresh
    return torch.cat(parts)


@dataclass
class _Shards:
    """The shards of a split of `size` images in several folders, of which the first is written to."""

    model: Tokenizer
    split: str
    folders: tuple[Path, ...]
    size: int

    def __post_init__(self) -> None:
        self.weights = _weights(self.model)

    def at(self, start: int) -> Tensor | None:
        """The longest good shard that begins at an image, None if there is none."""
        name = f"{self.split}-{start:09d}-{'[0-9]' * 9}.safetensors"
        paths = [path for folder in self.folders for path in folder.glob(name)]
        for path in sorted(paths, key=lambda path: path.name, reverse=True):
            end = int(path.stem[-9:])
            whole = start < end <= self.size and (end % BATCH == 0 or end == self.size)
            if whole and (tokens := self._read(path, end - start)) is not None:
                return tokens
        return None

    def write(self, start: int, tokens: Tensor) -> None:
        """Keep the tokens of the images from `start` on. Raises StoreError."""
        folder = atomic.make_folder(self.folders[0])
        name = f"{self.split}-{start:09d}-{start + len(tokens):09d}.safetensors"
        atomic.write(folder / name, seal({"tokens": tokens}, weights=self.weights))

    def _read(self, path: Path, count: int) -> Tensor | None:
        """The tokens of a shard; one that cannot be used is named on standard output, which is the attempt's log."""
        expected = (count, self.model.spec.tokens_per_image)
        try:
            # Read whole: a file that is mapped into memory must not go away, and others may remove this one.
            tensors, facts = unseal(path.read_bytes())
            tokens = tensors["tokens"]
            if facts["weights"] != self.weights:
                raise DataError("it is of other weights")
            if tokens.dtype != torch.int32 or tokens.shape != expected:
                raise DataError(f"it holds {tokens.dtype} {list(tokens.shape)} instead of {list(expected)}")
        except (OSError, KeyError, DataError) as error:
            attempt = path.parent.parent.name
            print(f"{path.name} of attempt {attempt} is passed over, and encoded again: {error}", flush=True)
            return None
        return tokens


def _weights(model: Tokenizer) -> str:
    """SHA-256 of all that the tokens of an image depend on, but for the type of CPU."""
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    return hashlib.sha256(model.spec.run_id.encode() + save(state)).hexdigest()

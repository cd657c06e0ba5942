"""Does a generator copy? Nearest training neighbours of samples in feature space, against those of held-out images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from scaling.data.images import Split
from scaling.data.run_images import RunImages
from scaling.one_at_a_time import one_at_a_time
from scaling.sealed_tensors import cached
from scaling.specification.pictures import PicturesSpec

from .kept_rows import kept_rows
from .networks.features import features_in_order

NEAR_COPY_QUANTILE = 0.01
"""A sample is a near copy if it is closer to a training image than all but this share of held-out images are."""
KEYS_AT_ONCE = 2**24
"""Values of training features that are searched at a time: 64 MiB; Fashion-MNIST's are one block."""


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Nearest key of each query: Euclidean `distances` float32 [m] and `indices` int64 [m] into the keys."""

    distances: Tensor
    indices: Tensor


@dataclass(frozen=True, eq=False)
class Memorisation:
    """What the comparison found; of a generator that draws afresh from the data: ratio 1, fraction 0.01.

    `memorisation_ratio`: median distance of samples to their nearest training image, over that of held-out images;
    well below 1 says that samples crowd around training images, or only that they are plainer than real ones.
    `near_copy_fraction`: share of samples that are closer to a training image than 99 % of held-out images are.
    """

    memorisation_ratio: float
    near_copy_fraction: float
    samples: Neighbours
    held_out: Neighbours


def nearest_neighbours(queries: Tensor, keys: Tensor, chunk: int = 500) -> Neighbours:
    """Nearest of `keys` [n, d] for each of `queries` [m, d], exact, `chunk` queries and a block of keys at a time: both
    may lie in a file, of which no more is held.

    The search uses |q|^2 + |k|^2 - 2 q.k in float32 around the first keys' mean; the distance returned is recomputed
    from the difference, as the expanded form cancels exactly where it matters, at near copies.
    """
    if queries.ndim != 2 or keys.ndim != 2 or queries.shape[1] != keys.shape[1] or not len(keys):
        raise ValueError(f"queries {list(queries.shape)} and keys {list(keys.shape)} must be matrices of one width")
    rows = max(KEYS_AT_ONCE // max(keys.shape[1], 1), 1)
    centre = keys[:rows].mean(dim=0)
    least = torch.full((len(queries),), torch.inf)
    indices = torch.zeros(len(queries), dtype=torch.int64)
    for start in range(0, len(keys), rows):
        block = keys[start : start + rows] - centre
        half_norms = block.square().sum(dim=1) / 2
        for begin in range(0, len(queries), chunk):
            asked = slice(begin, begin + chunk)
            # argmin |q - k|^2 = argmin |k|^2 / 2 - q.k: the norm of the query does not matter.
            scores = torch.addmm(half_norms, queries[asked] - centre, block.T, alpha=-1)
            places = scores.argmin(dim=1)
            values = scores.gather(1, places[:, None]).squeeze(1)
            nearer = values < least[asked]
            least[asked] = torch.where(nearer, values, least[asked])
            indices[asked] = torch.where(nearer, places + start, indices[asked])
    # Of no queries split gives one empty chunk, as it must.
    distances = [(q - keys[i]).norm(dim=1) for q, i in zip(queries.split(chunk), indices.split(chunk), strict=True)]
    return Neighbours(torch.cat(distances), indices)


def memorisation(samples: Tensor, train: Tensor, held_out: Tensor | Neighbours) -> Memorisation:
    """Compares FID features of samples [m, d] and held-out images [h, d] by their nearest of `train` [n, d].

    `held_out` may be the neighbours found earlier (`Memorisation.held_out`): they are the same for every generator.
    Raises ValueError if a median of held-out distances of 0 leaves no scale.
    """
    known = held_out if isinstance(held_out, Neighbours) else nearest_neighbours(held_out, train)
    nearest = nearest_neighbours(samples, train)
    scale = known.distances.median()
    if not scale > 0:
        raise ValueError("half of the held-out images equal training images; there is no scale to compare samples with")
    threshold = known.distances.quantile(NEAR_COPY_QUANTILE)
    return Memorisation(
        memorisation_ratio=float(nearest.distances.median() / scale),
        near_copy_fraction=float((nearest.distances < threshold).double().mean()),
        samples=nearest,
        held_out=known,
    )


def kept_features(
    images: RunImages,
    split: Split,
    network: nn.Module,
    network_hash: str,
    cache: Path,
    step: Callable[[], None] = lambda: None,
) -> Tensor:
    """Features [n, d] of all images of a split, mapped from a file of `cache`, where they are put if they are absent.

    `step` is called before each batch of images, and may raise to stop; what was computed is then lost.
    """
    data = images.data
    count, name = (
        (data.train_images, data.name) if split == "train" else (data.validation_images, f"{data.name}-{split}")
    )
    path = cache / f"rows-{name}-{_key(images, network_hash)}.npy"
    with one_at_a_time(path, step):
        return kept_rows(path, count, lambda: features_in_order(network, images.central(split), step=step))


def training_features(
    images: RunImages, network: nn.Module, network_hash: str, cache: Path, step: Callable[[], None] = lambda: None
) -> tuple[Tensor, Neighbours]:
    """Features [n, d] of all training images, and the held-out images' nearest among them, kept in `cache` as well; see
    kept_features."""
    features = kept_features(images, "train", network, network_hash, cache, step)

    def neighbours() -> dict[str, Tensor]:
        held_out = kept_features(images, "validation", network, network_hash, cache, step)
        return vars(nearest_neighbours(held_out, features))

    path = cache / f"nearest-{images.data.name}-{_key(images, network_hash)}.safetensors"
    with one_at_a_time(path, step):
        tensors = cached(path, neighbours)
    return features, Neighbours(tensors["distances"], tensors["indices"])


def _key(images: RunImages, network_hash: str) -> str:
    """What features depend on: content, what is seen of it, and the network."""
    data = images.data
    seen = data.preprocessing if isinstance(data, PicturesSpec) else data.image_size
    return hashlib.sha256(f"{data.fingerprint}|{seen}|{network_hash}".encode()).hexdigest()[:16]

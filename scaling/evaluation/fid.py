"""Frechet distance between sets of images, from the moments of their features; reference moments; standard error.

FID (arXiv 1706.08500, eq. 6) with the closed form of the distance between two Gaussians (Dowson and Landau 1982):
|m_a - m_b|^2 + tr(A) + tr(B) - 2 tr((A^1/2 B A^1/2)^1/2). No matrix square root of a non-symmetric product is ever
taken: see frechet.py.

The estimate is biased upwards by about c / n (arXiv 1911.07023): values are comparable only at equal n.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from scaling.data.images import Split
from scaling.data.run_images import RunImages
from scaling.one_at_a_time import one_at_a_time
from scaling.sealed_tensors import cached, checksum
from scaling.specification.pictures import ImagesSpec, PicturesSpec

from .networks.features import extract_features, features_in_order
from .sets.frechet import FAST_FROM
from .sets.frechet import distance as frechet_distance
from .sets.frechet_error import standard_error
from .sets.moments import Moments


@dataclass(frozen=True)
class FrechetEstimate:
    """A Frechet distance, its standard error over the images that were drawn, and how many these were."""

    value: float
    standard_error: float
    n: int


SUBSET_BATCH = 5_000
"""Images of a subset that are held at a time."""
BLOCKS = 20
"""Of the jackknife: the standard error itself is then good to about 1 / sqrt(2 * 19) = 16 %."""


def frechet_estimate(features: Tensor, reference: Moments, seed: int = 0) -> FrechetEstimate:
    """Distance of `features` [n, d] to fixed reference moments, with a delete-a-block jackknife standard error.

    The rows are dealt at random into 20 blocks; the distance is computed without each block in turn, and
    SE^2 = (B - 1) / B * sum (D_b - mean D)^2. All D_b share one bias (that of n (B - 1) / B rows), which cancels. The
    error is of the draw of these rows alone: training seeds and the reference are not in it. Classes in fixed
    proportions vary less than independent draws, so for such samples it errs on the wide side. So it does, by up to
    twice, near the noise floor, where the distance is flat in the moments to first order.

    From frechet.FAST_FROM dimensions on, where 20 distances would take minutes, the error is that of
    frechet_error.py, which needs one decomposition.
    """
    if features.ndim == 2 and features.shape[1] >= FAST_FROM:
        value = frechet_distance(Moments.of(features), reference)
        return FrechetEstimate(value, standard_error(features, reference, seed), len(features))
    blocks = [Moments.of(features[rows]) for rows in _deal(len(features), seed)]
    return _jackknife([(block, None) for block in blocks], reference)


def paired_frechet_estimate(features: Tensor, originals: Tensor, seed: int = 0) -> FrechetEstimate:
    """Distance of reconstructions' `features` to those of the same images' `originals`, both [n, d], rows matching.

    As `frechet_estimate`, but each block is deleted from both sides, since both come from one draw of images.
    """
    if features.shape != originals.shape:
        raise ValueError(f"features {list(features.shape)} and originals {list(originals.shape)} do not match")
    if features.ndim == 2 and features.shape[1] >= FAST_FROM:
        value = frechet_distance(Moments.of(features), Moments.of(originals))
        return FrechetEstimate(value, standard_error(features, originals, seed), len(features))
    deal = _deal(len(features), seed)
    return _jackknife([(Moments.of(features[rows]), Moments.of(originals[rows])) for rows in deal], None)


def _deal(count: int, seed: int) -> list[Tensor]:
    if count < 2 * BLOCKS:
        raise ValueError(f"a Frechet distance with standard error needs at least {2 * BLOCKS} images, not {count}")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return list(order.tensor_split(BLOCKS))


def _jackknife(blocks: list[tuple[Moments, Moments | None]], fixed: Moments | None) -> FrechetEstimate:
    def distance(used: list[tuple[Moments, Moments | None]]) -> float:
        reference = fixed or Moments.total(original for _, original in used if original is not None)
        return frechet_distance(Moments.total(block for block, _ in used), reference)

    left_out = torch.tensor([distance(blocks[:i] + blocks[i + 1 :]) for i in range(len(blocks))], dtype=torch.float64)
    variance = (len(blocks) - 1) * left_out.var(unbiased=False)
    return FrechetEstimate(distance(blocks), float(variance.sqrt()), sum(block.count for block, _ in blocks))


def held_out_indices(total: int, n: int, seed: int = 0) -> Tensor:
    """Which of `total` held-out images stand for n samples: all if n >= total, else n drawn without repeats, sorted.

    `real_fid` and `rfid_floor` of one protocol use the same images, so that the one can be the floor of the other.
    """
    if n >= total:
        return torch.arange(total)
    return torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:n].sort().values


def reference_hash(data: ImagesSpec, split: Split) -> str:
    """What a protocol records of its reference set: 16 hexadecimal digits over content, split and what is seen."""
    seen = data.preprocessing if isinstance(data, PicturesSpec) else data.image_size
    return hashlib.sha256(f"{data.fingerprint}|{split}|{seen}".encode()).hexdigest()[:16]


def reference_moments(
    images: RunImages,
    split: Split,
    network: nn.Module,
    cache: Path,
    step: Callable[[], None] = lambda: None,
    known: Callable[[], Iterable[Tensor]] | None = None,
    n: int | None = None,
) -> Moments:
    """Moments of all images of a split under `network`, kept in `cache` under a hash of both; of `n` of them, those of
    held_out_indices, where it has more.

    `known` gives their features [rows, d] at a time where these are needed otherwise as well.
    `step` is called before each batch of images, and may raise to stop; what was computed is then lost.
    """

    data = images.data
    total = data.train_images if split == "train" else data.validation_images
    some = n is not None and n < total

    def compute() -> dict[str, Tensor]:
        pictures = images.central(split)
        if n is not None and some:
            wanted = held_out_indices(total, n).split(SUBSET_BATCH)
            features = [extract_features(network, pictures.take(numbers), step=step) for numbers in wanted]
            moments = Moments.of(torch.cat(features))
        else:
            every = known() if known is not None else features_in_order(network, pictures, step=step)
            moments = Moments.total(map(Moments.of, every))
        return {"count": torch.tensor(moments.count), "mean": moments.mean, "scatter": moments.scatter}

    state = checksum({name: tensor.detach().cpu() for name, tensor in network.state_dict().items()})
    named = f"{reference_hash(data, split)}|{state}" + (f"|{n}" if some else "")
    key = hashlib.sha256(named.encode()).hexdigest()[:16]
    path = cache / f"moments-{data.name}-{split}-{key}.safetensors"
    with one_at_a_time(path, step):
        tensors = cached(path, compute)
    return Moments(int(tensors["count"]), tensors["mean"], tensors["scatter"])

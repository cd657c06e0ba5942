"""FID features of all training images, and the nearest of them to each held-out image, kept in the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from results.store import atomic
from scaling.data.images import load_images
from scaling.specification.spec import DataSpec

from .features import FidClassifier, extract_features
from .memorisation import Neighbours, nearest_neighbours


@dataclass(frozen=True)
class TrainingFeatures:
    """Features [n, d] of the training images, and the held-out images' nearest neighbours among them."""

    features: Tensor
    held_out: Neighbours


def training_features(
    data: DataSpec, network: FidClassifier, network_hash: str, cache: Path, step: Callable[[], None] = lambda: None
) -> TrainingFeatures:
    """From the cache, or computed and put there; a damaged file is computed again.

    `step` is called before each batch of images, and may raise to stop; what was computed is then lost.
    """
    key = hashlib.sha256(f"{data.fingerprint}|{data.image_size}|{network_hash}".encode()).hexdigest()[:16]
    path = cache / f"features-{data.name}-{key}.safetensors"
    if path.exists():
        try:
            tensors = load_file(path)
            return TrainingFeatures(tensors["features"], Neighbours(tensors["distances"], tensors["indices"]))
        except (SafetensorError, KeyError):
            path.unlink(missing_ok=True)
    features = extract_features(network, load_images(data, "train").pixels, step=step)
    validation = extract_features(network, load_images(data, "validation").pixels, step=step)
    held_out = nearest_neighbours(validation, features)
    tensors = {"features": features, "distances": held_out.distances, "indices": held_out.indices}
    atomic.write(atomic.make_folder(cache) / path.name, save(tensors))
    return TrainingFeatures(features, held_out)

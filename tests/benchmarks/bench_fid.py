"""Measures the feature networks and the Frechet distance on one thread: `python tests/benchmarks/bench_fid.py`.

Prints images a second of feature extraction and of the perceptual loss (forward and backward), seconds of one distance
and of one estimate with its standard error, at 96 and at 2048 dimensions against scipy's square root, and the noise
floor of gFID at three sizes; then, to give the numbers a meaning, the distances of held-out images that are spoilt in
known ways, and the floor that training images held out of their own reference would have.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy import linalg
from torch.nn import functional

from scaling.data.images import Images, load_images, resize, to_float, to_pixels
from scaling.data.run_images import RunImages
from scaling.evaluation.fid import Moments, frechet_distance, frechet_estimate, held_out_indices, reference_moments
from scaling.evaluation.memorisation import nearest_neighbours
from scaling.evaluation.networks.features import PerceptualLoss, extract_features, load_network
from scaling.evaluation.reconstruction import psnr, ssim
from scaling.specification import feature_networks
from scaling.specification.spec import DataSpec


def seconds(call: Callable[[], object], repeats: int = 5) -> float:
    """Shortest of some repetitions, after one to warm up."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def square_root_distance(a: Moments, b: Moments) -> float:
    """The usual way: scipy's square root of the product of the covariances."""
    product = linalg.sqrtm(a.covariance.numpy() @ b.covariance.numpy())
    means = float((a.mean - b.mean).square().sum())
    return means + float(torch.trace(a.covariance) + torch.trace(b.covariance)) - 2 * float(np.trace(product).real)


def distortions(images: Images) -> dict[str, torch.Tensor]:
    """Held-out images spoilt in known ways, uint8."""
    floats, pixels = to_float(images.pixels), images.pixels
    generator = torch.Generator().manual_seed(0)
    padded = functional.pad(floats, (1, 1, 1, 1), value=-1.0)
    blurred = functional.avg_pool2d(padded, 3, 1)
    halved = resize(resize(floats, 16), 32)
    erased = pixels.clone()
    erased[:, :, 12:20, 12:20] = 0
    return {
        "as they are": pixels,
        "noise of standard deviation 2 % of the range": to_pixels(
            floats + 0.04 * torch.randn(floats.shape, generator=generator)
        ),
        "noise of 10 %": to_pixels(floats + 0.2 * torch.randn(floats.shape, generator=generator)),
        "blurred by a 3x3 mean": to_pixels(blurred),
        "halved and doubled in size": to_pixels(halved),
        "moved by one pixel": pixels.roll(1, dims=3),
        "brightness of the object times 0.8": to_pixels((floats + 1) * 0.8 - 1),
        "an 8x8 square missing in the middle": erased,
        "one class of ten missing": pixels[images.labels != 0],
        "one class of ten twice, another missing": torch.cat([pixels[images.labels != 0], pixels[images.labels == 1]]),
        "each image replaced by one of 1,000": pixels[:1_000].repeat(10, 1, 1, 1),
    }


def main() -> None:
    """Prints one line a measurement."""
    torch.set_num_threads(1)
    data = DataSpec()
    network, loss = load_network("fid"), PerceptualLoss()
    pixels = load_images(data, "validation").pixels
    for role in ("fid", "perceptual"):
        print(
            f"{role}: {feature_networks.forward_flops(role, 32) / 1e6:.2f} MFLOP forward, "
            f"{feature_networks.parameter_count(role)} parameters"
        )
    for batch in (50, 100, 500):
        spent = seconds(lambda batch=batch: extract_features(network, pixels[:2_000], batch))
        print(f"extract_features, batch {batch}: {2_000 / spent:.0f} images/s")
    target = to_float(pixels[:64])
    reconstruction = (target + 0.1 * torch.randn_like(target)).requires_grad_()
    spent = seconds(lambda: loss(reconstruction, target).backward(), 20)
    print(f"PerceptualLoss forward and backward, batch 64: {64 / spent:.0f} images/s")
    noisy = reconstruction.detach().repeat(16, 1, 1, 1)[:1_000]
    print(f"SSIM: {1_000 / seconds(lambda: ssim(noisy, pixels[:1_000])):.0f} images/s", end=", ")
    print(
        f"PSNR: {1_000 / seconds(lambda: psnr(to_float(pixels[:1_000]), to_float(pixels[1_000:2_000]))):.0f} images/s"
    )

    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        reference = reference_moments(RunImages(data), "train", network, Path(folder))
        print(f"reference moments of 60,000 images: {time.perf_counter() - start:.1f} s, then from the cache", end=" ")
        print(f"{seconds(lambda: reference_moments(RunImages(data), 'train', network, Path(folder))) * 1e3:.1f} ms")
        features = extract_features(network, pixels)
        moments = Moments.of(features)
        print(
            f"distance, 96 dimensions: {seconds(lambda: frechet_distance(moments, reference)) * 1e3:.1f} ms", end=", "
        )
        print(f"with standard error, n = 10,000: {seconds(lambda: frechet_estimate(features, reference)) * 1e3:.0f} ms")
        for n in (2_000, 5_000, 10_000):
            draws = range(5 if n < 10_000 else 1)
            floors = [
                frechet_estimate(features[held_out_indices(len(features), n, seed)], reference, seed) for seed in draws
            ]
            mean = sum(floor.value for floor in floors) / len(floors)
            error = sum(floor.standard_error for floor in floors) / len(floors)
            print(f"noise floor, n = {n}: {mean:.4f}, standard error of one draw {error:.4f} (draws: {len(floors)})")
        draws = [frechet_estimate(part, reference) for part in features.split(2_000)]
        scatter = torch.tensor([draw.value for draw in draws]).std()
        stated = sum(draw.standard_error for draw in draws) / len(draws)
        print(
            f"{len(draws)} disjoint held-out sets of 2,000: scatter {scatter:.3f}, standard error stated {stated:.3f}"
        )
        for name, spoilt in distortions(load_images(data, "validation")).items():
            print(
                f"held-out images, {name}: {frechet_estimate(extract_features(network, spoilt), reference).value:.3f}"
            )
        train = extract_features(network, load_images(data, "train").pixels)
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
        fresh = frechet_distance(Moments.of(train[order[:10_000]]), Moments.of(train[order[10_000:]]))
        print(f"10,000 training images against the other 50,000: {fresh:.4f}")
        spent = seconds(lambda: nearest_neighbours(features, train), 1)
        print(f"nearest of 60,000 for 10,000: {spent:.1f} s")

    generator = torch.Generator().manual_seed(0)
    wide = [Moments.of(torch.randn(4_096, 2_048, generator=generator)) for _ in range(2)]
    ours, theirs = frechet_distance(*wide), square_root_distance(*wide)
    print(f"distance, 2048 dimensions: {seconds(lambda: frechet_distance(*wide), 1):.1f} s", end=", ")
    print(f"scipy sqrtm: {seconds(lambda: square_root_distance(*wide), 1):.1f} s, relative difference", end=" ")
    print(f"{abs(ours / theirs - 1):.1e}")


if __name__ == "__main__":
    main()

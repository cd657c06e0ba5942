"""What is measured of a finished tokenizer: reconstruction, rFID and its floor, use of the codebook, latents."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from results.protocol import Protocol
from results.recorder import Recorder
from results.schema import TRUNK
from scaling.data.images import Images, resize, to_float
from scaling.data.tokens import TokenSplit, frequencies
from scaling.specification import flops
from scaling.specification.spec import TokenizerRun
from scaling.tokenizer.model import Tokenizer

from . import fid, reconstruction
from .features import extract_features, load_network
from .rate import unigram_cross_entropy

LATENT_IMAGES = 1_000
"""Validation images on which the latents' norm and variance are measured."""


def fid_protocol(run: TokenizerRun, metric: str, split: str, n: int, guidance: float | None = None) -> Protocol:
    """The protocol of a Frechet distance to the images of `split`."""
    return Protocol(
        metric=metric,
        n=n,
        reference=f"{run.data.name}/{split}",
        reference_hash=fid.reference_hash(run.data, split),  # type: ignore[arg-type]
        crop=f"pad{run.data.image_size}",
        extractor="fid",
        extractor_hash=run.evaluation.fid_network[:16],
        guidance=guidance,
        seed=run.evaluation.seed,
    )


def measure_tokenizer(
    run: TokenizerRun,
    model: Tokenizer,
    images: Images,
    train: TokenSplit,
    validation: TokenSplit,
    cache: Path,
    recorder: Recorder,
    step_done: Callable[[str], None],
) -> Tensor:
    """Record all evaluations of a tokenizer on validation `images`; returns their reconstructions, uint8."""
    cost = flops.tokenizer_training_flops(run, run.train_images)
    network = load_network("fid")

    def record(metric: str, value: float, protocol: Protocol, split: str, error: float | None = None) -> None:
        recorder.evaluation(
            branch=TRUNK,
            step=run.train_images // run.batch_size,
            images=run.train_images,
            path_flops=cost,
            metric=metric,
            value=value,
            standard_error=error,
            n=protocol.n,
            protocol=protocol,
            split=split,
        )

    def plain(metric: str, n: int) -> Protocol:
        return Protocol(metric=metric, n=n, reference=f"{run.data.name}/validation", crop=f"pad{run.data.image_size}")

    decoded = model.pixels_of(validation.tokens, step=lambda: step_done("reconstructing"))
    n = len(decoded)
    for metric, compare in (("psnr", reconstruction.psnr), ("ssim", reconstruction.ssim)):
        step_done(metric.upper())
        values = compare(decoded, images.pixels)
        record(metric, float(values.mean()), plain(metric, n), "validation", float(values.std() / n**0.5))

    def step() -> None:
        step_done("rFID")

    def reference_step() -> None:
        step_done("features of the training images")

    found, original = (extract_features(network, pixels, step=step) for pixels in (decoded, images.pixels))
    estimate = fid.paired_frechet_estimate(found, original, run.evaluation.seed)
    protocol = fid_protocol(run, "rfid", "validation", n)
    record("rfid", estimate.value, protocol, "validation", estimate.standard_error)
    reference = fid.reference_moments(run.data, "train", network, cache, reference_step)
    chosen = fid.held_out_indices(n, run.evaluation.samples, run.evaluation.seed)
    for metric, features in (("rfid_floor", found), ("real_fid", original)):
        estimate = fid.frechet_estimate(features[chosen], reference, run.evaluation.seed)
        protocol = fid_protocol(run, metric, "train", len(chosen))
        record(metric, estimate.value, protocol, "train", estimate.standard_error)

    use = reconstruction.codebook_use(frequencies(validation.tokens, run.codebook_size))
    record("codebook_utilisation", use.utilisation, plain("codebook_utilisation", n), "validation")
    record("codebook_perplexity", use.perplexity, plain("codebook_perplexity", n), "validation")
    unigram = unigram_cross_entropy(train.tokens, validation.tokens, run.codebook_size)
    record("unigram_entropy", unigram, plain("unigram_entropy", n), "validation")

    with torch.inference_mode():
        encoded = model.encode(resize(to_float(images.pixels[:LATENT_IMAGES]), run.encoded_size))
    count = min(n, LATENT_IMAGES)
    record("latent_norm", float(encoded.projected.norm(dim=1).mean()), plain("latent_norm", count), "validation")
    variance = encoded.prepared.transpose(0, 1).flatten(1).var(dim=1).sum()
    record("latent_variance", float(variance), plain("latent_variance", count), "validation")
    return decoded

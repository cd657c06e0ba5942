"""What is measured of a finished tokenizer: reconstruction, rFID and its floor, use of the codebook, latents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from results.recorder import Recorder
from results.schema import TRUNK
from scaling.data.images import Images, Split, resize, to_float
from scaling.data.tokens import TokenSplit, frequencies
from scaling.specification.spec import TokenizerRun
from scaling.tokenizer.model import Tokenizer

from . import fid, reconstruction
from .features import extract_features, load_network
from .measurements import Measurements
from .rate import unigram_cross_entropy

LATENT_IMAGES = 1_000
"""Validation images on which the latents' norm and variance are measured."""


def measure_tokenizer(
    run: TokenizerRun,
    model: Tokenizer,
    images: Images,
    tokens: Mapping[Split, TokenSplit],
    cache: Path,
    recorder: Recorder,
    step_done: Callable[[str], None],
) -> Tensor:
    """Record all evaluations of a tokenizer on validation `images`; returns their reconstructions, uint8."""
    train, validation = tokens["train"], tokens["validation"]
    network = load_network("fid")
    record = Measurements(run, recorder, TRUNK, run.train_images)

    decoded = model.pixels_of(validation.tokens, step=lambda: step_done("reconstructing"))
    n = len(decoded)
    for metric, compare in (("psnr", reconstruction.psnr), ("ssim", reconstruction.ssim)):
        step_done(metric.upper())
        values = compare(decoded, images.pixels)
        record.held_out(metric, float(values.mean()), n, float(values.std() / n**0.5))

    decoded_features, original_features = (
        extract_features(network, pixels, step=lambda: step_done("rFID")) for pixels in (decoded, images.pixels)
    )
    estimate = fid.paired_frechet_estimate(decoded_features, original_features, run.evaluation.seed)
    record.of_features("rfid", estimate.value, n, "validation", error=estimate.standard_error)
    reference = fid.reference_moments(
        run.data, "train", network, cache, lambda: step_done("features of the training images")
    )
    chosen = fid.held_out_indices(n, run.evaluation.samples, run.evaluation.seed)
    for metric, features in (("rfid_floor", decoded_features), ("real_fid", original_features)):
        estimate = fid.frechet_estimate(features[chosen], reference, run.evaluation.seed)
        record.of_features(metric, estimate.value, len(chosen), "train", error=estimate.standard_error)

    use = reconstruction.codebook_use(frequencies(validation.tokens, run.codebook_size))
    record.held_out("codebook_utilisation", use.utilisation, n)
    record.held_out("codebook_perplexity", use.perplexity, n)
    record.held_out("unigram_entropy", unigram_cross_entropy(train.tokens, validation.tokens, run.codebook_size), n)

    with torch.inference_mode():
        encoded = model.encode(resize(to_float(images.pixels[:LATENT_IMAGES]), run.encoded_size))
    count = min(n, LATENT_IMAGES)
    record.held_out("latent_norm", float(encoded.projected.norm(dim=1).mean()), count)
    record.held_out("latent_variance", float(encoded.prepared.transpose(0, 1).flatten(1).var(dim=1).sum()), count)
    return decoded

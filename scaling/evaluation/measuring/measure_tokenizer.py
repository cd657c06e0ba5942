"""What is measured of a finished tokenizer: reconstruction, rFID and its floor, use of the codebook, latents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from results.recorder import Recorder
from results.schema import TRUNK
from scaling.data.images import LabelledImages, Split, resize, to_float
from scaling.data.run_images import RunImages
from scaling.data.tokens import TokenRows, TokenSplit, frequencies
from scaling.networks import device_of
from scaling.specification.evaluation import EvaluationSpec
from scaling.specification.pictures import ImagesSpec
from scaling.specification.spec import TokenizerRun
from scaling.tokenizer.model import Tokenizer

from .. import fid, reconstruction
from ..networks.features import extract_features
from ..networks.lpips import LPIPS_TRUNKS, Trunk, lpips, lpips_sha256
from ..networks.run_networks import Judge, judges
from ..rate import unigram_cross_entropy
from .guards import collapsed_codebook, shrunk_latents
from .measurements import Measurements
from .run_reference import held_out_features, training_moments

LATENT_IMAGES = 1_000
"""Validation images on which the latents' norm and variance are measured."""
CHUNK = 500
"""Images that are compared at a time, fewer where they are large."""
MOST_PIXELS = CHUNK * 3 * 64**2
"""Values of all channels that are compared at a time: 49 MB in float64."""
SHOWN = 20
"""Reconstructions that are kept for people."""


def measure_tokenizer(
    run: TokenizerRun,
    model: Tokenizer,
    images: RunImages,
    tokens: Mapping[Split, TokenSplit],
    cache: Path,
    recorder: Recorder,
    step_done: Callable[[str], None],
) -> tuple[Tensor, Tensor]:
    """Record all evaluations of a tokenizer on the validation images, on the model's device; returns the first of these
    and their reconstructions, both uint8 [SHOWN, c, S, S], for people."""
    train, validation = tokens["train"], tokens["validation"]
    spaces = judges(run.data, run.evaluation, device_of(model))
    use = reconstruction.codebook_use(frequencies(validation.tokens, run.codebook_size))
    flag = shrunk_latents(run, recorder.rows["curves"]) or collapsed_codebook(use.utilisation, use.perplexity)
    record = Measurements(run, recorder, TRUNK, run.executed_images, flag)
    originals = images.central("validation")

    distances = distances_of(run.evaluation)
    compared = _compare(run, model, spaces, distances, originals, validation.tokens, step_done)
    n = len(originals)
    for distance, values in zip(distances, compared.distances, strict=True):
        record.held_out(distance.metric, float(values.mean()), n, float(values.std() / n**0.5), **distance.protocol())
    chosen = fid.held_out_indices(n, run.evaluation.samples, run.evaluation.seed)
    for judge, decoded in zip(spaces, compared.features, strict=True):
        real = held_out_features(images, judge, cache, lambda: step_done("rFID"))
        estimate = fid.paired_frechet_estimate(decoded, real, run.evaluation.seed)
        record.of_features("rfid", estimate.value, n, "validation", judge, error=estimate.standard_error)
        reference = training_moments(images, judge, cache, lambda: step_done("features of the training images"))
        for metric, rows in (("rfid_floor", decoded), ("real_fid", real)):
            estimate = fid.frechet_estimate(rows[chosen], reference, run.evaluation.seed)
            record.of_features(metric, estimate.value, len(chosen), "train", judge, error=estimate.standard_error)

    record.held_out("codebook_utilisation", use.utilisation, n)
    record.held_out("codebook_perplexity", use.perplexity, n)
    positions = reconstruction.codebook_use_by_position(validation.tokens[:], run.codebook_size)
    record.held_out("position_utilisation", float(positions[0].mean()), n)
    record.held_out("position_perplexity", float(positions[1].log().mean().exp()), n)
    record.held_out("unigram_entropy", unigram_cross_entropy(train.tokens, validation.tokens, run.codebook_size), n)

    projected, prepared = _latents(run, model, originals, min(n, LATENT_IMAGES))
    record.held_out("latent_norm", float(projected.norm(dim=1).mean()), len(projected))
    record.held_out("latent_variance", float(prepared.transpose(0, 1).flatten(1).var(dim=1).sum()), len(prepared))
    return compared.shown


class Distance(NamedTuple):
    """A distance of reconstructions from their images: its metric, how it is computed of two batches of pixels, and
    what its protocol says of the network behind it, if there is one."""

    metric: str
    of: Callable[[Tensor, Tensor], Tensor]
    trunk: Trunk | None = None

    def protocol(self) -> dict[str, str]:
        """Fields of its protocol. Raises DataError where the network's weights are missing."""
        if self.trunk is None:
            return {}
        return {"extractor": f"lpips-{self.trunk}", "extractor_hash": lpips_sha256(self.trunk)[:16]}


def distances_of(evaluation: EvaluationSpec) -> list[Distance]:
    """PSNR and SSIM, and those that a study names besides."""
    chosen = [Distance("psnr", reconstruction.psnr), Distance("ssim", reconstruction.ssim)]
    for name in evaluation.metrics:
        if name == "ms-ssim":
            chosen.append(Distance("ms_ssim", reconstruction.ms_ssim))
        elif name in LPIPS_TRUNKS:
            trunk = LPIPS_TRUNKS[name]
            chosen.append(Distance("lpips", partial(lpips, trunk=trunk), trunk))
    return chosen


class _Compared(NamedTuple):
    """Of n images: float64 [n] of each distance, float32 [n, d] of their reconstructions in each feature space, and the
    first originals and reconstructions."""

    distances: list[Tensor]
    features: list[Tensor]
    shown: tuple[Tensor, Tensor]


def _at_once(data: ImagesSpec) -> int:
    """Images that are compared at a time: bounded memory also for large ones."""
    return max(MOST_PIXELS // max(data.channels * data.image_size**2, MOST_PIXELS // CHUNK), 1)


def _compare(
    run: TokenizerRun,
    model: Tokenizer,
    spaces: list[Judge],
    distances: list[Distance],
    images: LabelledImages,
    tokens: TokenRows,
    step_done: Callable[[str], None],
) -> _Compared:
    device, begin = device_of(model), 0
    parts: list[tuple[Tensor, ...]] = []
    shown: tuple[Tensor, Tensor] | None = None
    for pixels in images.in_order(_at_once(run.data)):
        rows, begin = tokens[begin : begin + len(pixels)].to(device), begin + len(pixels)
        originals = pixels.to(device)
        decoded = model.pixels_of(rows, step=lambda: step_done("reconstructing"))
        step_done("PSNR, SSIM")
        values = [distance.of(decoded, originals).cpu() for distance in distances]
        rows_of_spaces = (extract_features(j.network, decoded, step=lambda: step_done("rFID")) for j in spaces)
        parts.append((*values, *rows_of_spaces))
        shown = shown or (pixels[:SHOWN], decoded[:SHOWN].cpu())
    assert shown is not None
    columns = [torch.cat(column) for column in zip(*parts, strict=True)]
    return _Compared(columns[: len(distances)], columns[len(distances) :], shown)


@torch.inference_mode()
def _latents(run: TokenizerRun, model: Tokenizer, images: LabelledImages, count: int) -> tuple[Tensor, Tensor]:
    """The first images' latents as projected and as prepared for the quantizer, both [count, code_dim, h, w]."""
    batch, device = LATENT_IMAGES // CHUNK * _at_once(run.data), device_of(model)
    chunks = (images.take(torch.arange(begin, min(begin + batch, count))) for begin in range(0, count, batch))
    encoded = [model.encode(resize(to_float(chunk.to(device)), run.encoded_size)) for chunk in chunks]
    return torch.cat([e.projected for e in encoded]), torch.cat([e.prepared for e in encoded])

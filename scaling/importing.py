"""LlamaGen's weights of both stages as an exported folder: what `tokenlaw import` writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors.torch import save_file

from results.errors import DataError, UsageError
from results.provenance import provenance
from scaling.generator.llamagen import converted, fingerprint, read_checkpoint, shape_of
from scaling.specification.components import TransformerSpec
from scaling.specification.evaluation import EvaluationSpec
from scaling.specification.explanation import explain
from scaling.specification.models.pretrained import PretrainedSpec
from scaling.specification.pictures import PicturesView, imagenet_unseen
from scaling.specification.spec import GeneratorRun, OptimiserSpec, TokenizerRun
from scaling.tokenizer.pretrained import Pretrained, load_pretrained, read_pretrained

from .export import GENERATOR, TOKENIZER, check_out, sha256_of, write_folder

CODES = "tok_embeddings.weight"
"""A row for each code, under LlamaGen's name."""


def import_pair(
    tokenizer: Path, generator: Path, out: Path, image_size: int, input_size: int | None = None
) -> list[Path]:
    """Write the folder `out`, whole or not at all; its files, which are those of write_export.

    tokenizer   LlamaGen's file, such as vq_ds16_c2i.pt, or a VQModel folder of diffusers
    generator   LlamaGen's file, such as c2i_B_256.pt; its tensors tell the size
    image_size  side of the pictures, in pixels
    input_size  side that the tokenizer encodes; None: image_size

    Nothing in the files is executed, and all is checked before anything is written. Raises UsageError if `out` is
    there and for sides that give no whole tokens, DataError for files that cannot be read so, are not of this kind or
    have different codebooks, StoreError.
    """
    check_out(out)
    known = read_pretrained(tokenizer)
    state = read_checkpoint(generator)
    try:
        shape = shape_of(state)
        codes, expected = len(state[CODES]), known.quantizer.codebook_size
        if codes != expected:
            raise DataError(f"codebook_size = {codes} is not that of {tokenizer}; allowed: {expected}")
        stage = _tokenizer_run(known, image_size, input_size)
        weights = converted(state, shape, expected, stage.data.classes)
    except DataError as error:
        raise DataError(f"{generator}: {error}") from error
    weights = {name: tensor.float().contiguous() for name, tensor in weights.items()}
    run = _generator_run(stage, shape, fingerprint(weights))
    model = load_pretrained(stage, tokenizer)

    def save(folder: Path) -> None:
        save_file(weights, folder / GENERATOR)
        model.save(folder / TOKENIZER)

    files = [*(sorted(tokenizer.iterdir()) if tokenizer.is_dir() else [tokenizer]), generator]
    told: dict[str, Any] = {
        "files": {path.name: sha256_of(path) for path in files if path.is_file()},
        "imported_by": provenance(),
    }
    return write_folder(run, out, save, told)


def _tokenizer_run(known: Pretrained, image_size: int, input_size: int | None) -> TokenizerRun:
    """The tokenizer of ImageNet's pictures of that side. Raises UsageError for a side that is not allowed."""
    try:
        view = PicturesView(image_size=image_size, channels=known.channels, crop="ten")  # type: ignore[arg-type]
        return TokenizerRun(
            data=imagenet_unseen(view), input_size=None if input_size == image_size else input_size,
            autoencoder=known.autoencoder, quantizer=known.quantizer, pretrained=known.spec,
        )  # fmt: skip
    except ValidationError as error:
        raise UsageError(explain(error)) from error


def _generator_run(tokenizer: TokenizerRun, shape: TransformerSpec, content: str) -> GeneratorRun:
    """The run that these weights stand for: LlamaGen's batch and rate, its 50,000 images of a FID. How long it trained
    stands in none of its files; the images of one step are named, which no pretrained run's mean anything."""
    return GeneratorRun(
        tokenizer=tokenizer, transformer=shape, pretrained=PretrainedSpec(source="llamagen", fingerprint=content),
        optimiser=OptimiserSpec(learning_rate=1e-4, warmup_images=0, weight_decay=0.05), schedule="constant",
        batch_size=256, train_images=(256,), evaluation=EvaluationSpec(samples=50_000),
    )  # fmt: skip

"""Weights of either stage that are another run's: one line that names the first tensor and both shapes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file, save_model

from results.errors import DataError
from scaling.generator.stored import load_generator
from scaling.generator.transformer import build_generator
from scaling.specification.spec import (
    AutoencoderSpec,
    GeneratorRun,
    OptimiserSpec,
    TokenizerRun,
    TransformerSpec,
    VectorQuantizerSpec,
)
from scaling.tokenizer.model import Tokenizer


def tokenizer_run(codes: int = 64) -> TokenizerRun:
    """A small tokenizer."""
    autoencoder = AutoencoderSpec(width=8, residual_blocks=(0, 0, 1))
    return TokenizerRun(autoencoder=autoencoder, quantizer=VectorQuantizerSpec(codebook_size=codes))


def generator_run(codes: int = 64, **shape: object) -> GeneratorRun:
    """A small generator."""
    transformer = TransformerSpec(**({"width": 32, "layers": 1, "head_dim": 16} | shape))
    return GeneratorRun(
        tokenizer=tokenizer_run(codes), transformer=transformer, train_images=(1280,), batch_size=64,
        optimiser=OptimiserSpec(learning_rate=1e-3, warmup_images=0),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (generator_run(codes=48), "head.weight has the shape [64, 32]; allowed: [48, 32]"),
        (generator_run(layers=2), "trunk.blocks.1.attention_norm.weight [32] is missing"),
        (
            generator_run(qk_gain=False),
            "trunk.blocks.0.attention.query_key_gain [2, 1, 16] has no place in its network",
        ),
        (generator_run(tied_embeddings=True), "token_embedding.weight [64, 32] has no place in its network"),
    ],
)
def test_generator_weights_of_another_shape_are_named(asked: GeneratorRun, words: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(build_generator(generator_run()), str(path))
    load_generator(generator_run(), path)
    with pytest.raises(DataError) as error:
        load_generator(asked, path)
    assert str(error.value) == f"generator weights {path} are not those of run {asked.run_id}: {words}"


def test_weights_of_another_number_of_classes_are_named(tmp_path: Path) -> None:
    path, run = tmp_path / "model.safetensors", generator_run()
    weights = build_generator(run).state_dict()
    save_file(weights | {"class_embedding.weight": torch.zeros(101, 32)}, path)
    with pytest.raises(DataError, match=re.escape("class_embedding.weight has the shape [101, 32]; allowed: [11, 32]")):
        load_generator(run, path)


def test_tied_embeddings_are_read_as_they_were_written(tmp_path: Path) -> None:
    path, run = tmp_path / "model.safetensors", generator_run(tied_embeddings=True)
    written = build_generator(run)
    save_model(written, str(path))
    read = load_generator(run, path)
    assert read.head.weight is read.token_embedding.weight
    assert torch.equal(read.head.weight, written.head.weight)


def test_tokenizer_weights_of_another_shape_are_named(tmp_path: Path) -> None:
    path, asked = tmp_path / "model.safetensors", tokenizer_run(codes=16)
    Tokenizer(tokenizer_run()).save(path)
    with pytest.raises(DataError) as error:
        Tokenizer.load(asked, path)
    start = f"tokenizer weights {path} are not those of run {asked.run_id}: quantizer."
    assert str(error.value).startswith(start) and "\n" not in str(error.value)
    assert "has the shape [64" in str(error.value) and "allowed: [16" in str(error.value)


def test_a_file_that_is_none_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for content in (b"", b"\n\n not weights \n\n" * 3):
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"^generator weights {path} cannot be read for run \w+: [^\n]+$"):
            load_generator(generator_run(), path)

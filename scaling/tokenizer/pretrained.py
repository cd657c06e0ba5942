"""Tokenizers that are taken over: imported files and folders, and the artifacts of runs of ours."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from results.errors import DataError
from scaling.specification.models.autoencoders import AnyAutoencoderSpec
from scaling.specification.models.pretrained import PretrainedSpec
from scaling.specification.models.quantizers import QuantizerSpec
from scaling.specification.spec import TokenizerRun

from .importing import ImportedTokenizer, load_imported, read_imported
from .model import Tokenizer

STORED = "model.safetensors"
"""The weights among a run's artifacts."""


@dataclass(frozen=True)
class Pretrained:
    """What a specification says of weights, and the shape that a run with them has."""

    spec: PretrainedSpec
    channels: int
    autoencoder: AnyAutoencoderSpec
    quantizer: QuantizerSpec


def read_pretrained(path: Path, stored: TokenizerRun | None = None) -> Pretrained:
    """The weights at a path: imported ones, or those of `stored`, the run whose artifacts lie there.

    Raises DataError for a path that does not exist, and for files that are damaged or no tokenizer's.
    """
    if stored is not None:
        spec = PretrainedSpec(source="stored", fingerprint=_fingerprint(Tokenizer.load(stored, path / STORED)))
        return Pretrained(spec, stored.data.channels, stored.autoencoder, stored.quantizer)
    imported = read_imported(path)
    spec = PretrainedSpec(source="diffusers" if path.is_dir() else "llamagen", fingerprint=imported.fingerprint)
    return Pretrained(spec, imported.channels, imported.autoencoder, imported.quantizer)


def load_pretrained(run: TokenizerRun, path: Path) -> Tokenizer:
    """A run's tokenizer in evaluation mode. Raises DataError for weights that are missing, or others than the run's."""
    asked = run.pretrained
    assert asked is not None
    imported: ImportedTokenizer | None = None
    if asked.source == "stored":
        model = Tokenizer.load(run, path / STORED)
        given = _fingerprint(model)
    else:
        imported = read_imported(path)
        given = imported.fingerprint
    if given != asked.fingerprint:
        raise DataError(
            f"tokenizer.pretrained: {path} holds weights {given[:12]}...; the run was planned with "
            f"{asked.fingerprint[:12]}...; plan its study again, or put these back"
        )
    return model if imported is None else load_imported(run, imported)


def _fingerprint(model: Tokenizer) -> str:
    tensors: dict[str, Tensor] = {name: value.contiguous() for name, value in sorted(model.state_dict().items())}
    return hashlib.sha256(save(tensors)).hexdigest()

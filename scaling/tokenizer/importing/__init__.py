"""Tokenizers trained elsewhere, as ours: LlamaGen's files and diffusers' VQModel folders."""

from __future__ import annotations

from pathlib import Path

from results.errors import DataError
from scaling.specification.spec import TokenizerRun
from scaling.tokenizer.model import Tokenizer

from .diffusers import read_diffusers
from .llamagen import read_llamagen
from .state import ImportedTokenizer

__all__ = ["ImportedTokenizer", "load_imported", "read_diffusers", "read_imported", "read_llamagen"]


def read_imported(path: Path) -> ImportedTokenizer:
    """A folder as a VQModel of diffusers, a file as LlamaGen's. Raises DataError for what is neither."""
    if path.is_dir():
        return read_diffusers(path)
    if path.is_file():
        return read_llamagen(path)
    raise DataError(f"tokenizer weights {path} do not exist; allowed: LlamaGen's .pt file, or a folder of diffusers")


def load_imported(spec: TokenizerRun, imported: ImportedTokenizer) -> Tokenizer:
    """A tokenizer in evaluation mode with the imported weights. Raises DataError where these do not fit the spec."""
    imported.check(spec)
    model = Tokenizer(spec)
    kept = {"quantizer.chosen": model.state_dict()["quantizer.chosen"]}
    model.load_state_dict({**imported.weights, **kept})
    return model.eval()

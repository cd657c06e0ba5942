"""The token cache: all images of a data set as tokens of one tokenizer, with labels, in one safetensors file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from results.errors import DataError
from scaling.specification.spec import TokenizerRun


@dataclass(frozen=True)
class TokenSplit:
    """Tokens int32 [n, T] in raster order and labels int64 [n] of one split."""

    tokens: Tensor
    labels: Tensor


def save_tokens(path: Path, train: TokenSplit, validation: TokenSplit) -> None:
    """Write both splits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    splits = {"train": train, "validation": validation}
    save_file({f"{name}.{key}": value for name, split in splits.items() for key, value in vars(split).items()}, path)


def load_tokens(spec: TokenizerRun, path: Path) -> tuple[TokenSplit, TokenSplit]:
    """Training and validation tokens. Raises DataError where the file does not fit the tokenizer's specification."""
    try:
        tensors = load_file(path)
        splits = [TokenSplit(tensors[f"{name}.tokens"], tensors[f"{name}.labels"]) for name in ("train", "validation")]
    except (OSError, KeyError, SafetensorError) as error:
        raise DataError(f"token cache {path} of tokenizer {spec.run_id} cannot be read: {error}") from error
    for split in splits:
        if split.tokens.shape[1:] != (spec.tokens_per_image,) or int(split.tokens.max()) >= spec.codebook_size:
            raise DataError(
                f"token cache {path} has shape {list(split.tokens.shape)} and largest token {int(split.tokens.max())}; "
                f"tokenizer {spec.run_id} has {spec.tokens_per_image} tokens of {spec.codebook_size} codes"
            )
    return splits[0], splits[1]


def frequencies(tokens: Tensor, codebook_size: int) -> Tensor:
    """Counts of each code, int64 [K]."""
    return torch.bincount(tokens.flatten().long(), minlength=codebook_size)

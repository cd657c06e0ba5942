"""The token cache: all images of a data set as tokens of one tokenizer, in shards that are mapped into memory.

    <artifacts>/tokens/tokens.json        what made them, how many, and what some of them decode to; written last
                       labels.safetensors labels of both splits, int32
                       train-000000000-000005000.safetensors    uint16 or uint32 [5000, T] of these images, in order

A shard holds a checksum of its values. Tokens take 2 bytes where the codebook has at most 65,536 codes, else 4. Rows
are read where they are needed, so that memory does not grow with the data. Runs of earlier versions have one file,
tokens.safetensors, which is read as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from results.errors import DataError
from results.store import atomic
from scaling.sealed_tensors import seal, unseal
from scaling.specification.spec import TokenizerRun

from .images import Split

FACTS, LABELS, OLD = "tokens.json", "labels.safetensors", "tokens.safetensors"
CHECKED = 4
"""Images of each split whose decoded means are kept, to be compared before a generator trains."""
TOLERANCE = 1.0
"""In grey levels: how far a decoded image's mean may lie from the one kept. Decoding on another device rounds
otherwise, which moves single pixels by a level, hardly their mean."""
CHUNK = 2**22
"""Tokens that are counted or checked at a time."""

Decode = Callable[[Tensor], Tensor]
"""Tokens int32 [n, T] to pixels uint8 [n, c, S, S]."""


def token_type(codebook_size: int) -> torch.dtype:
    """The type in which tokens of such a codebook are stored."""
    return torch.uint16 if codebook_size <= 2**16 else torch.uint32


class TokenRows:
    """Tokens [n, T] that lie in one array or several, one after the other; rows are int32 tensors."""

    def __init__(self, parts: Sequence[NDArray[Any]]) -> None:
        self._parts = list(parts)
        self._ends = np.cumsum([len(part) for part in parts])
        self.shape = (int(self._ends[-1]), int(parts[0].shape[1]))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        """Rows by slice or by an integer tensor [m]: int32 [m, T]."""
        chosen = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else rows.numpy()
        out = np.empty((len(chosen), self.shape[1]), dtype=np.int32)
        part_of = np.searchsorted(self._ends, chosen, side="right")
        for number in np.unique(part_of):
            part = self._parts[number]
            places = np.flatnonzero(part_of == number)
            out[places] = part[chosen[places] - (self._ends[number] - len(part))]
        return torch.from_numpy(out)

    def split(self, rows: int) -> Iterator[Tensor]:
        """All rows in order, so many at a time."""
        for start in range(0, len(self), rows):
            yield self[start : start + rows]


@dataclass(frozen=True)
class TokenSplit:
    """Tokens int32 [n, T] in raster order and labels int64 [n] of one split."""

    tokens: TokenRows
    labels: Tensor

    @classmethod
    def of(cls, tokens: Tensor, labels: Tensor) -> TokenSplit:
        """A split whose tokens [n, T] are in memory."""
        return cls(TokenRows([tokens.numpy()]), labels)


def mapped(paths: Sequence[Path]) -> TokenRows:
    """The tokens of shards, mapped into memory. Raises DataError for a file that is none."""
    return TokenRows([_mapped(path) for path in paths])


def _mapped(path: Path) -> NDArray[Any]:
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))["tokens"]
        kind = {"U16": np.uint16, "U32": np.uint32, "I32": np.int32}[header["dtype"]]
        shape, begin = tuple(header["shape"]), 8 + length + header["data_offsets"][0]
        if not shape[0]:
            raise ValueError("it holds no rows")
        return np.memmap(path, dtype=kind, mode="r", offset=begin, shape=shape)
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise DataError(f"token shard {path} cannot be read: {error}") from error


def save_tokens(
    folder: Path,
    spec: TokenizerRun,
    shards: Mapping[Split, Sequence[Path]],
    labels: Mapping[Split, Tensor],
    weights: str,
    decode: Decode,
) -> None:
    """Make a token cache of shards that were encoded: they are linked, or copied where that cannot be.

    shards, labels  by split; weights: SHA-256 of the tokenizer's. Raises StoreError for a full disk.
    """
    atomic.make_folder(folder)
    splits: dict[str, dict[str, Any]] = {}
    for split, paths in shards.items():
        for path in paths:
            atomic.link_or_copy(path, folder / path.name)
        rows = mapped(paths)
        splits[split] = {
            "shards": [path.name for path in paths],
            "images": len(rows),
            "decoded": {str(row): mean for row, mean in _decoded(rows, _chosen(len(rows)), decode).items()},
        }
    atomic.write(folder / LABELS, seal({str(name): value.to(torch.int32) for name, value in labels.items()}))
    facts = {
        "tokenizer": spec.run_id,
        "weights": weights,
        "images": spec.data.fingerprint,
        "preprocessing": spec.data.preprocessing,
        "codebook_size": spec.codebook_size,
        "tokens_per_image": spec.tokens_per_image,
        "splits": splits,
    }
    atomic.write(folder / FACTS, json.dumps(facts, indent=1).encode())


def _chosen(count: int) -> list[int]:
    return sorted({round(share * (count - 1) / (CHECKED - 1)) for share in range(CHECKED)})


def _decoded(tokens: TokenRows, rows: Sequence[int], decode: Decode) -> dict[int, float]:
    """The mean grey level of some rows' decoded images."""
    pixels = decode(tokens[torch.tensor(rows)])
    means = pixels.cpu().double().flatten(1).mean(dim=1).tolist()
    return dict(zip(rows, means, strict=True))


def load_tokens(
    spec: TokenizerRun, artifacts: Path, decode: Decode | None = None, weights: str | None = None
) -> tuple[TokenSplit, TokenSplit]:
    """Training and validation tokens of a tokenizer's artifacts, checked: made by this tokenizer of these images,
    whole, with no token outside the codebook, no label outside the classes, and decoding (with `decode`) to what they
    decoded to when they were made.

    Raises DataError that names the file and what does not fit.
    """
    folder = artifacts / "tokens"
    if not folder.is_dir() and (artifacts / OLD).exists():
        return _load_old(spec, artifacts / OLD)
    try:
        facts = json.loads((folder / FACTS).read_bytes())
        labels, _ = unseal((folder / LABELS).read_bytes())
        _check_facts(spec, folder, facts, weights)
        splits = []
        for split in ("train", "validation"):
            told = facts["splits"][split]
            paths = [folder / name for name in told["shards"]]
            rows = mapped(paths)
            if not len(rows) == len(labels[split]) == told["images"]:
                raise DataError(
                    f"token cache {folder}, {split}: {len(rows)} rows, {len(labels[split])} labels; "
                    f"{told['images']} were written"
                )
            for path in paths:
                _check_shard(spec, path)
            _check_labels(spec, f"{folder / LABELS}, {split}", labels[split])
            if decode is not None:
                _check_decoded(folder, split, rows, told["decoded"], decode)
            splits.append(TokenSplit(rows, labels[split].long()))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"token cache {folder} of tokenizer {spec.run_id} cannot be read: {error!r}") from error
    return splits[0], splits[1]


def _check_facts(spec: TokenizerRun, folder: Path, facts: Mapping[str, Any], weights: str | None) -> None:
    wanted = {
        "tokenizer": spec.run_id,
        "images": spec.data.fingerprint,
        "preprocessing": spec.data.preprocessing,
        "codebook_size": spec.codebook_size,
        "tokens_per_image": spec.tokens_per_image,
        **({} if weights is None else {"weights": weights}),
    }
    for name, value in wanted.items():
        if facts[name] != value:
            raise DataError(f"token cache {folder} was made with {name} = {facts[name]!r}; this run has {value!r}")


def _check_shard(spec: TokenizerRun, path: Path) -> None:
    """Raise DataError for a shard that is damaged, of another length of sequence, or with codes that do not exist."""
    tensors, _ = unseal(path.read_bytes())
    _check_codes(spec, path, TokenRows([tensors["tokens"].numpy()]))


def _check_codes(spec: TokenizerRun, path: Path, tokens: TokenRows) -> None:
    largest = max(int(chunk.max()) for chunk in tokens.split(max(1, CHUNK // tokens.shape[1])))
    smallest = min(int(chunk.min()) for chunk in tokens.split(max(1, CHUNK // tokens.shape[1])))
    if tokens.shape[1] != spec.tokens_per_image or largest >= spec.codebook_size or smallest < 0:
        raise DataError(
            f"token cache {path} has shape {list(tokens.shape)} and tokens from {smallest} to {largest}; "
            f"tokenizer {spec.run_id} has {spec.tokens_per_image} tokens of {spec.codebook_size} codes; "
            f"allowed: 0 to {spec.codebook_size - 1}"
        )


def _check_labels(spec: TokenizerRun, place: str, labels: Tensor) -> None:
    """Raise DataError for a label that no class has: the one after the last would train guidance's null class."""
    wrong = torch.nonzero((labels < 0) | (labels >= spec.data.classes))
    if len(wrong):
        row = int(wrong[0])
        raise DataError(
            f"token cache {place}: label {int(labels[row])} of row {row} is not allowed; "
            f"allowed: 0 to {spec.data.classes - 1}"
        )


def _check_decoded(folder: Path, split: str, rows: TokenRows, kept: Mapping[str, float], decode: Decode) -> None:
    now = _decoded(rows, [int(row) for row in kept], decode)
    for row, mean in now.items():
        if not abs(mean - kept[str(row)]) <= TOLERANCE:
            raise DataError(
                f"token cache {folder}, {split}: row {row} decodes to a mean of {mean:.2f}; it was "
                f"{kept[str(row)]:.2f} when it was made, so tokens and weights do not belong together"
            )


def _load_old(spec: TokenizerRun, path: Path) -> tuple[TokenSplit, TokenSplit]:
    try:
        tensors = load_file(path)
        splits = [
            TokenSplit.of(tensors[f"{name}.tokens"], tensors[f"{name}.labels"]) for name in ("train", "validation")
        ]
    except (OSError, KeyError, SafetensorError) as error:
        raise DataError(f"token cache {path} of tokenizer {spec.run_id} cannot be read: {error}") from error
    for split in splits:
        _check_codes(spec, path, split.tokens)
        _check_labels(spec, str(path), split.labels)
    return splits[0], splits[1]


def frequencies(tokens: TokenRows, codebook_size: int) -> Tensor:
    """Counts of each code, int64 [K]."""
    counts = torch.zeros(codebook_size, dtype=torch.int64)
    for chunk in tokens.split(max(1, CHUNK // tokens.shape[1])):
        counts += torch.bincount(chunk.flatten(), minlength=codebook_size)
    return counts

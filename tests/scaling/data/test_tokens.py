"""The token cache: rows from several files as from one tensor, both ways, and refused where it does not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from results.errors import DataError
from scaling.data.tokens import TokenRows, TokenSplit, frequencies, load_tokens, mapped, save_tokens, token_type
from scaling.sealed_tensors import seal
from scaling.specification.spec import TokenizerRun, VectorQuantizerSpec

RUN = TokenizerRun(quantizer=VectorQuantizerSpec(codebook_size=64))


def decode(tokens: Tensor) -> Tensor:
    """Pixels that follow from the tokens."""
    return (tokens[:, :, None, None].expand(-1, -1, 2, 2) * 3).to(torch.uint8)


def cache(folder: Path, run: TokenizerRun = RUN, *, length: int = 16, codes: int = 64) -> dict[str, Tensor]:
    """A token cache of drawn tokens, in two shards of each split; its tokens."""
    source = torch.Generator().manual_seed(5)
    tokens, shards = {}, {}
    for split, n in (("train", 30), ("validation", 11)):
        tokens[split] = torch.randint(codes, (n, length), generator=source).int()
        shards[split] = []
        for start, stop in ((0, 7), (7, n)):
            path = folder / f"{split}-{start:09d}-{stop:09d}.safetensors"
            path.write_bytes(seal({"tokens": tokens[split][start:stop].to(token_type(run.codebook_size))}))
            shards[split].append(path)
    labels = {split: torch.arange(len(rows)) % 10 for split, rows in tokens.items()}
    save_tokens(folder / "tokens", run, shards, labels, "abc", decode)
    return tokens


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.data())
def test_rows_of_parts_are_those_of_the_whole(sizes: list[int], data: st.DataObject) -> None:
    whole = torch.randint(60_000, (sum(sizes), 3)).int()
    rows = TokenRows([part.to(torch.uint16).numpy() for part in whole.split(sizes)])
    assert len(rows) == len(whole) and rows.shape == tuple(whole.shape)
    chosen = torch.tensor(data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=12)), dtype=torch.int64)
    assert torch.equal(rows[chosen], whole[chosen])
    begin, end = data.draw(st.integers(0, len(whole))), data.draw(st.integers(0, len(whole)))
    assert torch.equal(rows[begin:end], whole[begin:end])
    assert torch.equal(torch.cat(list(rows.split(4))), whole) and rows[:].dtype == torch.int32


@pytest.mark.parametrize("codes", [64, 2**17])
def test_both_ways(tmp_path: Path, codes: int) -> None:
    run = TokenizerRun(quantizer=VectorQuantizerSpec(codebook_size=codes))
    tokens = cache(tmp_path, run, codes=codes)
    for split, read in zip(("train", "validation"), load_tokens(run, tmp_path, decode, "abc"), strict=True):
        assert torch.equal(read.tokens[:], tokens[split])
        assert torch.equal(read.labels, torch.arange(len(tokens[split])) % 10)
        assert torch.equal(frequencies(read.tokens, codes), torch.bincount(tokens[split].flatten(), minlength=codes))


def test_a_cache_in_one_file_as_earlier_versions_wrote_it(tmp_path: Path) -> None:
    tokens = torch.randint(64, (12, 16)).int()
    tensors = {"tokens": tokens, "labels": torch.arange(12) % 10}
    save_file(
        {f"{split}.{name}": value.clone() for split in ("train", "validation") for name, value in tensors.items()},
        tmp_path / "tokens.safetensors",
    )
    train, _ = load_tokens(RUN, tmp_path, decode)
    assert torch.equal(train.tokens[:], tokens) and torch.equal(train.labels, torch.arange(12) % 10)
    with pytest.raises(DataError, match="16 tokens of 4 codes; allowed: 0 to 3"):
        load_tokens(RUN.model_copy(update={"quantizer": VectorQuantizerSpec(codebook_size=4)}), tmp_path)


def _rewrite(change: Callable[[dict], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        facts = json.loads((folder / "tokens.json").read_text())
        change(facts)
        (folder / "tokens.json").write_text(json.dumps(facts))

    return apply


def _shard(folder: Path) -> Path:
    return folder / "train-000000007-000000030.safetensors"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_rewrite(lambda facts: facts.update(tokenizer="other")), "was made with tokenizer = 'other'; this run has"),
        (_rewrite(lambda facts: facts.update(images="f" * 64)), "was made with images"),
        (_rewrite(lambda facts: facts.update(weights="def")), "was made with weights = 'def'; this run has 'abc'"),
        (_rewrite(lambda facts: facts["splits"]["train"].update(images=31)), "30 rows, 30 labels; 31 were written"),
        (_rewrite(lambda facts: facts["splits"]["train"]["decoded"].update({"0": 3.0})), "row 0 decodes to a mean of"),
        (_rewrite(lambda facts: facts.pop("splits")), "cannot be read: KeyError"),
        (lambda folder: (folder / "tokens.json").unlink(), "cannot be read"),
        (lambda folder: _shard(folder).unlink(), "cannot be read"),
        (lambda folder: _shard(folder).write_bytes(_shard(folder).read_bytes()[:-2]), "cannot be read"),
        (lambda folder: _shard(folder).write_bytes(_shard(folder).read_bytes()[:-2] + b"xx"), "SHA-256"),
    ],
)
def test_a_cache_that_does_not_fit_is_refused(tmp_path: Path, damage: Callable[[Path], None], words: str) -> None:
    cache(tmp_path)
    damage(tmp_path / "tokens")
    with pytest.raises(DataError, match=words):
        load_tokens(RUN, tmp_path, decode, "abc")


@pytest.mark.parametrize(("length", "codes"), [(25, 64), (16, 4096)])
def test_tokens_of_another_shape_or_codebook_are_refused(tmp_path: Path, length: int, codes: int) -> None:
    cache(tmp_path, length=length, codes=codes)
    with pytest.raises(DataError, match=r"16 tokens of 64 codes"):
        load_tokens(RUN, tmp_path)


@pytest.mark.parametrize("label", [-1, 10, 11])
@pytest.mark.parametrize("old", [False, True])
def test_a_label_of_no_class_is_refused(tmp_path: Path, label: int, old: bool) -> None:
    """10 would train the null class in silence."""
    if old:
        wrong = {"tokens": torch.zeros(4, 16, dtype=torch.int32), "labels": torch.tensor([0, 9, 9, label])}
        path = tmp_path / "tokens.safetensors"
        save_file(
            {f"{s}.{name}": value.clone() for s in ("train", "validation") for name, value in wrong.items()}, path
        )
        row = 3
    else:
        cache(tmp_path)
        path, row = tmp_path / "tokens/labels.safetensors", 2
        labels = {"train": torch.arange(30) % 10, "validation": torch.tensor([0, 9, label, *range(8)])}
        path.write_bytes(seal({split: values.to(torch.int32) for split, values in labels.items()}))
    with pytest.raises(DataError, match=rf"{path}.*: label {label} of row {row} is not allowed; allowed: 0 to 9$"):
        load_tokens(RUN, tmp_path)


def test_rows_are_mapped_not_read(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    path.write_bytes(seal({"tokens": torch.arange(12).view(3, 4).to(torch.uint16)}))
    split = TokenSplit(mapped([path]), torch.zeros(3))
    assert split.tokens[torch.tensor([2])].tolist() == [[8, 9, 10, 11]]
    assert type(split.tokens._parts[0]).__name__ == "memmap"

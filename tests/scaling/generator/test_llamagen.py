"""LlamaGen's weights: true names and shapes of every size, its reference numbers, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from results.errors import DataError
from scaling.generator.llamagen import converted, load_llamagen, shapes
from scaling.generator.transformer import Generator
from scaling.specification.ladder import LLAMAGEN_SIZES
from scaling.specification.spec import TransformerSpec

REFERENCE = Path(__file__).parents[3] / ".." / "shared" / "data" / "llamagen" / "gpt_reference.safetensors"
needs_data = pytest.mark.skipif(not REFERENCE.is_file(), reason="needs ../shared/data")

SMALL = TransformerSpec(
    width=64, layers=3, head_dim=16, hidden_multiple=256, qk_norm=False, class_position="zero", class_dropout=0.1
)


def checkpoint(spec: TransformerSpec, codes: int, classes: int) -> dict[str, torch.Tensor]:
    """Random weights of LlamaGen's names and shapes."""
    source = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=source) for name, shape in shapes(spec, codes, classes).items()}


@needs_data
def test_logits_and_loss_are_llamagens_own() -> None:
    reference = load_file(REFERENCE)
    state = {k.removeprefix("state."): v for k, v in reference.items() if k.startswith("state.")}
    # Its class table has no null class, as LlamaGen makes it without class dropout.
    spec = TransformerSpec.model_validate(SMALL.model_dump() | {"class_dropout": 0.0})
    model = Generator(spec, codebook_size=512, grid=4, classes=10).eval()
    model.load_state_dict(converted(state, spec, 512, 10))
    with torch.no_grad():
        hidden = model.hidden(reference["tokens"], reference["labels"])
        torch.testing.assert_close(model.head(hidden), reference["logits"], rtol=1e-5, atol=1e-5)
        assert model.loss(hidden, reference["tokens"]).item() == pytest.approx(reference["loss"].item(), abs=1e-5)


@pytest.mark.parametrize(
    ("size", "published"),
    [("GPT-B", "111M"), ("GPT-L", "343M"), ("GPT-XL", "775M"), ("GPT-XXL", "1.4B"), ("GPT-3B", "3.1B")],
)
def test_every_published_size_has_a_place_for_each_weight(size: str, published: str) -> None:
    """Names and shapes of the published files, at a codebook of 16,384 and 1,000 classes, without their memory."""
    spec = LLAMAGEN_SIZES[size]
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes(spec, 16384, 1000).items()}
    with torch.device("meta"):
        model = Generator(spec, codebook_size=16384, grid=16, classes=1000)
    model.load_state_dict(converted(state, spec, 16384, 1000), assign=True)
    count = sum(p.numel() for p in model.parameters())
    assert count == sum(tensor.numel() for tensor in state.values())
    assert published == (f"{count / 1e6:.0f}M" if count < 1e9 else f"{count / 1e9:.1f}B")


@pytest.mark.parametrize("wrapper", ["model", "module", None])
def test_a_file_is_read_with_or_without_a_wrapper(tmp_path: Path, wrapper: str | None) -> None:
    state = checkpoint(SMALL, 32, 5)
    torch.save({wrapper: state, "steps": 3} if wrapper else state, tmp_path / "c2i.pt")
    model = load_llamagen(Generator(SMALL, codebook_size=32, grid=4, classes=5), tmp_path / "c2i.pt")
    assert torch.equal(model.head.weight, state["output.weight"])
    feed_forward = model.trunk.blocks[2].feed_forward
    x = torch.randn(7, 64)
    w1, w2, w3 = (state[f"layers.2.feed_forward.w{i}.weight"] for i in (1, 2, 3))
    torch.testing.assert_close(feed_forward(x), (functional.silu(x @ w1.t()) * (x @ w3.t())) @ w2.t())


def test_what_is_not_llamagens_is_refused_by_name() -> None:
    state = checkpoint(SMALL, 32, 5)
    without = {k: v for k, v in state.items() if k != "layers.1.attention.wo.weight"}
    with pytest.raises(DataError, match=r"misses layers\.1\.attention\.wo\.weight"):
        converted(without, SMALL, 32, 5)
    with pytest.raises(DataError, match=r"layers\.3\.norm\.bias"):
        converted(state | {"layers.3.norm.bias": torch.zeros(1)}, SMALL, 32, 5)
    with pytest.raises(DataError, match=r"tok_embeddings\.weight = \(32, 64\); allowed: \(48, 64\)"):
        converted(state, SMALL, 48, 5)
    with pytest.raises(DataError, match="qk_norm"):
        converted(state, TransformerSpec(width=64, layers=3, head_dim=16), 32, 5)


class Evil:
    """Runs a command when unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("made-by-a-checkpoint",)


def test_nothing_in_a_file_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "text.pt").write_text("not a checkpoint")
    torch.save([1, 2], tmp_path / "list.pt")
    model = Generator(SMALL, codebook_size=32, grid=4, classes=5)
    for name in ("evil.pt", "text.pt", "list.pt", "absent.pt"):
        with pytest.raises(DataError, match=name):
            load_llamagen(model, tmp_path / name)
    assert not (tmp_path / "made-by-a-checkpoint").exists()

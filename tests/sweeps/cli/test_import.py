"""The command import: LlamaGen's tensors of both stages to a folder that is sampled, evaluated, loaded as an export."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from torch import Tensor
from typer.testing import CliRunner

from scaling import load_exported
from scaling.generator.llamagen import load_llamagen, shapes
from scaling.generator.transformer import Generator
from scaling.specification.ladder import LLAMAGEN_SIZES
from scaling.specification.spec import TransformerSpec
from scaling.tokenizer.importing import read_llamagen
from sweeps.cli.app import app
from tests.scaling.tokenizer.test_importing import diffusers_folder, diffusers_state, llamagen_state

TINY = TransformerSpec(
    width=64, layers=2, head_dim=16, hidden_multiple=256, qk_norm=False, class_position="zero",
    token_dropout=0.1, residual_dropout=0.1, feed_forward_dropout=0.1,
)  # fmt: skip
CODES, CLASSES, SIDE = 64, 1000, 32


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A size that LlamaGen has not, so that its tensors are small."""
    monkeypatch.setitem(LLAMAGEN_SIZES, "GPT-T", TINY)


def weights(codes: int = CODES, classes: int = CLASSES) -> dict[str, Tensor]:
    """Random tensors under the true names of a generator."""
    source = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=source) * 0.2 for name, shape in shapes(TINY, codes, classes).items()}


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A tokenizer's and a generator's file, as LlamaGen has them."""
    torch.save({"model": llamagen_state(width=32)}, tmp_path / "vq_ds16_c2i.pt")
    torch.save({"model": {k: v.bfloat16() for k, v in weights().items()}}, tmp_path / "c2i_T_256.pt")
    return tmp_path / "vq_ds16_c2i.pt", tmp_path / "c2i_T_256.pt"


def call(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    return result.exit_code, result.output


def imported(tokenizer: Path, generator: Path, out: Path, *words: object) -> tuple[int, str]:
    size = () if "--image-size" in words else ("--image-size", SIDE)
    return call("import", "--tokenizer", tokenizer, "--generator", generator, "--out", out, *size, *words)


def test_an_imported_pair_is_sampled_and_has_llamagens_logits(pair: tuple[Path, Path], tmp_path: Path) -> None:
    code, output = imported(*pair, tmp_path / "model")
    assert code == 0, output
    names = ["generator.safetensors", "tokenizer.safetensors", "model.json", "README.md"]
    assert output.split() == [str(tmp_path / "model" / name) for name in names]
    model = load_exported(tmp_path / "model")
    expected = load_llamagen(Generator(TINY, codebook_size=CODES, grid=2, classes=CLASSES).eval(), pair[1])
    tokens, labels = torch.randint(CODES, (3, 4)), torch.tensor([0, 999, 1000])
    with torch.no_grad():
        logits = model.generator(tokens, labels)
        assert torch.equal(logits, expected(tokens, labels)) and logits.std() > 0.1
    state = read_llamagen(pair[0]).weights
    ours = model.tokenizer.state_dict()
    assert all(torch.equal(ours[name], tensor) for name, tensor in state.items())
    # Where it is from stands in the JSON and on the card, what it cost to train in neither.
    about = json.loads((tmp_path / "model/model.json").read_text())
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in pair}
    assert about["provenance"]["files"] == hashes
    assert about["flops"].keys() == {"tokens_per_image", "generator_flops_per_image"}
    card = (tmp_path / "model/README.md").read_text()
    assert "# K64-T4-" in card and all(text in card for item in hashes.items() for text in item)
    assert "of files of llamagen" in card and "ImageNet, by its published counts" in card
    assert model.run.executed_images == 0 and model.run.transformer == TINY
    words = ("--classes", "3,999", "--guidance", "2", "--n", "2", "--out", tmp_path / "drawn")
    code, output = call("sample", tmp_path / "model", *words)
    assert code == 0, output
    assert {path.name for path in (tmp_path / "drawn").iterdir()} == {"0-class3.png", "1-class999.png", "sheet.png"}
    assert imread(tmp_path / "drawn/0-class3.png").shape[:2] == (SIDE, SIDE)


def test_other_weights_are_another_model_and_sides_are_the_users(pair: tuple[Path, Path], tmp_path: Path) -> None:
    assert imported(*pair, tmp_path / "a")[0] == 0
    changed = weights()
    changed["norm.weight"] += 1
    torch.save(changed, tmp_path / "other.pt")
    words = ("--image-size", 32, "--input-size", 48)
    code, output = imported(pair[0], tmp_path / "other.pt", tmp_path / "b", *words)
    assert code == 0, output
    a, b = (load_exported(tmp_path / name).run for name in "ab")
    assert a.pretrained is not None and b.pretrained is not None
    assert a.pretrained.fingerprint != b.pretrained.fingerprint and a.run_id != b.run_id
    assert (a.tokenizer.tokens_per_image, b.tokenizer.tokens_per_image) == (4, 9)
    assert load_exported(tmp_path / "b").tokenizer.pixels_of(torch.zeros(1, 9, dtype=torch.long)).shape[-1] == 32


def test_a_tokenizer_may_be_a_folder_of_diffusers(pair: tuple[Path, Path], tmp_path: Path) -> None:
    folder = diffusers_folder(tmp_path / "vq", diffusers_state())
    code, output = imported(folder, pair[1], tmp_path / "model", "--image-size", 8)
    assert code == 0, output
    files = json.loads((tmp_path / "model/model.json").read_text())["provenance"]["files"]
    assert files.keys() == {"config.json", "diffusion_pytorch_model.safetensors", "c2i_T_256.pt"}


def test_an_imported_pair_is_evaluated(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert imported(*pair, tmp_path / "model")[0] == 0
    np.savez(tmp_path / "real.npz", np.random.default_rng(0).integers(0, 256, (60, SIDE, SIDE, 3), dtype=np.uint8))
    extractor = "tests.sweeps.cli.test_models:Quarters"
    words = ("--reference", tmp_path / "real.npz", "--extractor", extractor, "--metrics", "fid", "--n", 60)
    root = ("--record", "--root", tmp_path / "root")
    code, output = call("evaluate", tmp_path / "model", *words, *root)
    assert code == 0 and "1 figures added" in output, output
    # Its training images are nowhere known.
    code, output = call("evaluate", tmp_path / "model", *words[2:])
    assert code == 2 and output.count("error:") == 1, output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers.2.attention_norm.weight": torch.ones(64)}, "width and layers = (64, 3) are no size of LlamaGen's"),
        ({"layers.1.attention.wo.weight": None}, "misses layers.1.attention.wo.weight"),
        ({"freqs": torch.ones(3)}, "which no LlamaGen of this shape has, freqs"),
        ({"tok_embeddings.weight": None}, "misses tok_embeddings.weight; allowed: LlamaGen's class-conditional"),
        (weights(codes=48), "codebook_size = 48 is not that of"),
        (weights(classes=10), "cls_embedding.embedding_table.weight = (11, 64); allowed: (1001, 64)"),
    ],
)
def test_what_is_no_generator_of_this_tokenizer_is_refused(
    pair: tuple[Path, Path], tmp_path: Path, change: dict[str, Tensor | None], message: str
) -> None:
    state = {name: tensor for name, tensor in {**weights(), **change}.items() if tensor is not None}
    torch.save({"model": state}, tmp_path / "wrong.pt")
    code, output = imported(pair[0], tmp_path / "wrong.pt", tmp_path / "model")
    assert code == 2 and output.count("error:") == 1
    assert message in output and "wrong.pt: " in output
    assert not (tmp_path / "model").exists()


def test_files_that_are_none_sides_and_folders_that_are_there_are_refused(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "text.pt").write_text("not a checkpoint")
    (tmp_path / "there").mkdir()
    (tmp_path / "there/file").write_text("kept")
    tokenizer, generator = pair
    model = tmp_path / "model"
    refused = [
        ((tokenizer, tmp_path / "text.pt", model), "text.pt is no checkpoint that can be read safely"),
        ((tmp_path / "text.pt", generator, model), "text.pt cannot be read without executing code in them"),
        ((generator, tokenizer, model), "c2i_T_256.pt lacks encoder.conv_in.weight"),
        ((tokenizer, tmp_path / "absent.pt", model), "absent.pt is no checkpoint"),
        ((tokenizer, generator, tmp_path / "there"), "is there; allowed: a folder that is not"),
        ((tokenizer, generator, model, "--image-size", 40), "does not divide the image side 40"),
        ((tokenizer, generator, model, "--image-size", 5000), "image_size = 5000"),
    ]
    for words, message in refused:
        code, output = imported(*words)
        assert code == 2 and output.count("error:") == 1, output
        assert message in output, output
    assert not model.exists() and [path.name for path in (tmp_path / "there").iterdir()] == ["file"]

"""Tokenizers of LlamaGen and diffusers: the reference reproduced, true names and shapes read, all else refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from results.errors import DataError
from scaling.specification.spec import PicturesSpec, TokenizerRun
from scaling.tokenizer.importing import ImportedTokenizer, load_imported, read_diffusers, read_imported, read_llamagen
from scaling.tokenizer.importing.llamagen import from_llamagen

REFERENCE = Path(__file__).parents[4] / "shared" / "data" / "llamagen" / "vq_reference.safetensors"
needs_data = pytest.mark.skipif(not REFERENCE.is_file(), reason="needs ../shared/data/llamagen")

State = dict[str, Tensor]


def run_of(imported: ImportedTokenizer, side: int = 64, **changes: object) -> TokenizerRun:
    """A run whose tokenizer has the imported shape."""
    data = PicturesSpec(
        fingerprint="0" * 64, image_size=side, channels=3, classes=10, train_images=1000, validation_images=100
    )
    fields = {"autoencoder": imported.autoencoder, "quantizer": imported.quantizer, **changes}
    return TokenizerRun(data=data, **fields)


# --- tensors of the true names and shapes, generated ---


def _convolution(state: State, name: str, incoming: int, outgoing: int, kernel: int = 3) -> None:
    generator = torch.Generator().manual_seed(len(state))
    shape = (outgoing, incoming, kernel, kernel) if kernel else (outgoing, incoming)
    state[f"{name}.weight"] = torch.randn(shape, generator=generator) * (incoming * max(kernel, 1) ** 2) ** -0.5
    state[f"{name}.bias"] = torch.randn(outgoing, generator=generator) * 0.1


def _norm(state: State, name: str, channels: int) -> None:
    state[f"{name}.weight"], state[f"{name}.bias"] = torch.ones(channels), torch.zeros(channels)


def _block(state: State, name: str, incoming: int, outgoing: int, shortcut: str) -> None:
    _norm(state, f"{name}.norm1", incoming)
    _convolution(state, f"{name}.conv1", incoming, outgoing)
    _norm(state, f"{name}.norm2", outgoing)
    _convolution(state, f"{name}.conv2", outgoing, outgoing)
    if incoming != outgoing:
        _convolution(state, f"{name}.{shortcut}", incoming, outgoing, 1)


def _attention(state: State, name: str, channels: int, names: tuple[str, ...], kernel: int) -> None:
    _norm(state, f"{name}.{names[0]}", channels)
    for layer in names[1:]:
        _convolution(state, f"{name}.{layer}", channels, channels, kernel)


def llamagen_state(multipliers: tuple[int, ...] = (1, 1, 2, 2, 4), width: int = 32, latent: int = 32) -> State:
    """The tensors of LlamaGen's VQModel, by its names."""
    state: State = {}
    lowest, top = len(multipliers) - 1, width * multipliers[-1]
    names = ("norm", "q", "k", "v", "proj_out")
    _convolution(state, "encoder.conv_in", 3, width)
    incoming = width
    for i, multiplier in enumerate(multipliers):
        for j in range(2):
            _block(state, f"encoder.conv_blocks.{i}.res.{j}", incoming, width * multiplier, "nin_shortcut")
            incoming = width * multiplier
            if i == lowest:
                _attention(state, f"encoder.conv_blocks.{i}.attn.{j}", incoming, names, 1)
        if i < lowest:
            _convolution(state, f"encoder.conv_blocks.{i}.downsample.conv", incoming, incoming)
    _convolution(state, "decoder.conv_in", latent, top)
    for side in ("encoder", "decoder"):
        _block(state, f"{side}.mid.0", top, top, "")
        _attention(state, f"{side}.mid.1", top, names, 1)
        _block(state, f"{side}.mid.2", top, top, "")
    for i, multiplier in enumerate(reversed(multipliers)):
        for j in range(3):
            _block(state, f"decoder.conv_blocks.{i}.res.{j}", incoming, width * multiplier, "nin_shortcut")
            incoming = width * multiplier
            if i == 0:
                _attention(state, f"decoder.conv_blocks.{i}.attn.{j}", incoming, names, 1)
        if i < lowest:
            _convolution(state, f"decoder.conv_blocks.{i}.upsample.conv", incoming, incoming)
    _norm(state, "encoder.norm_out", top)
    _convolution(state, "encoder.conv_out", top, latent)
    _norm(state, "decoder.norm_out", width * multipliers[0])
    _convolution(state, "decoder.conv_out", width * multipliers[0], 3)
    _convolution(state, "quant_conv", latent, 8, 1)
    _convolution(state, "post_quant_conv", 8, latent, 1)
    state["quantize.embedding.weight"] = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    state["quantize.codebook_used"] = torch.zeros(65_536)
    return state


CONFIG = {
    "_class_name": "VQModel", "act_fn": "silu", "block_out_channels": [32, 64], "in_channels": 3, "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"], "latent_channels": 4, "layers_per_block": 1,
    "up_block_types": ["AttnUpDecoderBlock2D", "UpDecoderBlock2D"], "norm_num_groups": 32, "num_vq_embeddings": 64,
    "vq_embed_dim": None, "norm_type": "group", "mid_block_add_attention": True,
}  # fmt: skip
NEW, OLD = ("group_norm", "to_q", "to_k", "to_v", "to_out.0"), ("group_norm", "query", "key", "value", "proj_attn")


def diffusers_state(names: tuple[str, ...] = NEW, attends: bool = True) -> State:
    """The tensors of diffusers' VQModel of CONFIG, by its names."""
    state: State = {}
    _convolution(state, "encoder.conv_in", 3, 32)
    _block(state, "encoder.down_blocks.0.resnets.0", 32, 32, "")
    _convolution(state, "encoder.down_blocks.0.downsamplers.0.conv", 32, 32)
    _block(state, "encoder.down_blocks.1.resnets.0", 32, 64, "conv_shortcut")
    _convolution(state, "decoder.conv_in", 4, 64)
    for side in ("encoder", "decoder"):
        _block(state, f"{side}.mid_block.resnets.0", 64, 64, "")
        _attention(state, f"{side}.mid_block.attentions.0", 64, names, 0)
        _block(state, f"{side}.mid_block.resnets.1", 64, 64, "")
    for j in range(2):
        _block(state, f"decoder.up_blocks.0.resnets.{j}", 64, 64, "")
        _block(state, f"decoder.up_blocks.1.resnets.{j}", 32 if j else 64, 32, "conv_shortcut")
        if attends:
            _attention(state, f"decoder.up_blocks.0.attentions.{j}", 64, names, 0)
    if attends:
        _attention(state, "encoder.down_blocks.1.attentions.0", 64, names, 0)
    _convolution(state, "decoder.up_blocks.0.upsamplers.0.conv", 64, 64)
    _norm(state, "encoder.conv_norm_out", 64)
    _convolution(state, "encoder.conv_out", 64, 4)
    _norm(state, "decoder.conv_norm_out", 32)
    _convolution(state, "decoder.conv_out", 32, 3)
    _convolution(state, "quant_conv", 4, 4, 1)
    _convolution(state, "post_quant_conv", 4, 4, 1)
    state["quantize.embedding.weight"] = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    return state


def diffusers_folder(folder: Path, state: State, **changes: object) -> Path:
    """A VQModel's folder."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | changes))
    save_file(state, folder / "diffusion_pytorch_model.safetensors")
    return folder


# --- LlamaGen ---


@needs_data
def test_the_reference_is_reproduced() -> None:
    """LlamaGen's own module, run once: latents, tokens, reconstruction and both losses."""
    reference = load_file(REFERENCE)
    state = {name.removeprefix("state."): t for name, t in reference.items() if name.startswith("state.")}
    imported = from_llamagen(REFERENCE.name, state)
    model = load_imported(run_of(imported), imported).train()
    encoded = model.encode(reference["input"])
    close = {"rtol": 0, "atol": 1e-5}
    torch.testing.assert_close(encoded.projected, reference["latents"], **close)
    assert torch.equal(encoded.quantised.tokens.flatten(), reference["indices"])
    torch.testing.assert_close(encoded.quantised.codes, reference["quantised"], **close)
    # Pixels reach 2.4 here, and the reference's own rounding, against float64, is 1.1e-5: the share counts.
    largest = float(reference["decoded"].abs().max())
    torch.testing.assert_close(model.decode(encoded.quantised.codes) / largest, reference["decoded"] / largest, **close)
    losses = encoded.quantised.losses
    torch.testing.assert_close(losses["codebook"], reference["vq_loss"][0], **close)
    torch.testing.assert_close(0.25 * losses["commitment"], reference["commitment_loss"][0], **close)


@needs_data
def test_generated_names_and_shapes_are_the_references() -> None:
    reference = {n.removeprefix("state."): t.shape for n, t in load_file(REFERENCE).items() if n.startswith("state.")}
    generated = {name: t.shape for name, t in llamagen_state().items()}
    generated["quantize.embedding.weight"] = torch.Size([512, 8])
    assert generated.pop("quantize.codebook_used") == torch.Size([65_536])
    assert generated == reference


@pytest.mark.parametrize("section", ["ema", "model", None])
@pytest.mark.parametrize("multipliers", [(1, 1, 2, 2, 4), (1, 2, 2, 4)], ids=["f16", "f8"])
def test_files_of_llamagen(section: str | None, multipliers: tuple[int, ...], tmp_path: Path) -> None:
    state, path = llamagen_state(multipliers), tmp_path / "vq.pt"
    torch.save({section: state, "steps": 3} if section else state, path)
    imported = read_imported(path)
    assert imported.autoencoder.channel_multipliers == multipliers
    assert imported.autoencoder.downsampling == 2 ** (len(multipliers) - 1)
    model = load_imported(run_of(imported), imported)
    assert torch.equal(
        model.encoder.layers.level1_down.conv.weight, state["encoder.conv_blocks.1.downsample.conv.weight"]
    )
    lowest = len(multipliers) - 1
    ours = model.decoder.layers.get_submodule(f"level{lowest}_attention2").key.weight
    assert torch.equal(ours, state["decoder.conv_blocks.0.attn.2.k.weight"])
    assert torch.equal(model.quantizer.codebook, state["quantize.embedding.weight"])


def test_the_fingerprint_is_of_the_weights_not_of_the_file(tmp_path: Path) -> None:
    state = llamagen_state((1, 2))
    torch.save({"ema": state}, tmp_path / "a.pt")
    torch.save({"model": dict(reversed(state.items()))}, tmp_path / "b.pt")
    save_file(state, tmp_path / "c.safetensors")
    prints = {read_llamagen(tmp_path / name).fingerprint for name in ("a.pt", "b.pt", "c.safetensors")}
    assert len(prints) == 1
    state["quant_conv.bias"] += 1e-3
    assert from_llamagen("changed", state).fingerprint not in prints


def _without(state: State) -> None:
    del state["decoder.conv_blocks.0.res.1.conv2.bias"]


def _with(state: State) -> None:
    state["encoder.conv_blocks.0.extra.weight"] = torch.zeros(1)


def _reshaped(state: State) -> None:
    state["post_quant_conv.weight"] = torch.zeros(32, 9, 1, 1)


def _counted(state: State) -> None:
    state["post_quant_conv.bias"] = torch.zeros(32, dtype=torch.int64)


def _headless(state: State) -> None:
    del state["encoder.conv_in.weight"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_without, ["lacks decoder.conv_blocks.0.res.1.conv2.bias"]),
        (_with, ["holds encoder.conv_blocks.0.extra.weight", "no place"]),
        (_reshaped, ["post_quant_conv.weight", "[32, 9, 1, 1]", "allowed: [32, 8, 1, 1]"]),
        (_counted, ["post_quant_conv.bias", "int64"]),
        (_headless, ["lacks encoder.conv_in.weight"]),
    ],
)
def test_tensors_that_do_not_fit_are_named(change: Callable[[State], None], words: list[str]) -> None:
    state = llamagen_state((1, 2))
    change(state)
    with pytest.raises(DataError) as error:
        from_llamagen("vq.pt", state)
    assert all(word in str(error.value) for word in words), str(error.value)


class _Harmful:
    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return (pytest.fail, ("code in a file of weights was executed",))


def test_files_that_execute_code_or_hold_no_tensors_are_refused(tmp_path: Path) -> None:
    torch.save({"model": _Harmful()}, tmp_path / "harmful.pt")
    with pytest.raises(DataError, match="without executing code"):
        read_imported(tmp_path / "harmful.pt")
    torch.save({"model": {"steps": 3}}, tmp_path / "numbers.pt")
    with pytest.raises(DataError, match="no table of tensors"):
        read_imported(tmp_path / "numbers.pt")
    (tmp_path / "text.pt").write_text("weights")
    with pytest.raises(DataError, match=r"text\.pt cannot be read"):
        read_imported(tmp_path / "text.pt")
    with pytest.raises(DataError, match="do not exist"):
        read_imported(tmp_path / "none.pt")


def test_a_run_of_another_shape_is_refused_before_anything_is_built() -> None:
    imported = from_llamagen("vq.pt", llamagen_state((1, 2)))
    run = run_of(imported)
    other = run.model_copy(update={"quantizer": run.quantizer.model_copy(update={"codebook_size": 128})})
    with pytest.raises(DataError, match=r"quantizer.codebook_size = 128 .* allowed: 64"):
        load_imported(other, imported)
    with pytest.raises(DataError, match=r"autoencoder.kind = 'convolutional' .* allowed: 'vqgan'"):
        load_imported(TokenizerRun(data=run.data), imported)
    free = run.autoencoder.model_copy(update={"memory_layout": "contiguous"})
    load_imported(run.model_copy(update={"autoencoder": free}), imported)


# --- diffusers ---


@pytest.mark.parametrize("names", [NEW, OLD], ids=["today's", "older"])
def test_folders_of_diffusers(names: tuple[str, ...], tmp_path: Path) -> None:
    state = diffusers_state(names)
    imported = read_imported(diffusers_folder(tmp_path / "vq", state))
    model = load_imported(run_of(imported), imported)
    expected = state[f"decoder.up_blocks.0.attentions.1.{names[2]}.weight"]
    assert torch.equal(model.decoder.layers.level1_attention1.key.weight[:, :, 0, 0], expected)
    assert not imported.quantizer.l2_normalised
    codes = model.encode(torch.rand(1, 3, 64, 64) * 2 - 1).quantised.codes
    assert model.decode(codes).shape == (1, 3, 64, 64)


def test_attention_in_the_middle_alone(tmp_path: Path) -> None:
    types = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
    imported = read_diffusers(diffusers_folder(tmp_path, diffusers_state(attends=False), **types))
    assert imported.autoencoder.attention == "middle"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"_class_name": "AutoencoderKL"}, ["_class_name = 'AutoencoderKL'", "allowed: 'VQModel'"]),
        ({"norm_type": "spatial"}, ["norm_type = 'spatial'", "allowed: 'group'"]),
        ({"out_channels": 1}, ["out_channels = 1", "allowed: in_channels, 3"]),
        ({"block_out_channels": [64, 96]}, ["block_out_channels = [64, 96]", "multiples of the first"]),
        ({"up_block_types": ["UpDecoderBlock2D"] * 2}, ["up_block_types", "AttnUpDecoderBlock2D"]),
        ({"num_vq_embeddings": 128}, ["quantize.embedding.weight", "[64, 4]", "allowed: [128, 4]"]),
        ({"layers_per_block": 2}, ["lacks", "attentions.2"]),
        ({"norm_num_groups": 48}, ["norm_groups = 48"]),
    ],
)
def test_settings_that_cannot_be_ours_are_named(changes: dict[str, object], words: list[str], tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        read_diffusers(diffusers_folder(tmp_path, diffusers_state(), **changes))
    assert all(word in str(error.value) for word in words), str(error.value)


def test_folders_without_their_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"config\.json cannot be read"):
        read_imported(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "diffusion_pytorch_model.bin").write_bytes(b"")
    with pytest.raises(DataError, match=r"diffusion_pytorch_model\.safetensors cannot be read.*execute no code"):
        read_imported(tmp_path)

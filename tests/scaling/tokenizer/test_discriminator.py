"""The discriminator: published shape, losses by hand, counted FLOPs, and norms that do not depend on processes."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from scaling.specification.costs import flops
from scaling.specification.costs.discriminator_flops import discriminator_layers
from scaling.specification.spec import AdversarialSpec, ReconstructionLossSpec, TokenizerRun
from scaling.tokenizer.discriminator import Discriminator, WholeBatchNorm, discriminator_loss, generator_loss


def adversarial(**changes: object) -> AdversarialSpec:
    """A small discriminator that takes part from the start."""
    return AdversarialSpec(**({"start_images": 0, "ramp_images": 0, "width": 16, "layers": 2} | changes))


def test_its_size_and_patches_are_those_of_the_published_one() -> None:
    """CycleGAN's same network, whose norms have no weights and whose convolutions all have a bias, has 2,764,737; and
    256 x 256 pixels have 30 x 30 patches."""
    network = Discriminator(AdversarialSpec(), 3)
    normed = 128 + 256 + 512
    assert sum(p.numel() for p in network.parameters()) == 2_764_737 - normed + 2 * normed
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 256, 256)).shape == (1, 1, 30, 30)


def test_losses_by_hand() -> None:
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-0.5, 1.0])
    assert discriminator_loss("wasserstein", real, fake).item() == 0.25 - 1.25
    # max(0, 1 - real) is 0 and 0.5; max(0, 1 + fake) is 0.5 and 2.
    assert discriminator_loss("hinge", real, fake).item() == (0.25 + 1.25) / 2
    assert generator_loss(fake).item() == -0.25


@pytest.mark.parametrize("loss", ["wasserstein", "hinge"])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_gradients_by_finite_differences(loss: str, norm: str) -> None:
    torch.manual_seed(0)
    network = Discriminator(adversarial(norm=norm), 1).double()
    images = [torch.rand(2, 1, 16, 16, dtype=torch.float64) for _ in range(2)]

    def value(kernel: torch.Tensor) -> torch.Tensor:
        parameters = dict(network.named_parameters()) | {"layers.2.weight": kernel}
        # The network casts its logits to float32, which differences cannot see through.
        logits = [torch.func.functional_call(network.layers, _below(parameters), (x,)) for x in images]
        return discriminator_loss(loss, *logits)

    kernel = network.layers[2].weight.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(value(kernel), kernel)
    for place in ((0, 0, 0, 0), (5, 3, 2, 1), (31, 15, 3, 3)):
        moved = [kernel.detach().clone() for _ in range(2)]
        for tensor, step in zip(moved, (1e-6, -1e-6), strict=True):
            tensor[place] += step
        difference = (value(moved[0]) - value(moved[1])) / 2e-6
        assert difference.item() == pytest.approx(gradient[place].item(), rel=1e-4, abs=1e-9)


def _below(parameters: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix("layers."): value for name, value in parameters.items()}


def test_batch_norm_over_processes_is_that_of_the_batch() -> None:
    """With a sum over one process the formula gives what torch's own does, gradients included."""
    torch.manual_seed(0)
    values = torch.randn(4, 6, 5, 5, requires_grad=True)
    copied = values.detach().clone().requires_grad_()
    whole, parts = WholeBatchNorm(6), WholeBatchNorm(6, lambda sums: sums)
    outputs = whole(values), parts(copied)
    torch.testing.assert_close(*outputs)
    for output in outputs:
        functional.mse_loss(output.square(), torch.ones_like(output)).backward()
    torch.testing.assert_close(values.grad, copied.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("adaptive", [False, True])
def test_cost_of_a_training_is_what_torch_counts(adaptive: bool) -> None:
    """Both steps of the discriminator, before and after its start, less the same without one."""
    from scaling.data.images import Images
    from scaling.training.schedule import segments
    from scaling.training.tokenizer import TokenizerTraining

    plain = TokenizerRun(
        train_images=6, batch_size=2, ema_decay=0.0, losses=ReconstructionLossSpec(perceptual_weight=1.0)
    )
    run = plain.model_copy(update={"adversarial": adversarial(start_images=2, adaptive=adaptive)})
    images = Images(torch.zeros(8, 1, 32, 32, dtype=torch.uint8), torch.zeros(8, dtype=torch.int64))
    counted = []
    for spec in (plain, run):
        training = TokenizerTraining(spec, images, lambda *arguments: None)
        with FlopCounterMode(display=False) as counter:
            for seen in (0, 2, 4):
                training.step(segments(spec)[0], seen)
        counted.append(counter.get_total_flops())
    costs = flops.tokenizer_costs(run)
    assert counted[1] - counted[0] == pytest.approx(6 * costs.adversarial, rel=1e-12)
    assert costs.total == flops.tokenizer_costs(plain).total + costs.adversarial
    network = Discriminator(run.adversarial, 1)
    assert sum(layer.parameters for layer in discriminator_layers(run)) == sum(p.numel() for p in network.parameters())

"""The discriminator beside a tokenizer in training: its terms in both losses, and the adaptive weight."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from scaling import randomness
from scaling.specification.models.adversarial import AdversarialSpec
from scaling.specification.spec import TokenizerRun
from scaling.tokenizer.discriminator import Discriminator, discriminator_loss, generator_loss

from .distributed import Ranks

LARGEST_FACTOR = 1e4
"""Of the adaptive weight."""
EPSILON = 1e-4


class Adversary:
    """One process's part of the discriminator; its network and optimiser are state of the stage."""

    def __init__(self, spec: TokenizerRun, settings: AdversarialSpec, ranks: Ranks, last: Tensor) -> None:
        """`last` are the weights of the decoder's last layer."""
        randomness.seed_modules(spec.seed, "discriminator weights")
        total = all_reduce if ranks.size > 1 else None
        self.settings, self.ranks, self.last = settings, ranks, last
        self.network = Discriminator(settings, spec.data.channels, total).to(ranks.device)

    def active(self, images: int) -> bool:
        """Whether the discriminator takes part in the step that starts after `images` images."""
        return images >= self.settings.start_images

    def idle(self) -> dict[str, Tensor]:
        """The terms of a step in which it does not: the same names, all 0."""
        names = ("adversarial", "adversarial_weight", "discriminator", "discriminator_real", "discriminator_fake")
        return {name: torch.zeros((), device=self.ranks.device) for name in names}

    def oppose(self, reconstruction: Tensor, faithful: Tensor, images: int, share: float) -> tuple[Tensor, Tensor]:
        """The tokenizer's term -mean D(reconstruction), and its weight after `images` images.

        `faithful` is the weighted reconstruction loss, `share` the share of the batch that both are means over.
        """
        self.network.requires_grad_(False)
        term = generator_loss(self.network(reconstruction))
        self.network.requires_grad_(True)
        weight = torch.full((), self.settings.weight_after(images), device=self.ranks.device)
        if self.settings.adaptive:
            norms = [self._norm(loss * share) for loss in (faithful, term)]
            weight = weight * (norms[0] / (norms[1] + EPSILON)).clamp(0, LARGEST_FACTOR)
        return term, weight

    def _norm(self, loss: Tensor) -> Tensor:
        """Norm of a loss's gradient at the decoder's last layer, over the whole batch."""
        (gradient,) = torch.autograd.grad(loss, self.last, retain_graph=True)
        return self.ranks.sum(gradient).norm()

    def learn(self, target: Tensor, reconstruction: Tensor, share: float) -> dict[str, Tensor]:
        """Add the gradients of the discriminator's own loss; its terms."""
        real, fake = self.network(target), self.network(reconstruction.detach())
        loss = discriminator_loss(self.settings.loss, real, fake)
        (loss * share).backward()
        return {"discriminator": loss, "discriminator_real": real.mean(), "discriminator_fake": fake.mean()}

    @torch.no_grad()
    def clip(self) -> None:
        """Keep the weights within `weight_clip`, after a step."""
        if self.settings.weight_clip:
            for parameter in self.network.parameters():
                parameter.clamp_(-self.settings.weight_clip, self.settings.weight_clip)


def last_weights(decoder: nn.Module) -> Tensor:
    """Kernel of a decoder's last convolution."""
    return [module for module in decoder.modules() if isinstance(module, nn.Conv2d)][-1].weight

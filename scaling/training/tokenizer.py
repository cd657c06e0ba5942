"""Stage 1's training: losses, the causal regulariser with its own optimiser, weight average, dead-code revival."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from results.recorder import Recorder
from scaling import randomness
from scaling.data.images import resize, to_float
from scaling.evaluation.features import PerceptualLoss
from scaling.specification import flops
from scaling.specification.spec import TokenizerRun, VectorQuantizerSpec
from scaling.tokenizer.causal import CausalRegulariser
from scaling.tokenizer.model import Encoded, Tokenizer
from scaling.tokenizer.quantizers import VectorQuantizer

from . import optimiser
from .distributed import ALONE, Ranks, sum_of
from .schedule import ScheduleSegment, tokenizer_learning_rate
from .stage import StageTraining

Evaluate = Callable[[Tokenizer, Recorder], None]
"""Measures a finished tokenizer and records it."""


@dataclass
class _Part:
    """What a step needs of a part of its batch: shares of the loss terms, latents to revive codes with, and moments
    for the explained variance (None for a whole batch)."""

    terms: dict[str, Tensor]
    prepared: Tensor | None
    moments: Tensor | None


@torch.no_grad()
def _moments(squared: Tensor, target: Tensor) -> Tensor:
    """Means of squared errors, of targets and of their squares by dimension, float64 [1 + 2 d], of [n, T, d] each."""
    flat = target.flatten(0, 1).double()
    return torch.cat([squared.double().mean()[None], flat.mean(0), flat.square().mean(0)])


class TokenizerTraining(StageTraining):
    """Drives one tokenizer run on images, uint8 `pixels` [n, c, s, s]; `evaluation` measures the finished model."""

    def __init__(
        self,
        spec: TokenizerRun,
        pixels: Tensor,
        evaluation: Evaluate,
        ranks: Ranks = ALONE,
        microbatch: int | None = None,
    ) -> None:
        randomness.seed_modules(spec.seed, "tokenizer weights")
        self.model = Tokenizer(spec).to(ranks.device).train()
        super().__init__(spec, self.model, ranks, microbatch)
        self.spec, self.pixels, self.evaluation = spec, pixels, evaluation
        self.tokens_per_image = spec.tokens_per_image
        self.flops_per_image = flops.tokenizer_training_flops(spec)
        self.average = self.model
        if spec.ema_decay:
            self.modules["average"] = self.average = copy.deepcopy(self.model).eval()
        self.perceptual = PerceptualLoss().to(ranks.device) if spec.losses.perceptual_weight else None
        self.regulariser: CausalRegulariser | None = None
        self.causal_optimiser: torch.optim.AdamW | None = None
        if spec.regulariser is not None:
            # Its weights come from a stream of its own, so that the tokenizer starts alike with and without it.
            randomness.seed_modules(spec.seed, "causal regulariser weights")
            regulariser = CausalRegulariser(spec.regulariser, flops.regulariser_latent_dim(spec), spec.grid_size)
            self.regulariser = regulariser.to(ranks.device)
            settings = spec.optimiser.model_copy(update={"weight_decay": spec.regulariser.weight_decay})
            self.causal_optimiser = optimiser.adamw(self.regulariser.parameters(), settings)
            self.modules["causal"], self.optimisers["causal_optimiser"] = self.regulariser, self.causal_optimiser

    def step(self, segment: ScheduleSegment, images: int) -> dict[str, Tensor]:
        """See StageTraining."""
        spec = self.spec
        rate = tokenizer_learning_rate(spec, images)
        optimiser.set_learning_rate(self.optimiser, rate)
        indices = randomness.batch_indices(spec.seed, "tokenizer batches", images, spec.batch_size, len(self.pixels))
        done = images + spec.batch_size
        revives = self._revives(done)
        counted = self._chosen()
        parts = [self._part(self.pixels[indices[part]], images, revives) for part in self.parts]
        terms = {name: sum_of([part.terms[name] for part in parts]) for name in parts[0].terms}
        for module in (self.model, self.regulariser):
            if module is not None:
                self.ranks.sum_gradients(module.parameters())
        quantizer = self.model.quantizer
        if counted is not None and isinstance(quantizer, VectorQuantizer):
            quantizer.chosen.copy_(counted + self.ranks.sum(quantizer.chosen - counted))
        if parts[0].moments is not None:
            explained = self._explained(sum_of([part.moments for part in parts if part.moments is not None]))
            terms["causal_explained_variance"] = self.ranks.equal(explained)
        self.apply_gradients(terms)
        if self.causal_optimiser is not None and spec.regulariser is not None:
            peak = spec.regulariser.learning_rate or spec.optimiser.learning_rate
            optimiser.set_learning_rate(self.causal_optimiser, rate * peak / spec.optimiser.learning_rate)
            self.causal_optimiser.step()
            self.causal_optimiser.zero_grad()
        self._update_average(done // spec.batch_size)
        if revives:
            prepared = torch.cat([part.prepared for part in parts if part.prepared is not None])
            self._revive(self.ranks.gather(prepared, spec.batch_size), done // spec.batch_size)
        return terms

    def _part(self, pixels: Tensor, images: int, keep: bool) -> _Part:
        """Add the gradients of a part of the batch; its share of the batch's loss terms, detached."""
        spec, device = self.spec, self.ranks.device
        share = len(pixels) / spec.batch_size
        target = resize(to_float(pixels.to(device)), spec.encoded_size)
        with torch.autocast(device.type, torch.bfloat16, enabled=spec.precision == "bfloat16"):
            encoded = self.model.encode(target)
            reconstruction = self.model.decode(encoded.quantised.codes)
        terms = {"squared_error": functional.mse_loss(reconstruction, target)}
        loss = spec.losses.squared_error_weight * terms["squared_error"] + encoded.quantised.weighted
        terms |= encoded.quantised.losses
        if self.perceptual is not None:
            terms["perceptual"] = self.perceptual(reconstruction, target)
            loss = loss + spec.losses.perceptual_weight * terms["perceptual"]
        terms["loss"] = loss
        moments = None
        if self.regulariser is not None:
            weight = self.regulariser.annealed_weight(images)
            if share == 1:
                causal, explained = self.regulariser(self._regularised(encoded), weight)
            else:
                causal, squared, sequence = self.regulariser.terms(self._regularised(encoded), weight)
                moments = _moments(squared, sequence) * share
                explained = causal.new_zeros(())  # Follows from the moments of the whole batch.
            loss = loss + causal
            # The reported total carries lambda as the paper writes it; `loss` itself carries it in the gradient.
            terms["loss"] = terms["loss"] + weight * causal
            terms |= {"causal": causal, "causal_explained_variance": explained}
        terms["latent_norm"] = encoded.projected.detach().norm(dim=1).mean()
        (loss * share).backward()
        prepared = encoded.prepared.detach() if keep else None
        return _Part({name: value.detach() * share for name, value in terms.items()}, prepared, moments)

    def _explained(self, moments: Tensor) -> Tensor:
        """The share of latent variance that the causal model predicts, from the moments of all parts of a batch."""
        squared, mean, square = self.ranks.sum(moments).tensor_split([1, 1 + (len(moments) - 1) // 2])
        return 1 - squared[0] / (square - mean.square()).mean().clamp_min(1e-12)

    def _chosen(self) -> Tensor | None:
        """The counts of chosen codes so far, of which other processes know only this one's share of the next step."""
        quantizer = self.model.quantizer
        return quantizer.chosen.clone() if self.ranks.size > 1 and isinstance(quantizer, VectorQuantizer) else None

    def _regularised(self, encoded: Encoded) -> Tensor:
        assert self.spec.regulariser is not None
        latents = {
            "projected": encoded.projected,
            "encoder": encoded.encoder.float(),
            "quantised": encoded.quantised.codes,
        }
        return latents[self.spec.regulariser.latents]

    @torch.no_grad()
    def _update_average(self, step: int) -> None:
        if not self.spec.ema_decay:
            return
        # The ramp lets the average forget the random start (1 - decay is then at least 1 / step).
        weight = max(1 - self.spec.ema_decay, 1 / (step + 1))
        weights: list[Tensor] = list(self.model.parameters())
        average: list[Tensor] = list(self.average.parameters())
        torch._foreach_lerp_(average, weights, weight)

    def _revives(self, images: int) -> bool:
        """Whether dead codes are revived at the end of the step that reaches `images`."""
        spec = self.spec.quantizer
        if not isinstance(spec, VectorQuantizerSpec) or not spec.revive_every:
            return False
        step = images // self.spec.batch_size
        return step % spec.revive_every == 0 and images <= spec.revive_until * self.spec.train_images

    def _revive(self, prepared: Tensor, step: int) -> None:
        quantizer = self.model.quantizer
        assert isinstance(quantizer, VectorQuantizer)
        dead = quantizer.revive(prepared, randomness.generator(self.spec.seed, "code revival", step))
        codebook = quantizer.codebook
        moments = self.optimiser.state[codebook]
        with torch.no_grad():
            # A revived code is a new parameter: it keeps neither the average nor the moments of the old one.
            average = self.average.quantizer
            assert isinstance(average, VectorQuantizer)
            average.codebook.copy_(torch.where(dead[:, None], codebook, average.codebook))
            for name in ("exp_avg", "exp_avg_sq"):
                moments[name].masked_fill_(dead[:, None], 0.0)

    def evaluate(self, segment: ScheduleSegment, images: int, recorder: Recorder) -> None:
        """See StageTraining; measured are the averaged weights."""
        self.evaluation(self.measured(self.average), recorder)
        self.model.train()

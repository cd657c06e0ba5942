"""Stage 1's training: losses, regulariser and discriminator with their own optimisers, weight average, revival."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributed.nn.functional import all_reduce
from torch.nn import functional

from results.recorder import Recorder
from scaling import randomness
from scaling.data.images import LabelledImages, resize, to_float
from scaling.evaluation.networks.run_networks import perceptual_loss
from scaling.networks import in_double
from scaling.specification.spec import TokenizerRun
from scaling.tokenizer.known_regularisers import build_regulariser
from scaling.tokenizer.model import Tokenizer
from scaling.tokenizer.quantizers import CodebookQuantizer, Revivable
from scaling.tokenizer.quantizers.entropy import entropy_of
from scaling.tokenizer.regulariser import Regulariser

from .adversary import Adversary, last_weights
from .distributed import ALONE, Ranks
from .schedule import ScheduleSegment, tokenizer_learning_rate
from .stage import StageTraining, adamw, set_learning_rate

Evaluate = Callable[[Tokenizer, Recorder], None]
"""Measures a finished tokenizer and records it."""


def codebook_use(choices: Tensor) -> dict[str, Tensor]:
    """Of how often a step chose each code [K]: the share of the codebook that it chose at all, and the exponential of
    the choices' entropy (perplexity), both of the whole batch."""
    shares = in_double(choices) / in_double(choices).sum()
    use = {"codebook_utilisation": in_double(choices > 0).mean(), "codebook_perplexity": entropy_of(shares).exp()}
    return {name: value.to(choices.device) for name, value in use.items()}


class _Part(NamedTuple):
    """What a step needs of a part of its batch: shares of the loss terms, latents to revive codes with, how often
    each code was chosen, and moments of the regulariser (None for a whole batch)."""

    terms: dict[str, Tensor]
    prepared: Tensor
    choices: Tensor
    moments: Tensor | None


class TokenizerTraining(StageTraining):
    """Drives one tokenizer run on images; `evaluation` measures the finished model, where it was trained."""

    def __init__(
        self,
        spec: TokenizerRun,
        images: LabelledImages,
        evaluation: Evaluate,
        ranks: Ranks = ALONE,
        microbatch: int | None = None,
    ) -> None:
        spec.check_parts(ranks.size, microbatch)
        randomness.seed_modules(spec.seed, "tokenizer weights")
        self.model = Tokenizer(spec).to(ranks.device).train()
        super().__init__(spec, self.model, ranks, microbatch)
        self.spec, self.evaluation = spec, evaluation
        self.prepare_measurement: Callable[[Tokenizer], object] | None = None
        """What every process does with the finished model before the first measures it."""
        self.begin = self.parts[0].start
        part = slice(self.begin, self.parts[-1].stop)
        self.stream = images.stream(spec.seed, "tokenizer batches", spec.batch_size, part)
        quantizer = self.model.quantizer
        quantizer.processes = all_reduce if ranks.size > 1 else None
        self.quantizer = quantizer if isinstance(quantizer, CodebookQuantizer) else None
        self.average = self.model
        if spec.ema_decay:
            self.modules["average"] = self.average = copy.deepcopy(self.model).eval()
        self.perceptual = perceptual_loss(spec, ranks.device) if spec.losses.perceptual_weight else None
        self.regulariser: Regulariser | None = None
        if spec.regulariser is not None:
            # Its weights come from a stream of its own, so that the tokenizer starts alike with and without it.
            randomness.seed_modules(spec.seed, "causal regulariser weights")
            self.regulariser = build_regulariser(spec).to(ranks.device)
            settings = spec.optimiser.model_copy(update={"weight_decay": spec.regulariser.weight_decay})
            self.modules["causal"] = self.regulariser
            self.optimisers["causal_optimiser"] = adamw(self.regulariser.parameters(), settings)
        self.adversary: Adversary | None = None
        if spec.adversarial is not None:
            last = last_weights(self.model.decoder)
            if spec.adversarial.adaptive:
                # A compiled backward pass is whole: the gradient at the last layer would cost that of all layers.
                self.uncompiled = (self.model.decoder,)
            self.adversary = Adversary(spec, spec.adversarial, ranks, last)
            self.modules["discriminator"] = self.adversary.network
            self.optimisers["discriminator_optimiser"] = adamw(self.adversary.network.parameters(), spec.optimiser)
            self.clipped["discriminator_gradient_norm"] = "discriminator"

    def step(self, segment: ScheduleSegment, images: int) -> dict[str, Tensor]:
        """See StageTraining."""
        spec, quantizer = self.spec, self.quantizer
        rate = tokenizer_learning_rate(spec, images)
        set_learning_rate(self.optimiser, rate)
        if spec.regulariser is not None:
            peak = spec.regulariser.learning_rate or spec.optimiser.learning_rate
            set_learning_rate(self.optimisers["causal_optimiser"], rate * peak / spec.optimiser.learning_rate)
        if spec.adversarial is not None:
            peak = spec.adversarial.learning_rate or spec.optimiser.learning_rate
            set_learning_rate(self.optimisers["discriminator_optimiser"], rate * peak / spec.optimiser.learning_rate)
        pixels = self.stream.at(images)
        counted = quantizer.chosen.clone() if quantizer is not None else None
        results = [self._part(pixels[rows.start - self.begin : rows.stop - self.begin], images) for rows in self.parts]
        terms = {name: reduce(torch.add, [result.terms[name] for result in results]) for name in results[0].terms}
        # Of the codes that this step chose, each process knows only its share.
        choices = self.ranks.sum(reduce(torch.add, [result.choices for result in results]))
        terms |= {name: self.ranks.equal(value) for name, value in codebook_use(choices).items()}
        if quantizer is not None and counted is not None:
            quantizer.chosen.copy_(counted + choices)
        moments = [result.moments for result in results if result.moments is not None]
        if moments and self.regulariser is not None:
            whole = self.regulariser.of_moments(self.ranks.sum(reduce(torch.add, moments)))
            terms |= {name: self.ranks.equal(value) for name, value in whole.items()}
        self.apply_gradients(terms)
        if self.adversary is not None:
            self.adversary.clip()
        done = images + spec.batch_size
        step = done // spec.batch_size
        self._update_average(step)
        if isinstance(quantizer, Revivable):
            every, until = quantizer.spec.revive_every, quantizer.spec.revive_until * spec.train_images
            if every and step % every == 0 and done <= until:
                latents = torch.cat([result.prepared for result in results])
                self._revive(quantizer, self.ranks.gather(latents, spec.batch_size), step)
        return terms

    def _part(self, pixels: Tensor, images: int) -> _Part:
        """Add the gradients of a part of the batch; its share of the batch's loss terms, detached."""
        spec, device = self.spec, self.ranks.device
        share = len(pixels) / spec.batch_size
        target = resize(to_float(pixels.to(device)), spec.encoded_size)
        with torch.autocast(device.type, torch.bfloat16, enabled=spec.precision == "bfloat16"):
            encoded = self.model.encode(target)
            reconstruction = self.model.decode(encoded.quantised.codes)
        terms = {"squared_error": functional.mse_loss(reconstruction, target)}
        faithful = spec.losses.squared_error_weight * terms["squared_error"]
        loss = faithful + encoded.quantised.weighted
        terms |= encoded.quantised.losses
        if self.perceptual is not None:
            terms["perceptual"] = self.perceptual(reconstruction, target)
            loss = loss + spec.losses.perceptual_weight * terms["perceptual"]
            faithful = faithful + spec.losses.perceptual_weight * terms["perceptual"]
        if self.adversary is not None:
            terms |= self.adversary.idle()
            if self.adversary.active(images):
                with torch.autocast(device.type, torch.bfloat16, enabled=spec.precision == "bfloat16"):
                    adversarial, weight = self.adversary.oppose(reconstruction, faithful, images, share)
                loss = loss + weight * adversarial
                terms |= {"adversarial": adversarial, "adversarial_weight": weight}
        terms["loss"] = loss
        moments = None
        if self.regulariser is not None:
            strength = self.regulariser.annealed_weight(images)
            penalty = self.regulariser.penalty(encoded, strength, share == 1)
            loss = loss + penalty.loss
            # The reported total carries lambda as the paper writes it; `loss` itself carries it in the gradient.
            terms["loss"] = terms["loss"] + strength * penalty.loss
            terms |= {self.regulariser.spec.kind: penalty.loss, **penalty.terms}
            moments = penalty.moments * share if penalty.moments is not None else None
        terms["latent_norm"] = encoded.projected.detach().norm(dim=1).mean()
        (loss * share).backward()
        if self.adversary is not None and self.adversary.active(images):
            with torch.autocast(device.type, torch.bfloat16, enabled=spec.precision == "bfloat16"):
                terms |= self.adversary.learn(target, reconstruction, share)
        shares = {name: value.detach() * share for name, value in terms.items()}
        choices = torch.bincount(encoded.quantised.tokens.flatten(), minlength=spec.codebook_size)
        return _Part(shares, encoded.prepared.detach(), choices, moments)

    @torch.no_grad()
    def _update_average(self, step: int) -> None:
        if not self.spec.ema_decay:
            return
        # The ramp lets the average forget the random start (1 - decay is then at least 1 / step).
        weight = max(1 - self.spec.ema_decay, 1 / (step + 1))
        weights: list[Tensor] = list(self.model.parameters())
        average: list[Tensor] = list(self.average.parameters())
        torch._foreach_lerp_(average, weights, weight)

    @torch.no_grad()
    def _revive(self, quantizer: Revivable, latents: Tensor, step: int) -> None:
        """Move dead codes onto latents of the batch. A revived code is a new parameter: it keeps neither the average
        nor the moments of the old one."""
        dead = quantizer.revive(latents, randomness.generator(self.spec.seed, "code revival", step))[:, None]
        average = self.average.quantizer
        assert isinstance(average, Revivable)
        average.codebook.copy_(torch.where(dead, quantizer.codebook, average.codebook))
        for name in ("exp_avg", "exp_avg_sq"):
            self.optimiser.state[quantizer.codebook][name].masked_fill_(dead, 0.0)

    def prepare_evaluation(self) -> None:
        """See StageTraining; encoded is with the averaged weights."""
        if self.prepare_measurement is not None:
            self.stream.close()
            self.prepare_measurement(self.average.eval())

    def evaluate(self, segment: ScheduleSegment, images: int, recorder: Recorder) -> None:
        """See StageTraining; measured are the averaged weights."""
        self.stream.close()
        self.evaluation(self.average.eval(), recorder)
        self.model.train()

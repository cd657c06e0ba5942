"""Stage 2's training on a tokenizer's tokens, and its evaluation at each budget."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from pathlib import Path

import torch
from safetensors.torch import save_model
from torch import Tensor

from results.recorder import Recorder
from results.schema import decay_branch
from scaling import randomness
from scaling.data.tokens import TokenSplit
from scaling.generator.dropout import image_keys
from scaling.generator.transformer import Generator, build_generator
from scaling.ranks import Strategy
from scaling.specification.spec import GeneratorRun

from .distributed import ALONE, Ranks
from .schedule import ScheduleSegment, generator_learning_rate
from .sharding import shard, whole_state
from .stage import StageTraining, scale_rates, set_learning_rate

Evaluate = Callable[[Generator, str, int, Recorder], None]
"""Measures a model at the end of a branch (its name) after so many images, and records it."""


class GeneratorTraining(StageTraining):
    """Drives one generator run; `evaluation` measures the model at a budget, in the first process."""

    def __init__(
        self,
        spec: GeneratorRun,
        tokens: TokenSplit,
        evaluation: Evaluate | None,
        ranks: Ranks = ALONE,
        microbatch: int | None = None,
        strategy: Strategy = "ddp",
    ) -> None:
        randomness.seed_modules(spec.seed, "generator weights")
        self.model = build_generator(spec).to(ranks.device).train()
        self.sharded = strategy == "fsdp2" and ranks.size > 1
        if self.sharded:
            shard(self.model, self.model.trunk.blocks, ranks.device, ranks.size, "training_loss")
        self.whole_model = self.model
        """The model in one piece, as it was last evaluated."""
        super().__init__(spec, self.model, ranks, microbatch)
        scale_rates(self.optimiser, self.model)
        shape = spec.transformer
        self.drops = any((shape.token_dropout, shape.residual_dropout, shape.feed_forward_dropout))
        self.spec, self.tokens, self.evaluation = spec, tokens, evaluation
        self.prepare_measurement: Callable[[Generator], object] | None = None
        """What every process does with the model before the first measures it."""

    def step(self, segment: ScheduleSegment, images: int) -> dict[str, Tensor]:
        """See StageTraining. The stream of images is the trunk's for every branch."""
        spec = self.spec
        set_learning_rate(self.optimiser, generator_learning_rate(spec, segment, images))
        indices = randomness.batch_indices(
            spec.seed, "generator batches", images, spec.batch_size, len(self.tokens.labels)
        )
        tokens, labels = self.tokens.tokens[indices], self.tokens.labels[indices]
        if spec.transformer.class_dropout:
            source = randomness.generator(spec.seed, "class dropout", images)
            dropped = torch.rand(len(labels), generator=source) < spec.transformer.class_dropout
            labels = labels.masked_fill(dropped, self.model.classes)
        parts = [self._part(tokens[rows], labels[rows], images + rows.start) for rows in self.parts]
        terms = {"loss": reduce(torch.add, parts)}
        self.apply_gradients(terms)
        return terms

    def _part(self, tokens: Tensor, labels: Tensor, first: int) -> Tensor:
        """Add the gradients of a part of the batch, the stream's images from `first` on; its share of the batch's
        loss."""
        spec, device = self.spec, self.ranks.device
        share = len(labels) / spec.batch_size
        tokens, labels = tokens.to(device).long(), labels.to(device)
        keys = image_keys(spec.seed, first, len(labels)).to(device) if self.drops else None
        with torch.autocast(device.type, torch.bfloat16, enabled=spec.precision == "bfloat16"):
            loss = self.model.training_loss(tokens, labels, keys, spec.z_loss_weight)
        loss = loss * share
        loss.backward()
        return loss.detach()

    def prepare_evaluation(self) -> None:
        """See StageTraining."""
        if self.sharded:
            # The mode of evaluations would stick to the parts, which go on training.
            with torch.inference_mode(False), torch.no_grad():
                weights = whole_state(dict(self.model.state_dict()), kept=True)
                state = torch.get_rng_state()
                self.whole_model = build_generator(self.spec).to(self.ranks.device)
                torch.set_rng_state(state)
                self.whole_model.load_state_dict(weights)
        if self.prepare_measurement is not None:
            self.prepare_measurement(self.whole_model.eval())
            self.model.train()

    def evaluate(self, segment: ScheduleSegment, images: int, recorder: Recorder) -> None:
        """See StageTraining."""
        # A cosine run ends on its trunk; its one budget is stored like a decay's, so that readers need not care.
        branch = segment.branch if segment.decays or segment.interim else decay_branch(images)
        assert self.evaluation is not None
        self.evaluation(self.whole_model.eval(), branch, images, recorder)
        self.model.train()

    def save(self, path: Path) -> None:
        """Write the weights of the model as it was last evaluated, as safetensors."""
        path.parent.mkdir(parents=True, exist_ok=True)
        save_model(self.whole_model, str(path))

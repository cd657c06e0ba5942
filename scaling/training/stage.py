"""One stage's models and optimisers: what the training loop drives, and all that a later step depends on."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import TypeVar

import torch
from torch import Tensor, nn

from results.recorder import Recorder
from scaling.specification.spec import RunSpec

from . import optimiser
from .distributed import Ranks
from .schedule import ScheduleSegment

Model = TypeVar("Model", bound=nn.Module)


class StageTraining(ABC):
    """The training of one run. `modules` and `optimisers` are its state, by the names under which it is saved; the
    model and its optimiser come first."""

    tokens_per_image: int
    flops_per_image: float

    def __init__(self, spec: RunSpec, model: nn.Module, ranks: Ranks, microbatch: int | None) -> None:
        self.ranks, self.parts, self.batch_size = ranks, ranks.parts(spec.batch_size, microbatch), spec.batch_size
        self.gradient_clip = spec.optimiser.gradient_clip
        self.optimiser = optimiser.adamw(model.parameters(), spec.optimiser)
        self.modules: dict[str, nn.Module] = {"model": model}
        self.optimisers: dict[str, torch.optim.Optimizer] = {"optimiser": self.optimiser}

    @abstractmethod
    def step(self, segment: ScheduleSegment, images: int) -> dict[str, Tensor]:
        """One optimiser step on the images `images` .. `images + batch_size` of the stream; detached loss terms, of
        which the sums over processes are those of the batch."""

    @abstractmethod
    def evaluate(self, segment: ScheduleSegment, images: int, recorder: Recorder) -> None:
        """Measure the model at the end of a segment and record evaluations."""

    def state(self) -> dict[str, Tensor]:
        """Copies of all that a later step depends on."""
        tensors: dict[str, Tensor] = {}
        for name, module in self.modules.items():
            tensors |= optimiser.module_tensors(module, name)
        for name, each in self.optimisers.items():
            tensors |= optimiser.state_tensors(each, name)
        return tensors

    def load(self, tensors: dict[str, Tensor]) -> None:
        """The reverse of `state`."""
        for name, module in self.modules.items():
            optimiser.load_module_tensors(module, name, tensors)
        for name, each in self.optimisers.items():
            optimiser.load_state_tensors(each, name, tensors)

    def apply_gradients(self, terms: dict[str, Tensor]) -> None:
        """Clip the model's gradients, adding their norm to the terms, and take the optimiser's step."""
        if self.gradient_clip:
            norm = nn.utils.clip_grad_norm_(self.modules["model"].parameters(), self.gradient_clip)
            terms["gradient_norm"] = self.ranks.equal(norm)
        self.optimiser.step()
        self.optimiser.zero_grad()

    def measured(self, model: Model) -> Model:
        """A model as it is measured: on the CPU wherever it was trained, for the protocol knows one arithmetic."""
        return (model if self.ranks.device.type == "cpu" else copy.deepcopy(model).cpu()).eval()

"""One stage's models and optimisers: what the training loop drives, and all that a later step depends on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Protocol

import torch
from torch import Tensor, nn

from results.recorder import Recorder
from scaling.networks import check_compiles, compile_networks
from scaling.specification.costs import flops
from scaling.specification.spec import OptimiserSpec, RunSpec

from .distributed import Ranks
from .schedule import ScheduleSegment
from .sharding import laid_out, whole


def adamw(parameters: Iterable[nn.Parameter], spec: OptimiserSpec) -> torch.optim.AdamW:
    """AdamW over the parameters; weight decay touches matrices and kernels only, not gains and biases."""
    parameters = list(parameters)
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": spec.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=spec.learning_rate, betas=(spec.beta1, spec.beta2), fused=True)


class Scaled(Protocol):
    """A model whose weights differ in the factor on their learning rate."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...

    def rate_factors(self) -> dict[str, float]: ...


class StageTraining(ABC):
    """The training of one run. `modules` and `optimisers` are its state, by the names under which it is saved; the
    model and its optimiser come first. Of a `sharded` model each process holds and steps a part of every weight."""

    sharded = False
    compiled = False

    def __init__(self, spec: RunSpec, model: nn.Module, ranks: Ranks, microbatch: int | None) -> None:
        self.ranks, self.parts, self.batch_size = ranks, ranks.parts(spec.batch_size, microbatch), spec.batch_size
        self.tokens_per_image = spec.tokenizer.tokens_per_image
        self.flops_per_image = flops.flops_per_image(spec)
        self.precision = spec.precision
        self.gradient_clip = spec.optimiser.gradient_clip
        self.optimiser = adamw(model.parameters(), spec.optimiser)
        self.modules: dict[str, nn.Module] = {"model": model}
        self.optimisers: dict[str, torch.optim.Optimizer] = {"optimiser": self.optimiser}
        self.uncompiled: tuple[nn.Module, ...] = ()
        """Networks that stay as they are when the others are compiled."""
        self.clipped = {"gradient_norm": "model"}
        """Modules whose gradients are clipped, each by itself, by the name of the term that tells their norm."""

    @abstractmethod
    def step(self, segment: ScheduleSegment, images: int) -> dict[str, Tensor]:
        """One optimiser step on the images `images` .. `images + batch_size` of the stream; detached loss terms, of
        which the sums over processes are those of the batch."""

    def compile(self) -> None:
        """Take steps with compiled networks from now on; see compile_networks. Raises UsageError where torch cannot
        compile."""
        check_compiles(self.ranks.device)
        for module in self.modules.values():
            compile_networks(module, self.uncompiled)
        self.compiled = True

    def prepare_evaluation(self) -> None:  # noqa: B027 most stages have nothing to prepare
        """What all processes do before the first one evaluates; may raise RunError to stop."""

    @abstractmethod
    def evaluate(self, segment: ScheduleSegment, images: int, recorder: Recorder) -> None:
        """Measure the model at the end of a segment and record evaluations."""

    def state(self) -> dict[str, Tensor]:
        """Copies of all that a later step depends on: `<module>.<name>` and `<optimiser>.<parameter>.<moment>`; of what
        is sharded this process's part."""
        tensors: dict[str, Tensor] = {}
        for name, module in self.modules.items():
            tensors |= {f"{name}.{key}": value.detach().clone() for key, value in module.state_dict().items()}
        for name, optimiser in self.optimisers.items():
            for index, moments in optimiser.state_dict()["state"].items():
                tensors |= {f"{name}.{index}.{key}": torch.as_tensor(v).clone() for key, v in moments.items()}
        return tensors

    def load(self, tensors: dict[str, Tensor]) -> None:
        """The reverse of `state`, from parts or whole tensors; every name of a module must match."""
        for name, module in self.modules.items():
            values = module.state_dict()
            given = below(f"{name}.", tensors)
            module.load_state_dict({key: laid_out(value, values.get(key)) for key, value in given.items()})
        for name, optimiser in self.optimisers.items():
            _load_moments(optimiser, below(f"{name}.", tensors))

    def apply_gradients(self, terms: dict[str, Tensor]) -> None:
        """Sum the gradients of all processes, clip those of `clipped`, adding their norms to the terms, and take the
        step of each optimiser."""
        if not self.sharded:  # Else they were summed as they came.
            self.ranks.sum_gradients(p for module in self.modules.values() for p in module.parameters())
        if self.gradient_clip:
            for term, name in self.clipped.items():
                norm = nn.utils.clip_grad_norm_(self.modules[name].parameters(), self.gradient_clip)
                terms[term] = self.ranks.equal(whole(norm))
        for optimiser in self.optimisers.values():
            optimiser.step()
            optimiser.zero_grad()


def scale_rates(optimiser: torch.optim.Optimizer, model: Scaled) -> None:
    """Split the groups of an optimiser by the factors that a model's weights have on its rate (muP).

    AdamW's decay of a step is rate x weight_decay; it is kept the same for all weights of a group by dividing its
    weight_decay by the factor.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}
    factors = model.rate_factors()
    groups = []
    for group in optimiser.param_groups:
        for factor in dict.fromkeys(factors[names[p]] for p in group["params"]):
            params = [p for p in group["params"] if factors[names[p]] == factor]
            settings = {"params": params, "rate_factor": factor, "weight_decay": group["weight_decay"] / factor}
            groups.append(group | settings)
    optimiser.param_groups[:] = groups


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Learning rate of the next step, times each group's factor where it has one."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group.get("rate_factor", 1.0)


def below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin so, without that."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _load_moments(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Moments take the memory layout of their parameter: the fused step walks both in storage order, so that a moment
    in another layout would silently belong to other weights. Of a sharded parameter they are sharded alike."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, moment = name.split(".")
        parameter = parameters[int(index)]
        placed = laid_out(value, parameter) if value.shape == parameter.shape else value
        like = torch.empty_like(parameter).copy_(placed) if value.shape == parameter.shape else value.clone()
        state.setdefault(int(index), {})[moment] = like.detach()
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})

"""AdamW as specified, and its state as plain tensors."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from scaling.specification.spec import OptimiserSpec


def adamw(parameters: Iterable[nn.Parameter], spec: OptimiserSpec) -> torch.optim.AdamW:
    """AdamW over the parameters; weight decay touches matrices and kernels only, not gains and biases."""
    parameters = list(parameters)
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": spec.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=spec.learning_rate, betas=(spec.beta1, spec.beta2), fused=True)


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Learning rate of the next step."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def state_tensors(optimiser: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """The optimiser's moments and step counts, as copies, named `prefix.<parameter>.<moment>`."""
    state = optimiser.state_dict()["state"]
    return {
        f"{prefix}.{index}.{name}": torch.as_tensor(value).clone()
        for index, moments in state.items()
        for name, value in moments.items()
    }


def load_state_tensors(optimiser: torch.optim.Optimizer, prefix: str, tensors: dict[str, Tensor]) -> None:
    """The reverse of state_tensors. Moments take the memory layout of their parameter: the fused step walks both in
    storage order, so that a moment in another layout would silently belong to other weights."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith(prefix + "."):
            index, moment = name.removeprefix(prefix + ".").split(".")
            parameter = parameters[int(index)]
            laid_out = torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value.clone()
            state.setdefault(int(index), {})[moment] = laid_out.detach()
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})


def module_tensors(module: nn.Module, prefix: str) -> dict[str, Tensor]:
    """Copies of a module's parameters and persistent buffers, named `prefix.<name>`."""
    return {f"{prefix}.{name}": value.detach().clone() for name, value in module.state_dict().items()}


def load_module_tensors(module: nn.Module, prefix: str, tensors: dict[str, Tensor]) -> None:
    """The reverse of module_tensors; every name must match."""
    values = {k.removeprefix(prefix + "."): v for k, v in tensors.items() if k.startswith(prefix + ".")}
    module.load_state_dict(values)

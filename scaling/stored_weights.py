"""Weights of a network from a file; where they are not the network's, the first tensor that is not is named."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from results.errors import DataError
from scaling.specification.spec import RunSpec


def load_weights(model: nn.Module, spec: RunSpec, path: Path) -> None:
    """Put the tensors of a safetensors file, all and no others, into the network of a run.

    Where a network has one tensor under several names, such as tied embeddings, a file has it under one of them.
    Raises DataError for a file that cannot be read, or with a tensor that is missing, extra or of another shape.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{spec.stage} weights {path} cannot be read for run {spec.run_id}: {reason}") from error
    misfit = f"{spec.stage} weights {path} are not those of run {spec.run_id}:"
    places = model.state_dict(keep_vars=True)  # As they are, so that one under two names is known.
    filled: set[int] = set()
    for name, tensor in tensors.items():
        place = places.get(name)
        if place is None or id(place) in filled:
            raise DataError(f"{misfit} {name} {list(tensor.shape)} has no place in its network")
        if tensor.shape != place.shape:
            raise DataError(f"{misfit} {name} has the shape {list(tensor.shape)}; allowed: {list(place.shape)}")
        filled.add(id(place))
    for name, place in places.items():
        if id(place) not in filled:
            raise DataError(f"{misfit} {name} {list(place.shape)} is missing")
    model.load_state_dict(tensors, strict=False)

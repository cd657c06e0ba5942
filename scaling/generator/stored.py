"""A trained generator read back from its weights."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model

from results.errors import DataError
from scaling.specification.spec import GeneratorRun

from .transformer import Generator, build_generator


def load_generator(spec: GeneratorRun, path: Path) -> Generator:
    """The generator of a run in evaluation mode, on the CPU; torch's global generator is left as it was.

    Raises DataError for weights that cannot be read or are not the specification's.
    """
    state = torch.get_rng_state()
    model = build_generator(spec)
    torch.set_rng_state(state)
    try:
        load_model(model, str(path))
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"generator weights {path} cannot be read for run {spec.run_id}: {reason}") from error
    return model.eval()

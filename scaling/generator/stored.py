"""A trained generator read back from its weights, and the guidance that it can be sampled with."""

from __future__ import annotations

from pathlib import Path

import torch

from results.errors import UsageError
from scaling.specification.spec import GeneratorRun
from scaling.stored_weights import load_weights

from .transformer import Generator, build_generator


def load_generator(spec: GeneratorRun, path: Path) -> Generator:
    """The generator of a run in evaluation mode, on the CPU; torch's global generator is left as it was.

    Raises DataError for weights that cannot be read or are not the specification's.
    """
    state = torch.get_rng_state()
    model = build_generator(spec)
    torch.set_rng_state(state)
    load_weights(model, spec, path)
    return model.eval()


def check_guidance(run: GeneratorRun, guidance: float) -> None:
    """Raises UsageError for a scale below 1 or not finite, and for one that needs a null class where there is none."""
    if not guidance >= 1 or guidance == float("inf"):
        raise UsageError(f"guidance = {guidance:g} is not allowed; allowed: numbers from 1, which is none")
    if guidance != 1 and not run.transformer.class_dropout:
        raise UsageError(
            f"guidance = {guidance:g} needs a null class, which run {run.run_id} was trained without "
            "(class_dropout = 0); allowed: 1"
        )

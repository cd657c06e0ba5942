"""The backends by name."""

from __future__ import annotations

from importlib import import_module

from results.errors import UsageError

from .base import Backend

BACKENDS = {
    "local": "sweeps.backends.local:LocalBackend",
    "debug": "sweeps.backends.debug:DebugBackend",
    "slurm": "sweeps.backends.slurm.backend:SlurmBackend",
}
"""Imported when they are asked for. A further one is a line here."""


def backend(name: str) -> Backend:
    """The backend of that name. Raises UsageError for an unknown one."""
    if name not in BACKENDS:
        raise UsageError(f"--cluster = {name!r} is not allowed; allowed: {', '.join(BACKENDS)}")
    module, _, kind = BACKENDS[name].partition(":")
    chosen: Backend = getattr(import_module(module), kind)()
    return chosen

"""Specification of weights that a run takes over in place of training. No torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import StringConstraints

from ..components import Frozen


class PretrainedSpec(Frozen):
    """Weights by their content; where they lie is kept beside the data root, as for pictures.

    The run encodes and measures with them; fields of training have no meaning for it, and its training costs nothing.
    """

    source: Literal["llamagen", "diffusers", "stored"]
    """A file of LlamaGen's, a VQModel folder of diffusers', or the artifacts of a run of ours."""
    fingerprint: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
    """SHA-256 of names, shapes, types and values of the tensors under our names."""

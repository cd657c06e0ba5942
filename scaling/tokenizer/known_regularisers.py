"""Which module a regulariser's specification is built as."""

from __future__ import annotations

from scaling.specification.spec import TokenizerRun

from .causal import CausalRegulariser
from .linear_prior import LinearPrior
from .regulariser import Regulariser


def build_regulariser(run: TokenizerRun) -> Regulariser:
    """The regulariser of a run that has one, with fresh weights from torch's generator."""
    assert run.regulariser is not None
    builders = {"causal": CausalRegulariser.of, "linear": LinearPrior}
    return builders[run.regulariser.kind](run)

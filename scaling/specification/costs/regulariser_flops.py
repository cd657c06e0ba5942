"""Parameters and forward FLOPs of regularisers; conventions as in `flops`. No torch."""

from __future__ import annotations

from ..components import CausalRegulariserSpec
from ..spec import TokenizerRun
from .generator_counts import block_parameters, blocks_forward_flops


def regulariser_latent_dim(run: TokenizerRun) -> int:
    """Dimension of the latents that the regulariser predicts."""
    if run.regulariser is not None and run.regulariser.latents == "encoder":
        return run.autoencoder.latent_channels
    return run.quantizer.code_dim


def regulariser_outputs(run: TokenizerRun) -> int:
    """Numbers that the causal model predicts at a position: a latent, or logits of all codes."""
    spec = run.regulariser
    if isinstance(spec, CausalRegulariserSpec) and spec.objective == "cross-entropy":
        return run.codebook_size
    return regulariser_latent_dim(run)


def regulariser_parameters(run: TokenizerRun) -> int:
    """Parameters of a run's regulariser; 0 without one."""
    spec, dim = run.regulariser, regulariser_latent_dim(run)
    if spec is None:
        return 0
    if not isinstance(spec, CausalRegulariserSpec):
        return dim * (dim + 1)
    shape = spec.transformer
    matrices = (dim + regulariser_outputs(run)) * shape.width
    return 2 * shape.width + matrices + shape.layers * block_parameters(shape)


def causal_forward_flops(run: TokenizerRun) -> float:
    """Forward FLOPs of a run's regulariser on one image; 0 without one."""
    spec, length, dim = run.regulariser, run.tokens_per_image, regulariser_latent_dim(run)
    if spec is None:
        return 0.0
    if not isinstance(spec, CausalRegulariserSpec):
        return 2 * (length - 1) * dim**2
    shape, predicted = spec.transformer, length - (spec.first_position == "skipped")
    embed = 2 * (length - 1) * dim * shape.width
    predict = 2 * predicted * regulariser_outputs(run) * shape.width
    return blocks_forward_flops(shape, length) + embed + predict

"""Closed forms for parameters and FLOPs of stage 2, part by part, and the axes that papers plot. No torch.

Conventions are those of `flops`; docs/flops.md has each with its formula.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..components import TransformerSpec
from ..spec import GeneratorRun


@dataclass(frozen=True)
class Parameters:
    """Parameters of a run: `embedding` grow with the vocabulary, `other` do not, `frozen` are used but not trained."""

    embedding: int
    other: int
    frozen: int = 0

    @property
    def total(self) -> int:
        """All that is trained."""
        return self.embedding + self.other


@dataclass(frozen=True)
class GeneratorParameters(Parameters):
    """Of a generator; `head` is the part of `embedding` that the head has, 0 where it shares the embedding's matrix.

    `conditioning`, part of `other`, are the classes' embeddings; they multiply nothing, so that 6ND leaves them out.
    """

    head: int = 0
    conditioning: int = 0

    @property
    def non_embedding(self) -> int:
        """N of Kaplan's convention: without any embedding or head."""
        return self.other - self.conditioning


@dataclass(frozen=True)
class TokenFlops:
    """Forward FLOPs of one token, part by part; `training` is three times as many."""

    blocks: float
    """Matrices of the blocks: 2 L (4 d^2 + 3 d h)."""
    attention: float
    """Scores and their sums of values: 4 L T d, or half of that."""
    head: float
    """2 d K; of a factorised head 2 d (A + B + d)."""

    @property
    def forward(self) -> float:
        """All parts."""
        return self.blocks + self.attention + self.head

    @property
    def training(self) -> float:
        """Forward and backward."""
        return 3 * self.forward

    @property
    def head_share(self) -> float:
        """The head's share; that of training is the same."""
        return self.head / self.forward


def block_parameters(shape: TransformerSpec) -> int:
    """Parameters of one block: attention 4 d^2, SwiGLU 3 d h, norms (and the gains of QK-norm)."""
    norms = 2 * shape.width + (2 * shape.head_dim if shape.qk_norm and shape.qk_gain else 0)
    return 4 * shape.width**2 + 3 * shape.width * shape.hidden + norms


def blocks_forward_flops(shape: TransformerSpec, length: int, halve_causal: bool = False) -> float:
    """Forward FLOPs of all blocks on one sequence: 2 x weights a position, and 4 T^2 d for the attention scores."""
    weights = 4 * shape.width**2 + 3 * shape.width * shape.hidden
    attention = 4 * length**2 * shape.width * (0.5 if halve_causal else 1.0)
    return shape.layers * (2 * weights * length + attention)


def factors(codebook_size: int) -> tuple[int, int]:
    """Number of high and of low halves of a code of the factorised head: low is ceil(sqrt(K))."""
    low = math.isqrt(codebook_size - 1) + 1
    return -(-codebook_size // low), low


def head_parameters(shape: TransformerSpec, codebook_size: int) -> int:
    """Parameters of the head that are its own: d K; factorised d (2 A + B + d); 0 if tied."""
    if shape.head == "factorised":
        high, low = factors(codebook_size)
        return shape.width * (2 * high + low + shape.width)
    return 0 if shape.tied_embeddings else codebook_size * shape.width


def generator_parameters(run: GeneratorRun) -> GeneratorParameters:
    """Token embedding and head (one matrix if tied) as `embedding`; classes, blocks and norms as `other`."""
    shape, vocabulary = run.transformer, run.tokenizer.codebook_size
    head = head_parameters(shape, vocabulary)
    classes = (run.tokenizer.data.classes + 1) * shape.width
    other = classes + shape.layers * block_parameters(shape) + shape.width
    return GeneratorParameters(vocabulary * shape.width + head, other, head=head, conditioning=classes)


def head_forward_flops(shape: TransformerSpec, codebook_size: int) -> float:
    """Forward FLOPs of the head on one token in training, where the high half of the target is known."""
    if shape.head == "factorised":
        high, low = factors(codebook_size)
        return 2 * shape.width * (high + low + shape.width)
    return 2 * shape.width * codebook_size


def token_flops(run: GeneratorRun, halve_causal: bool = False) -> TokenFlops:
    """Forward FLOPs of one token, averaged over the positions of an image."""
    shape, length = run.transformer, run.tokenizer.tokens_per_image
    weights = 2 * shape.layers * (4 * shape.width**2 + 3 * shape.width * shape.hidden)
    attention = 4 * shape.layers * length * shape.width * (0.5 if halve_causal else 1.0)
    return TokenFlops(weights, attention, head_forward_flops(shape, run.tokenizer.codebook_size))


def generator_forward_flops(run: GeneratorRun, halve_causal: bool = False) -> float:
    """Forward FLOPs of one image: T positions (the class token replaces the last image token) and the head."""
    length = run.tokenizer.tokens_per_image
    head = length * head_forward_flops(run.transformer, run.tokenizer.codebook_size)
    return blocks_forward_flops(run.transformer, length, halve_causal) + head


def generator_training_flops(run: GeneratorRun, images: int = 1, halve_causal: bool = False) -> float:
    """Forward and backward FLOPs of `images` training images: three times the forward."""
    return 3 * generator_forward_flops(run, halve_causal) * images


# --- the axes that papers plot ---


def six_nd(run: GeneratorRun, images: int, *, embeddings: bool) -> float:
    """6 N D with D = images x tokens: N with all parameters (`embeddings`) or Kaplan's, without any vocabulary."""
    parameters = generator_parameters(run)
    size = parameters.total if embeddings else parameters.non_embedding
    return 6.0 * size * images * run.tokenizer.tokens_per_image


def papers_axis(run: GeneratorRun, images: int) -> float:
    """The FLOPs axis of arXiv 2412.16326: 6 N T x iterations with all parameters, without the batch (256 there).

    The axis of its figures starts and ends where this does; times the batch it is 6ND.
    """
    return six_nd(run, images, embeddings=True) / run.batch_size


def plan_columns(run: GeneratorRun) -> dict[str, float]:
    """What `plan --json` says of a generator's size and cost beside the parameters and FLOPs of every run.

    Shares and FLOPs of a token are of the conventions of `flops`; axes are those of the largest budget.
    """
    parameters, token, images = generator_parameters(run), token_flops(run), run.train_images[-1]
    return {
        "params_embedding": parameters.embedding,
        "params_head": parameters.head,
        "params_6nd": parameters.non_embedding,
        "flops_per_token_forward": token.forward,
        "flops_per_token": token.training,
        "flops_attention_share": token.attention / token.forward,
        "flops_head_share": token.head_share,
        "flops_halved_attention": generator_training_flops(run, images, halve_causal=True),
        "flops_6nd": six_nd(run, images, embeddings=True),
        "flops_6nd_non_embedding": six_nd(run, images, embeddings=False),
        "flops_paper_axis": papers_axis(run, images),
    }

"""A size names the whole generator: its shape, and by the rule of its ladder its learning rate.

Three ladders: the small one of this package, the paper's lattice with its continuation below (`lattice`), and
LlamaGen's published sizes. Rules of learning rates are in `learning_rates`.
"""

from __future__ import annotations

import re

from results.errors import SpecError

from .components import TransformerSpec

SIZES: dict[str, TransformerSpec] = {
    "XS": TransformerSpec(width=32, layers=1, head_dim=16),
    "S": TransformerSpec(width=64, layers=2),
    "M": TransformerSpec(width=96, layers=4),
    "L": TransformerSpec(width=160, layers=6),
    "XL": TransformerSpec(width=256, layers=6),
}
"""The small ladder, about 20k to 5M non-vocabulary parameters."""

LATTICE_START = 9
"""Heads from which on layers follow the paper's lattice."""
LATTICE_END = 64
"""Most heads of a name such as h24: width 4096, 168 layers."""


def lattice(heads: int) -> TransformerSpec:
    """The paper's lattice (App. A.2, Table 2): width 64 h, layers 3 (h - 8), SwiGLU rounded up to a multiple of 256.

    Below h = 9, where the paper has no sizes and its line would reach 0 layers at h = 8: h / 3 layers, rounded, at
    least 1, which meets the paper's line at h = 9 (3 layers); and the SwiGLU's width is rounded up to a multiple of
    64, since 256 would make it half as wide again at h = 1.

    QK-norm is without gains: 128 a layer, with which Table 2's 52.09M would be 52.10M. Raises SpecError outside
    1 .. LATTICE_END.
    """
    if not 1 <= heads <= LATTICE_END:
        raise SpecError(f"generator.size = 'h{heads}' is not on the lattice; allowed: h1 to h{LATTICE_END}")
    below = heads < LATTICE_START
    layers = max(1, round(heads / 3)) if below else 3 * (heads - 8)
    return TransformerSpec(
        width=64 * heads, layers=layers, head_dim=64, hidden_multiple=64 if below else 256, qk_gain=False
    )


PAPER_SIZES: dict[str, TransformerSpec] = {
    f"{millions}M": lattice(heads)
    for millions, heads in ((31, 9), (52, 10), (81, 11), (111, 12), (212, 14), (343, 16), (517, 18), (775, 20))
}
"""The paper's eight sizes on its lattice. Names count parameters at a 16k codebook and 1,000 classes."""


def _llamagen(width: int, layers: int, heads: int) -> TransformerSpec:
    """A size as LlamaGen trained it: no QK-norm, the class token's keys and queries 0, dropout .1 at three places."""
    return TransformerSpec(
        width=width, layers=layers, head_dim=width // heads, hidden_multiple=256, qk_norm=False,
        class_position="zero", token_dropout=0.1, residual_dropout=0.1, feed_forward_dropout=0.1,
    )  # fmt: skip


LLAMAGEN_SIZES: dict[str, TransformerSpec] = {
    "GPT-B": _llamagen(768, 12, 12),
    "GPT-L": _llamagen(1024, 24, 16),
    "GPT-XL": _llamagen(1280, 36, 20),
    "GPT-XXL": _llamagen(1536, 48, 24),
    "GPT-3B": _llamagen(3200, 24, 32),
}
"""LlamaGen's sizes (arXiv 2406.06525, Table 1) under its own names."""

_NAMES = {
    (shape.width, shape.layers, shape.qk_norm): name
    for name, shape in reversed((SIZES | PAPER_SIZES | LLAMAGEN_SIZES).items())
}
_LATTICE_NAME = re.compile(r"h([1-9][0-9]{0,2})")


def transformer(size: str) -> TransformerSpec:
    """The shape behind a size's name. Raises SpecError, listing what is allowed, for an unknown one."""
    shapes = SIZES | PAPER_SIZES | LLAMAGEN_SIZES
    if match := _LATTICE_NAME.fullmatch(size):
        return lattice(int(match[1]))
    if size not in shapes:
        allowed = ", ".join(shapes)
        raise SpecError(f"generator.size = {size!r} is unknown; allowed: {allowed}, h1 to h{LATTICE_END}")
    return shapes[size]


def generic(width: int, layers: int) -> TransformerSpec:
    """A shape off the ladders: heads of 64, or of 32 or 16 where only these divide the width; the SwiGLU rounded up to
    a multiple of 256 from the lattice's first width, 576, on, of 32 below. Raises SpecError for a width that no head
    divides."""
    head_dim = next((dim for dim in (64, 32, 16) if width % dim == 0), None)
    if head_dim is None:
        raise SpecError(f"generator.width = {width} is not divided by a head of 64, 32 or 16; allowed: multiples of 16")
    return TransformerSpec(
        width=width, layers=layers, head_dim=head_dim, hidden_multiple=256 if width >= 64 * LATTICE_START else 32
    )


def size_name(shape: TransformerSpec) -> str:
    """The name of a shape on one of the ladders, or `d<width>x<layers>` for a shape that is on none."""
    name = _NAMES.get((shape.width, shape.layers, shape.qk_norm)) or _NAMES.get((shape.width, shape.layers, True))
    if name is not None:
        return name
    heads = shape.width // 64
    on_lattice = shape.width == 64 * heads and heads <= LATTICE_END and lattice(heads).layers == shape.layers
    return f"h{heads}" if on_lattice and shape.head_dim == 64 else f"d{shape.width}x{shape.layers}"

"""A size names the whole generator: its shape and its learning rate. One dial derives the rest."""

from __future__ import annotations

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

PAPER_SIZES: dict[str, TransformerSpec] = {
    f"{millions}M": TransformerSpec(width=64 * heads, layers=layers, head_dim=64, hidden_multiple=256)
    for millions, heads, layers in (
        (31, 9, 3),
        (52, 10, 6),
        (81, 11, 9),
        (111, 12, 12),
        (212, 14, 18),
        (343, 16, 24),
        (517, 18, 30),
        (775, 20, 36),
    )
}
"""The paper's lattice (App. A.2, Table 2): width 64 h, layers 3 (h - 8). Names count parameters at a 16k codebook."""

_NAMES = {(shape.width, shape.layers): name for name, shape in reversed((SIZES | PAPER_SIZES).items())}

BASE_LEARNING_RATE = 7e-3
BASE_WIDTH = 64
WIDTH_EXPONENT = -1.5
"""The best rates at widths 32, 64 and 96 follow this line (docs/design.md; the study fashion-lr checks it)."""


def transformer(size: str) -> TransformerSpec:
    """The shape behind a size's name. Raises SpecError, listing what is allowed, for an unknown one."""
    shapes = SIZES | PAPER_SIZES
    if size not in shapes:
        raise SpecError(f"generator.size = {size!r} is unknown; allowed: {', '.join(shapes)}")
    return shapes[size]


def size_name(shape: TransformerSpec) -> str:
    """The ladder's name of a shape, or `d<width>x<layers>` for a shape that is not on it."""
    return _NAMES.get((shape.width, shape.layers), f"d{shape.width}x{shape.layers}")


def learning_rate(shape: TransformerSpec) -> float:
    """Peak learning rate by the ladder's rule: BASE_LEARNING_RATE (width / BASE_WIDTH)^WIDTH_EXPONENT."""
    return BASE_LEARNING_RATE * (shape.width / BASE_WIDTH) ** WIDTH_EXPONENT

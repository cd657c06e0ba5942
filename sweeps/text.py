"""Text for people: tables of the terminal, drawn by rich, and numbers with units."""

from __future__ import annotations

from collections.abc import Sequence

WIDEST = 100_000
"""Characters that a line may have: nothing is cut or folded, a narrow terminal folds whole lines."""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lines of aligned columns, a dashed rule below the header; columns whose cells are numbers are aligned right.

    Plain text, also on a terminal. rich is imported here, since `--help` needs none of it.
    """
    from io import StringIO

    from rich.console import Console
    from rich.rule import Rule
    from rich.table import Table

    grid = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="")
    for i, title in enumerate(header):
        numeric = bool(rows) and all(row[i][:1].isdigit() or row[i] in ("", "-") for row in rows)
        grid.add_column(title, justify="right" if numeric else "left")
    grid.add_row(*[Rule(characters="-", style="") for _ in header])
    for row in rows:
        grid.add_row(*row)
    drawn = StringIO()
    Console(file=drawn, width=WIDEST, color_system=None, markup=False, highlight=False, emoji=False).print(grid)
    return "\n".join(line.rstrip() for line in drawn.getvalue().splitlines())


def count(number: float) -> str:
    """A count: 950, 22.1k, 4.86M, 3.20B."""
    divisor, unit = next((d, u) for d, u in ((1e9, "B"), (1e6, "M"), (1e3, "k"), (1, "")) if number >= d or d == 1)
    value = number / divisor
    return f"{number:.0f}" if not unit else f"{value:.{max(0, 3 - len(str(int(value))))}f}{unit}"


def flops(number: float) -> str:
    """FLOPs in scientific form: 1.23e+13."""
    return f"{number:.2e}"


def size(number: float) -> str:
    """Bytes: 512 B, 1.5 GB."""
    for limit, unit in ((1e3, "B"), (1e6, "kB"), (1e9, "MB"), (1e12, "GB")):
        if number < limit:
            return f"{number / (limit / 1e3):.{0 if unit == 'B' else 1}f} {unit}"
    return f"{number / 1e12:.1f} TB"


def duration(seconds: float) -> str:
    """Seconds: 42 s, 3 min 20 s, 5 h 12 min."""
    whole = round(max(seconds, 0.0))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"

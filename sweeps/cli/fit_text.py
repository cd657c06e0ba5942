"""What the fitting commands print for people: cells of a table, and a fit with its status and warnings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.fitting.result import FitResult


def cell(value: Any) -> str:
    """A cell: six significant digits, - for nothing."""
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:.6g}"


def level(interval: float | None) -> str:
    """The coverage of an interval as a word for a table's header: 95%, 97.5%; empty where there is none."""
    return f"{100 * interval:.6g}%" if interval else ""


def show(result: FitResult) -> None:
    """A fit for people: the table, the status in words, warnings that matter."""
    from analysis.fitting.result import STATUS_WORDS
    from sweeps.text import table

    print(f"{result.law.formula}    {result.rows} rows, {result.residual} residuals, {result.loss.kind} loss")
    for note in result.notes:
        print(f"note: {note}")
    covers = level(result.interval)
    rows = [
        [name, cell(e.value) if e.value is not None else "not identified", cell(e.se), cell(e.low), cell(e.high)]
        for name, e in {**result.parameters, **result.derived}.items()
    ]
    print(table(["parameter", "value", "se", f"{covers} low".strip(), f"{covers} high".strip()], rows))
    if result.interval_method:
        print(f"intervals: {result.interval_method}")
    print(f"status: {result.status.value.replace('_', ' ')}: {STATUS_WORDS[result.status]}")
    print(
        f"objective {result.objective:.12g} (mean {result.objective_mean:.6g}), gradient {result.gradient_norm:.1e}, "
        f"{result.starts_agreeing} of {result.starts} starts agree, {result.seconds:.2f} s"
    )
    dropped = [f for f in result.flagged if not f.used]
    kept = [f for f in result.flagged if f.used]
    if dropped:
        print(f"flagged and left out: {len(dropped)} rows ({dropped[0].reason})")
    if kept:
        listed = ", ".join(str(f.row) for f in kept[:6]) + (", ..." if len(kept) > 6 else "")
        print(f"flagged and kept: {len(kept)} rows far from the law (rows {listed}); fit again without them to compare")
    for warning in result.warnings:
        print(f"warning: {warning}")

"""Tables as trackers of runs export them: the wide form of Weights & Biases, and TensorBoard's."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from .tables import Table

if TYPE_CHECKING:
    import pandas as pd

BETWEEN = " - "  # a run and its metric in the name of a column
BOUNDS = ("__MIN", "__MAX")
AXES = ("Step", "_step", "Wall time", "Wall Time", "Relative Time (Process)", "Relative Time (Wall)", "_timestamp",
        "_runtime", "global_step", "trainer/global_step", "epoch")  # fmt: skip
TENSORBOARD = ("Wall time", "Step", "Value")


def in_long_form(table: Table, used: Collection[str] = ()) -> Table:
    """The table with a row a run and step where it is a wide export of runs; any other as it is.

    A wide export has columns `RUN - METRIC`, each with its __MIN and __MAX, beside `Step` or other axes. The long
    form has the columns run, the axes and the metrics; steps at which a run has no value are left out, and so are
    the bounds. A table is left as it is where a column that one of the texts `used` names would be lost. `usual`
    names metric and x of such tables and of TensorBoard's (Wall time, Step, Value).
    """
    rows = table.rows
    names = [str(name) for name in rows.columns]
    if set(names) == set(TENSORBOARD) and len(names) == len(TENSORBOARD):
        return table._replace(usual={"metric": "Value", "x": "Step"})
    columns = _columns_of_runs(names)
    axes = [name for name in names if name not in columns and not name.endswith(BOUNDS)]
    long = ["run", *axes, *dict.fromkeys(metric for _, metric in columns.values())]
    lost = set(names) - set(long)
    if (
        not columns
        or len(set(long)) < len(long)
        or len(set(names)) < len(names)
        or any(text == name or f"`{name}`" in text for text in used for name in lost)
    ):
        return table
    melted, left_out = _melted(rows, axes, columns)
    metrics = [metric for metric in long[1 + len(axes) :] if metric not in AXES]
    runs = len({run for run, _ in columns.values()})
    bounds = sum(name.endswith(BOUNDS) for name in names)
    empty = f"; {left_out} empty cells" if left_out else ""
    note = (
        f"a wide export of runs was read as {len(melted)} rows of {', '.join(long)} from {runs} runs "
        f"(left out: {bounds} columns __MIN and __MAX{empty})"
    )
    usual = {"x": axes[0]} if axes else {}
    if len(metrics) == 1:
        usual["metric"] = metrics[0]
    return Table(melted, (*table.notes, note), usual)


def _columns_of_runs(names: list[str]) -> dict[str, tuple[str, str]]:
    """Run and metric of each column that has them in its name; none where the table is not such an export."""
    known = set(names)
    plain = [name for name in names if BETWEEN in name and not name.endswith(BOUNDS)]
    bounded = [name for name in plain if all(name + bound in known for bound in BOUNDS)]
    others = known - {name + bound for name in plain for bound in ("", *BOUNDS)}
    if not plain or (len(bounded) < len(plain) and not (others and others <= set(AXES))):
        return {}
    parts = {name: name.rsplit(BETWEEN, 1) for name in plain}
    return {name: (run.strip(), metric.strip()) for name, (run, metric) in parts.items() if run.strip()}


def _melted(rows: pd.DataFrame, axes: list[str], columns: dict[str, tuple[str, str]]) -> tuple[pd.DataFrame, int]:
    """The rows of each run below each other, and how many were left out because the run has no value there."""
    import pandas as pd

    by_run: dict[str, dict[str, str]] = {}
    for name, (run, metric) in columns.items():
        by_run.setdefault(run, {})[name] = metric
    blocks, left_out = [], 0
    for run, of_run in by_run.items():
        block = rows[[*axes, *of_run]].rename(columns=of_run)
        measured = [metric for metric in of_run.values() if metric not in AXES] or list(of_run.values())
        kept = block[measured].notna().any(axis=1)
        left_out += int((~kept).sum())
        block = block[kept]
        block.insert(0, "run", run)
        blocks.append(block)
    return pd.concat(blocks, ignore_index=True), left_out

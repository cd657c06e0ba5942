"""Figures that `tokenlaw evaluate --record` adds to a store: a run of no stage, beside the run that was judged.

The rows of a finished run are never touched. What was judged is named in the new run's specification; of a generator,
its facts (sizes, compute, tokenizer) and its place on the curve are taken over, so that a table or a law can hold the
figures against them.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from results import Store
from results.provenance import provenance
from results.recorder import FACTS, Recorder
from results.schema import TRUNK
from results.values import canonical_json

if TYPE_CHECKING:
    from scaling.evaluate import Figure

SOURCE = "evaluate"
"""Of these rows; `tokenlaw report --source evaluate` and the like choose by it."""
VALIDATION = "/validation"


class Recorded(NamedTuple):
    """The id of the rows, and whether they are new: the same figures under the same protocols are there once."""

    run_id: str
    new: bool


def record(root: Path, figures: Iterable[Figure], judged: str, generator: str | None = None) -> Recorded:
    """Add figures to the store below `root`, under the protocols by which they were measured.

    judged     what people call the images: a path, or a run
    generator  the id of the stored run that made them
    Raises StoreError if the store cannot be written.
    """
    # The last of a curve over n is the distance itself.
    listed = list({figure.protocol.id: figure for figure in reversed(list(figures))}.values())[::-1]
    measured = [[figure.protocol.json, figure.value] for figure in listed]
    spec = canonical_json({"evaluated": {"images": judged, "run": generator, "figures": measured}})
    run_id = sha256(spec.encode()).hexdigest()[:12]
    store, facts, place = Store(root), dict[str, Any](), dict[str, Any]()
    if generator is not None:
        (row,) = store.read("runs", [generator]).to_pylist()
        facts = {name: row[name] for name in FACTS if name not in ("parent", "wall_seconds", "label", *_TIMES)}
        place = _end(store.read("evaluations", [generator]).to_pylist())
        judged = f"{row['label']}"
    recorder = Recorder(run_id, 1)
    for figure in listed:
        protocol = figure.protocol
        split = "validation" if (protocol.reference or "").endswith(VALIDATION) else "train"
        recorder.evaluation(
            **{"branch": TRUNK, "step": 0, **place}, metric=protocol.metric, value=figure.value, n=protocol.n,
            protocol=protocol, standard_error=figure.standard_error, split=split,
        )  # fmt: skip
    now = datetime.now(UTC).isoformat(timespec="seconds")
    told = {"stage": "run", "label": f"evaluated {judged}", "status": "done", "spec": spec, "seed": 0,
            "source": SOURCE, "finished_at": now, "provenance": canonical_json(provenance())}  # fmt: skip
    tables = recorder.tables({**facts, **told})
    return Recorded(run_id, store.append(run_id, tables, status="done", attempt=1))


_TIMES = ("started_at", "finished_at", "peak_memory_bytes")


def _end(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Where on its curve a run's stored weights are: after its longest budget."""
    if not rows:
        return {}
    last = max(rows, key=lambda row: (row["images"] or 0, row["step"] or 0))
    return {name: last[name] for name in ("branch", "step", "images", "path_flops")}

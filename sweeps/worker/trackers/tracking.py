"""What is told to trackers, and when: each row that the recorder has, once, also after a run was resumed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any

from results import Recorder
from results.schema import NATS_AT
from results.store import atomic
from scaling.specification.workspace import Progress
from sweeps.study.external_run import AnyRun
from sweeps.study.sections import Trackers

from ..log import one_line, say
from .tracker import Point, Tracker

FOLDER = "tracking"
"""Below the data root: what trackers write, and how much each has been told of a run."""
TABLES = ("curves", "evaluations")


class Tracking:
    """Takes the reports of a run and tells its trackers what the recorder has got since.

    How many rows of each table a tracker has been told is kept below the root, and written before they are told:
    recorders of a resumed run have the same rows in the same order, so that one told before is never told again. A
    tracker that fails is left out from then on, with a line in the log; it never ends a run.
    """

    def __init__(self, root: Path, run: AnyRun, settings: Trackers, recorder: Recorder, sheets: Path) -> None:
        """`sheets` is the folder in which the run leaves a picture for an evaluation, BRANCH-STEP.png."""
        self._folder = root / FOLDER / "told" / run.run_id
        self._recorder, self._sheets = recorder, sheets
        self._trackers: dict[str, Tracker] = {}
        for name in settings.names:
            self._guarded(name, lambda name=name: self._open(name, root, run, settings))  # type: ignore[misc]

    def _open(self, name: str, root: Path, run: AnyRun, settings: Trackers) -> None:
        # Each imports what only those who track have installed.
        if name == "tensorboard":
            from .tensorboard import TensorBoard

            self._trackers[name] = TensorBoard(root / FOLDER, run)
        else:
            from .wandb import WeightsAndBiases

            self._trackers[name] = WeightsAndBiases(root / FOLDER, run, settings)

    def following(self, report: Callable[[Progress], None]) -> Callable[[Progress], None]:
        """The same report, after which trackers are told what is new."""

        def follow(progress: Progress) -> None:
            report(progress)
            self.tell()

        return follow

    def tell(self) -> None:
        """Tell each tracker what it has not been told."""
        for name in tuple(self._trackers):
            self._guarded(name, lambda name=name: self._tell(name))  # type: ignore[misc]

    def close(self, result: str) -> None:
        """The attempt has ended: tell the rest, and close."""
        self.tell()
        for name, tracker in tuple(self._trackers.items()):
            self._guarded(name, lambda tracker=tracker: tracker.close(result))  # type: ignore[misc]

    def _guarded(self, name: str, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - programs of others fail as they like; the run goes on
            self._trackers.pop(name, None)
            say(f"tracker {name} failed and is left out: {one_line(error)}")

    def _tell(self, name: str) -> None:
        path, tracker = self._folder / f"{name}.json", self._trackers[name]
        told: dict[str, Any] = {"curves": 0, "evaluations": 0, "pictures": []}
        with suppress(OSError, ValueError):
            told |= json.loads(path.read_text())
        rows = {table: self._recorder.rows_from(table, told[table]) for table in TABLES}
        pictures = [sheet for sheet in sorted(self._sheets.glob("*-*.png")) if sheet.name not in told["pictures"]]
        if not (pictures or any(rows.values())):
            return
        for table in TABLES:
            told[table] += len(rows[table])
        told["pictures"] += [sheet.name for sheet in pictures]
        atomic.make_folder(self._folder)
        atomic.write(path, json.dumps(told) + "\n", durable=False)
        for table in TABLES:
            for point in _points(rows[table]):
                tracker.point(point)
        for sheet in pictures:
            branch, _, step = sheet.stem.rpartition("-")
            tracker.picture(branch, int(step), sheet)


def _points(rows: Sequence[Mapping[str, Any]]) -> Iterator[Point]:
    """Rows of `curves` or `evaluations`, put together by branch and step; not those by position, hundreds at once."""
    told = [row for row in rows if not NATS_AT.fullmatch(row.get("term", ""))]
    for (branch, step), group in groupby(told, lambda row: (row["branch"], row["step"])):
        yield Point(branch, step, {_name(row): row["value"] for row in group})


def _name(row: Mapping[str, Any]) -> str:
    """`loss`, `validation/loss`; `evaluation/psnr`, `evaluation/gfid fid_classifier guidance 1.5`."""
    if "term" in row:
        return str(row["term"]) if row["split"] == "train" else f"{row['split']}/{row['term']}"
    protocol = json.loads(row["protocol_json"])
    words = [row["metric"], *([protocol["extractor"]] if protocol.get("extractor") else [])]
    words += [f"guidance {row['guidance']:g}"] if row["guidance"] is not None else []
    return f"evaluation/{' '.join(words)}"

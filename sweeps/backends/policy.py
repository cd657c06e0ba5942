"""What becomes of a run that ended without a result, by cause; the same on a cluster and on this machine.

preempted, node_lost, timeout    requeued in place, resumed, not counted
out_of_memory                    tried again with more memory, or a smaller microbatch at the same global batch
error, storage                   tried again; with out_of_memory and killed up to `limits.retries` times, then only by
                                 `retry`
killed                           begun again at once, where it was
mistake                          a row that is never accepted, a missing program: only by `retry`, or when the trainer's
                                 code is another one
timeout without progress         recorded as a failure: more attempts of the same length would get no further
diverged                         a result; never again

"Tried again" is by the next `submit`, by `retry`, or by a submission that waits (`--wait`). The store's failed attempts
are what counts, so that it makes no difference who made them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from results import Store
from results.store.run_set import StoredRun
from sweeps.planning.planned_run import PlannedRun
from sweeps.record.attempts import Attempt, attempts_at
from sweeps.record.ledger import submissions
from sweeps.record.outcome import Outcome
from sweeps.record.trainer_code import TrainerCode
from sweeps.study.external_run import AnyRun
from sweeps.study.resources import Resources

FINAL = ("timeout", "mistake")
"""Causes after which the same would happen: only `retry` tries again, or other code of the trainer."""


class Failures:
    """The failed attempts at runs, and what they mean for the next one."""

    def __init__(self, root: Path, runs: Mapping[str, PlannedRun], retries: int, folder: Path | None) -> None:
        """Reads the store, and the ledger where there are failures. Raises StoreError.

        folder  holds the code that a trainer of one's own would be executed with now; None if there is none
        """
        self.root, self.retries = root, retries
        self._runs, self._code = runs, TrainerCode(root, folder) if folder is not None else None
        self._store = Store(root)
        self._all = self._store.failures(runs.keys())
        self._since = _retried_since(root) if self._all else {}

    def look(self, run_id: str) -> int:
        """Read again what the store has of a run; how many failed attempts there are. Raises StoreError."""
        # In a store of thousands of runs a look costs a tenth of a second; a run without attempts needs none.
        if attempts_at(self.root, run_id):
            self._all[run_id] = self._store.failures([run_id]).get(run_id, [])
        return len(self.of(run_id))

    def of(self, run_id: str) -> list[StoredRun]:
        """All failed attempts at a run, oldest first."""
        return self._all.get(run_id, [])

    def counted(self, run_id: str) -> list[StoredRun]:
        """Those that count against its retries: since it was last tried again by `retry`, mended mistakes excepted."""
        since = self._since.get(run_id, "")
        return [
            failure for failure in self.of(run_id) if failure.finished_at > since and not self._mended(run_id, failure)
        ]

    def _mended(self, run_id: str, failure: StoredRun) -> bool:
        """Whether it was the mistake of a trainer whose code is another one by now."""
        trainer = self._runs[run_id].spec.trainer
        if failure.cause != "mistake" or trainer is None or self._code is None:
            return False
        return self._code.mended(run_id, failure.attempt, trainer)

    def left_alone(self, run_id: str) -> Outcome | None:
        """The outcome of a run that is not begun until somebody says `retry`; None if it may be tried again."""
        failures = self.counted(run_id)
        final = next((failure.cause for failure in failures if failure.cause in FINAL), None)
        if final is None and len(failures) <= self.retries:
            return None
        cause = final or failures[-1].cause or "failed"
        message = f"{failures[-1].message or cause}; {_left_alone_after(len(failures))}"
        return Outcome(run_id, "failed", failures[-1].attempt, cause, message)


def unwritable(root: Path, run_id: str, retries: int) -> Outcome | None:
    """The outcome of a run that met a root that cannot be written in more attempts in a row than it is granted.

    Such attempts leave no failure in the store, only their last heartbeat.
    """
    beats = [attempt.heartbeat for attempt in attempts_at(root, run_id)[: retries + 1]]
    if sum(beat is not None and beat.cause == "storage" for beat in beats) <= retries:
        return None
    message = f"the root could not be written; {_left_alone_after(retries + 1)}"
    return Outcome(run_id, "failed", None, "storage", message)


def grown(resources: Resources, run: AnyRun, failures: Iterable[StoredRun], growth: float) -> Resources:
    """What a run gets after its failures: for each time that it ran out of memory more of it, or a smaller microbatch.

    Memory of GPUs cannot be asked for, and neither can that of a job that leaves its memory to the partition, nor that
    of this machine.
    """
    for failure in failures:
        if failure.cause != "out_of_memory":
            continue
        on_gpu = resources.gpus_per_node > 0 and "OutOfMemoryError" in (failure.message or "")
        if resources.memory_gb is not None and not on_gpu:
            resources = resources.with_memory(growth)
            continue
        batch = getattr(run, "batch_size", None)
        most = resources.microbatch or (math.ceil(batch / resources.tasks) if batch else None)
        if most is not None:
            resources = resources.model_copy(update={"microbatch": max(most // 2, 1)})
    return resources


def progressed(attempts: Sequence[Attempt]) -> int:
    """How many of the newest attempts, in a row, got no further than those before them; `attempts` newest first."""
    reached = [beat.done if (beat := attempt.heartbeat) else 0.0 for attempt in attempts]
    further = (n for n, done in enumerate(reached) if done > max(reached[n + 1 :], default=0.0))
    return next(further, len(reached))


def stuck(attempts: Sequence[Attempt], retries: int) -> bool:
    """Whether one more start would get no further than the last `retries` + 1."""
    return progressed(attempts) > retries


def _retried_since(root: Path) -> dict[str, str]:
    """For each run that was tried again by `retry` when that was last done, from which its failures count."""
    since: dict[str, str] = {}
    for submission in submissions(root):
        if submission.retry:
            since |= {run.run_id: submission.created for run in submission.runs(root)}
    return since


def _left_alone_after(failures: int) -> str:
    return f"left alone after {failures} failure{'s' * (failures > 1)}, `tokenlaw retry` tries again"

"""The batch script of an array and its submission, by submitit's executor.

submitit writes the script and calls sbatch. Its pickles are not used (one file a task, renamed after sbatch, is slow
for thousands of tasks and strands jobs when the submitter dies in between), and neither is its pause of 0.2 s between
submissions: a job gets paths, and reads its specification from the ledger.
"""

from __future__ import annotations

import math
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.record.code_snapshot import HOME, CodeSnapshot
from sweeps.record.ledger import Submission
from sweeps.record.slurm_client import environment

from .arrays import Array
from .entries import ArrayEntry

if TYPE_CHECKING:
    import submitit

SBATCH_SECONDS = 30
"""After which sbatch is given up; it waits by itself for a controller that restarts or has no room for jobs."""


def array_executor(
    submission: Submission, snapshot: CodeSnapshot, entry: ArrayEntry, array: Array, dependency: str | None
) -> _ArrayExecutor:
    """submitit's executor with everything that an array needs."""
    resources = array.resources
    minutes = max(math.ceil(resources.hours * 60), 1)
    own: dict[str, object] = {
        # As often as it takes: a preempted job keeps its id, its index and so its dependents.
        "requeue": True,
        "output": str(entry.folder / "%a.log"),
        "array": f"0-{len(array.members) - 1}" + (f"%{submission.jobs}" if submission.jobs else ""),
    }
    if dependency is not None:
        own["kill-on-invalid-dep"] = "yes"
    own |= {name: value if value else True for name, value in resources.options}
    executor = _new_executor(entry.folder)
    parameters = {
        "job_name": submission.id,
        "time": minutes,
        "nodes": resources.nodes,
        "ntasks_per_node": resources.tasks_per_node,
        "cpus_per_task": resources.cpus_per_task,
        "gpus_per_node": resources.gpus_per_node or None,
        "mem": f"{math.ceil(resources.memory_gb * 1000)}M" if resources.memory_gb is not None else None,
        "partition": resources.partition,
        "account": resources.account,
        "qos": resources.qos,
        "constraint": resources.constraint,
        "dependency": dependency,
        "signal_delay_s": grace_seconds(minutes),
        "stderr_to_stdout": True,
        # The job starts its workers with srun itself.
        "use_srun": False,
        "setup": [_exports(snapshot)],
        "additional_parameters": own,
    }
    executor.update_parameters(**{name: value for name, value in parameters.items() if value is not None})
    # submitit's default marks jobs with a key that clusters which track such keys refuse.
    executor.parameters["wckey"] = None
    return executor


def grace_seconds(minutes: int) -> int:
    """Seconds before the time limit at which a job is told to save: 5 % of it, 30 s to 4 min.

    SLURM may send the warning a minute early. From less than 5 min to the limit it counts as a time-out
    (sweeps.record.failure_causes).
    """
    return min(max(round(minutes * 60 * 0.05), 30), 240)


def _exports(snapshot: CodeSnapshot) -> str:
    """The line of the batch script that puts the frozen code before everything else."""
    inherited = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part and Path(part) != HOME]
    return f"export PYTHONPATH={shlex.quote(os.pathsep.join([str(snapshot.path), *inherited]))}"


if TYPE_CHECKING:

    class _ArrayExecutor(submitit.SlurmExecutor):
        def submit_array_of(self, command: Sequence[str], count: int) -> str: ...


def _new_executor(folder: Path) -> _ArrayExecutor:
    """The executor; submitit is imported here, so that `--help`, `plan` and `status` need not wait for it."""
    import submitit

    class ArrayExecutor(submitit.SlurmExecutor):
        """submitit's executor for a command line instead of pickled functions; one element is an array as well."""

        def submit_array_of(self, command: Sequence[str], count: int) -> str:
            self.parameters["map_count"] = count
            # submitit passes on what sbatch complains of; where it fails, the exception says it.
            with redirect_stderr(StringIO()) as complaints:
                job = self._submit_command(f"exec {shlex.join(command)}").job_id
            print(complaints.getvalue(), end="", file=sys.stderr)
            return str(job)

        def _make_submission_command(self, submission_file_path: Path) -> list[str]:
            # What a surrounding job put into the environment must not become this job's resources.
            hidden = sorted(os.environ.keys() - environment().keys())
            unset = [word for name in hidden for word in ("-u", name)]
            return ["timeout", str(SBATCH_SECONDS), "env", *unset, "sbatch", str(submission_file_path)]

    return ArrayExecutor(folder)  # type: ignore[return-value]

"""The batch script of an array of jobs, written by submitit.

Its executor is not used: it pickles functions into one file a task, renames them after sbatch (slow for thousands of
tasks, and jobs are stranded when the submitter dies in between), and pauses between submissions. A job of ours gets
paths, and reads its specifications from the ledger. What is taken of submitit's private interface is one function,
`_make_sbatch_string`; pyproject.toml pins the versions that are tested, and a test tells when it moves.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from results.store import atomic
from sweeps.record.code_snapshot import CodeSnapshot
from sweeps.record.ledger import Submission
from sweeps.worker.process import python_path

from .entries import ArrayEntry


def write_script(
    submission: Submission, snapshot: CodeSnapshot, entry: ArrayEntry, command: Sequence[str], dependency: str | None
) -> Path:
    """Write the batch script of an array beside its entry in the ledger. Raises StoreError."""
    # Imported here, so that `--help`, `plan` and `status` need not wait for it.
    from submitit.slurm.slurm import _make_sbatch_string

    values = parameters(submission, snapshot, entry, dependency)
    text = _make_sbatch_string(f"exec {shlex.join(command)}", entry.folder, **values)
    path = entry.folder / "job.sh"
    atomic.write(path, text + "\n")
    return path


def parameters(
    submission: Submission, snapshot: CodeSnapshot, entry: ArrayEntry, dependency: str | None
) -> dict[str, Any]:
    """What submitit's function takes: everything that an array needs."""
    array, resources = entry.array, entry.array.resources
    minutes = max(math.ceil(resources.hours * 60), 1)
    side_by_side = resources.pack_parallel
    options: dict[str, object] = {
        # As often as it takes: a preempted job keeps its id, its index and so its dependents.
        "requeue": True,
        "output": str(entry.folder / "%a.log"),
        "array": f"0-{array.jobs - 1}" + (f"%{submission.jobs}" if submission.jobs else ""),
    }
    if dependency is not None:
        options["kill-on-invalid-dep"] = "yes"
    options |= {name: value if value else True for name, value in resources.options}
    values = {
        "job_name": submission.id,
        "time": minutes,
        "nodes": resources.nodes,
        "ntasks_per_node": resources.tasks_per_node * side_by_side,
        "cpus_per_task": resources.cpus_per_task,
        "gpus_per_node": resources.gpus_per_node * side_by_side or None,
        "mem": megabytes(resources.memory_gb * side_by_side) if resources.memory_gb is not None else None,
        "partition": resources.partition,
        "account": resources.account,
        "qos": resources.qos,
        "constraint": resources.constraint,
        "dependency": dependency,
        "signal_delay_s": grace_seconds(minutes),
        "stderr_to_stdout": True,
        # The job starts its workers with srun itself.
        "use_srun": False,
        "setup": [f"export PYTHONPATH={shlex.quote(python_path(snapshot.path))}"],
        "additional_parameters": options,
    }
    # submitit's default marks jobs with a key that clusters which track such keys refuse.
    return {name: value for name, value in values.items() if value is not None} | {"wckey": None}


def megabytes(memory_gb: float) -> str:
    """Memory as SLURM's options take it: 1.5 GB are 1500M."""
    return f"{math.ceil(memory_gb * 1000)}M"


def grace_seconds(minutes: int) -> int:
    """Seconds before the time limit at which a job is told to save: 5 % of it, 30 s to 4 min.

    SLURM may send the warning a minute early. From less than 5 min to the limit it counts as a time-out
    (`failure_causes`).
    """
    return min(max(round(minutes * 60 * 0.05), 30), 240)

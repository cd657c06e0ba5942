"""What the commands do with a study on SLURM: submit, wait, cancel, and what they say about it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from sweeps.backends.slurm.submitter import Submitted
    from sweeps.planning.plan import Plan

ENDED: tuple[Literal["done", "diverged", "failed"], ...] = ("done", "diverged", "failed")
SHOWN = 8
"""Runs that a message names at most."""


def submit_to_slurm(
    made: Plan,
    root: Path,
    *,
    jobs: int | None = None,
    wait: bool = False,
    over_limit: bool = False,
    only: set[str] | None = None,
    retry: bool = False,
    worker: Sequence[str] = (),
) -> int:
    """Submit what is left of a plan, say so, with `wait` stay until the end; the exit code. Raises TokenlawError."""
    from sweeps.backends.launch import check_writable, prepare_training
    from sweeps.backends.progress import view
    from sweeps.backends.slurm.submitter import check_submission, submit
    from sweeps.backends.slurm.waiting import Waiter
    from sweeps.planning.planned_run import PlannedRun

    from .views import print_summary

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    def check(runs: Sequence[PlannedRun]) -> None:
        check_writable(root.absolute())
        if not worker:
            prepare_training(runs, say)

    check_submission(made, root, over_limit, jobs)
    report = submit(made, root, only=only, retry=retry, jobs=jobs, worker=worker, check=check, say=say)
    print_submitted(made, report)
    if not wait:
        return int(bool(report.refused or report.exhausted))
    with view() as shown:
        waiter = Waiter(
            made, root,
            lambda: submit(made, root, only=only, jobs=jobs, worker=worker, check=check, say=shown.say),
            only=only, observe=shown,
        )  # fmt: skip
        summary = waiter.wait(report)
    if summary.stopped_by is not None:
        left = len(summary.outcomes) - sum(summary.count(result) for result in ENDED)
        print(
            f"{made.study.name}: left while {left} runs have no end yet; the jobs go on without this command: "
            "`tokenlaw status` shows how, `tokenlaw cancel` stops them"
        )
    elif summary.outcomes:
        print_summary(made, summary)
    return summary.exit_code


def print_submitted(made: Plan, report: Submitted) -> None:
    """What a submission did, and what it left out and why."""
    name = made.study.name
    if report.submission is not None and report.queued:
        print(f"submitted {report.submission.id}: {report.queued} runs in {report.arrays} arrays")
        print(f"`tokenlaw status {made.study.source} --watch` shows how it goes")
    else:
        print(f"{name}: nothing to submit")
    counts = {"done": report.before, "under way": report.under_way, "waiting for room": len(report.waiting)}
    if shown := [f"{count} {what}" for what, count in counts.items() if count]:
        print(f"{name}: {', '.join(shown)} of {len(made.runs)} runs")
    if report.waiting:
        print(
            "  the cluster has no room for all now: `tokenlaw submit` again goes on with the rest, `--wait` by itself"
        )
    for title, runs in (
        ("blocked", report.blocked),
        ("refused by SLURM", report.refused),
        ("left alone after its failures (`tokenlaw retry` tries again)", report.exhausted),
    ):
        for run_id, reason in list(runs.items())[:SHOWN]:
            print(f"  {title}: {made.by_id[run_id].label} ({run_id}): {reason}")
        if len(runs) > SHOWN:
            print(f"  {title}: {len(runs) - SHOWN} more")


def cancel_on_slurm(made: Plan, root: Path) -> int:
    """Cancel the jobs of a study by their ids, and say how many there were. Raises SlurmError, StoreError."""
    from sweeps.backends.slurm.submitter import cancel

    cancelled = cancel(made.study.name, root)
    if cancelled:
        print(f"{made.study.name}: cancelled {cancelled} jobs of SLURM, which save and stop")
    return cancelled

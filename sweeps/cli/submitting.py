"""What the commands do with a study: hand it to a backend, show how it goes, and say how it ended."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.text import duration

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sweeps.backends.base import Submitted
    from sweeps.backends.standing import SubmissionSummary
    from sweeps.planning.plan import Plan
    from sweeps.record.outcome import Outcome

RESULTS = ("done", "diverged", "failed", "interrupted", "blocked")
SHOWN = 8
"""Runs set aside that a message names at most, of each kind."""


def carry_out(
    plan: Plan,
    root: Path,
    cluster: str,
    *,
    jobs: int | None = None,
    wait: bool = True,
    over_limit: bool = False,
    only: Collection[str] | None = None,
    retry: bool = False,
    again: bool = True,
    rerun: bool = False,
    worker: tuple[str, ...] = (),
) -> int:
    """Submit what is left of a plan, say so, with `wait` stay until the end; the exit code. Raises TokenlawError.

    `rerun` sets aside what was done with another version of a trainer's code first, so that it is left again.
    """
    from sweeps.backends.base import Request, backend, prepared
    from sweeps.backends.progress import view
    from sweeps.backends.submission import check, prepare_training
    from sweeps.record import trainer_code

    chosen = backend(cluster)
    debug = cluster == "debug"
    # What is executed in this process is watched by itself, and prints here.
    wait = wait or debug
    request = Request(
        plan, root, only, jobs, retry=retry, again=again, wait=wait, over_limit=over_limit, worker=worker,
        prepare=prepared if worker else prepare_training,
        say=lambda line: print(line, file=sys.stdout if debug else sys.stderr, flush=True),
    )  # fmt: skip
    # What is wrong with the request is told before anything is set aside.
    check(request)
    other = trainer_code.done_with_other_code(plan, root)
    if rerun and other:
        moved = trainer_code.rerun(plan, root, other, "the trainer's code has changed (--rerun)")
        aside = root / "store" / ".superseded"
        print(f"{plan.study.name}: {len(moved)} results set aside in {aside}; their runs are trained again")
    elif other:
        print(f"{plan.study.name}: {trainer_code.notice(other)}")
    submitted = chosen.submit(request)
    begun = submitted.submission is not None or submitted.under_way > 0
    if not wait or submitted.arrays or (not begun and not submitted.aside):
        print_submitted(plan, submitted)
    if not wait:
        return submitted.exit_code
    with view(quiet=debug) as shown:
        summary = chosen.watch(request if debug else replace(request, say=shown.say), submitted, shown)
    if begun or submitted.aside:
        print_summary(plan, summary)
    return summary.exit_code


def print_submitted(plan: Plan, report: Submitted) -> None:
    """What a submission did, and what it left out and why."""
    name, total = plan.study.name, len(plan.runs)
    if report.submission is not None and (report.queued or report.under_way):
        jobs = f"{report.jobs} jobs, " if report.jobs != report.queued else ""
        arrays = f": {report.queued} runs in {jobs}{report.arrays} arrays\n" if report.arrays else "; "
        watched = f"`tokenlaw status {plan.study.source} --watch` shows how it goes"
        print(f"submitted {report.submission.id}{arrays}{watched}")
    elif report.before == total:
        print(f"{name}: nothing to do, all {total} runs are done")
    elif report.under_way or report.waiting:
        print(f"{name}: nothing to submit")
    else:
        print(f"{name}: nothing to begin, {total - report.before} of {total} runs have no result")
    if report.under_way or report.waiting:
        counts = {"done": report.before, "under way": report.under_way, "waiting for room": len(report.waiting)}
        print(f"{name}: {', '.join(f'{count} {what}' for what, count in counts.items() if count)} of {total} runs")
    if report.waiting:
        print(
            "  the cluster has no room for all now: `tokenlaw submit` again goes on with the rest, `--wait` by itself"
        )
    print_outcomes(plan, report.aside)


def print_summary(plan: Plan, summary: SubmissionSummary) -> None:
    """How a submission ended, and where to look for what failed."""
    if summary.stopped_by is not None and summary.jobs_go_on:
        left = sum(outcome.result not in ("done", "diverged", "failed") for outcome in summary.outcomes.values())
        print(
            f"{plan.study.name}: left while {left} runs have no end yet; the jobs go on without this command: "
            "`tokenlaw status` shows how, `tokenlaw cancel` stops them"
        )
        return
    shown = [f"{summary.count(name)} {name}" for name in RESULTS if summary.count(name)]
    before = [f"{summary.before} done before"] if summary.before else []
    print(f"{plan.study.name}: {', '.join([*shown, *before]) or 'nothing begun'} in {duration(summary.elapsed)}")
    print_outcomes(plan, {run_id: o for run_id, o in summary.outcomes.items() if o.result in ("failed", "diverged")})
    if summary.stopped_by is not None:
        print("stopped; the same command goes on from the checkpoints")


def print_outcomes(plan: Plan, outcomes: Mapping[str, Outcome]) -> None:
    """A line for each run that failed, diverged or cannot begin; some of each kind."""
    by_result: dict[str, list[Outcome]] = {}
    for outcome in outcomes.values():
        by_result.setdefault(outcome.result, []).append(outcome)
    for result, members in by_result.items():
        for outcome in members[:SHOWN]:
            log = f"; see `tokenlaw logs {outcome.run_id}`" if outcome.attempt and result != "blocked" else ""
            print(f"  {result} {plan.by_id[outcome.run_id].label} ({outcome.run_id}): {outcome.message}{log}")
        if len(members) > SHOWN:
            print(f"  {result}: {len(members) - SHOWN} more; `tokenlaw status` has all")

"""What the commands print for people: a status, the end of a submission."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from sweeps import text
from sweeps.backends.status import STATUSES, counts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sweeps.backends.standing import SubmissionSummary
    from sweeps.backends.status import RunStatus
    from sweeps.planning.plan import Plan
    from sweeps.record.outcome import Outcome


def print_summary(plan: Plan, summary: SubmissionSummary) -> None:
    """How a submission ended, and where to look for what failed."""
    names: tuple[Literal["done", "diverged", "failed", "interrupted", "blocked"], ...] = (
        "done", "diverged", "failed", "interrupted", "blocked",
    )  # fmt: skip
    shown = [f"{summary.count(name)} {name}" for name in names if summary.count(name)]
    before = [f"{summary.before} done before"] if summary.before else []
    print(f"{plan.study.name}: {', '.join([*shown, *before]) or 'nothing begun'} in {text.duration(summary.elapsed)}")
    print_outcomes(plan, summary.outcomes)
    if summary.stopped_by is not None:
        print("stopped; the same command goes on from the checkpoints")


def print_outcomes(plan: Plan, outcomes: Mapping[str, Outcome]) -> None:
    """A line for each run that failed or diverged."""
    for run_id, outcome in outcomes.items():
        if outcome.result in ("failed", "diverged"):
            run = plan.by_id[run_id]
            log = f"; see `tokenlaw logs {run_id}`" if outcome.attempt else ""
            print(f"  {outcome.result} {run.label} ({run_id}): {outcome.message}{log}")


SHOWN = 20
"""Lines at most on runs that run, and on those of each condition that needs words."""


def print_status(plan: Plan, statuses: list[RunStatus], complaint: str | None = None) -> None:
    """Runs by stage and size and status with progress, speed and time left, then what runs and what went wrong."""
    groups: dict[tuple[str, str], list[RunStatus]] = {}
    for status in statuses:
        groups.setdefault((status.run.stage, status.run.size), []).append(status)
    order = {"tokenizer": 0, "generator": 1}
    rows = [[*key, *_row(groups[key])] for key in sorted(groups, key=lambda key: order.get(key[0], 2))]
    rows.append(["all", "", *_row(statuses)])
    total = counts(statuses)
    print(f"{plan.study.name}: {total['done'] + total['diverged']} of {len(statuses)} runs have a result")
    # A column of zeros says nothing.
    header = ["stage", "size", *STATUSES, "progress", "images/s", "time left"]
    always = ("stage", "size", "done", "running", "pending", "progress")
    kept = [i for i, name in enumerate(header) if name in always or any(row[i] not in ("0", "") for row in rows)]
    print(text.table([header[i] for i in kept], [[row[i] for i in kept] for row in rows]))
    lines: dict[str, list[str]] = {}
    for status in statuses:
        if line := _line(status):
            lines.setdefault("queued" if status.queued else status.status, []).append(line)
    for name, said in lines.items():
        print("\n".join(said[:SHOWN]))
        if len(said) > SHOWN:
            print(f"{name}: {len(said) - SHOWN} more; --json has all")
    if complaint:
        print(f"the queue of the cluster could not be read, so nothing here is from it: {complaint}")


def _row(members: list[RunStatus]) -> list[str]:
    """Numbers of a group: runs of each status, share of the work done, speed, and time to its last running run."""
    number = counts(members)
    whole = sum(member.run.seconds for member in members)
    done = sum(member.run.seconds * _share(member) for member in members)
    running = [member for member in members if member.status == "running"]
    speed = sum(member.heartbeat.images_per_second or 0.0 for member in running if member.heartbeat)
    left = max((member.eta_seconds for member in running if member.eta_seconds is not None), default=None)
    return [
        *(str(number[name]) for name in STATUSES),
        f"{100 * done / whole:.0f} %" if whole else "",
        f"{speed:,.0f}" if speed else "",
        text.duration(left) if left is not None else "",
    ]


def _share(status: RunStatus) -> float:
    if status.status in ("done", "diverged"):
        return 1.0
    return status.heartbeat.done if status.heartbeat else 0.0


def _line(status: RunStatus) -> str | None:
    """What there is to say about one run."""
    run, beat, job = status.run, status.heartbeat, f" [job {status.job}]" if status.job else ""
    if status.status == "running" and beat is not None:
        speed = f", {beat.images_per_second:,.0f} images/s" if beat.images_per_second else ""
        left = f", {text.duration(status.eta_seconds)} left" if status.eta_seconds is not None else ""
        phase = f"{beat.phase} {beat.detail}".rstrip()
        return f"running  {run.label}{job}: {phase}, {100 * beat.done:.0f} %{speed}{left}"
    if status.status not in ("failed", "diverged", "missing") and not status.cause:
        return None
    line = f"{status.status:<8} {run.label} ({run.run_id}): {status.cause}: {status.message}"
    last = status.last_line
    known = not last or last in line or (status.message is not None and status.message in last)
    return line if known else f"{line}\n         last line of its log: {last}"

"""What `status` prints for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sweeps import text
from sweeps.backends.status import STATUSES, counts, time_left
from sweeps.planning.order import makespan
from sweeps.planning.planned_run import group_names
from sweeps.study.external_run import STAGES

if TYPE_CHECKING:
    from sweeps.backends.standing import TimeLeft
    from sweeps.backends.status import RunStatus
    from sweeps.planning.plan import Plan


SHOWN = 20
"""Lines at most on runs that run, and on those of each condition that needs words."""


def by_size(statuses: Sequence[RunStatus]) -> dict[tuple[str, str], list[RunStatus]]:
    """Statuses by stage and size of their runs, tokenizers first; families of one label stand apart."""
    groups: dict[tuple[str, str], list[RunStatus]] = {}
    names = group_names([status.run for status in statuses])
    for status in sorted(statuses, key=lambda status: STAGES.index(status.run.stage)):
        groups.setdefault((status.run.stage, names[status.run.run_id]), []).append(status)
    return groups


def print_status(plan: Plan, statuses: list[RunStatus], complaint: str | None = None) -> None:
    """Runs by stage and size and status with progress, speed and time left, then what runs and what went wrong."""
    work = time_left(statuses)
    at_a_time = sum(status.status == "running" for status in statuses)
    rows = [[*key, *_row(members, work, at_a_time)] for key, members in by_size(statuses).items()]
    rows.append(["all", "", *_row(statuses, work, at_a_time)])
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


def _row(members: list[RunStatus], work: TimeLeft | None, at_a_time: int) -> list[str]:
    """Numbers of a group: runs of each status, share of the work done, speed, and time that all of it takes if it goes
    on as now, with what still waits."""
    number = counts(members)
    whole = sum(member.run.seconds for member in members)
    done = sum(member.run.seconds * _share(member) for member in members)
    running = [member for member in members if member.status == "running"]
    speed = sum(member.heartbeat.images_per_second or 0.0 for member in running if member.heartbeat)
    seconds = {m.run.run_id: work.left[m.run.run_id] for m in members if m.run.run_id in work.left} if work else {}
    left = makespan(seconds, {member.run.run_id: member.run.parent for member in members}, at_a_time)
    return [
        *(str(number[name]) for name in STATUSES),
        f"{100 * done / whole:.0f} %" if whole else "",
        f"{speed:,.0f}" if speed else "",
        text.duration(left) if seconds else "",
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

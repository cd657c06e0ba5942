"""What `status` prints for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweeps import text
from sweeps.backends.status import STATUSES, counts

if TYPE_CHECKING:
    from sweeps.backends.status import RunStatus
    from sweeps.planning.plan import Plan


SHOWN = 20
"""Lines at most on runs that run, and on those of each condition that needs words."""


def print_status(made: Plan, statuses: list[RunStatus], complaint: str | None = None) -> None:
    """Runs by stage and size and status with progress, speed and time left, then what runs and what went wrong."""
    groups: dict[tuple[str, str], list[RunStatus]] = {}
    for one in statuses:
        groups.setdefault((one.run.stage, one.run.size), []).append(one)
    rows = [[*key, *_row(members)] for key, members in groups.items()]
    order = {"tokenizer": 0, "generator": 1}
    rows.sort(key=lambda row: order.get(row[0], 2))
    rows.append(["all", "", *_row(statuses)])
    total = counts(statuses)
    print(f"{made.study.name}: {total['done'] + total['diverged']} of {len(statuses)} runs have a result")
    # A column of zeros says nothing.
    header = ["stage", "size", *STATUSES, "progress", "images/s", "time left"]
    kept = [i for i, name in enumerate(header) if name in ("stage", "size", "done", "running", "pending", "progress")
            or any(row[i] not in ("0", "") for row in rows)]  # fmt: skip
    print(text.table([header[i] for i in kept], [[row[i] for i in kept] for row in rows]))
    lines: dict[str, list[str]] = {}
    for one in statuses:
        if line := _line(one):
            lines.setdefault(one.status if not one.queued else "queued", []).append(line)
    for name, found in lines.items():
        print("\n".join(found[:SHOWN]))
        if len(found) > SHOWN:
            print(f"{name}: {len(found) - SHOWN} more; --json has all")
    if complaint:
        print(f"the queue of the cluster could not be read, so nothing here is from it: {complaint}")


def _row(members: list[RunStatus]) -> list[str]:
    """Numbers of a group: runs of each status, share of the work done, speed, and time to its last running run."""
    number = counts(members)
    whole = sum(one.run.seconds for one in members)
    done = sum(one.run.seconds * _share(one) for one in members)
    running = [one for one in members if one.status == "running"]
    speed = sum(one.heartbeat.images_per_second or 0.0 for one in running if one.heartbeat)
    left = max((one.eta_seconds for one in running if one.eta_seconds is not None), default=None)
    return [
        *(str(number[name]) for name in STATUSES),
        f"{100 * done / whole:.0f} %" if whole else "",
        f"{speed:,.0f}" if speed else "",
        text.duration(left) if left is not None else "",
    ]


def _share(one: RunStatus) -> float:
    if one.status in ("done", "diverged"):
        return 1.0
    return one.heartbeat.done if one.heartbeat else 0.0


def _line(one: RunStatus) -> str | None:
    """What there is to say about one run."""
    beat, job = one.heartbeat, f" [job {one.job}]" if one.job else ""
    if one.status == "running" and beat is not None:
        speed = f", {beat.images_per_second:,.0f} images/s" if beat.images_per_second else ""
        left = f", {text.duration(one.eta_seconds)} left" if one.eta_seconds is not None else ""
        phase = f"{beat.phase} {beat.detail}".rstrip()
        return f"running  {one.run.label}{job}: {phase}, {100 * beat.done:.0f} %{speed}{left}"
    if one.status not in ("failed", "diverged", "missing") and not one.cause:
        return None
    line = f"{one.status:<8} {one.run.label} ({one.run.run_id}): {one.cause}: {one.message}"
    said = one.last_line
    known = not said or said in line or (one.message is not None and one.message in said)
    return line if known else f"{line}\n         last line of its log: {said}"

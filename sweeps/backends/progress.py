"""Showing a submission while it runs: a live view for terminals, plain lines for logs."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self, TextIO

from sweeps.backends.standing import Standing
from sweeps.text import duration

if TYPE_CHECKING:
    from rich.console import Console, Group, RenderableType

PLAIN_SECONDS = 10.0
"""Time between two plain lines."""
SHOWN = 16
"""Running runs that the live view shows at most."""
DETAILED = 4
"""Of these, those whose losses and speed plain lines tell."""


def _headline(snapshot: Standing) -> str:
    share = snapshot.seconds_done / snapshot.seconds_total if snapshot.seconds_total else 1.0
    parts = [f"{snapshot.done} of {snapshot.total} runs done", f"{100 * share:.0f} %"]
    if snapshot.failed:
        parts.append(f"{snapshot.failed} failed")
    if snapshot.blocked:
        parts.append(f"{snapshot.blocked} blocked")
    parts.append(f"{duration(snapshot.elapsed)} elapsed")
    if snapshot.stopping:
        parts.append("stopping: runs save checkpoints (again to kill them)")
    elif snapshot.done + snapshot.failed + snapshot.blocked < snapshot.total:
        parts.append(f"about {duration(snapshot.eta)} left")
    return ", ".join(parts)


class PlainView(ExitStack):
    """How it stands at most every ten seconds, and news at once: for logs and files."""

    def __init__(self, output: TextIO | None = None) -> None:
        super().__init__()
        self._output = output or sys.stderr
        self._last = float("-inf")
        self._ended = False

    def say(self, line: str) -> None:
        """Print a line."""
        print(line, file=self._output, flush=True)

    def __call__(self, snapshot: Standing) -> None:
        """Print the news, and how it stands when it is time for that."""
        for line in snapshot.news:
            self.say(line)
        now = time.monotonic()
        ended = snapshot.done + snapshot.failed + snapshot.blocked == snapshot.total
        if now - self._last < PLAIN_SECONDS and (not ended or self._ended):
            return
        self._last, self._ended = now, ended
        shown = [f"{w.run.label} {w.heartbeat.phase} {100 * w.heartbeat.done:.0f} %" for w in snapshot.working]
        self.say(_headline(snapshot) + (f" [{'; '.join(shown[:SHOWN])}]" if shown else ""))
        for w in [w for w in snapshot.working if w.heartbeat.detail][:DETAILED]:
            rate = w.heartbeat.images_per_second
            speed = f", {rate:,.0f} images/s" if rate else ""
            self.say(f"  {w.run.label} {w.heartbeat.detail}{speed}, {duration(w.seconds_left)} left")


class LiveView(ExitStack):
    """An overall bar with the time left, and a line for each running run: for terminals."""

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console
        from rich.live import Live

        super().__init__()
        self._console = console or Console(stderr=True)
        self._live = Live(console=self._console, refresh_per_second=4, transient=False)

    def __enter__(self) -> Self:
        super().enter_context(self._live)
        return self

    def say(self, line: str) -> None:
        """Print a line above the view."""
        self._console.print(line, highlight=False, markup=False)

    def __call__(self, snapshot: Standing) -> None:
        """Print the news, and draw how it stands."""
        for line in snapshot.news:
            self.say(line)
        self._live.update(self._drawn(snapshot))

    def _drawn(self, snapshot: Standing) -> Group:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        for justify in ("left", "left", "left", "right", "right", "left"):
            table.add_column(justify=justify, no_wrap=True)
        for working in snapshot.working[:SHOWN]:
            beat, rate = working.heartbeat, working.heartbeat.images_per_second
            table.add_row(
                Text(working.run.label),
                ProgressBar(total=1.0, completed=beat.done, width=16),
                Text(f"{beat.phase} {beat.detail}".strip() + (" (elsewhere)" if working.elsewhere else "")),
                Text(f"{rate:,.0f} images/s" if rate else ""),
                Text(f"{duration(working.seconds_left)} left"),
            )
        # In a grid, since a bar on its own does not end its line.
        overall = Table.grid(padding=(0, 2))
        share = ProgressBar(total=max(snapshot.seconds_total, 1e-9), completed=snapshot.seconds_done, width=24)
        overall.add_row(share, Text(_headline(snapshot)))
        rows: list[RenderableType] = [overall, table]
        if (more := len(snapshot.working) - SHOWN) > 0:
            rows.append(Text(f"and {more} more"))
        return Group(*rows)


def view(*, quiet: bool = False) -> LiveView | PlainView:
    """The live view if standard error is a terminal, else the plain one, and that if it shall be `quiet`."""
    return LiveView() if sys.stderr.isatty() and not quiet else PlainView()

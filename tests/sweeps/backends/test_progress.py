"""What is shown: plain lines at most every ten seconds, a live view, tables, numbers."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from sweeps import text
from sweeps.backends import progress
from sweeps.backends.progress import LiveView, PlainView
from sweeps.backends.standing import Standing, Working
from sweeps.planning.plan import make_plan
from sweeps.record.attempts import Heartbeat
from sweeps.study.study import load_study


def _snapshot(done: int = 1, total: int = 4, news: tuple[str, ...] = (), working: int = 1) -> Standing:
    run = make_plan(load_study("smoke")).runs[0]
    beat = Heartbeat(phase="train", done=0.25, images_per_second=1234.0)
    return Standing(
        total=total, done=done, failed=1, blocked=0, working=(Working(run, beat, False, 75.0),) * working,
        seconds_done=25.0, seconds_total=100.0, eta=3700.0, elapsed=61.0, stopping=False, news=news,
    )  # fmt: skip


def test_plain_lines_are_rare_and_news_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    output = io.StringIO()
    with PlainView(output) as view:
        for _ in range(100):
            now[0] += 0.25
            view(_snapshot(news=("it failed",) if now[0] == 5.0 else ()))
        view(_snapshot(done=3))
        view(_snapshot(done=3))
    lines = output.getvalue().splitlines()
    assert lines.count("it failed") == 1
    assert len(lines) == 5
    label = make_plan(load_study("smoke")).runs[0].label
    assert lines[0] == (
        f"1 of 4 runs done, 25 %, 1 failed, 1 min 01 s elapsed, about 1 h 01 min left [{label} train 25 %]"
    )
    assert "left" not in lines[-1]


def test_plain_lines_tell_losses_speed_and_time_of_a_few_runs() -> None:
    output = io.StringIO()
    snapshot = _snapshot(working=6)
    beat = replace(snapshot.working[0].heartbeat, detail="trunk loss 4.6117, 19.4 GFLOP/s (57 % of peak)")
    working = tuple(replace(each, heartbeat=beat) for each in snapshot.working)
    with PlainView(output) as view:
        view(replace(snapshot, working=working))
    lines = output.getvalue().splitlines()[1:]
    label = working[0].run.label
    line = f"  {label} trunk loss 4.6117, 19.4 GFLOP/s (57 % of peak), 1,234 images/s, 1 min 15 s left"
    assert lines == [line] * 4


def test_live_view_shows_every_run_with_its_time_left() -> None:
    output = io.StringIO()
    with LiveView(Console(file=output, force_terminal=True, width=140)) as view:
        view(_snapshot(news=("[bold]news",), working=20))
    shown = output.getvalue()
    assert "[bold]news" in shown
    assert "1 of 4 runs done, 25 %" in shown
    assert "1,234 images/s" in shown
    assert "1 min 15 s left" in shown
    assert "and 4 more" in shown


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "0"), (950, "950"), (22_100, "22.1k"), (4.86e6, "4.86M"), (3.2e9, "3.20B"), (1e12, "1000B")],
)
def test_counts(number: float, shown: str) -> None:
    assert text.count(number) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-1, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (3600, "1 h 00 min"), (90_061, "25 h 01 min")],
)
def test_durations(seconds: float, shown: str) -> None:
    assert text.duration(seconds) == shown


@pytest.mark.parametrize(("number", "shown"), [(12, "12 B"), (1500, "1.5 kB"), (7.84e10, "78.4 GB"), (2e12, "2.0 TB")])
def test_sizes(number: float, shown: str) -> None:
    assert text.size(number) == shown


def test_table_aligns_numbers_to_the_right() -> None:
    assert text.table(["name", "runs"], [["a", "1"], ["bb", "10"]]).splitlines() == [
        "name  runs", "----  ----", "a        1", "bb      10",
    ]  # fmt: skip
    assert text.table(["name"], []).splitlines() == ["name", "----"]


def test_table_is_plain_text_of_full_width_whatever_its_cells_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "20")
    long = "x" * 300
    assert text.table(["名", "b"], [["[red]長い", ":smile:"], [long, "-"]]).splitlines() == [
        f"名{' ' * 300}b", f"{'-' * 300}  {'-' * 7}", f"[red]長い{' ' * 293}:smile:", f"{long}  -",
    ]  # fmt: skip

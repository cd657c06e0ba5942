"""The local scheduler with real processes and toy training: order, cap, kills, two submitters."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from results import StoreError, UsageError
from sweeps.backends.standing import Standing
from sweeps.backends.status import collect
from sweeps.planning.plan import make_plan
from sweeps.record.attempts import attempts_at
from sweeps.record.ledger import submissions
from sweeps.study.study import load_study
from sweeps.worker.process import cores

if TYPE_CHECKING:
    from tests.sweeps.conftest import Sweep


def _statuses(sweep: Sweep) -> dict[str, str]:
    return {status.run.label: status.status for status in collect(sweep.plan, sweep.root)}


def test_study_runs_once_in_order_and_within_the_cap(sweep: Sweep) -> None:
    """Three tokenizers are ready. Two hold out until a third would long have begun, had it been let."""
    sweep.path.write_text(sweep.path.read_text().replace("[0, 1]", "[0, 1, 2]"))
    sweep.behave(all={"until": "go"})
    start = time.monotonic()
    both: list[float] = []
    workers: list[int] = []
    snapshots: list[Standing] = []

    def observe(snapshot: Standing) -> None:
        snapshots.append(snapshot)
        workers.append(len(sweep.workers()))
        if not both and len(sweep.begun()) >= 2:
            both.append(time.monotonic())
        # From begin to work it takes as long as it took the first two, and some.
        if both and time.monotonic() - both[0] > 1 + 2 * (both[0] - start):
            (sweep.root / "go").touch()

    summary = sweep.submit(jobs=2, observe=observe)
    assert summary.exit_code == 0
    assert summary.count("done") == 6
    assert sweep.store.finished() == set(sweep.plan.by_id)
    assert sorted(sweep.begun()) == sorted(sweep.plan.by_id)
    assert sweep.parallel() == 2
    assert max(workers) == 2
    ends = {run: time for time, what, run, _, _ in sweep.log() if what == "end"}
    begins = {run: time for time, what, run, _, _ in sweep.log() if what == "begin"}
    for run in sweep.plan.runs:
        if run.parent:
            assert begins[run.run_id] > ends[run.parent]
    assert snapshots[-1].done == snapshots[-1].total == 6
    assert max(len(snapshot.working) for snapshot in snapshots) == 2
    for run_id in sweep.plan.by_id:
        assert (sweep.root / "artifacts" / run_id / "model.txt").read_text() == run_id
        assert not (attempts_at(sweep.root, run_id)[0].path / "checkpoints").exists()
    # A second time there is nothing to do, and not even an entry in the ledger.
    ledger = list((sweep.root / "submissions").iterdir())
    again = sweep.submit()
    assert (again.exit_code, again.before, again.outcomes) == (0, 6, {})
    assert len(sweep.begun()) == 6
    assert list((sweep.root / "submissions").iterdir()) == ledger


@pytest.mark.slow
def test_killed_submitter_leaves_workers_that_the_next_one_counts_and_waits_for(sweep: Sweep) -> None:
    sweep.behave(all={"steps": 40, "seconds": 0.05})
    first = sweep.start(jobs=2)
    sweep.wait_for(lambda: len(sweep.workers()) == 2)
    first.kill()
    first.wait()
    assert len(sweep.workers()) == 2
    running = {s.run.label for s in collect(sweep.plan, sweep.root) if s.status == "running"}
    assert len(running) == 2
    news: list[str] = []
    summary = sweep.submit(jobs=2, observe=lambda snapshot: news.extend(snapshot.news))
    assert summary.exit_code == 0
    assert sorted(sweep.begun()) == sorted(sweep.plan.by_id)
    assert sweep.parallel() == 2
    assert sum("left by a submitter that died" in line for line in news) == 2


@pytest.mark.slow
def test_everything_killed_at_once(sweep: Sweep) -> None:
    sweep.behave(all={"steps": 40, "seconds": 0.03})
    first = sweep.start(jobs=2)
    sweep.wait_for(lambda: len(sweep.begun()) == 2)
    first.kill()
    for pid in sweep.workers():
        os.kill(pid, signal.SIGKILL)
    first.wait()
    sweep.wait_for(lambda: not sweep.workers())
    assert sorted(_statuses(sweep).values()) == ["missing"] * 2 + ["pending"] * 2
    sweep.behave(all={"steps": 40, "seconds": 0.001})
    summary = sweep.submit(jobs=2)
    assert summary.exit_code == 0
    assert sweep.store.finished() == set(sweep.plan.by_id)
    assert sweep.store.failures() == {}


@pytest.mark.slow
def test_two_submitters_never_run_one_run_twice(sweep: Sweep) -> None:
    sweep.behave(all={"steps": 10, "seconds": 0.03})
    processes = [sweep.start(jobs=2) for _ in range(3)]
    outputs = [process.communicate(timeout=600)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    assert sorted(sweep.begun()) == sorted(sweep.plan.by_id)
    assert {attempt.name for folder in (sweep.root / "attempts").iterdir() for attempt in folder.iterdir()} == {"1"}


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGINT,
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
    ],
)
def test_signal_stops_cleanly_and_a_later_submit_continues(sweep: Sweep, number: signal.Signals) -> None:
    sweep.behave(all={"steps": 60, "seconds": 0.2})
    first = sweep.start(jobs=2)
    sweep.wait_for(lambda: len(sweep.begun()) == 2)
    first.send_signal(number)
    output, _ = first.communicate(timeout=600)
    assert first.returncode == 128 + number, output
    assert sweep.workers() == []
    assert set(_statuses(sweep).values()) == {"pending"}
    assert sweep.store.failures() == {}
    sweep.behave(all={"steps": 60, "seconds": 0.001})
    assert sweep.submit().exit_code == 0


@pytest.mark.slow
def test_second_signal_kills(sweep: Sweep) -> None:
    sweep.behave(all={"steps": 2, "seconds": 600})
    first = sweep.start(jobs=2)
    sweep.wait_for(lambda: len(sweep.begun()) == 2)
    first.send_signal(signal.SIGINT)
    # Until it says so: two signals at once are one.
    assert first.stdout is not None
    sweep.wait_for(lambda: "stopping" in str(first.stdout and first.stdout.readline()))
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=600)
    assert first.returncode == 130
    assert sweep.workers() == []


@pytest.mark.slow
def test_full_disk_ends_in_one_message_and_loses_nothing(sweep: Sweep) -> None:
    sweep.behave(K256_T16_s1={"ending": "full"})
    with pytest.raises(StoreError, match=r"No space left on device.*free some space"):
        sweep.submit(jobs=1)
    finished = sweep.store.finished()
    assert sweep.store.check().damaged == ()
    sweep.behave()
    assert sweep.submit().exit_code == 0
    assert sweep.store.finished() == set(sweep.plan.by_id) > finished


def test_root_that_cannot_be_written(sweep: Sweep) -> None:
    sweep.root = sweep.path
    with pytest.raises(StoreError, match=r"cannot .*toy\.toml.*(not a folder|Not a directory)"):
        sweep.submit()


def test_limits_and_jobs_are_checked_before_anything_is_written(sweep: Sweep) -> None:
    sweep.path.write_text(sweep.path.read_text() + "\n[limits]\nflops = 1e9\n")
    with pytest.raises(UsageError, match=r"training FLOPs; allowed by limits.flops: 1e\+09"):
        sweep.submit()
    with pytest.raises(UsageError, match="--jobs = 0"):
        sweep.submit(jobs=0, over_limit=True)
    assert list(sweep.root.iterdir()) == []
    assert sweep.submit(over_limit=True).exit_code == 0


@pytest.mark.slow
def test_artifacts_that_are_gone_block_with_a_reason(sweep: Sweep) -> None:
    assert sweep.submit(only={run.run_id for run in sweep.plan.runs if run.stage == "tokenizer"}).exit_code == 0
    tokenizer = sweep.plan.runs[0].run_id
    (sweep.root / "artifacts" / tokenizer).rename(sweep.root / "elsewhere")
    summary = sweep.submit()
    assert summary.exit_code == 1
    blocked = [outcome for outcome in summary.outcomes.values() if outcome.result == "blocked"]
    assert len(blocked) == 1
    assert "is gone; restore it" in str(blocked[0].message)
    (sweep.root / "elsewhere").rename(sweep.root / "artifacts" / tokenizer)
    assert sweep.submit().exit_code == 0


@pytest.mark.slow
def test_tokenizers_are_shared_between_studies(sweep: Sweep, tmp_path: Path) -> None:
    sweep.submit()
    other = tmp_path / "other.toml"
    other.write_text(sweep.path.read_text().replace('["XS"]', '["XS", "M"]').replace('"toy"', '"other"'))
    sweep.path = other
    plan = make_plan(load_study(str(other)))
    left = [run for run in plan.runs if run.run_id not in sweep.store.finished()]
    assert [run.size for run in left] == ["M", "M"]
    assert sweep.submit().count("done") == 2


def test_without_a_cap_as_many_go_as_there_are_cores(sweep: Sweep) -> None:
    sweep.behave(all={"steps": 2, "seconds": 0.01})
    summary = sweep.submit(jobs=None)  # type: ignore[arg-type]
    assert summary.count("done") == len(sweep.plan.runs)
    assert submissions(sweep.root)[0].jobs == cores()

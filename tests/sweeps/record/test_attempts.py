"""Processes and attempts: who lives, who owns what, and that of many exactly one claims a run."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from sweeps.record.attempts import STALE_SECONDS, Attempt, Claim, Heartbeat, attempts_at, claim_attempt, living
from sweeps.record.process_identity import ProcessId


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def test_process_lives_until_it_is_killed_also_as_a_zombie(sleeper: subprocess.Popen[bytes]) -> None:
    identity = ProcessId.of(sleeper.pid)
    assert identity.alive() is True
    assert ProcessId.from_json(json.loads(json.dumps(identity.as_json()))) == identity
    assert identity.signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    # Not waited for: it stays in the process table.
    while identity.alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert identity.alive() is False
    os.kill(sleeper.pid, 0)
    assert not identity.signal(signal.SIGTERM)


def test_pid_that_was_given_to_another_process_is_not_the_same() -> None:
    me = ProcessId.current()
    assert me.alive() is True
    assert replace(me, started="1").alive() is False
    assert replace(me, boot="another").alive() is False
    assert replace(me, host="another").alive() is None
    assert replace(me, namespace="another").alive() is None


def test_no_process_has_such_a_name() -> None:
    with pytest.raises(ValueError, match="names no process"):
        ProcessId.from_json({"pid": 3})


def _claim(root: Path) -> Attempt | None:
    return claim_attempt(root, "abc", "{}", "submission", None)


def test_living_owner_keeps_its_run(tmp_path: Path) -> None:
    first = _claim(tmp_path)
    assert first is not None and first.number == 1 and first.run_id == "abc"
    assert first.alive and first.state == "running"
    assert _claim(tmp_path) is None
    assert living(tmp_path, {"abc", "other"}).keys() == {"abc"}


@pytest.mark.parametrize("state", ["interrupted", "failed", "done"])
def test_attempt_that_ended_makes_room_for_the_next(tmp_path: Path, state: str) -> None:
    first = _claim(tmp_path)
    assert first is not None
    first.end(state)  # type: ignore[arg-type]
    assert first.state == state
    second = _claim(tmp_path)
    assert second is not None and second.number == 2
    assert [attempt.number for attempt in attempts_at(tmp_path, "abc")] == [2, 1]
    assert sorted(path.name for path in (tmp_path / "attempts" / "abc").iterdir()) == ["1", "2"]


def test_attempt_of_a_dead_process_is_missing(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    attempt = _claim(tmp_path)
    assert attempt is not None
    claim = attempt.claim
    assert claim is not None
    (attempt.path / "claim").write_text(replace(claim, worker=ProcessId.of(sleeper.pid)).text())
    assert attempt.state == "running"
    sleeper.kill()
    sleeper.wait()
    assert attempt.state == "missing"
    second = _claim(tmp_path)
    assert second is not None and second.number == 2


def test_owner_on_another_machine_counts_by_its_heartbeat(tmp_path: Path) -> None:
    attempt = _claim(tmp_path)
    assert attempt is not None
    claim = attempt.claim
    assert claim is not None
    elsewhere = replace(claim, worker=replace(claim.worker, host="far"), time=time.time() - 2 * STALE_SECONDS)
    (attempt.path / "claim").write_text(elsewhere.text())
    assert attempt.state == "missing"
    Heartbeat(time=time.time()).write(attempt.path / "heartbeat.json")
    assert attempt.state == "running"
    assert _claim(tmp_path) is None
    Heartbeat(time=time.time() - 2 * STALE_SECONDS).write(attempt.path / "heartbeat.json")
    assert attempt.state == "missing"


def test_damaged_claim_and_heartbeat_are_those_of_a_dead_attempt(tmp_path: Path) -> None:
    attempt = _claim(tmp_path)
    assert attempt is not None
    (attempt.path / "claim").write_text("{")
    (attempt.path / "heartbeat.json").write_text('{"colour": 1}')
    assert attempt.claim is None and attempt.heartbeat is None
    assert attempt.state == "missing"
    with pytest.raises(ValueError, match="not a claim"):
        Claim.parse('{"worker": {}}')


def test_of_many_threads_one_claims(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        claimed = [attempt for attempt in pool.map(lambda _: _claim(tmp_path), range(32)) if attempt]
    assert len(claimed) == 1
    assert [path.name for path in (tmp_path / "attempts" / "abc").iterdir()] == ["1"]


def _claim_and_leave(root: str) -> int | None:
    """Claims, and dies without ending the attempt when the process ends."""
    attempt = claim_attempt(Path(root), "abc", "{}", "", None)
    return attempt.number if attempt else None


def test_of_many_processes_each_dead_one_is_succeeded_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    with context.Pool(4, maxtasksperchild=1) as pool:
        numbers = [number for number in pool.imap_unordered(_claim_and_leave, [str(tmp_path)] * 24) if number]
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
    assert len(numbers) == len(attempts_at(tmp_path, "abc"))

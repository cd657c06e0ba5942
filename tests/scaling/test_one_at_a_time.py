"""One of several processes makes a file of a cache: others wait, also for one that is killed, and can be stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scaling.one_at_a_time import one_at_a_time

MAKER = """
import os, sys, time
from pathlib import Path
from scaling.one_at_a_time import one_at_a_time
path, seconds = Path(sys.argv[1]), float(sys.argv[2])
with one_at_a_time(path, lambda: None):
    if not path.exists():
        with (path.parent / "made").open("a") as file:
            file.write(f"{os.getpid()}\\n")
        time.sleep(seconds)
        path.write_text("whole")
"""


def maker(path: Path, seconds: float) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", MAKER, str(path), str(seconds)])


def made(folder: Path) -> list[str]:
    return (folder / "made").read_text().split() if (folder / "made").exists() else []


def until_made(folder: Path) -> None:
    deadline = time.monotonic() + 60
    while not made(folder):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_of_four_processes_one_makes_the_file(tmp_path: Path) -> None:
    processes = [maker(tmp_path / "file", 0.5) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    assert len(made(tmp_path)) == 1


def test_when_the_maker_is_killed_one_that_waits_makes_it(tmp_path: Path) -> None:
    killed = maker(tmp_path / "file", 600)
    until_made(tmp_path)
    later = maker(tmp_path / "file", 0)
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait(60) == -signal.SIGKILL
    assert later.wait(60) == 0
    assert made(tmp_path) == [str(killed.pid), str(later.pid)]
    assert (tmp_path / "file").read_text() == "whole"


def test_who_waits_can_be_stopped_and_a_file_that_is_there_needs_no_lock(tmp_path: Path) -> None:
    holder = maker(tmp_path / "file", 600)
    until_made(tmp_path)

    def stop() -> None:
        raise InterruptedError("stop")  # an OSError, which a lock that is not there raises as well

    try:
        with pytest.raises(InterruptedError), one_at_a_time(tmp_path / "file", stop):
            pytest.fail("the lock is held")
        (tmp_path / "file").touch()
        with one_at_a_time(tmp_path / "file", stop):
            pass
    finally:
        holder.kill()
        holder.wait(60)


def test_without_locks_or_a_folder_nobody_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "taken").touch()
    with one_at_a_time(tmp_path / "taken" / "file", lambda: pytest.fail("nothing to wait for")):
        pass

    def refused(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", refused)
    with one_at_a_time(tmp_path / "file", lambda: pytest.fail("nothing to wait for")):
        pass

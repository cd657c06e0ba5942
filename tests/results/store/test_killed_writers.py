"""Writers and compactions that are killed before any of their system calls: all is stored or nothing."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from typing import Any

import pytest

from results import Store
from tests.results.store.filled_store import Append, content


def killed_at(step: int, work: Callable[[], Any]) -> int:
    """Work in a child process that is killed before its `step`-th call that changes the disk; how it ended."""
    child = os.fork()
    if child == 0:
        calls = 0

        def counted(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*arguments, **options)

            return call

        for name in ("open", "fsync", "rename", "mkdir", "rmdir", "unlink"):
            setattr(os, name, counted(getattr(os, name)))
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.slow
def test_killed_at_every_step_nothing_is_lost_or_doubled(store: Store, append: Append) -> None:
    """kill -9 before each system call that changes the disk; then readers, a late finisher, and a second compaction."""
    append("a")
    append("b", attempt=2)
    append("b", attempt=1, status="failed")
    store.compact()
    append("c")
    append("d", attempt=1, status="failed")
    before = content(store)
    pristine = store.root / "pristine"
    shutil.copytree(store.folder, pristine)
    for step in range(1, 400):
        shutil.rmtree(store.folder)
        shutil.copytree(pristine, store.folder)
        ended = killed_at(step, Store(store.root).compact)
        fresh = Store(store.root)
        assert content(fresh) == before, step
        assert not append("c", attempt=9, to=fresh) and not append("a", attempt=9, to=fresh)
        assert fresh.check().damaged == ()
        fresh.compact()
        assert content(Store(store.root)) == before, step
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
    assert ended == 0 and step > 40


def test_a_writer_killed_at_every_step_has_stored_all_or_nothing(store: Store, append: Append) -> None:
    append("a")
    store.compact()
    for step in range(1, 100):
        run_id = f"r{step:02d}"
        ended = killed_at(step, lambda run_id=run_id: append(run_id, to=Store(store.root)))  # type: ignore[misc]
        there = run_id in Store(store.root).finished()
        assert len(store.read("curves", [run_id])) == 3 * there
        assert store.check().damaged == ()
        assert append(run_id, attempt=2) is not there
        if ended == 0:
            break
    assert there and 10 < step < 99
    assert store.compact().merged == step
    assert len(store.finished()) == step + 1

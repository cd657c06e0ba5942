"""One run after the other in this process."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from sweeps.backends.base import Request, Say, silent
from sweeps.backends.debug import DebugBackend
from sweeps.backends.standing import SubmissionSummary
from sweeps.record.ledger import submissions
from tests.sweeps.toy_worker import toy

if TYPE_CHECKING:
    from tests.sweeps.conftest import Sweep


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """A worker installs handlers of its own, in this process for once."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def _debug(sweep: Sweep, say: Say = silent) -> SubmissionSummary:
    backend, request = DebugBackend(execute=toy), Request(sweep.plan, sweep.root, say=say)
    return backend.watch(request, backend.submit(request), lambda standing: None)


def test_runs_happen_here_with_the_same_store(sweep: Sweep) -> None:
    sweep.behave(K256_T16_s1={"ending": "diverged"}, all={"steps": 3, "seconds": 0.001})
    said: list[str] = []
    summary = _debug(sweep, said.append)
    assert summary.exit_code == 0
    assert {outcome.result for outcome in summary.outcomes.values()} == {"done", "diverged", "blocked"}
    assert {pid for _, _, _, _, pid in sweep.log()} == {os.getpid()}
    assert "diverged: loss is nan at step 2" in said
    assert [submission.cluster for submission in submissions(sweep.root)] == ["debug"]
    again = _debug(sweep)
    assert [outcome.result for outcome in again.outcomes.values()] == ["blocked"]

"""Signals that are caught for a while, sent to this very process."""

from __future__ import annotations

import os
import signal

import pytest

from sweeps.worker.process import caught


def test_signals_come_here_meanwhile_and_go_back_where_they_went_also_after_an_error() -> None:
    outer: list[int] = []
    inner: list[int] = []
    before = signal.getsignal(signal.SIGUSR2)
    with caught((signal.SIGUSR1, signal.SIGUSR2), outer.append):
        with pytest.raises(ValueError, match="wheel"), caught((signal.SIGUSR1,), inner.append):
            os.kill(os.getpid(), signal.SIGUSR1)
            os.kill(os.getpid(), signal.SIGUSR2)
            raise ValueError("a wheel came off")
        os.kill(os.getpid(), signal.SIGUSR1)
    assert inner == [signal.SIGUSR1]
    assert outer == [signal.SIGUSR2, signal.SIGUSR1]
    assert signal.getsignal(signal.SIGUSR2) is before

"""The protocol of backends: a fourth one runs the smoke study, and every name gives one with its members."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from results import Store, UsageError
from sweeps import load_study, plan, status, submit
from sweeps.backends.base import BACKENDS, Backend, Request, Submitted, backend
from sweeps.backends.standing import Observe, SubmissionSummary
from sweeps.backends.submission import check, enter, remaining
from sweeps.planning.plan import Plan
from sweeps.worker.worker import Options, work
from tests.sweeps.toy_worker import toy


class Backwards:
    """A backend of one's own: in this process, every tokenizer and then its generators, the last tokenizer first."""

    name = "backwards"

    def submit(self, request: Request) -> Submitted:
        check(request)
        left = remaining(request)
        report = Submitted(len(left.results), aside=left.aside)
        runs = [request.runs[run_id] for run_id in left.ready]
        if runs:
            report.submission = enter(request, self.name, runs, runs)
            report.queued = len(runs)
        return report

    def watch(self, request: Request, submitted: Submitted, observe: Observe) -> SubmissionSummary:
        summary = SubmissionSummary(submitted.before, dict(submitted.aside))
        submission = submitted.submission
        for run in self._order(request, submitted) if submission else ():
            assert submission is not None
            options = Options(submission=submission.id)
            summary.outcomes[run] = work(request.root, request.runs[run].spec, options, execute=toy)
        return summary

    def _order(self, request: Request, submitted: Submitted) -> Iterator[str]:
        for run in reversed(request.plan.runs):
            if run.parent is None and run.run_id in request.runs:
                yield from (run.run_id, *(child.run_id for child in request.plan.dependents[run.run_id]))

    def cancel(self, plan: Plan, root: Path) -> str:
        return ""


def test_a_fourth_backend_runs_the_smoke_study(tmp_path: Path, fashion_mnist_is_prepared: None) -> None:
    assert len(inspect.getsource(Backwards).splitlines()) < 60
    smoke = plan(load_study("smoke"))
    (tmp_path / "toy.json").write_text('{"*": {"steps": 2, "seconds": 0.001}}')
    chosen: Backend = Backwards()
    summary = submit(smoke, tmp_path, chosen)
    assert isinstance(summary, SubmissionSummary)
    assert summary.exit_code == 0 and summary.count("done") == len(smoke.runs)
    assert Store(tmp_path).finished() == smoke.by_id.keys()
    assert {run.status for run in status(smoke, tmp_path)} == {"done"}
    assert next(iter(summary.outcomes)) == [run for run in smoke.runs if run.parent is None][-1].run_id
    again = submit(smoke, tmp_path, chosen)
    assert isinstance(again, SubmissionSummary)
    assert (again.before, again.outcomes) == (len(smoke.runs), {})


@pytest.fixture
def fashion_mnist_is_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Toys need no images."""
    monkeypatch.setattr("sweeps.backends.api.prepare_training", lambda runs, say: None)


@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend_has_the_members_of_the_protocol(name: str) -> None:
    chosen = backend(name)
    assert chosen.name == name
    for member in ("submit", "watch", "cancel"):
        theirs, ours = inspect.signature(getattr(chosen, member)), inspect.signature(getattr(Backend, member))
        assert list(theirs.parameters) == list(ours.parameters)[1:]


def test_an_unknown_backend_is_named() -> None:
    with pytest.raises(UsageError, match="--cluster = 'moon' is not allowed; allowed: local, debug, slurm"):
        backend("moon")


def test_limits_are_checked_before_anything_is_written(tmp_path: Path) -> None:
    study = load_study("smoke", ["limits.flops=1.0"])
    request = Request(plan(study), tmp_path / "root")
    for name in ("local", "debug"):
        with pytest.raises(UsageError, match=r"limits.flops: 1 \(--over-limit"):
            backend(name).submit(request)
        with pytest.raises(UsageError, match="--jobs = 0"):
            backend(name).submit(replace(request, jobs=0))
    assert not (tmp_path / "root").exists()

"""Several owners of one run: rows and artifacts of one attempt, an old process that lives on, jobs that start anew."""

from __future__ import annotations

import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from results import RunError, Store
from scaling.ranks import Place
from scaling.specification.spec import canonical_json
from sweeps.record import artifacts, dependencies
from sweeps.record.attempts import Attempt, Claim, Heartbeat, attempts_at, claim_attempt
from sweeps.record.outcome import Outcome
from sweeps.worker import heartbeat, rendezvous, worker
from sweeps.worker.worker import Options, work

if TYPE_CHECKING:
    from collections.abc import Callable

    from results import Recorder
    from scaling.specification.workspace import Workspace
    from tests.sweeps.conftest import Sweep


def _claim(root: Path, **options: Any) -> Attempt | None:
    return claim_attempt(root, "abc", "{}", "submission", None, **options)


def test_a_job_that_starts_anew_succeeds_its_own_process_and_is_not_succeeded_by_it(tmp_path: Path) -> None:
    first = _claim(tmp_path, job="17_3", restarts=0)
    assert first is not None and first.alive and not first.overtaken
    assert _claim(tmp_path) is None
    assert _claim(tmp_path, job="17_3", restarts=0) is None
    second = _claim(tmp_path, job="17_3", restarts=1)
    assert second is not None and second.number == 2
    assert first.overtaken and not second.overtaken
    assert _claim(tmp_path, job="17_3", restarts=0) is None
    assert second.claim is not None and (second.claim.job, second.claim.restarts) == ("17_3", 1)


def test_owner_whose_job_is_gone_is_succeeded(tmp_path: Path) -> None:
    assert _claim(tmp_path, job="17_3") is not None
    asked: list[Claim] = []

    def gone(claim: Claim) -> bool:
        asked.append(claim)
        return len(asked) > 1

    assert _claim(tmp_path, job="18", gone=gone) is None
    assert _claim(tmp_path, job="18", gone=gone) is not None
    assert [claim.job for claim in asked] == ["17_3", "17_3"]


def test_claims_of_earlier_versions_are_read() -> None:
    worker_id = {"host": "n1", "boot": "b", "namespace": "n", "pid": 1, "started": "2"}
    claim = Claim.parse(json.dumps({"worker": worker_id, "submission": "s", "submitter": None, "time": 1.0}))
    assert (claim.job, claim.restarts) == (None, 0)
    assert Claim.parse(replace(claim, job="5_1", restarts=3).text()) == replace(claim, job="5_1", restarts=3)


def test_queue_that_does_not_answer_proves_nothing(monkeypatch: pytest.MonkeyPatch, sweep: Sweep) -> None:
    monkeypatch.setenv("PATH", "")
    attempt = _claim(sweep.root, job="17_3")
    assert attempt is not None and attempt.claim is not None
    assert worker.job_is_over(attempt.claim) is False


def _train(text: str, during: Callable[[], object] = lambda: None) -> worker.Execute:
    def execute(spec: object, workspace: Workspace, recorder: Recorder, report: object, stop: object) -> None:
        workspace.artifacts.mkdir()
        (workspace.artifacts / "model.txt").write_text(text)
        recorder.curve(branch="trunk", step=1, images=1, tokens=1, flops=1.0, loss=float(len(text)))
        during()

    return execute


def test_of_two_that_finish_at_once_rows_and_artifacts_are_of_one(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second finishes between the look at the claims and the rows of the first, which then loses."""
    spec = sweep.plan.runs[0].spec
    append = sweep.store.append
    nested: list[Outcome] = []

    def late(self: object, *arguments: Any, **options: Any) -> bool:
        if options["attempt"] == 1 and not nested:
            (attempts_at(sweep.root, spec.run_id)[0].path / "claim").unlink()
            nested.append(work(sweep.root, spec, execute=_train("second")))
        return append(*arguments, **options)

    monkeypatch.setattr(type(sweep.store), "append", late)
    outcome = work(sweep.root, spec, execute=_train("first!"))
    assert (outcome.result, outcome.message) == (
        "done", "another attempt finished it first; the rows of this one are ignored",
    )  # fmt: skip
    assert nested[0].result == "done"
    (row,) = sweep.store.read("curves").to_pylist()
    assert (row["value"], row["attempt"]) == (6.0, 2)
    assert (artifacts.folder(sweep.root, spec.run_id) / "model.txt").read_text() == "second"
    assert [path.name for path in (sweep.root / "artifacts").iterdir()] == [spec.run_id]


def test_the_old_one_that_finds_its_checkpoints_gone_is_overtaken_and_not_out_of_storage(sweep: Sweep) -> None:
    spec = sweep.plan.runs[0].spec
    nested: list[Outcome] = []

    def overtaken_while_it_works(
        run: object, workspace: Workspace, recorder: Recorder, report: object, stop: object
    ) -> None:
        workspace.checkpoints.mkdir()
        (attempts_at(sweep.root, spec.run_id)[0].path / "claim").unlink()
        nested.append(work(sweep.root, spec, execute=_train("second")))
        recorder.save(workspace.checkpoints / "rows.jsonl")

    outcome = work(sweep.root, spec, execute=overtaken_while_it_works)
    assert nested[0].result == "done"
    assert (outcome.result, outcome.cause, outcome.message) == ("taken", None, worker.OVERTAKEN)
    old = attempts_at(sweep.root, spec.run_id)[1]
    assert old.heartbeat is not None and old.heartbeat.cause is None
    assert {row["attempt"] for row in sweep.store.read("runs").to_pylist()} == {2}


def test_death_between_rows_and_artifacts_is_made_good_by_whoever_needs_them(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer, generator = sweep.plan.runs[:2]

    class Killed(BaseException):
        pass

    def killed(*arguments: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(artifacts, "publish", killed)
        with pytest.raises(Killed):
            work(sweep.root, tokenizer.spec, execute=_train("tokens"))
    assert sweep.store.finished() == {tokenizer.run_id}
    folder = artifacts.folder(sweep.root, tokenizer.run_id)
    assert not folder.exists()
    assert dependencies.blocking(sweep.store, generator.spec) is None
    assert (folder / "model.txt").read_text() == "tokens"
    # Nothing left to publish: nothing happens.
    artifacts.publish(sweep.root, tokenizer.run_id)
    assert (folder / "model.txt").read_text() == "tokens"


@pytest.mark.parametrize("compacted", [False, True])
def test_what_is_said_of_weights_that_are_gone_can_be_done(sweep: Sweep, tmp_path: Path, compacted: bool) -> None:
    tokenizer, generator = sweep.plan.runs[:2]
    assert work(sweep.root, tokenizer.spec, execute=_train("tokens")).result == "done"
    folder = artifacts.folder(sweep.root, tokenizer.run_id)
    folder.rename(tmp_path / "elsewhere")
    if compacted:
        sweep.store.compact()
    outcome = work(sweep.root, generator.spec, execute=_train("text"))
    advice = str(outcome.message)
    assert outcome.result == "blocked" and advice.startswith(f"{folder}, the weights of its tokenizer K256-T16-s0, is")
    named = sweep.store.folder / tokenizer.run_id
    assert (str(named) in advice) == named.exists() == (not compacted)
    if compacted:
        assert "under another data root (--root)" in advice
        root = tmp_path / "another"
    else:
        shutil.rmtree(named)
        root = sweep.root
    assert dependencies.blocking(Store(root), generator.spec) == (
        f"its tokenizer K256-T16-s0 ({tokenizer.run_id}) is not done"
    )
    assert work(root, tokenizer.spec, execute=_train("tokens")).message is None
    assert work(root, generator.spec, execute=_train("text")).result == "done"
    # And what was said first: restored, all is well.
    shutil.rmtree(artifacts.folder(sweep.root, tokenizer.run_id), ignore_errors=True)
    (tmp_path / "elsewhere").rename(folder)
    assert dependencies.blocking(sweep.store, generator.spec) is None


def test_many_publish_at_once(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = sweep.plan.runs[0].spec
    with monkeypatch.context() as patch:
        patch.setattr(artifacts, "publish", lambda *arguments: None)
        assert work(sweep.root, spec, execute=_train("new")).result == "done"
    folder = artifacts.folder(sweep.root, spec.run_id)
    folder.mkdir()
    (folder / "model.txt").write_text("old")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: artifacts.publish(sweep.root, spec.run_id), range(16)))
    assert (folder / "model.txt").read_text() == "new"
    assert [path.name for path in (sweep.root / "artifacts").iterdir()] == [spec.run_id]


def test_overtaken_worker_stops_by_itself(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "QUIET_SECONDS", 0.05)
    monkeypatch.setattr(heartbeat, "WRITE_SECONDS", 0.01)
    spec = sweep.plan.runs[0].spec

    def overtaken(spec: Any, workspace: Workspace, recorder: object, report: object, stop: Any) -> None:
        (workspace.attempt / "claim").unlink()
        assert claim_attempt(sweep.root, spec.run_id, canonical_json(spec), "", None) is not None
        deadline = time.monotonic() + 60
        while not stop():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        raise RunError("stopped", cause="interrupted")

    outcome = work(sweep.root, spec, execute=overtaken)
    assert (outcome.result, outcome.attempt) == ("taken", 1)
    assert not sweep.store.finished() and not (sweep.root / "artifacts").exists()


def test_stop_within_a_job_is_a_preemption(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)

    def stopped(spec: object, workspace: Workspace, recorder: object, report: object, stop: Callable[[], bool]) -> None:
        os.kill(os.getpid(), 12)
        assert stop()
        raise RunError("stopped at 3 images; a checkpoint is kept", cause="interrupted")

    outcome = work(sweep.root, sweep.plan.runs[0].spec, Options(job="17_3"), execute=stopped)
    assert (outcome.result, outcome.cause) == ("interrupted", "preempted")
    beat = attempts_at(sweep.root, sweep.plan.runs[0].run_id)[0].heartbeat
    assert beat is not None and (beat.state, beat.cause) == ("interrupted", "preempted")


def test_followers_learn_what_rank_0_came_to(sweep: Sweep) -> None:
    spec = sweep.plan.runs[0].spec
    lead, follow = (Options(job="17", place=Place(rank, 2, key="17-0-0")) for rank in (0, 1))
    with ThreadPoolExecutor(1) as pool:
        told = pool.submit(rendezvous.await_leader, sweep.root, spec.run_id, follow.place)

        def execute(spec: object, workspace: Workspace, *rest: object) -> None:
            assert told.result()["attempt"] == 1
            workspace.artifacts.mkdir()

        assert work(sweep.root, spec, lead, execute=execute).result == "done"
    # The next time there is nothing to do, and the others must not wait for an attempt.
    assert work(sweep.root, spec, lead).message == "was done before"
    assert work(sweep.root, spec, follow).message == "was done before"
    assert [path.name for path in (sweep.root / "attempts" / spec.run_id).iterdir() if path.name.isdigit()] == ["1"]


def test_rank_0_tells_the_cause_of_a_follower(sweep: Sweep) -> None:
    spec = sweep.plan.runs[0].spec

    def broken(spec: object, workspace: Workspace, *rest: object) -> None:
        rendezvous.tell_end(Attempt(workspace.attempt), 1, "out_of_memory", "CUDA out of memory")
        raise RuntimeError("Connection closed by peer")

    outcome = work(sweep.root, spec, Options(place=Place(0, 2, key="k")), execute=broken)
    assert (outcome.result, outcome.cause, outcome.message) == ("failed", "out_of_memory", "rank 1: CUDA out of memory")


def test_heartbeat_of_another_version_is_no_heartbeat(tmp_path: Path) -> None:
    path = tmp_path / "heartbeat.json"
    Heartbeat(memory_limit_bytes=5, memory_kills=1, done_before=0.5, begun=2.0).write(path)
    beat = Heartbeat.read(path)
    assert beat is not None and (beat.memory_limit_bytes, beat.done_before) == (5, 0.5)

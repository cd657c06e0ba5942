"""A worker process with a toy in place of training: same claims, heartbeats, checkpoints, rows; seconds, no torch.

What each run does is told by <root>/toy.json: {"label": {"steps": 5, "seconds": 0.02, "ending": "done", ...}}, with "*"
for all others; with "until" a run waits at its end for the file <root>/<until>. Every execution appends its begin and
end to <root>/toy.log.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from results import Protocol, Recorder, RunError
from scaling.specification.spec import GeneratorRun, TokenizerRun
from scaling.specification.workspace import Progress, Workspace
from sweeps.worker.worker import main


def toy(
    spec: TokenizerRun | GeneratorRun,
    workspace: Workspace,
    recorder: Recorder,
    report: Callable[[Progress], None],
    stop: Callable[[], bool],
) -> None:
    """Steps with rows that depend on the specification alone, a checkpoint after each, resuming from the newest."""
    root = workspace.cache.parent
    plans = json.loads((root / "toy.json").read_text()) if (root / "toy.json").exists() else {}
    plan: dict[str, Any] = {
        "steps": 4,
        "seconds": 0.02,
        "ending": "done",
        **plans.get("*", {}),
        **plans.get(spec.label, {}),
    }
    first = not workspace.earlier
    _note(root, "begin", spec.run_id, workspace.attempt.name)
    if isinstance(spec, GeneratorRun):
        assert workspace.parent is not None
        assert (workspace.parent / "model.txt").read_text() == spec.tokenizer.run_id

    begin = 0
    for folder in (workspace.attempt, *workspace.earlier):
        saved = folder / "checkpoints" / "rows.jsonl"
        if saved.exists():
            recorder.restore(saved)
            begin = len(recorder.rows["curves"])
            break
    workspace.checkpoints.mkdir()
    print(f"beginning at step {begin}", flush=True)
    for step in range(begin, plan["steps"]):
        if stop():
            raise RunError(f"stopped at step {step}", cause="interrupted")
        time.sleep(plan["seconds"])
        loss = _loss(spec.run_id, step)
        recorder.curve(branch="trunk", step=step, images=step, tokens=step, flops=float(step), loss=loss)
        recorder.save(workspace.checkpoints / "rows.jsonl")
        report(Progress("train", (step + 1) / plan["steps"], images_per_second=1 / plan["seconds"]))
        half = plan["steps"] // 2
        if (step == half or (step > half and plan.get("always"))) and (first or not plan.get("once")):
            _end(plan["ending"], workspace, plan.get("bytes", 0))
    while plan.get("until") and not (root / plan["until"]).exists():
        if stop():
            raise RunError("stopped while it waited", cause="interrupted")
        time.sleep(0.05)
    metric = "gfid" if isinstance(spec, GeneratorRun) else "rfid"
    recorder.evaluation(
        branch="trunk", step=plan["steps"], images=1, path_flops=1.0, metric=metric,
        value=_loss(spec.run_id, plan["steps"] - 1), n=10, protocol=Protocol(metric, 10),
    )  # fmt: skip
    workspace.artifacts.mkdir()
    (workspace.artifacts / "model.txt").write_text(spec.run_id)
    _note(root, "end", spec.run_id, workspace.attempt.name)


def _loss(run_id: str, step: int) -> float:
    """What a step measures: a number of its own for every run and step, the same in every attempt."""
    digest = hashlib.sha256(f"{run_id} {step}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _end(ending: str, workspace: Workspace, size: int) -> None:
    if ending == "error":
        raise ValueError("a wheel came off\nand rolled away")
    if ending == "diverged":
        raise RunError("loss is nan at step 2", cause="diverged")
    if ending == "memory":
        raise MemoryError("cannot hold it")
    if ending == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(workspace.checkpoints))
    if ending == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if ending == "hog":
        # Written to, so that it counts; a scheduler looks at it only now and then.
        memory = bytearray(b"1") * size
        time.sleep(30)
        del memory
    if ending == "exit":
        print("the library gave up", flush=True)
        os._exit(3)


def _note(root: Path, what: str, run_id: str, attempt: str) -> None:
    with (root / "toy.log").open("a") as file:
        file.write(f"{time.time():.3f} {what} {run_id} {attempt} {os.getpid()}\n")


if __name__ == "__main__":
    sys.exit(main(execute=toy))

"""A study below a root, submitted to a cluster of the tests: what tests do to it, and what they find out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.backends.status import RunStatus, collect
from sweeps.record.attempts import attempted, attempts_at
from sweeps.worker.process import worker_environment
from tests.sweeps.rooted_study import RootedStudy

from .cluster import Cluster

SUBMITTER = Path(__file__).with_name("toy_submitter.py")


def study_text(
    tokenizers: int, generators: int, *, name: str = "toy", memory_gb: float = 0.5, hours: float = 0.5, **limits: Any
) -> str:
    """A study of so many tokenizers with so many generators each."""
    more = "".join(f"{key} = {value}\n" for key, value in limits.items())
    stages = "".join(
        f"[resources.{stage}]\ncpus_per_task = 1\nmemory_gb = {memory_gb}\nhours = {hours}\n"
        for stage in ("tokenizer", "generator")
    )
    text = f"""
[study]
name = "{name}"
[tokenizer]
train_images = 2048
[seeds]
tokenizer = {list(range(tokenizers))}
"""
    if generators:
        text += f'generator = {list(range(generators))}\n[generator]\nsize = "XS"\nwarmup_images = 1024\n'
        text += "train_images = [2048]\n"
    return text + stages + f"[limits]\nruns = 100000\n{more}"


@dataclass
class Lab(RootedStudy):
    """A study, its root, and the cluster that it is submitted to."""

    cluster: Cluster
    real: bool = False

    def start(self, *options: str) -> subprocess.Popen[str]:
        """A submitter in a process of its own."""
        process = subprocess.Popen(
            [sys.executable, "-P", str(SUBMITTER), str(self.path), str(self.root), *options, *["--real"] * self.real],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=worker_environment(1) | self.cluster.client_environment,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def submit(self, *options: str, seconds: float = 300.0) -> tuple[int, str]:
        """Submit and wait for the submitter's end; its exit code and output."""
        process = self.start(*options)
        output, _ = process.communicate(timeout=seconds)
        return process.returncode, output

    def drained(self, seconds: float = 300.0) -> None:
        """Wait until nothing is in the queue."""
        self.cluster.wait_for(lambda: not self.cluster.queue(), "empty queue", seconds)

    def statuses(self) -> dict[str, RunStatus]:
        """Status by label."""
        return {status.run.label: status for status in collect(self.plan, self.root)}

    def workers(self) -> dict[int, str]:
        """Pids of living workers, with the node that each runs on."""
        claims = (
            (attempt.claim, attempt)
            for run_id in attempted(self.root)
            for attempt in attempts_at(self.root, run_id)[:2]
        )
        pids = {claim.worker.pid for claim, _ in claims if claim is not None and claim.worker.alive()}
        return {pid: variables.get("SLURMD_NODENAME", "") for pid, variables in self.cluster.processes() if pid in pids}

    def wait_until_at_work(self, count: int) -> None:
        """Wait for so many runs that have something to resume from."""
        self.cluster.wait_for(lambda: self.at_work() >= count, f"{count} runs at work", 200)

    def arrays(self) -> list[list[str]]:
        """The runs of every array that SLURM took."""
        return [
            json.loads(path.read_text())["members"]
            for path in self.root.glob("submissions/*/arrays/*/array.json")
            if (path.parent / "job").exists() and not (path.parent / "abandoned").exists()
        ]

    def logs(self) -> str:
        """The logs of all jobs, for a test that failed."""
        logs = sorted(self.root.glob("submissions/*/arrays/*/*.log"))
        return "\n".join(f"--- {path.relative_to(self.root)}\n{path.read_text()}" for path in logs[:40])

    def clean_up(self) -> None:
        """End what this lab started."""
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        left = self.cluster.queue()
        if left:
            self.cluster.run(["scancel", *left])
            self.drained()

"""A study below a root of its own, of toys or of tiny real runs: what tests tell it, and what they find out of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from results import TABLES, Store
from sweeps.backends.base import Request
from sweeps.backends.local import LocalBackend
from sweeps.backends.standing import Observe, SubmissionSummary
from sweeps.planning.plan import Plan, make_plan
from sweeps.record.attempts import attempted, living
from sweeps.study.study import load_study

TOY = (sys.executable, "-P", str(Path(__file__).with_name("toy_worker.py")))
"""The command of a worker with a toy in place of training."""
UNSTABLE = (
    "attempt", "wall_seconds", "peak_memory_bytes", "images_per_second", "model_flops_share", "device_memory_bytes",
    "started_at", "finished_at", "provenance",
)  # fmt: skip
"""Columns that are not measurements: equality is promised for all others."""
GO = "go"
"""What toys wait for if they are told so: they are at work as long as a test needs, on a busy machine too."""
ARTIFACTS = ("model.safetensors", "tokens/tokens.json", "tokens/train-000000000-000005000.safetensors", "model.txt")
NOT_KEYS = ("attempt", "value", "standard_error")
"""What differs between two measurements of one quantity."""


def submit_here(request: Request, observe: Observe = lambda standing: None) -> SubmissionSummary:
    """Submit to this machine and stay until the end."""
    backend = LocalBackend()
    return backend.watch(request, backend.submit(request), observe)


def tiny_study(tokenizer_images: int, generator_images: Sequence[int] = (), more: str = "") -> str:
    """The text of a study of real runs that take seconds: one tokenizer, a generator of each budget, and `more`."""
    text = f"""
[study]
name = "tiny"
[tokenizer]
train_images = {tokenizer_images}
autoencoder = {{ width = 8, channel_multipliers = [1, 1, 1], residual_blocks = [0, 0, 0] }}
quantizer = {{ codebook_size = 64 }}
optimiser = {{ warmup_images = 512 }}
[evaluation]
samples = 128
"""
    if generator_images:
        text += f'[generator]\nsize = "XS"\nwarmup_images = 512\ntrain_images = {list(generator_images)}\n'
    return text + more


@dataclass
class RootedStudy:
    """A study file and the root below which its runs leave everything, with the submitters that a test has started."""

    root: Path
    path: Path
    processes: list[subprocess.Popen[str]] = field(default_factory=list, kw_only=True)

    @property
    def plan(self) -> Plan:
        return make_plan(load_study(str(self.path)))

    @property
    def store(self) -> Store:
        return Store(self.root)

    def behave(self, **labels: dict[str, Any]) -> None:
        """Tell the toys what to do, by label with - and . as _, `all` for the rest."""
        known = {run.label.replace("-", "_").replace(".", "_"): run.label for run in self.plan.runs} | {"all": "*"}
        (self.root / "toy.json").write_text(json.dumps({known[name]: what for name, what in labels.items()}))

    def go(self) -> None:
        """Let the toys end that were told to go on `until` this."""
        (self.root / GO).write_text("")

    def log(self) -> list[tuple[float, str, str, int, int]]:
        """Time, begin or end, run id, attempt, pid of the toys' executions."""
        path = self.root / "toy.log"
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [(float(t), what, run, int(attempt), int(pid)) for t, what, run, attempt, pid in lines]

    def begun(self) -> list[str]:
        """Run ids of all executions of toys, in order."""
        return [run for _, what, run, _, _ in self.log() if what == "begin"]

    def measured(self) -> dict[str, list[dict[str, Any]]]:
        """All rows of the store without what is not a measurement."""
        return {
            table: [{k: v for k, v in row.items() if k not in UNSTABLE} for row in self.store.read(table).to_pylist()]
            for table in TABLES
        }

    def undisturbed(self, root: Path) -> RootedStudy:
        """The same study with the same toys, in a hurry, below another root on this machine, where nothing happens."""
        other = RootedStudy(root, self.path)
        root.mkdir()
        told: dict[str, dict[str, Any]] = json.loads((self.root / "toy.json").read_text())
        hurried = {label: plan | {"seconds": 0.001, "until": None} for label, plan in told.items()}
        (root / "toy.json").write_text(json.dumps(hurried))
        assert submit_here(Request(other.plan, root, jobs=2, worker=TOY)).exit_code == 0
        return other

    def at_work(self) -> int:
        """How many runs are being worked on and have come some way, so that they have something to resume from."""
        beats = [attempt.heartbeat for attempt in living(self.root, attempted(self.root)).values()]
        return sum(beat is not None and beat.done > 0.05 for beat in beats)

    def resumed(self) -> int:
        """How many executions of toys began where an earlier one had stopped."""
        logs = [path.read_text() for path in self.root.glob("attempts/*/*/log.txt")]
        return sum("beginning at step" in log and "beginning at step 0" not in log for log in logs)

    def assert_complete(self) -> None:
        """Every run has its rows, every measurement is there once, and no damaged file was found or read."""
        assert self.store.check().damaged == ()
        assert not (self.store.folder / ".quarantine").exists()
        rows = {table: self.store.read(table).to_pylist() for table in TABLES}
        assert [row["run_id"] for row in rows["runs"]] == sorted(self.plan.by_id)
        for table in ("curves", "evaluations"):
            keys = [json.dumps({k: v for k, v in row.items() if k not in NOT_KEYS}) for row in rows[table]]
            assert len(keys) == len(set(keys)) > 0, table
        for log in self.root.glob("attempts/*/*/log*.txt"):
            assert "damaged" not in log.read_text(errors="replace"), log

    def assert_equals(self, reference: RootedStudy) -> None:
        """Every run is there once, and every measurement and all artifacts are those of `reference`, bit for bit."""
        expected, found = reference.measured(), self.measured()
        assert [row["run_id"] for row in found["runs"]] == sorted(reference.plan.by_id)
        for table, rows in expected.items():
            assert len(rows) > 0
            assert found[table] == rows, table
        made = [path for name in ARTIFACTS for path in reference.root.glob(f"artifacts/*/{name}")]
        assert made
        for path in made:
            assert (self.root / path.relative_to(reference.root)).read_bytes() == path.read_bytes(), path

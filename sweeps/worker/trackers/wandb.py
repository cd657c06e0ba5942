"""Weights & Biases (extra `wandb`): a run there for each of ours, with its id; offline where the study says so."""

from __future__ import annotations

import json
import os
from pathlib import Path

from results.store import atomic
from scaling.specification.spec import canonical_json
from sweeps.study.external_run import AnyRun
from sweeps.study.sections import Trackers

from .tracker import Point


class WeightsAndBiases:
    """Values as `BRANCH/NAME` over `step`, the specification as its config. What is written offline lies in
    ROOT/tracking/wandb; `wandb sync` sends it later, several attempts at a run as one."""

    def __init__(self, folder: Path, run: AnyRun, settings: Trackers) -> None:
        import wandb

        self._image = wandb.Image
        self._run = wandb.init(
            project=settings.project, id=run.run_id, name=run.label, job_type=run.stage, resume="allow",
            dir=str(atomic.make_folder(folder)), config=json.loads(canonical_json(run)),
            mode="offline" if settings.wandb == "offline" or os.environ.get("WANDB_MODE") == "offline" else "online",
            # The log is the attempt's, and the code has a snapshot.
            settings=wandb.Settings(console="off", disable_git=True, save_code=False, quiet=True),
        )  # fmt: skip
        self._run.define_metric("*", step_metric="step")

    def point(self, point: Point) -> None:
        """See Tracker."""
        self._run.log({"step": point.step} | {f"{point.branch}/{name}": value for name, value in point.values.items()})

    def picture(self, branch: str, step: int, path: Path) -> None:
        """See Tracker."""
        self._run.log({"step": step, f"{branch}/pictures": self._image(str(path))})

    def close(self, result: str) -> None:
        """See Tracker."""
        self._run.summary["status"] = result
        self._run.finish(exit_code=int(result == "failed"))

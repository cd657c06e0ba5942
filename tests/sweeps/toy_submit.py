"""A submitter process for tests: toy_submit.py STUDY ROOT JOBS [real]; toy training unless `real`."""

from __future__ import annotations

import sys
from pathlib import Path

from sweeps.backends.base import Request
from sweeps.backends.local import LocalBackend
from sweeps.backends.progress import PlainView
from sweeps.backends.submission import prepare_training
from sweeps.planning.plan import make_plan
from sweeps.study.study import load_study

TOY = (sys.executable, "-P", str(Path(__file__).with_name("toy_worker.py")))

if __name__ == "__main__":
    study, root, jobs, *real = sys.argv[1:]
    view = PlainView(sys.stdout)
    backend = LocalBackend()
    request = Request(
        make_plan(load_study(study)), Path(root), jobs=int(jobs), say=view.say,
        **({"prepare": prepare_training} if real else {"worker": TOY}),
    )  # fmt: skip
    summary = backend.watch(request, backend.submit(request), view)
    print({run_id: outcome.result for run_id, outcome in summary.outcomes.items()}, flush=True)
    sys.exit(summary.exit_code)

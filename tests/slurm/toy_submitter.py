"""A submitter process with toy training.

    toy_submitter.py STUDY ROOT [--wait] [--retry] [--die before|after] [--broken] [--real]

--die kills it with SIGKILL in the middle of its first array: between ledger and sbatch, or after sbatch and before the
job's id is written down. --broken has a worker that cannot be started.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from results import TokenlawError
from sweeps.backends.slurm import backend, waiting
from sweeps.cli.submitting import carry_out
from sweeps.planning.plan import make_plan
from sweeps.study.study import load_study

TOY = (sys.executable, "-P", str(Path(__file__).parent.parent / "sweeps" / "toy_worker.py"))
waiting.LOOK_SECONDS = 0.5
waiting.AGAIN_SECONDS = 5.0


def _die(when: str) -> None:
    sbatch = backend._Submitter._sbatch

    def deadly(self: Any, *arguments: Any) -> str:
        if when == "after":
            sbatch(self, *arguments)
        os.kill(os.getpid(), signal.SIGKILL)
        return ""

    backend._Submitter._sbatch = deadly  # type: ignore[method-assign]


if __name__ == "__main__":
    study, root, *options = sys.argv[1:]
    if "--die" in options:
        _die(options[options.index("--die") + 1])
    try:
        code = carry_out(
            make_plan(load_study(study)),
            Path(root),
            "slurm",
            wait="--wait" in options,
            retry="--retry" in options,
            worker=() if "--real" in options else ("no-such-program",) if "--broken" in options else TOY,
        )
    except TokenlawError as error:
        # As the command line does.
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    sys.exit(code)

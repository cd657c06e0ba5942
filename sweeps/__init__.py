"""Which runs happen and where: studies, plans, submission to a backend, status, and the command line.

    from sweeps import load_study, plan, status, submit

    made = plan(load_study("smoke"))
    submit(made, "runs", jobs=2)
    [run.status for run in status(made, "runs")]

Names are imported when they are first used, so that a plan needs neither torch nor pandas.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeps.backends.api import cancel as cancel
    from sweeps.backends.api import status as status
    from sweeps.backends.api import submit as submit
    from sweeps.backends.base import Backend as Backend
    from sweeps.planning.plan import Plan as Plan
    from sweeps.planning.plan import make_plan as plan
    from sweeps.study.study import Study as Study
    from sweeps.study.study import load_study as load_study
    from sweeps.study.study import parse_study as parse_study

_HOMES = {
    "load_study": "study.study:load_study",
    "parse_study": "study.study:parse_study",
    "Study": "study.study:Study",
    "plan": "planning.plan:make_plan",
    "Plan": "planning.plan:Plan",
    "submit": "backends.api:submit",
    "status": "backends.api:status",
    "cancel": "backends.api:cancel",
    "Backend": "backends.base:Backend",
}
__all__ = ["Backend", "Plan", "Study", "cancel", "load_study", "parse_study", "plan", "status", "submit"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sweeps' has no attribute {name!r}; it has: {', '.join(__all__)}")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(import_module(f"sweeps.{module}"), attribute)

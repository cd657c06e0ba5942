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
    from sweeps.backends.api import cancel, status, submit
    from sweeps.backends.base import Backend
    from sweeps.planning.plan import Plan
    from sweeps.planning.plan import make_plan as plan
    from sweeps.study.study import Study, load_study, parse_study

_MODULES = {
    **dict.fromkeys(("Study", "load_study", "parse_study"), "study.study"),
    **dict.fromkeys(("Plan", "plan"), "planning.plan"),
    **dict.fromkeys(("cancel", "status", "submit"), "backends.api"),
    "Backend": "backends.base",
}
__all__ = ["Backend", "Plan", "Study", "cancel", "load_study", "parse_study", "plan", "status", "submit"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'sweeps' has no attribute {name!r}; it has: {', '.join(__all__)}")
    return getattr(import_module(f"sweeps.{_MODULES[name]}"), "make_plan" if name == "plan" else name)

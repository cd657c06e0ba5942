"""Writes docs/api.md: what the four packages give to others, from their docstrings. Needs torch and pdoc.

python docs/api.py
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pdoc.doc

PACKAGES = ("results", "analysis", "scaling", "sweeps")
PAGE = Path(__file__).with_name("api.md")
HEAD = """# From Python

What the packages give to others, as `from analysis import ...`. Everything else may move between versions. Written by
`python docs/api.py` from the docstrings; a test holds it to them.
"""


def render() -> str:
    """The page."""
    return "\n".join([HEAD, *(line for name in PACKAGES for line in _package(name))])


def _package(name: str) -> Iterator[str]:
    package = importlib.import_module(name)
    # Names that are imported on use are put in their place for a while: pdoc reads what is there.
    added = {public: getattr(package, public) for public in package.__all__ if public not in vars(package)}
    vars(package).update(added)
    module = pdoc.doc.Module(package)
    yield f"## {name}\n"
    yield f"{_first(module.docstring)}\n"
    for public in package.__all__:
        yield from _member(public, module.members[public])
    for public in added:
        delattr(package, public)


def _member(name: str, member: pdoc.doc.Doc[Any]) -> Iterator[str]:
    if isinstance(member, pdoc.doc.Variable):
        yield f"### {name}\n\n{_first(member.docstring) or f'A constant: {type(member.default_value).__name__}.'}\n"
        return
    yield f"### {name}\n"
    if isinstance(member, pdoc.doc.Function):
        yield f"`{_title(member)}`\n"
    yield f"{_first(member.docstring)}\n"
    if rest := member.docstring.strip().partition("\n\n")[2].strip("\n"):
        yield f"```text\n{rest}\n```\n"
    if isinstance(member, pdoc.doc.Class):
        own = [m for m in member.own_members if m.name in vars(member.obj) and not m.name.startswith("_")]
        if described := [f"- `{_title(m)}`: {_first(m.docstring)}" for m in own if m.docstring]:
            yield "\n".join(described) + "\n"


def _title(member: pdoc.doc.Doc[Any]) -> str:
    return f"{member.name}{_parameters(member)}" if isinstance(member, pdoc.doc.Function) else member.name


def _parameters(function: pdoc.doc.Function) -> str:
    shown = [str(p.replace(annotation=inspect.Parameter.empty)) for p in function.signature.parameters.values()]
    listed = ", ".join(text for text in shown if text not in ("self", "cls"))
    # A function as a default shows where it lies in memory.
    return f"({re.sub('<function .*? at 0x[0-9a-f]+>', '...', listed)})"


def _first(text: str) -> str:
    """The first paragraph."""
    return " ".join(text.strip().partition("\n\n")[0].split())


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")

"""Where the command `tokenlaw` begins: before any other package of ours is imported, that Python finds it.

Our four names are generic. Where another package goes by one of them and comes first on the path, an import would fail
somewhere deep, or worse, succeed.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

NAMES = ("results", "analysis", "scaling", "sweeps")


def main() -> None:
    """The entry point of the command; exit code 2 if one of our packages is shadowed."""
    clash = shadowed()
    if clash is not None:
        print(f"error: {clash}", file=sys.stderr)
        raise SystemExit(2)
    from .app import main as command

    command()


def shadowed() -> str | None:
    """What Python would import in place of one of our packages, and what to do about it; None if nothing."""
    home = Path(__file__).resolve().parents[2]
    for name in NAMES:
        spec = importlib.util.find_spec(name)
        places = [*(spec.submodule_search_locations or []), spec.origin] if spec is not None else []
        origin = next((Path(place).resolve() for place in places if place), None)
        if origin != home / name:
            where = "nothing" if origin is None else f"{origin}, which is not tokenlaw's"
            return (
                f"import {name} finds {where}; allowed: tokenlaw's own in {home} (take the other off PYTHONPATH, or "
                "install tokenlaw into an environment of its own)"
            )
    return None

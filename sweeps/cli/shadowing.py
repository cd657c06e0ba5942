"""Whether Python finds our four packages by their names, which are generic, or another package that comes first."""

from __future__ import annotations

import importlib.util
from pathlib import Path

NAMES = ("results", "analysis", "scaling", "sweeps")


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

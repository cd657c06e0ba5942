"""Where the command `tokenlaw` begins: before any other package of ours is imported, that Python finds it.

Where another package goes by one of our names and comes first on the path, an import would fail somewhere deep, or
worse, succeed.
"""

from __future__ import annotations

import sys

from .shadowing import shadowed


def main() -> None:
    """The entry point of the command; exit code 2 if one of our packages is shadowed."""
    clash = shadowed()
    if clash is not None:
        print(f"error: {clash}", file=sys.stderr)
        raise SystemExit(2)
    from .app import main as command

    command()

"""Where a run came from: code version, package versions, machine. No secrets: no environment, user, remote or path."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("tokenlaw", "torch", "numpy", "pyarrow", "pydantic", "safetensors")
_CODE = ("results", "analysis", "scaling", "sweeps")


@cache
def provenance() -> dict[str, Any]:
    """Facts about this process's code and machine, as they are the first time this is called.

    git             commit of the checkout that the code runs from; None when installed without one
    diff            SHA-256 of what differs from that commit in the four packages; None when nothing does
    code            SHA-256 over all Python files of the four packages: equal code, equal hash
    python, packages   versions; a package that is not installed is None
    cpu, cores, machine, system, host
    """
    root = Path(__file__).resolve().parent.parent
    commit, diff = _git(root)
    return {
        "git": commit,
        "diff": diff,
        "code": _code_hash(root),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "host": platform.node(),
    }


def provenance_json() -> str:
    """`provenance` as canonical JSON, for the column of that name in `runs`."""
    return json.dumps(provenance(), sort_keys=True, separators=(",", ":"))


def cpu_model() -> str:
    """The CPU's name; equality of measurements is promised on one type of CPU."""
    model = re.search(rb"^model name\s*:(.*)$", content_of(Path("/proc/cpuinfo")), re.MULTILINE)
    if model:
        return model[1].decode().strip()
    if platform.system() == "Darwin":
        name = output(["sysctl", "-n", "machdep.cpu.brand_string"], Path("/"))
        if name:
            return name.decode().strip()
    return platform.processor() or platform.machine()


def _git(package: Path) -> tuple[str | None, str | None]:
    """Commit and hash of the differences, if the code is tracked by a git checkout (and does not merely lie in one).

    A frozen copy of the code (`snapshot.json` beside the packages) says which commit it was taken from.
    """
    try:
        frozen = json.loads((package / "snapshot.json").read_text())
        return frozen["git"], frozen["diff"]
    except (OSError, ValueError, LookupError):
        pass
    if output(["git", "ls-files", "--error-unmatch", "results/provenance.py"], package) is None:
        return None, None
    commit = output(["git", "rev-parse", "HEAD"], package)
    changed = output(["git", "diff", "HEAD", "--binary", "--no-color", "--no-ext-diff", "--", *_CODE], package)
    untracked = output(["git", "ls-files", "-z", "--others", "--exclude-standard", "--", *_CODE], package)
    if commit is None or changed is None or untracked is None:
        return None, None
    names = sorted(name for name in untracked.decode().split("\0") if name)
    digest = _hash_of(package, names, changed)
    return commit.decode().strip(), digest if changed or names else None


def _code_hash(package: Path) -> str:
    paths = [path for name in _CODE for path in sorted((package / name).rglob("*.py"))]
    return _hash_of(package, [path.relative_to(package).as_posix() for path in paths])


def _hash_of(package: Path, names: Iterable[str], start: bytes = b"") -> str:
    digest = hashlib.sha256(start)
    for name in names:
        digest.update(f"\0{name}\0".encode() + content_of(package / name))
    return digest.hexdigest()


def content_of(path: Path) -> bytes:
    """What a file holds; empty if it went away since it was listed."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def output(command: list[str], folder: Path) -> bytes | None:
    """Standard output of a command, such as git's; None if it is not installed, fails or takes long."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None

"""What can be wrong with a machine before anything runs on it."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Literal

from results import TokenlawError
from results.provenance import cpu_model
from results.store import atomic
from sweeps.record.ledger import check_writable
from sweeps.text import size

from .finding import Finding
from .options import default_jobs

OWN_NAMES = ("results", "analysis", "scaling", "sweeps")
TRAINING = ("torch", "safetensors")
BASE = ("numpy", "scipy", "pandas", "pyarrow", "pydantic", "typer", "rich", "matplotlib", "seaborn")
LITTLE_DISK = 5e9
"""Bytes free below which a demo may not fit beside its checkpoints."""


def examine(root: Path) -> list[Finding]:
    """Everything there is to say about this machine, this root and the cluster."""
    from .doctor_cluster import examine_cluster

    own = Path(__file__).resolve().parents[2]
    return [*_python(), *_names(), *_root(root), _data(), *examine_cluster(root, own)]


def _python() -> Iterator[Finding]:
    good = sys.version_info >= (3, 11)
    yield Finding("ok" if good else "problem", "Python", f"{platform.python_version()} (3.11 or newer is needed)")
    yield Finding("ok", "machine", f"{cpu_model()}, {default_jobs()} cores, {platform.system()} {platform.release()}")
    missing = [name for name in BASE if importlib.util.find_spec(name) is None]
    versions = ", ".join(f"{name} {_version(name)}" for name in BASE if name not in missing)
    yield Finding("problem" if missing else "ok", "packages", f"missing: {', '.join(missing)}" if missing else versions)
    absent = [name for name in TRAINING if importlib.util.find_spec(name) is None]
    found = ", ".join(f"{name} {_version(name)}" for name in TRAINING if name not in absent)
    advice = f"missing: {', '.join(absent)}; plans, fits and reports work, to train pip install '.[train]' in the clone"
    yield Finding("warning" if absent else "ok", "training", advice if absent else found)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "of unknown version"


def _names() -> Iterator[Finding]:
    """The four import names are generic: another package, or a folder here, may go by one of them."""
    own = Path(__file__).resolve().parents[2]
    providers = metadata.packages_distributions()
    clashes = []
    for name in OWN_NAMES:
        others = sorted(set(providers.get(name, [])) - {"tokenlaw"})
        if others:
            clashes.append(f"{name} is also installed by {', '.join(others)}")
        spec = importlib.util.find_spec(name)
        origin = Path(spec.origin).resolve() if spec and spec.origin else None
        if origin is None or origin.parent.parent != own:
            clashes.append(f"import {name} finds {origin}, not tokenlaw's")
        here = Path.cwd()
        if here != own and ((here / name / "__init__.py").exists() or (here / f"{name}.py").exists()):
            clashes.append(f"python started in {here} finds {name} there first; start it elsewhere, or with -P")
    yield Finding(
        "problem" if clashes else "ok", "import names", "; ".join(clashes) or f"{', '.join(OWN_NAMES)} are ours"
    )


def _root(root: Path) -> Iterator[Finding]:
    try:
        check_writable(root)
        yield Finding("ok", "data root", f"{root.absolute()} can be written")
        yield _exclusive(root)
    except TokenlawError as error:
        yield Finding("problem", "data root", str(error))
        return
    free = shutil.disk_usage(root).free
    verdict: Literal["ok", "warning"] = "ok" if free > LITTLE_DISK else "warning"
    yield Finding(verdict, "disk", f"{size(free)} free at {root.absolute()}")


def _exclusive(root: Path) -> Finding:
    """Renaming a folder onto one that is not empty must fail: what makes a run finish only once."""
    one, other = root / f".probe-{os.getpid()}-a", root / f".probe-{os.getpid()}-b"
    with atomic.storage(root):
        try:
            for folder in (one, other):
                folder.mkdir()
                (folder / "file").write_text("")
            try:
                one.rename(other)
            except OSError:
                return Finding("ok", "file system", "renames of folders are exclusive")
            return Finding(
                "problem", "file system", f"{root} lets a folder be renamed onto another; choose another root"
            )
        finally:
            for folder in (one, other):
                shutil.rmtree(folder, ignore_errors=True)


def _data() -> Finding:
    from scaling.data.sources import locate
    from scaling.specification.catalogue import DATASETS

    found = []
    for name in DATASETS:
        try:
            folders = {str(path.parent) for path in locate(name, lambda line: None).values()}
        except TokenlawError as error:
            return Finding("problem", "data", str(error))
        found.append(f"{name} in {', '.join(sorted(folders))}")
    return Finding("ok", "data", "; ".join(found))

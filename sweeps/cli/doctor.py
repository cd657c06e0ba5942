"""What can be wrong with a machine before anything runs on it."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from results import TokenlawError
from results.provenance import cpu_model
from results.store import atomic
from sweeps.record.ledger import check_writable
from sweeps.text import size
from sweeps.worker.process import cores

from .finding import Finding, Verdict
from .shadowing import NAMES, shadowed

TRAINING = ("torch", "safetensors")
BASE = ("numpy", "scipy", "pandas", "pyarrow", "pydantic", "typer", "rich", "matplotlib", "seaborn")
LITTLE_DISK = 5e9
"""Bytes free below which a demo may not fit beside its checkpoints."""


def examine(root: Path) -> list[Finding]:
    """Everything there is to say about this machine, this root and the cluster."""
    from .doctor_cluster import examine_cluster

    return [*_python(), *_names(), *_root(root), _data(), *examine_cluster(root, Path(__file__).resolve().parents[2])]


def _python() -> Iterator[Finding]:
    good = sys.version_info >= (3, 11)
    yield Finding("ok" if good else "problem", "Python", f"{platform.python_version()} (3.11 or newer is needed)")
    yield Finding("ok", "machine", f"{cpu_model()}, {cores()} cores, {platform.system()} {platform.release()}")
    yield _packages("packages", BASE, "problem", "")
    advice = "; plans, fits and reports work, to train pip install '.[train]' in the clone"
    yield _packages("training", TRAINING, "warning", advice)


def _packages(subject: str, names: Sequence[str], verdict: Verdict, advice: str) -> Finding:
    """Versions of packages, or which are missing."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        return Finding(verdict, subject, f"missing: {', '.join(missing)}{advice}")
    return Finding("ok", subject, ", ".join(f"{name} {_version(name)}" for name in names))


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "of unknown version"


def _names() -> Iterator[Finding]:
    """The four import names are generic: another package, or a folder here, may go by one of them."""
    providers, folder = metadata.packages_distributions(), Path.cwd()
    clashes = [clash] if (clash := shadowed()) else []
    for name in NAMES:
        if others := sorted(set(providers.get(name, [])) - {"tokenlaw"}):
            clashes.append(f"{name} is also installed by {', '.join(others)}")
        there = (folder / name / "__init__.py").exists() or (folder / f"{name}.py").exists()
        if there and folder != Path(__file__).resolve().parents[2]:
            clashes.append(f"python started in {folder} finds {name} there first; start it elsewhere, or with -P")
    yield Finding("problem" if clashes else "ok", "import names", "; ".join(clashes) or f"{', '.join(NAMES)} are ours")


def _root(root: Path) -> Iterator[Finding]:
    try:
        check_writable(root)
        yield Finding("ok", "data root", f"{root.absolute()} can be written")
        yield _exclusive(root)
    except TokenlawError as error:
        yield Finding("problem", "data root", str(error))
        return
    free = shutil.disk_usage(root).free
    yield Finding("ok" if free > LITTLE_DISK else "warning", "disk", f"{size(free)} free at {root.absolute()}")


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
            detail = f"{root} lets a folder be renamed onto another; choose another root"
            return Finding("problem", "file system", detail)
        finally:
            for folder in (one, other):
                shutil.rmtree(folder, ignore_errors=True)


def _data() -> Finding:
    from scaling.data.sources import locate
    from scaling.specification.catalogue import DATASETS

    places = []
    for name in DATASETS:
        try:
            folders = {str(path.parent) for path in locate(name, lambda line: None).values()}
        except TokenlawError as error:
            return Finding("problem", "data", str(error))
        places.append(f"{name} in {', '.join(sorted(folders))}")
    return Finding("ok", "data", "; ".join(places))

"""Finds the photographs that `stamps` are composed of: own folder, cache, system, Debian packages, in this order."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from results.errors import DataError
from scaling.specification.stamps import CLASSES, CONTENT, DRAWN, NAME, NATURE, PACKAGES, STAMPS

from .catalogue_files import VARIABLE, locked
from .debian import call, download_package, lacking_tools

Report = Callable[[str], None]
"""Takes one line on progress."""


def stamp_files(root: Path, label: str) -> list[Path]:
    """The photographs of a class below `root`, by their names."""
    folders = [root / STAMPS / folder for folder in CLASSES[label]]
    paths = sorted(path for folder in folders for path in folder.rglob("*.png"))
    return [path for path in paths if not {*DRAWN} & {*path.relative_to(root).parts}]


def nature_files(root: Path) -> list[Path]:
    """The photographs of nature below `root`, by their names."""
    return sorted((root / NATURE).glob("*.jpg"))


def content(root: Path) -> str:
    """SHA-256 over name and content of every file that is used. Raises DataError for one that cannot be read."""
    digest = hashlib.sha256()
    for path in sorted([*(p for label in CLASSES for p in stamp_files(root, label)), *nature_files(root)]):
        try:
            file = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror})") from error
        digest.update(f"{path.relative_to(root)}\0{file}\n".encode())
    return digest.hexdigest()


def find(cache: Path, report: Report) -> Path:
    """The folder below which STAMPS and NATURE lie, with the content that runs pin; fetched if necessary.

    Raises DataError that lists what was tried, why it failed, and what to do.
    """
    failures: list[str] = []
    own = os.environ.get(VARIABLE)
    kept = cache / NAME / "photographs"
    places = [(f"${VARIABLE}", Path(own).expanduser() / NAME)] if own else []
    for name, root in (*places, ("cache", kept), ("system", Path("/usr/share"))):
        if (reason := _unfit(root)) is None:
            return root
        failures.append(f"{name}: {reason}")
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with locked(kept.parent / ".lock", report):
            # Another process may have fetched them while this one waited.
            if _unfit(kept) is None:
                return kept
            _fetch(kept, report)
        if (reason := _unfit(kept)) is None:
            return kept
        failures.append(f"Debian packages: {reason}")
    except (DataError, OSError) as error:
        failures.append(f"Debian packages: {error}")
    raise DataError(
        f"{NAME}: the photographs they are composed of were not found. Tried: {'; '.join(failures)}. To supply them, "
        f"unpack Debian's {PACKAGES[0]} (2022.06.04) and {PACKAGES[1]} (1.26), put {STAMPS} and {NATURE} of their "
        f"usr/share into a folder {NAME}, and set {VARIABLE} to the folder above it"
    )


def _unfit(root: Path) -> str | None:
    """Why a folder cannot be used; None if it can."""
    absent = [name for name in (STAMPS, NATURE) if not (root / name).is_dir()]
    if absent:
        return f"{root} has no {' and no '.join(absent)}"
    try:
        found = content(root)
    except DataError as error:
        return str(error)
    return None if found == CONTENT else f"{root} holds another version, or is damaged (SHA-256 {found[:12]}...)"


def _fetch(kept: Path, report: Report) -> None:
    """Both packages' folders and copyright files, put in place by one rename. Raises DataError or OSError."""
    if absent := lacking_tools():
        raise DataError(f"{absent} not found")
    with tempfile.TemporaryDirectory(dir=kept.parent, prefix="packages-") as temporary:
        folder, unpacked = Path(temporary), Path(temporary) / "unpacked"
        for package in PACKAGES:
            report(f"{package}: downloading the Debian package with apt-get")
            (folder / package).mkdir()
            archive = download_package(package, folder / package)
            call(["dpkg-deb", "-x", str(archive), str(unpacked)], folder)
        share, chosen = unpacked / "usr/share", folder / "chosen"
        for name in (STAMPS, NATURE, *(f"doc/{package}" for package in PACKAGES)):
            if (share / name).is_dir():
                (chosen / name).parent.mkdir(parents=True, exist_ok=True)
                (share / name).rename(chosen / name)
        if kept.exists():
            shutil.rmtree(kept)
        chosen.rename(kept)

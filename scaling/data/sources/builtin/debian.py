"""Debian packages fetched and unpacked without root: nothing is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from results.errors import DataError

TIMEOUT = 5
"""Seconds to connect, and of silence before a connection counts as cut."""


def lacking_tools() -> str:
    """Names of the programs that are needed and absent; "" where there are all."""
    return " and ".join(tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None)


def download_package(package: str, folder: Path) -> Path:
    """The .deb in `folder`; with package lists of its own if the system's are absent or old. Raises DataError."""
    options = ["-o", f"Acquire::http::Timeout={TIMEOUT}", "-o", "Acquire::Retries=1"]
    try:
        call(["apt-get", *options, "download", package], folder)
    except DataError as first:
        for name in ("lists", "archives"):
            (folder / name / "partial").mkdir(parents=True)
        options += ["-o", f"Dir::State::Lists={folder / 'lists'}", "-o", f"Dir::Cache={folder}"]
        options += ["-o", "APT::Sandbox::User="]
        try:
            call(["apt-get", *options, "update"], folder)
            call(["apt-get", *options, "download", package], folder)
        except DataError as second:
            raise DataError(f"{first}; with fresh package lists: {second}") from second
    archives_found = sorted(folder.glob("*.deb"))
    if not archives_found:
        raise DataError("apt-get left no archive")
    return archives_found[0]


def call(command: list[str], folder: Path) -> None:
    """Runs a command in `folder`. Raises DataError with the last line that it printed."""
    try:
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, "LC_ALL": "C"}, capture_output=True, text=True, timeout=600
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DataError(f"{command[0]}: {error}") from error
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.startswith("E:")] or ["no message"]
        raise DataError(f"{command[0]} ended with {done.returncode} ({lines[-1].strip()})")

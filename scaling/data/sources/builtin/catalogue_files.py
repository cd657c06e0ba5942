"""Finds the files of a data set, or fetches them: own folder, cache, system, download, Debian package, in this order.

Whatever a file comes from, it is used only if the SHA-256 of its decompressed content is the catalogue's. A file that
fails is named and the next source is asked. What is fetched goes to the cache, by rename, under a lock, so that any
number of processes may start at once. Not by pooch: its downloaders begin anew after a cut connection.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import http.client
import logging
import os
import socket
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from results.errors import DataError
from scaling.specification.catalogue import DATASETS, Dataset

from .debian import call, download_package, lacking_tools

VARIABLE = "TOKENLAW_DATA"
"""Environment variable that names a folder with the files (or with a folder named as the data set)."""

Report = Callable[[str], None]
"""Takes one line on the progress of a download."""

_log = logging.getLogger(__name__)


def cache_folder(dataset: Dataset) -> Path:
    """Where fetched files are kept: $XDG_CACHE_HOME/tokenlaw/NAME, or ~/.cache/tokenlaw/NAME.

    Raises DataError if neither is known.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says that a relative path is to be ignored.
    if Path(base).is_absolute():
        return Path(base) / "tokenlaw" / dataset.name
    try:
        return Path.home() / ".cache" / "tokenlaw" / dataset.name
    except RuntimeError as error:
        raise DataError("this user has no home folder; set XDG_CACHE_HOME") from error


def locate(name: str, report: Report = _log.info) -> dict[str, Path]:
    """Verified path of every file of a data set, fetched if necessary; files may be gzipped.

    Raises DataError if the name is unknown, or if no source has a good copy: it lists what was tried and why it failed.
    """
    if name not in DATASETS:
        raise DataError(f"data set {name!r} is unknown; allowed: {', '.join(sorted(DATASETS))}")
    return {name: path for name, (path, _) in _find(DATASETS[name], DATASETS[name].files, report).items()}


def read_files(dataset: Dataset, names: Iterable[str], report: Report = _log.info) -> dict[str, bytes]:
    """Decompressed, verified content of files of `dataset`; finds and raises as `locate`."""
    return {name: content for name, (_, content) in _find(dataset, names, report).items()}


@dataclass
class _Search:
    """What is still missing, what was found, and why each source tried so far was not enough."""

    dataset: Dataset
    missing: list[str]
    files: dict[str, tuple[Path, bytes]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def fail(self, source: str, reason: str) -> None:
        self.failures.append(f"{source}: {reason}")

    def take(self, name: str, path: Path, final: Path | None = None) -> None:
        """Takes a file, and moves one that was fetched to `final` in the cache. Raises DataError if it is damaged."""
        content = _read_verified(path, self.dataset.files[name])
        if final is not None:
            path.replace(final)
            # A copy under the other name is damaged, and would be looked at first each time.
            final.with_name(name if final.suffix == ".gz" else f"{name}.gz").unlink(missing_ok=True)
        self.files[name] = final or path, content
        self.missing.remove(name)

    def look_in(self, folder: Path, source: str) -> None:
        """Takes every missing file that lies in `folder` undamaged."""
        if not folder.is_dir():
            self.fail(source, f"{folder} is not a folder" if folder.exists() else f"{folder} does not exist")
            return
        absent = []
        for name in list(self.missing):
            candidates = [path for path in (folder / name, folder / f"{name}.gz") if path.exists()]
            if not candidates:
                absent.append(name)
            for path in candidates:
                try:
                    self.take(name, path)
                    break
                except DataError as error:
                    _log.warning("%s; it is not used", error)
                    self.fail(source, str(error))
        if absent:
            self.fail(source, f"{folder} has no {', '.join(absent)} (as it is or .gz)")


def _find(dataset: Dataset, names: Iterable[str], report: Report) -> dict[str, tuple[Path, bytes]]:
    search = _Search(dataset, list(names))
    named = os.environ.get(VARIABLE)
    if named:
        folder = Path(named).expanduser()
        search.look_in(folder / dataset.name if (folder / dataset.name).is_dir() else folder, f"${VARIABLE}")
    else:
        search.fail(f"${VARIABLE}", "not set")
    cache: Path | None = None
    try:
        cache = cache_folder(dataset)
        if search.missing:
            search.look_in(cache, "cache")
    except DataError as error:
        search.fail("cache", str(error))
    if search.missing and dataset.system_folder:
        search.look_in(Path(dataset.system_folder), "system")
    if search.missing and cache is not None and (dataset.mirrors or dataset.debian_package):
        _fetch_into(cache, search, report)
    if search.missing:
        archives = ", ".join(f"{name}.gz" for name in dataset.files)
        raise DataError(
            f"{dataset.name}: no good copy of {', '.join(search.missing)} was found. Tried: "
            f"{'; '.join(search.failures)}. To supply the files, put {archives} (from {dataset.homepage}) into a "
            f"folder and set {VARIABLE} to its path"
        )
    return search.files


def _read_verified(path: Path, expected: str) -> bytes:
    """Decompressed content of a raw or gzipped file. Raises DataError, naming the file, if it is damaged."""
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error})") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != expected:
        raise DataError(f"{path} is damaged (SHA-256 of its content {digest[:12]}..., expected {expected[:12]}...)")
    return content


def _fetch_into(cache: Path, search: _Search, report: Report) -> None:
    """Downloads what is missing into the cache, or unpacks the Debian package there; one process at a time."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with locked(cache / ".lock", report) as resumable:
            # Another process may have fetched the files while this one waited.
            waited = _Search(search.dataset, search.missing, search.files)
            waited.look_in(cache, "cache")
            for mirror in search.dataset.mirrors:
                _download_missing(mirror, cache, search, report, resumable)
            if search.missing and search.dataset.debian_package:
                _unpack_package(search.dataset.debian_package, cache, search, report)
    except OSError as error:
        search.fail(f"writing to the cache {cache}", f"{error}")


@contextlib.contextmanager
def locked(path: Path, report: Report) -> Iterator[bool]:
    """Holds an exclusive lock that the system frees when the process ends; yields False where locks do not exist."""
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(f"waiting for another process that fetches the same files ({path})")
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:  # some network file systems: partial files then get private names
            yield False
            return
        yield True


def fetch(url: str, target: Path, sha256: str, report: Report = _log.info) -> Path:
    """A file of the cache, downloaded with resume if it is absent; its content has that SHA-256.

    Raises DataError that names the address, the reason and where to put the file by hand.
    """
    hint = f"put it at {target} by hand, or name a file"
    if target.exists():
        _read_verified(target, sha256)
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.with_name(f"{target.name}.lock"), report) as resumable:
            if not target.exists():
                host = urllib.parse.urlsplit(url).hostname or ""
                if not urllib.request.getproxies() and not _resolves(host):
                    raise DataError(f"{url} cannot be fetched (host {host} cannot be resolved); {hint}")
                part = target.with_name(f"{target.name}.part" if resumable else f"{target.name}.{os.getpid()}.part")
                _download(url, part, report)
                try:
                    _read_verified(part, sha256)
                except DataError:
                    part.unlink()
                    raise
                part.replace(target)
    except (OSError, http.client.HTTPException) as error:
        raise DataError(f"{url} cannot be fetched ({getattr(error, 'reason', '') or error}); {hint}") from error
    return target


# --- download --------------------------------------------------------------------------------------------------------

TIMEOUT = 5.0
"""Seconds to connect, and of silence before a connection counts as cut."""


def _download_missing(mirror: str, cache: Path, search: _Search, report: Report, resumable: bool) -> None:
    if not search.missing:
        return
    host = urllib.parse.urlsplit(mirror).hostname or ""
    if not urllib.request.getproxies() and not _resolves(host):
        search.fail(mirror, f"host {host} cannot be resolved")
        return
    for name in list(search.missing):
        partial = cache / (f"{name}.gz.part" if resumable else f"{name}.gz.{os.getpid()}.part")
        try:
            while name in search.missing:
                resumed = _download(f"{mirror}{name}.gz", partial, report)
                try:
                    search.take(name, partial, cache / f"{name}.gz")
                except DataError:
                    partial.unlink()
                    # Where its beginning came from elsewhere or from another version: once more, from the start.
                    if not resumed:
                        raise
        except (DataError, OSError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", "") or error)
            search.fail(mirror, f"{name}.gz: {reason}")
            if isinstance(error, DataError):
                _log.warning("%s%s.gz: %s", mirror, name, reason)
                continue
            if isinstance(error, urllib.error.HTTPError):
                continue
            return  # the host does not answer: its other files would fail the same way, one time-out each


def _resolves(host: str) -> bool:
    """Whether the host has an address; the resolver's own time-out is far too long where there is no network."""
    answers: list[object] = []

    def ask() -> None:
        with contextlib.suppress(OSError):
            answers.append(socket.getaddrinfo(host, None))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    return bool(answers)


def _download(url: str, part: Path, report: Report) -> bool:
    """Fetches `url` into `part`, going on from what lies there, also after cut connections as long as bytes arrive.

    Returns whether the beginning is older than this call. Raises OSError or HTTPException with `part` left for later.
    """
    resumed = part.exists() and part.stat().st_size > 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            complete, kept = _transfer(url, part, before, report)
            resumed = resumed and kept
            if complete:
                return resumed
            cut: Exception = ConnectionError("the connection was cut")
        except urllib.error.HTTPError as error:
            if error.code != 416 or before == 0:
                raise
            return resumed  # nothing lies beyond the part: it is whole, or it is wrong, which its hash will tell
        except (OSError, http.client.HTTPException) as error:
            cut = error
        if not part.exists() or part.stat().st_size <= before:
            raise cut
        report(f"{url}: {cut}; going on from {part.stat().st_size / 1e6:.1f} MB")


def _transfer(url: str, part: Path, start: int, report: Report) -> tuple[bool, bool]:
    """One request; appends to `part`. Returns (everything has arrived, the first `start` bytes were kept)."""
    headers = {"User-Agent": "tokenlaw", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as response:
        kept = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        if response.status == 206 and not kept:
            raise ConnectionError(f"the server answered with another range ({response.headers.get('Content-Range')})")
        length = response.headers.get("Content-Length")
        done = start if kept else 0
        total = done + int(length) if length is not None else None
        shown = 0.0
        with part.open("ab" if kept else "wb") as out:
            while chunk := response.read(1 << 16):
                out.write(chunk)
                done += len(chunk)
                if time.monotonic() - shown > 1:
                    shown = time.monotonic()
                    report(f"{url}: {done / 1e6:.1f}" + (f" of {total / 1e6:.1f} MB" if total else " MB"))
    return total is None or done >= total, kept


# --- Debian package --------------------------------------------------------------------------------------------------


def _unpack_package(package: str, cache: Path, search: _Search, report: Report) -> None:
    """Downloads a package with apt-get and moves its files into the cache; needs no root and installs nothing."""
    source = f"Debian package {package}"
    if absent := lacking_tools():
        search.fail(source, f"{absent} not found")
        return
    with tempfile.TemporaryDirectory(dir=cache, prefix="package-") as temporary:
        folder = Path(temporary)
        report(f"{package}: downloading the Debian package with apt-get")
        try:
            archive = download_package(package, folder)
            call(["dpkg-deb", "-x", str(archive), str(folder / "content")], folder)
        except DataError as error:
            search.fail(source, str(error))
            return
        wanted = {f"{name}{ending}": name for name in search.missing for ending in ("", ".gz")}
        for path in sorted((folder / "content").rglob("*")):
            name = wanted.get(path.name)
            if name is None or name not in search.missing or not path.is_file() or path.is_symlink():
                continue
            try:
                search.take(name, path, cache / path.name)
            except DataError as error:
                search.fail(source, str(error))
    if search.missing:
        search.fail(source, f"no good {', '.join(search.missing)} in it")

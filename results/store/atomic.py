"""Writing files so that a crash, a kill or a full disk leaves either the old file or the new one, never half of it."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from results.errors import StoreError

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "the file system is read-only",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
}


@contextmanager
def storage(path: Path, doing: str = "write") -> Iterator[None]:
    """Turns any OSError of the block into a StoreError: in one line what could not be done to `path`, and why."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "; free some space and run the same command again" if full else ""
        raise StoreError(f"cannot {doing} {path}: {reason}{advice}") from error


def make_folder(path: Path) -> Path:
    """Create a folder with its parents if need be. Raises StoreError if that is not possible."""
    with storage(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def sync(path: Path) -> None:
    """Make the content of a file, or the names in a folder, durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable. Some network file systems refuse this for folders; that is no failure."""
    with suppress(OSError):
        sync(path)


def write_synced(path: Path, data: bytes) -> None:
    """Write a file that must not exist yet and flush it to disk. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write(path: Path, data: bytes | str, *, durable: bool = True) -> None:
    """Replace `path` by a file with this content, in one step as readers see it.

    With `durable` the content is on disk before the name changes; without, a power cut (not a kill) may lose it.
    Raises StoreError, and then leaves what was there before.
    """
    content = data.encode() if isinstance(data, str) else data
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    with storage(path):
        try:
            if durable:
                write_synced(temporary, content)
            else:
                temporary.write_bytes(content)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    if durable:
        sync_folder(path.parent)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a whole file that is never written again a second name, in one step as readers see it; a copy where the file
    system has no links or the two lie on different ones. Raises StoreError."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    with storage(target):
        try:
            try:
                os.link(source, temporary)
            except OSError:
                shutil.copyfile(source, temporary)
            temporary.replace(target)
            # renaming one link of a file onto another of it leaves both
            temporary.unlink(missing_ok=True)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def new_folder(target: Path, fill: Callable[[Path], None]) -> bool:
    """Put a folder that `fill` has written, flushed to disk, at `target` in one step.

    False, and nothing changes, if `target` is there and not empty. Raises StoreError, and then leaves nothing behind.
    """
    temporary = target.with_name(f".writing-{target.name}-{os.getpid()}-{secrets.token_hex(4)}")
    with storage(target):
        try:
            temporary.mkdir()
            fill(temporary)
            sync_folder(temporary)
            won = rename_exclusively(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    sync_folder(target.parent)
    return won


def new_folder_of(target: Path, files: Mapping[str, bytes]) -> bool:
    """`new_folder` of files with these contents, by their names below it."""

    def fill(temporary: Path) -> None:
        for name, content in files.items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            write_synced(temporary / name, content)

    return new_folder(target, fill)


def rename_exclusively(source: Path, target: Path) -> bool:
    """Rename a folder; False, and nothing changes, if `target` is there and not empty. Raises OSError."""
    # Renaming onto a folder that is not empty fails, on every POSIX system: that makes it exclusive.
    try:
        source.rename(target)
    except OSError:
        if target.is_dir():
            return False
        raise
    return True

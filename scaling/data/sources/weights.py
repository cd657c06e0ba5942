"""From a run back to its pretrained weights: where those of a fingerprint lie, kept beside the data root."""

from __future__ import annotations

from pathlib import Path

from results.errors import DataError
from results.store import atomic

FOLDER = "pretrained"
"""Below the data root."""


def remember(folder: Path, fingerprint: str, path: Path) -> None:
    """Keep where the weights of this fingerprint lie; the last plan wins. Raises StoreError if that fails."""
    atomic.make_folder(folder)
    atomic.write(folder / f"{fingerprint}.txt", f"{path.resolve()}\n")


def recall(folder: Path | None, fingerprint: str) -> Path:
    """Where the weights of this fingerprint lie. Raises DataError if that is not known."""
    record = (folder or Path()) / f"{fingerprint}.txt"
    try:
        return Path(record.read_text().rstrip("\n"))
    except OSError as error:
        raise DataError(
            f"tokenizer.pretrained = {fingerprint[:12]}...: {folder} does not tell where these weights lie; plan the "
            "study that names them again"
        ) from error

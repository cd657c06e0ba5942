"""From a run back to its pictures: where those of a fingerprint lie, kept beside the data root for the workers."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import ValidationError

from results.errors import DataError
from results.store import atomic
from scaling.specification.pictures import PicturesLocation

FOLDER = "pictures"
"""Below the data root."""


def remember(folder: Path, fingerprint: str, location: PicturesLocation) -> None:
    """Keep where the pictures of this fingerprint lie; the last plan wins. Raises StoreError if that fails."""
    # A worker may start in another folder; what does not exist is a name that `datasets` knows.
    kept = location.model_copy(update={"path": str(location.folder)} if location.folder.exists() else {})
    atomic.make_folder(folder)
    atomic.write(folder / f"{fingerprint}.json", kept.model_dump_json(indent=1) + "\n")


def recall(folder: Path, fingerprint: str) -> PicturesLocation:
    """Where the pictures of this fingerprint lie. Raises DataError if that is not known, or its record is damaged."""
    if not re.fullmatch("[0-9a-f]{64}", fingerprint):
        raise DataError(f"data.fingerprint = {fingerprint!r} is not a SHA-256 in hexadecimal digits")
    path = folder / f"{fingerprint}.json"
    try:
        return PicturesLocation.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(
            f"data.fingerprint = {fingerprint[:12]}...: {folder} does not tell where these pictures lie; plan "
            "the study that names them again"
        ) from error
    except (OSError, ValidationError) as error:
        raise DataError(f"{path} cannot be read ({str(error).splitlines()[0]}); plan its study again") from error

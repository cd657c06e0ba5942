"""The images of a run, by its specification: a catalogue's, or a user's own pictures where they lie now."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from results.errors import DataError
from scaling.specification.pictures import ImagesSpec, PicturesSpec

from .images import LabelledImages, Split, load_images
from .picture_images import decoding_workers, picture_images
from .sources.fingerprint import Prepared, prepare_again
from .sources.locations import recall


@dataclass
class RunImages:
    """Both splits, opened when they are asked for.

    pictures  the folder that tells where a user's own pictures lie (sources.locations); None where there are none
    threads   of the training, beside which pictures are decoded
    """

    data: ImagesSpec
    pictures: Path | None = None
    threads: int = 1
    _prepared: Prepared | None = field(default=None, repr=False)

    def split(self, split: Split) -> LabelledImages:
        """The images of a split; validation in their central view alone.

        Raises DataError where they are not found, damaged, or no longer those that the run was planned with.
        """
        if not isinstance(self.data, PicturesSpec):
            return load_images(self.data, split)
        prepared, workers = self._prepare(self.data), decoding_workers(self.threads)
        if split == "validation":
            return picture_images(prepared.validation, self.data.central, workers)
        return picture_images(prepared.train, self.data, workers)

    def central(self, split: Split) -> LabelledImages:
        """Each image of a split once, as metrics see it."""
        return self.split(split).central()

    def _prepare(self, data: PicturesSpec) -> Prepared:
        if self._prepared is None:
            if self.pictures is None:
                raise DataError(
                    f"data.fingerprint = {data.fingerprint[:12]}...: where these pictures lie is not known here; "
                    "submit the study that names them"
                )
            self._prepared = prepare_again(data, recall(self.pictures, data.fingerprint))
        return self._prepared

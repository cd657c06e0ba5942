"""Pretrained tokenizers in a study: the path in [tokenizer] pretrained, read and pinned by its content."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from results.errors import SpecError
from scaling.specification.spec import TokenizerRun

from .stored_tokenizers import find_tokenizer

BESIDE = ("input_size", "threads")
"""Keys of [tokenizer] that may stand beside `pretrained`: weights decide all others, or training would."""


class PretrainedTokenizers:
    """Reads weights, each path once, and knows where those of each fingerprint lie."""

    def __init__(self) -> None:
        self.locations: dict[str, Path] = {}
        self._read: dict[str, tuple[dict[str, Any], int, TokenizerRun | None]] = {}

    def fields(self, values: Mapping[str, Any], where: object) -> tuple[dict[str, Any], TokenizerRun | None]:
        """The fields of a tokenizer run with these weights, of a table with `pretrained`; and the run that left them,
        where it is one of ours.

        Raises SpecError for other keys beside it, DataError for weights that cannot be read.
        """
        path, rest = values["pretrained"], {name: value for name, value in values.items() if name != "pretrained"}
        if not isinstance(path, str) or not path:
            raise SpecError(f"{where} tokenizer.pretrained = {path!r} is not allowed; allowed: a path, as text")
        if wrong := sorted(rest.keys() - set(BESIDE)):
            raise SpecError(
                f"{where} sets both tokenizer.pretrained and tokenizer.{wrong[0]}; allowed beside it: "
                f"{', '.join(BESIDE)}"
            )
        if path not in self._read:
            self._read[path] = self._pinned(Path(path))
        fields, _, stored = self._read[path]
        return {**rest, **fields}, stored

    def check(self, values: Mapping[str, Any], run: TokenizerRun, where: object) -> None:
        """Raise SpecError for images of other channels than the weights were trained on."""
        path = values["pretrained"]
        channels = self._read[path][1]
        if run.data.channels != channels:
            raise SpecError(
                f"{where} [data] has images of {run.data.channels} channels; allowed: {channels}, as "
                f"tokenizer.pretrained = {path!r} was trained on"
            )

    def _pinned(self, path: Path) -> tuple[dict[str, Any], int, TokenizerRun | None]:
        from scaling.run import MODEL, read_pretrained

        stored = None
        if (path / MODEL).is_file() and path.resolve().parent.name == "artifacts":
            stored = find_tokenizer(path.resolve().parents[1], path.resolve().name)
        weights = read_pretrained(path, stored)
        self.locations[weights.spec.fingerprint] = path.resolve()
        fields = {"pretrained": weights.spec, "autoencoder": weights.autoencoder, "quantizer": weights.quantizer}
        return fields, weights.channels, stored

"""Tokenizers that a data root knows already, found by the start of their id."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from results.errors import SpecError, TokenlawError
from scaling.specification.spec import TokenizerRun

from .external_run import parse_any_run

SHOWN = 5
"""Ids that an error names at most."""


def find_tokenizer(root: Path, start: str) -> TokenizerRun:
    """The specification of the one tokenizer run that was begun or stored below `root` and whose id starts so.

    Raises SpecError for what is no id, and if there is none or more than one.
    """
    allowed = f"the start of the id of one tokenizer below {root}"
    if not re.fullmatch(r"[0-9a-f]{1,12}", start):
        raise SpecError(f"tokenizer.id = {start!r} is no id; allowed: {allowed} (hexadecimal digits, at most 12)")
    from results import Store

    begun = {path.name for path in (root / "attempts").glob("*") if path.is_dir()}
    known = sorted(begun | Store(root).finished())
    matches = [run for run_id in known if run_id.startswith(start) and (run := _tokenizer(root, run_id)) is not None]
    if len(matches) == 1:
        return matches[0]
    if matches:
        what = f"is not one but {len(matches)} tokenizers, {_listed(matches)}; allowed: {allowed}"
        raise SpecError(f"tokenizer.id = {start!r} {what}")
    others = [run for run_id in known[:1000] if (run := _tokenizer(root, run_id)) is not None]
    more = f", and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
    shown = _listed(others) or "none is there yet"
    raise SpecError(f"tokenizer.id = {start!r} is unknown; allowed: {allowed}: {shown}{more}")


def _listed(runs: list[TokenizerRun]) -> str:
    return ", ".join(f"{run.run_id} ({run.label})" for run in runs[:SHOWN])


def _tokenizer(root: Path, run_id: str) -> TokenizerRun | None:
    """The specification of a run if it is a tokenizer's and can be read."""
    for text in _texts(root, run_id):
        with suppress(SpecError):
            run = parse_any_run(text)
            # A specification of another version may have another id.
            if run.run_id == run_id:
                return run if isinstance(run, TokenizerRun) else None
    return None


def _texts(root: Path, run_id: str) -> Iterator[str | bytes]:
    """The specification of a run as its attempts have it, and the store."""
    for path in sorted((root / "attempts" / run_id).glob("*/spec.json")):
        yield path.read_bytes()
    from results import Store

    with suppress(TokenlawError):
        yield from Store(root).read("runs", run_ids=[run_id])["spec"].to_pylist()

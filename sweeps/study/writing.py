"""A study file of generator runs like some that are in the store: their specifications as sections and grid blocks.

Writing is checked by reading: the sections must give back the very runs that they were written from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from results.errors import SpecError

from .grids.conditions import NONE

NOT_OF_TOKENIZER = ("seed", "data", "evaluation", "stage", "trainer")
NOT_OF_GENERATOR = ("seed", "tokenizer", "evaluation", "stage", "train_images", "trainer")
DERIVED = ("fid_network", "fingerprint", "perceptual_network")
"""Hashes that reading a study gives by itself."""


class Wanted(NamedTuple):
    """A generator run to write: the specification it follows, its seed and training images, and fields of the
    tokenizer, by dotted path, that are others than there."""

    spec: Mapping[str, Any]
    seed: int
    train_images: int
    changes: Mapping[str, Any] = {}


def study_text(name: str, description: str, wanted: Sequence[Wanted]) -> str:
    """The text of a study of these runs, each on the tokenizer of its own seed, with all that they need.

    Raises SpecError for runs that no study file can describe: of two data sets, with pretrained tokenizers, or of
    trainers and pictures of one's own.
    """
    if not wanted:
        raise SpecError("a study needs a run; none was chosen")
    data = {json.dumps(w.spec["tokenizer"]["data"], sort_keys=True) for w in wanted}
    if len(data) > 1:
        raise SpecError("the runs are of several data sets; a study has one")
    first = wanted[0].spec
    for w in wanted:
        _check(w.spec)
    lines = [f"# {description}", "", "[study]", f"name = {_value(name)}", f"description = {_value(description)}"]
    lines += _table("data", {k: v for k, v in first["tokenizer"]["data"].items() if k not in DERIVED})
    lines += _table("evaluation", {k: v for k, v in first["tokenizer"]["evaluation"].items() if k not in DERIVED})
    blocks: dict[str, dict[str, Any]] = {}
    for w in wanted:
        row = _row(w)
        blocks.setdefault(json.dumps(row, sort_keys=True), {"row": row, "seeds": []})["seeds"].append(w.seed)
    rows = [block["row"] for block in blocks.values()]
    shared = {path: value for path, value in rows[0].items() if all(row.get(path) == value for row in rows)}
    for section in ("tokenizer", "generator"):
        inside = {p.removeprefix(f"{section}."): v for p, v in shared.items() if p.startswith(f"{section}.")}
        lines += _table(section, inside)
    for block in blocks.values():
        lines += ["", "[[grid]]", f"seeds = {{ tokenizer = {sorted(set(block['seeds']))} }}"]
        own = {path: value for path, value in block["row"].items() if path not in shared}
        if own:
            lines += ["[grid.product]", *(f"{_key(path)} = {_value([value])}" for path, value in own.items())]
    return "\n".join(lines) + "\n"


def _check(spec: Mapping[str, Any]) -> None:
    tokenizer = spec["tokenizer"]
    if spec.get("trainer") or tokenizer.get("trainer"):
        raise SpecError("runs of a trainer of one's own are not written as a study; add them to their own study file")
    if tokenizer.get("imported") or tokenizer.get("pretrained"):
        raise SpecError("runs on pretrained tokenizers are not written as a study; add them to their own study file")
    if "pictures" in tokenizer["data"] or tokenizer["data"].get("source"):
        raise SpecError("runs on pictures of one's own are not written as a study; add them to their own study file")


def _row(w: Wanted) -> dict[str, Any]:
    """Every field of the run by dotted path, tables of its tokenizer and generator as wholes."""
    tokenizer = {k: _plain(v) for k, v in w.spec["tokenizer"].items() if k not in NOT_OF_TOKENIZER}
    for path, value in w.changes.items():
        *steps, last = path.split(".")
        table = tokenizer
        for step in steps:
            table = table[step]
        table[last] = value
    generator = {k: _plain(v) for k, v in w.spec.items() if k not in NOT_OF_GENERATOR}
    return {
        **{f"tokenizer.{k}": v for k, v in tokenizer.items()},
        **{f"generator.{k}": v for k, v in generator.items()},
        "generator.train_images": [w.train_images],
    }


def _plain(value: Any) -> Any:
    """A copy without derived hashes, null as the text that stands for it."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items() if k not in DERIVED}
    return NONE if value is None else value


def _table(name: str, values: Mapping[str, Any]) -> list[str]:
    return ["", f"[{name}]", *(f"{key} = {_value(_plain(value))}" for key, value in values.items())]


def _value(value: Any) -> str:
    """A value as TOML: JSON but for tables, whose keys are quoted where they are dotted paths."""
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items())
        return f"{{ {inner} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False)


def _key(key: str) -> str:
    return key if key.replace("_", "").isalnum() else json.dumps(key)

"""Names of tokenizer families and generators for people, unique within a study: they say in what those differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from results.settings import differing, parts

from .rows import groups, records

COLUMNS = {
    "quantizer": "quantizer.kind", "codebook_size": "quantizer.codebook_size", "tokens_per_image": "tokens_per_image",
    "downsampling": "autoencoder.downsampling", "regulariser": "regulariser.kind",
    "regulariser_weight": "regulariser.weight",
}  # fmt: skip
"""Columns of `runs` that stand for fields of a tokenizer's specification where rows have none."""

SIZES = {"width": "d", "layers": "x", "learning_rate": "lr", "batch_size": "b"}
"""Columns that tell generators of one label apart, and their letters."""
NO_SIZE = (
    "seed.", "train_images.", "evaluation.", "threads.", "optimiser.warmup_images.", "transformer.width.",
    "transformer.layers.", "optimiser.learning_rate.", "batch_size.",
)  # fmt: skip
"""Fields of a generator that SIZES tells, or that make it no other generator."""

SHORT = {"learning_rate": "lr", "batch_size": "batch", "train_images": "images", "code_dim": "dim"}


def configurations(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Fields of the tokenizers of some runs without their seeds, flat: from their specifications, if all have one."""
    fields = [parts(spec).get("tokenizer") for spec in rows["spec"]]
    if any(not each for each in fields):
        fields = [{f: row[c] for c, f in COLUMNS.items() if not pd.isna(row[c])} for row in records(rows)]
    return [{name: value for name, value in (each or {}).items() if name != "seed"} for each in fields]


def family_names(runs: pd.DataFrame) -> pd.Series:
    """The label of each run's tokenizer; where one label names several configurations, with what tells them apart."""
    families = runs[runs["tokenizer_family"].notna()].drop_duplicates("tokenizer_family")
    names = dict(zip(families["tokenizer_family"], families["tokenizer"], strict=True))
    for label, group in groups(families, "tokenizer"):
        if len(group) > 1:
            differences = told_apart(configurations(group))
            names |= {
                f: "-".join([label, *words]) for f, words in zip(group["tokenizer_family"], differences, strict=True)
            }
    shared = pd.Series(names, dtype=object)
    for family in shared.index[shared.duplicated(keep=False)]:
        # Nothing is known of these but that they differ.
        names[family] = f"{names[family]}-{family[:6]}"
    return runs["tokenizer_family"].map(names)


def size_names(runs: pd.DataFrame) -> pd.Series:
    """The label of each run's generator, with what tells several generators of one label apart."""
    names = runs["generator"].copy()
    for _, group in groups(runs[runs["generator"].notna()], "generator"):
        for column, letters in SIZES.items():
            if group[column].nunique() > 1:
                names.loc[group.index] += group[column].map(lambda value, letters=letters: f" {letters}{value:g}")
        kinds = group.drop_duplicates("generator_family")
        fields = [
            {k: v for k, v in parts(spec).get("generator", {}).items() if not f"{k}.".startswith(NO_SIZE)}
            for spec in kinds["spec"]
        ]
        words = dict(zip(kinds["generator_family"], map(" ".join, told_apart(fields)), strict=True))
        names.loc[group.index] += group["generator_family"].map(lambda f, words=words: f" {words[f]}".rstrip())
    return names


def told_apart(fields: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """For each of several configurations a word for every field in which they differ, such as perceptual0, lr0.0003.

    Fields that are lists (of blocks a level, say) are left out where the others tell the configurations apart.
    """
    names = differing(fields)
    brief = [name for name in names if not any(isinstance(each.get(name), list) for each in fields)]
    for chosen in (brief, names):
        ends = [_short(name) for name in chosen]
        short = {name: end if ends.count(end) == 1 else name for name, end in zip(chosen, ends, strict=True)}
        words = [[_word(short[n], n, each[n]) for n in chosen if each.get(n) is not None] for each in fields]
        if len(set(map(tuple, words))) == len(fields):
            break
    return words


def _short(name: str) -> str:
    last = name.rsplit(".", 1)[-1]
    return SHORT.get(last) or last.removesuffix("_weight").removesuffix("_size").replace("_", "")


def _word(short: str, name: str, value: Any) -> str:
    if isinstance(value, bool):
        return short if value else f"no-{short}"
    if isinstance(value, str):
        return value if name.endswith(".kind") else f"{short}.{value[:12]}"
    if isinstance(value, list):
        return f"{short}{'.'.join(map(str, value))}"
    return f"{short}{value:g}" if isinstance(value, float) else f"{short}{value}"

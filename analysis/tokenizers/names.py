"""Names of tokenizer families and generators for people, unique within a study: they say in what those differ."""

from __future__ import annotations

from typing import Any

import pandas as pd

from results.settings import parts, told_apart

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

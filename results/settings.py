"""What runs were told: the fields of their specifications by dotted names, and those in which the runs differ, also as
columns beside their measurements."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .errors import UsageError

if TYPE_CHECKING:
    import pyarrow

    from results.store.store import Store

PARTS = ("tokenizer", "generator", "run", "other")
"""Whose fields they are: of a tokenizer, of a generator itself, free values, columns that an imported file had."""

SHORT = {"learning_rate": "lr", "batch_size": "batch", "train_images": "images", "code_dim": "dim"}
_NOT_JOINED = ("attempt", "run_id", "spec", "provenance", "path_flops", "message")
"""Columns of `runs` that evaluations have themselves, or that are no values."""
_MISSING = object()


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted names; lists count as one value."""
    leaves: dict[str, Any] = {}
    for name, value in values.items():
        leaves |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return leaves


def parts(text: str) -> dict[str, dict[str, Any]]:
    """The fields of a specification, JSON, by PARTS, each flat. A generator has its own and its tokenizer's."""
    try:
        spec = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(spec, Mapping):
        return {}
    imported, stage = spec.get("imported"), spec.get("stage")
    nested: dict[str, Any] = {
        "run": spec.get("values"),
        "other": imported.get("others") if isinstance(imported, Mapping) else None,
        "tokenizer": spec if stage == "tokenizer" else spec.get("tokenizer"),
        "generator": {k: v for k, v in spec.items() if k != "tokenizer"} if stage == "generator" else None,
    }
    return {
        part: flat({k: v for k, v in nested[part].items() if k != "stage" or part in ("run", "other")})
        for part in PARTS
        if isinstance(nested[part], Mapping)
    }


def differing(fields: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the fields that are not the same everywhere, as those of two parts that `parts` gave.

    A field that some lack differs, unless its part has a `kind`, which says why they lack it.
    """
    kinds = {name.removesuffix("kind") for each in fields for name in each if name.endswith(".kind")}
    names = []
    for name in dict.fromkeys(name for each in fields for name in each):
        values = [each.get(name, _MISSING) for each in fields]
        told = [value for value in values if value is not _MISSING]
        # `regulariser = null` in one of two is told by `regulariser.kind` of the other, too.
        explained = not name.endswith(".kind") and any(f"{name}.".startswith(kind) for kind in kinds)
        if any(value != told[0] for value in told) or (len(told) < len(values) and not explained):
            names.append(name)
    return sorted(names)


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


def setting_columns(specs: Sequence[str], known: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """Columns `PART.FIELD`, a value a run (None where it has none), for the texts of all runs' specifications.

    Of tokenizers and generators the fields in which they differ, less those that one of the columns `known` tells;
    free values and columns of imported files all.
    """
    rows = [parts(text) for text in specs]
    columns = {}
    for part in PARTS:
        fields = [row[part] for row in rows if part in row]
        free = part in ("run", "other")
        for name in sorted({name for each in fields for name in each}) if free else differing(fields):
            values = [row.get(part, {}).get(name) for row in rows]
            if free or not any(_told(values, known[c]) for c in _columns_like(part, name) if c in known):
                columns[f"{part}.{name}"] = values
    return columns


def joined(store: Store, run_ids: Collection[str] | None = None) -> pyarrow.Table:
    """The evaluations of all runs with a result, or of `run_ids`, with the columns of `runs`.

    Fields of the specifications in which tokenizers or generators differ come as columns such as
    `tokenizer.losses.perceptual_weight`, unless a column tells them already; the free values of a run of no stage as
    `run.NAME`, columns that an imported file had beside ours as `other.NAME`. A column whose values are of several
    types is text. Raises StoreError for damage.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    evaluations, runs = store.read("evaluations", run_ids), store.read("runs", run_ids)
    places = pc.index_in(evaluations["run_id"], runs["run_id"].combine_chunks())
    if places.null_count:
        raise UsageError("some evaluations have no row in runs; `tokenlaw store check` tells more")
    columns = {name: runs[name] for name in runs.column_names if name not in _NOT_JOINED}
    known = {name: column.to_pylist() for name, column in columns.items()}
    for name, values in setting_columns(runs["spec"].to_pylist(), known).items():
        columns[name] = pa.chunked_array([_column(values)])
    for name, column in columns.items():
        evaluations = evaluations.append_column(name, column.take(places))
    return evaluations


def _columns_like(part: str, name: str) -> set[str]:
    """Names under which a table would have a field: learning_rate, regulariser_weight, tokenizer_seed, quantizer."""
    words = f"{part}.{name}".split(".")
    return {words[-1], "_".join(words[-2:])} | ({words[-2]} if words[-1] == "kind" else set())


def _told(values: Sequence[Any], column: Sequence[Any]) -> bool:
    return all(value is None or value == known for value, known in zip(values, column, strict=True))


def _column(values: list[Any]) -> pyarrow.Array:
    import pyarrow as pa

    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} and kinds:
        return pa.array(values, pa.int64() if kinds == {int} else pa.float64())
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    texts = [v if v is None or isinstance(v, str) else json.dumps(v, separators=(",", ":")) for v in values]
    return pa.array(texts, pa.string())

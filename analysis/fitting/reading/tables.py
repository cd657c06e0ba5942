"""Tables from files of any usual form, and the rows of a table for which a condition holds."""

from __future__ import annotations

import ast
import bz2
import codecs
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from results.errors import DataError, UsageError

from .delimited import read_delimited
from .json_tables import read_json

if TYPE_CHECKING:
    import pandas as pd

COMPRESSED = (".gz", ".zst", ".zip", ".bz2", ".xz")
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x19\x1b-\x1f\x7f-\x9f]")


class Table(NamedTuple):
    """A table as it was read.

    `rows`: a data frame whose index numbers its rows. `notes`: what was not as plain as it could be, for people.
    `usual`: the columns that a file of this form means by "metric" and "x" where none is named.
    """

    rows: pd.DataFrame
    notes: tuple[str, ...] = ()
    usual: Mapping[str, str] = {}


def read_table(path: str | Path) -> Table:
    """A table in a file: CSV, TSV or with any other separator, JSON records, lines or columns, Parquet.

    Compression (gz, zst, zip of one file, bz2, xz) and encoding (UTF-8, UTF-16, Latin-1) are told from the content,
    the separator from the header. Levels of a Parquet file's index are columns.

    Raises DataError where the file is missing, empty or cannot be read as meant, with the number of the row (0-based).
    """
    path, file = Path(path), repr(str(path))
    if path.is_dir():
        raise DataError(f"file {file} is a directory; name a file in it")
    if not path.exists():
        raise DataError(f"file {file} does not exist")
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise DataError(f"file {file} cannot be read: {problem.strerror}") from None
    content, name = _decompressed(content, path.name, file)
    suffix = PurePath(name).suffix.lower()
    if not content.strip():
        raise DataError(f"file {file} is empty")
    if content[:4] == b"PAR1" or suffix in (".parquet", ".pq"):
        return Table(_nonempty(_parquet(content, suffix, file), file))
    text, notes = _text(content, suffix, file)
    if suffix in (".json", ".jsonl", ".ndjson") or (suffix not in (".csv", ".tsv") and text.lstrip()[:1] in "[{"):
        return Table(_nonempty(read_json(text, file), file), notes)
    rows, more = read_delimited(text, file)
    return Table(rows, notes + more)


def _nonempty(rows: pd.DataFrame, file: str) -> pd.DataFrame:
    if len(rows) == 0:
        raise DataError(f"file {file} has no rows")
    return rows


def _decompressed(content: bytes, name: str, file: str) -> tuple[bytes, str]:
    """The content of the file in a compressed file, and its name; any other file as it is."""
    if content[:4] == b"PK\x03\x04":
        return _unzipped(content, file)
    stem = name[: -len(PurePath(name).suffix)] if PurePath(name).suffix.lower() in COMPRESSED else name
    try:
        if content[:2] == b"\x1f\x8b":
            return gzip.decompress(content), stem
        if content[:4] == b"\x28\xb5\x2f\xfd":
            import pyarrow as pa

            with pa.CompressedInputStream(pa.BufferReader(content), "zstd") as stream:
                return stream.read(), stem
        if content[:3] == b"BZh":
            return bz2.decompress(content), stem
        if content[:6] == b"\xfd7zXZ\x00":
            return lzma.decompress(content), stem
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as problem:
        raise DataError(f"file {file} cannot be decompressed: {_line(problem)}") from None
    if stem != name and content:
        raise DataError(f"file {file} ends in {PurePath(name).suffix} but is not compressed so; name it {stem!r}")
    return content, name


def _unzipped(content: bytes, file: str) -> tuple[bytes, str]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = [m.filename for m in archive.infolist() if not m.is_dir() and not m.filename.startswith("__MACOSX")]
            if "[Content_Types].xml" in names or "mimetype" in names:
                raise DataError(f"file {file} is a workbook; save its sheet as CSV")
            if len(names) != 1:
                raise DataError(f"file {file} holds {len(names)} files, not one: unpack it and name the table")
            return archive.read(names[0]), PurePath(names[0]).name
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as problem:
        raise DataError(f"file {file} cannot be decompressed: {_line(problem)}") from None


def _line(problem: Exception) -> str:
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0]


def _text(content: bytes, suffix: str, file: str) -> tuple[str, tuple[str, ...]]:
    """The text of a file, and a note where its encoding is a guess."""
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if content.startswith(mark)), None)
    if encoding is None and b"\0" in content[:2000]:  # UTF-16 without a mark: every other byte of ASCII is 0
        zeros = [content[start:2000:2].count(0) for start in (0, 1)]
        few, many = sorted(zeros)
        encoding = ("utf-16-le" if zeros[1] > zeros[0] else "utf-16-be") if many > 8 * few else None
    notes: tuple[str, ...] = ()
    try:
        text = content.decode(encoding or "utf-8")
    except UnicodeDecodeError as problem:
        try:
            text = content.decode("cp1252" if encoding is None else "ascii")  # Latin-1, and what Windows adds to it
        except UnicodeDecodeError:
            row = content[: problem.start].count(b"\n") - 1
            at = f", row {row}" if row >= 0 and b"\0" not in content else ""
            raise DataError(
                f"file {file}{at} cannot be read as {suffix or 'text'}: it is neither UTF-8 nor Latin-1 text"
            ) from None
        notes = ("the file is not UTF-8; it was read as Latin-1",)
    odd = _CONTROL.search(text)
    if odd is not None:
        row = text[: odd.start()].count("\n") - 1
        at = f", row {row}" if row >= 0 and odd[0] != "\0" else ""
        reason = f"it has the byte {ord(odd[0]):#04x}, so it is no text"
        raise DataError(f"file {file}{at} cannot be read as {suffix or 'text'}: {reason}")
    return text.rstrip("\x1a"), notes  # DOS ends a text so


def _parquet(content: bytes, suffix: str, file: str) -> pd.DataFrame:
    import pandas as pd
    from pyarrow import ArrowException

    try:
        table = pd.read_parquet(io.BytesIO(content))
    except (ArrowException, OSError, ValueError, KeyError) as problem:
        raise DataError(f"file {file} cannot be read as {suffix or 'Parquet'}: {_line(problem)}") from None
    table.columns = [".".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in table.columns]  # type: ignore[assignment]
    return with_index_levels(table, file=f"file {file}")


def with_index_levels(table: pd.DataFrame, file: str = "the data frame", numbered: bool = False) -> pd.DataFrame:
    """The table with the levels of its index as columns and its rows numbered from 0.

    An index without meaning is dropped: one that counts the rows, or with `numbered` any that numbers them uniquely,
    which then stays as it is. Raises DataError for a level that is called as a column is.
    """
    import pandas as pd

    index = table.index
    if index.nlevels == 1 and index.name is None:
        if numbered and index.dtype.kind in "iu" and index.is_unique:
            return table
        if index.dtype.kind in "iu" and np.array_equal(index.to_numpy(), np.arange(len(index))):
            return table.reset_index(drop=True)
    if index.nlevels > 1:
        names = [f"level_{number}" if name is None else str(name) for number, name in enumerate(index.names)]
    else:
        names = ["index" if index.name is None else str(index.name)]
    twice = [name for number, name in enumerate(names) if name in table.columns or name in names[:number]]
    if twice:
        raise DataError(f"{file}: a level of the index and a column are both called {twice[0]!r}; rename one")
    levels = pd.DataFrame({name: index.get_level_values(i) for i, name in enumerate(names)})
    return pd.concat([levels, table.reset_index(drop=True)], axis=1)


def present(table: pd.DataFrame) -> str:
    """The columns of a table, for messages."""
    names = list(map(str, table.columns))
    return f"the data have: {', '.join(names[:40])}" + (f" and {len(names) - 40} more" if len(names) > 40 else "")


_QUOTED = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|`([^`]*)`", re.DOTALL)
_ALLOWED = (
    ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.Invert, ast.USub, ast.UAdd, ast.BinOp,
    ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.BitAnd, ast.BitOr, ast.Compare, ast.Eq,
    ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn, ast.Name, ast.Load, ast.Constant, ast.List,
    ast.Tuple,
)  # fmt: skip


def filter_rows(table: pd.DataFrame, expression: str) -> pd.DataFrame:
    """The rows where an expression over the columns holds, such as "outlier == False and budget > 1e19".

    A column whose name is not an identifier stands in backquotes: "`Model Size` > 1e9". Columns, numbers, texts,
    lists of them, arithmetic, comparisons, and, or and not are all that is evaluated: no calls, attributes or @.

    Raises UsageError where the expression is wrong, DataError where nothing is left.
    """
    import pandas as pd

    plain, columns = _condition(table, expression)
    try:
        chosen = pd.DataFrame(columns, index=table.index).eval(plain, engine="python")
    except Exception as problem:  # noqa: BLE001 - pandas raises a dozen types for a wrong expression; all mean the same
        raise UsageError(f"where={expression!r} is not a condition on the columns: {_line(problem)[:200]}") from None
    if not isinstance(chosen, pd.Series) or chosen.dtype.kind != "b" or len(chosen) != len(table):
        raise UsageError(
            f"where={expression!r} is not a condition: not true or false in each row; compare a column, as 'N > 1e9'"
        )
    kept = table[chosen.fillna(False).to_numpy(dtype=bool)]
    if len(kept) == 0:
        raise DataError(f"where={expression!r} leaves no rows of {len(table)}")
    return kept


def _condition(table: pd.DataFrame, expression: str) -> tuple[str, dict[str, pd.Series]]:
    """A condition that has been found to be one, and the columns in it by the names that they have there."""
    called = f"where={expression!r}"
    quoted: dict[str, str] = {}

    def replaced(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0]
        return f" {quoted.setdefault(match[1], f'column_{len(quoted)}_')} "

    plain = _QUOTED.sub(replaced, expression).strip()
    try:
        tree = ast.parse(plain, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as problem:
        if "@" in _QUOTED.sub(" ", expression):
            raise UsageError(f"{called}: only columns, numbers, text and comparisons are allowed") from None
        raise UsageError(f"{called} is not a condition on the columns: {_line(problem)[:200]}") from None
    known = {short: name for name, short in quoted.items()}
    columns = {}
    for node in ast.walk(tree):
        if not isinstance(node, _ALLOWED):
            raise UsageError(f"{called}: only columns, numbers, text and comparisons are allowed")
        if not isinstance(node, ast.Name):
            continue
        name = known.get(node.id, node.id)
        if name not in table.columns:
            raise UsageError(f"{called}: there is no column {name!r}; {present(table)}")
        column = table[name]
        if column.ndim != 1:
            raise UsageError(f"{called}: column {name!r} occurs more than once")
        columns[node.id] = column
    return plain, columns

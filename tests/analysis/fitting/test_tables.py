"""Tables in every dialect are read back equal; what is malformed is refused with its row, never shifted."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from analysis.fitting.reading.tables import filter_rows, read_table, with_index_levels
from results.errors import DataError, UsageError

LETTERS = st.text(alphabet="abXYZ äöé,;|\t\"'-_.:/", min_size=1, max_size=8)
LABELS = LETTERS.map(lambda text: f"r{text.strip()}z")
POSITIVE = st.floats(1e-9, 1e24, allow_subnormal=False)
LOSSES = st.one_of(st.floats(0.01, 20), st.just(float("nan")))


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    n = draw(st.integers(2, 7))
    column = lambda values: draw(st.lists(values, min_size=n, max_size=n))  # noqa: E731
    counts = np.array(column(st.integers(1, 2**53)))
    return pd.DataFrame({"N": counts, "seen tokens": column(POSITIVE), "loss": column(LOSSES), "run": column(LABELS)})


def delimited(
    table: pd.DataFrame, separator: str = ",", end: str = "\n", trailing: str = "", header_end: str | None = None,
    quoting: Any = csv.QUOTE_MINIMAL, decimal: str = ".", blank: str = "", before: str = "", space: str = "",
) -> str:  # fmt: skip
    """The table as text of some dialect; `space` stands before each field but the first."""
    lines, empty = [], "NaN" if separator == " " else ""
    for cells in (list(table.columns), *table.itertuples(index=False)):
        texts = [
            repr(float(cell)).replace(".", decimal).replace("nan", empty) if isinstance(cell, float)
            else str(cell) for cell in cells
        ]  # fmt: skip
        stream = io.StringIO()
        csv.writer(stream, delimiter=separator, quoting=quoting, lineterminator="").writerow(texts)
        line = stream.getvalue()
        lines.append(line.replace(separator, separator + space) if space and '"' not in line else line)
    header, *rows = lines
    body = [header + (trailing if header_end is None else header_end), *(row + trailing for row in rows)]
    return before + end.join(body + [blank] * bool(blank)) + end


def zipped(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("points.csv", content)
    return stream.getvalue()


def zstandard(content: bytes) -> bytes:
    stream = pa.BufferOutputStream()
    with pa.CompressedOutputStream(stream, "zstd") as compressed:
        compressed.write(content)
    return stream.getvalue().to_pybytes()


def parquet(table: pd.DataFrame, **options: Any) -> bytes:
    stream = io.BytesIO()
    table.to_parquet(stream, **options)
    return stream.getvalue()


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


DIALECTS: dict[str, tuple[str, Callable[[pd.DataFrame], bytes]]] = {
    "comma": ("t.csv", lambda t: delimited(t).encode()),
    "tab": ("t.tsv", lambda t: delimited(t, "\t").encode()),
    "tab called csv": ("t.csv", lambda t: delimited(t, "\t").encode()),
    "semicolon": ("t.csv", lambda t: delimited(t, ";").encode()),
    "bar": ("t.txt", lambda t: delimited(t, "|").encode()),
    "space": ("t.dat", lambda t: delimited(t, " ").encode()),
    "all quoted": ("t.csv", lambda t: delimited(t, quoting=csv.QUOTE_ALL).encode()),
    "semicolons, all quoted": ("t", lambda t: delimited(t, ";", quoting=csv.QUOTE_ALL).encode()),
    "Windows": ("t.csv", lambda t: delimited(t, end="\r\n").encode()),
    "old Mac": ("t.csv", lambda t: delimited(t, end="\r").encode()),
    "no last line end": ("t.csv", lambda t: delimited(t).rstrip("\n").encode()),
    "blank lines": ("t.csv", lambda t: delimited(t, end="\n\n", blank="  ").encode()),
    "trailing commas": ("t.csv", lambda t: delimited(t, trailing=",").encode()),
    "trailing commas of rows": ("t.csv", lambda t: delimited(t, trailing=",", header_end="").encode()),
    "trailing tabs of rows": ("t.tsv", lambda t: delimited(t, "\t", trailing="\t\t", header_end="").encode()),
    "trailing comma of the header": ("t.csv", lambda t: delimited(t, header_end=",").encode()),
    "spaces behind commas": ("t.csv", lambda t: delimited(t, space="  ").encode()),
    "decimal commas": ("t.csv", lambda t: delimited(t, ";", decimal=",").encode()),
    "decimal commas, tabs": ("t.tsv", lambda t: delimited(t, "\t", decimal=",", end="\r\n").encode()),
    "sep= line": ("t.csv", lambda t: delimited(t, ";", before="sep=;\n").encode()),
    "comment before": ("t.csv", lambda t: delimited(t, before="# measured in May\n").encode()),
    "byte order mark": ("t.csv", lambda t: delimited(t).encode("utf-8-sig")),
    "UTF-16": ("t.csv", lambda t: delimited(t, "\t").encode("utf-16")),
    "UTF-16 without a mark": ("t.csv", lambda t: delimited(t, "\t").encode("utf-16-le")),
    "Latin-1": ("t.csv", lambda t: delimited(t, ";").encode("latin-1")),
    "gz": ("t.csv.gz", lambda t: gzip.compress(delimited(t).encode())),
    "zst": ("t.tsv.zst", lambda t: zstandard(delimited(t, "\t").encode())),
    "zip": ("t.zip", lambda t: zipped(delimited(t).encode())),
    "bz2": ("t.csv.bz2", lambda t: bz2.compress(delimited(t).encode())),
    "xz": ("t.csv.xz", lambda t: lzma.compress(delimited(t).encode())),
    "JSON records": ("t.json", lambda t: json.dumps(records(t)).encode()),
    "JSON lines": ("t.jsonl", lambda t: "\n".join(map(json.dumps, records(t))).encode()),
    "JSON lines, gz": ("t.jsonl.gz", lambda t: gzip.compress("\n".join(map(json.dumps, records(t))).encode())),
    "JSON columns": ("t.json", lambda t: json.dumps({str(k): v.tolist() for k, v in t.items()}).encode()),
    "JSON of pandas": ("t.json", lambda t: json.dumps(t.to_dict()).encode()),
    "JSON split": ("t.json", lambda t: json.dumps(t.to_dict("split")).encode()),
    "Parquet": ("t.parquet", lambda t: parquet(t)),
    "Parquet, index": ("t.pq", lambda t: parquet(t.set_index("N"))),
    "Parquet, two levels": ("t.parquet", lambda t: parquet(t.set_index(["N", "seen tokens"]))),
    "Parquet, zst within": ("t.parquet", lambda t: parquet(t, compression="zstd")),
}  # fmt: skip


@pytest.mark.parametrize("dialect", DIALECTS)
@given(table=tables())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_table_is_read_back_equal_in_every_dialect(tmp_path: Path, dialect: str, table: pd.DataFrame) -> None:
    name, write = DIALECTS[dialect]
    if dialect.startswith("decimal"):  # a table whose commas could be those of thousands is left as it is
        assume(any(len(f"{cell!r}".partition(".")[2]) not in (0, 3) for cell in table["loss"]))
    if "Latin-1" in dialect:
        assume(not delimited(table, ";").isascii())
    (tmp_path / name).write_bytes(write(table))
    read = read_table(tmp_path / name).rows
    assert list(read.columns) == list(table.columns)
    for column in ("N", "seen tokens", "loss"):
        np.testing.assert_array_equal(read[column].to_numpy(dtype=float), table[column].to_numpy(dtype=float))
    assert read["run"].tolist() == table["run"].tolist()
    assert read.index.tolist() == list(range(len(table)))


@given(
    table=tables(), separator=st.sampled_from(",;\t|"), row=st.integers(0, 6), data=st.data(),
    fault=st.sampled_from(["more", "fewer", "cut"]),
)  # fmt: skip
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_row_with_more_or_fewer_fields_is_named(
    tmp_path: Path, table: pd.DataFrame, separator: str, row: int, fault: str, data: st.DataObject
) -> None:
    row %= len(table)
    lines = delimited(table.drop(columns="run").fillna(1.0), separator).rstrip("\n").split("\n")
    fields = lines[row + 1].split(separator)
    place = data.draw(st.integers(0, len(fields) - 1))
    if fault == "more":
        fields.insert(place, "7")
    elif fault == "fewer":
        del fields[place]
    else:
        fields = fields[: place or 1]
    lines[row + 1] = separator.join(fields)
    (tmp_path / "t.csv").write_text("\n".join(lines))
    with pytest.raises(DataError, match=rf"row {row}: \d fields?, but the header has 3") as refused:
        read_table(tmp_path / "t.csv")
    assert "\n" not in str(refused.value)


REFUSED: list[tuple[str, bytes, str]] = [
    ("t.csv", b"", "is empty"),
    ("t.csv", b" \n\n", "is empty"),
    ("t.csv.gz", gzip.compress(b""), "is empty"),
    ("t.csv", b"N,D,loss\n", "has a header but no rows"),
    ("t.csv", b"1e6,2e9,3.1\n2e6,2e9,3.0\n", r"has no header: its first line is numbers only \(1e6, 2e9, 3.1\)"),
    ("t.csv", b",,\n1,2,3\n", "no names of columns"),
    ("t.csv", b"N,D\n1,2,3\n4,5,6\n", "row 0: 3 fields, but the header has 2"),
    ("t.csv", b"N,D\n1,2\n4,5,\n", "row 1: 3 fields, but the header has 2"),
    ("t.csv", b'N,D\n1,2\n3,"4\n5,6\n', "row 1: .*is a quote not closed"),
    ("t.csv", b'N,D\n1,2\n3,"4"5\n', "row 1: .*is a quote not closed"),
    ("t.csv", b"N,D\n1,2\n3,\x00\x01\n", r"cannot be read as \.csv: .*so it is no text"),
    ("t.csv", b"\x89PNG\r\n\x1a\n" + bytes(range(256)), r"cannot be read as \.csv"),
    ("t.csv", b"\xff\xfeN\x00,", r"cannot be read as \.csv"),
    ("t.csv.gz", b"N,D\n1,2\n", r"ends in \.gz but is not compressed so"),
    ("t.csv.gz", gzip.compress(b"N,D\n1,2\n" * 99)[:-20], "cannot be decompressed"),
    ("t.csv.zst", zstandard(b"N,D\n1,2\n" * 99)[:20], "cannot be decompressed"),
    ("t.xz", lzma.compress(b"N,D\n1,2\n" * 99)[:-20], "cannot be decompressed"),
    ("t.zip", zipped(b"N,D\n1,2\n")[:-30], "cannot be decompressed"),
    ("t.parquet", b"N,D\n1,2\n", r"cannot be read as \.parquet"),
    ("t.parquet", parquet(pd.DataFrame({"N": [1, 2]}))[:-9], r"cannot be read as \.parquet"),
    ("t.parquet", parquet(pd.DataFrame({"N": []})), "has no rows"),
    ("t.json", b"[]", "has no rows"),
    ("t.json", b'"text"', "holds the text 'text', not a list of objects"),
    ("t.json", b'[{"N": 1},\n', "cannot be read as JSON"),
    ("t.json", b'[{"N": 1}, [2]]', "row 1: a list, not an object"),
    ("t.json", b'[{"N": 1, "N": 2}]', "'N' occurs twice"),
    ("t.json", b'{"N": [1, 2], "loss": [3]}', "row 1: column 'loss' has 1 rows of 2"),
    ("t.json", b'{"N": {"0": 1, "1": 2}, "loss": {"0": 3}}', "row 1: column 'loss' has no value there"),
    ("t.json", b'{"N": [1, 2], "loss": 3}', "'loss' is 3, not a column"),
    ("t.jsonl", b'{"N": 1}\n{"N": 2\n', "row 1: this line is not JSON"),
    ("t.jsonl", b'{"N": 1}\n7\n', "row 1: 7, not an object"),
]


@pytest.mark.parametrize(("name", "content", "words"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_no_table_is_refused_in_one_line(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words) as refused:
        read_table(tmp_path / name)
    assert "\n" not in str(refused.value)


def test_a_directory_a_missing_file_and_several_in_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a directory"):
        read_table(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        read_table(tmp_path / "none.csv")
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.csv", "N\n1\n")
        archive.writestr("b.csv", "N\n1\n")
    with pytest.raises(DataError, match="holds 2 files, not one"):
        read_table(tmp_path / "two.zip")
    with zipfile.ZipFile(tmp_path / "book.xlsx", "w") as archive:
        archive.writestr("[Content_Types].xml", "<x/>")
    with pytest.raises(DataError, match="workbook; save its sheet as CSV"):
        read_table(tmp_path / "book.xlsx")


def read_text(folder: Path, text: str, name: str = "t.csv") -> pd.DataFrame:
    (folder / name).write_text(text)
    return read_table(folder / name).rows


def test_commas_that_could_be_of_thousands_stay_texts(tmp_path: Path) -> None:
    assert read_text(tmp_path, "N;loss\n1,000;3\n2,000;2\n")["N"].tolist() == ["1,000", "2,000"]
    assert read_text(tmp_path, "N;loss\n1,000;3,5\n2,000;2,5\n")["N"].tolist() == [1.0, 2.0]
    assert read_text(tmp_path, "N;loss\n1,5;3.5\n2,5;2.5\n")["N"].tolist() == ["1,5", "2,5"]  # points, too
    assert read_text(tmp_path, 'N,loss\n1e6,"3,51"\n2e6,"3,4"\n')["loss"].tolist() == [3.51, 3.4]
    notes = read_table(tmp_path / "t.csv").notes
    assert notes == ("decimal commas were read as points in loss",)


def test_an_empty_value_between_spaces_is_no_shift(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 1: 2 fields, but the header has 3 \(separator space"):
        read_text(tmp_path, "N D loss\n1 2 3\n1  3\n")
    with pytest.raises(DataError, match=r"row 0: 2 fields, but the header has 3 \(separator space"):
        read_text(tmp_path, "N D loss\n1  3\n1  4\n")
    assert read_text(tmp_path, "my loss\n1.5\n2.5\n").columns.tolist() == ["my loss"]


def test_names_that_occur_twice_stay_so(tmp_path: Path) -> None:
    table = read_text(tmp_path, "N,loss,loss\n1,2,3\n")
    assert list(table.columns) == ["N", "loss", "loss"]


def test_headers_with_comments_indices_and_nested_records(tmp_path: Path) -> None:
    assert list(read_text(tmp_path, "# N loss\n1 2\n3 4\n", "t.txt").columns) == ["N", "loss"]
    assert list(read_text(tmp_path, ",N,loss\n0,1,2\n").columns) == ["Unnamed: 0", "N", "loss"]
    nested = read_text(tmp_path, '[{"config": {"N": 5}, "loss": 2}, {"config": {"N": 6}}]', "t.json")
    assert nested["config.N"].tolist() == [5, 6]
    assert np.isnan(nested["loss"][1])
    wrapped = read_text(tmp_path, '{"version": 3, "runs": [{"N": 5}]}', "t.json")
    assert wrapped["N"].tolist() == [5]


def test_levels_of_an_index_are_columns() -> None:
    table = pd.DataFrame({"N": [1, 2, 3], "loss": [3.0, 2, 1]})
    assert list(with_index_levels(table.set_index("N")).columns) == ["N", "loss"]
    assert with_index_levels(table[table["N"] > 1], numbered=True).index.tolist() == [1, 2]
    by_run = table.set_index(pd.Index(["a", "b", "c"]))
    assert with_index_levels(by_run, numbered=True)["index"].tolist() == ["a", "b", "c"]
    with pytest.raises(DataError, match="a level of the index and a column are both called 'N'"):
        with_index_levels(table.set_index("N", drop=False))


@pytest.mark.parametrize(
    "condition",
    [
        "@x > 1", "x.abs() > 1", "(x)(1) > 1", "x.__class__", "x[0] > 1", "[y for y in x]", "lambda: x", "f'{x}' == x",
        "'a\\' '@x.y()' '", "(y := x) > 1", "__import__('os').system('true')", "x if x else x", "x @ x > 1", "x > 1; x",
    ],
)  # fmt: skip
def test_a_condition_runs_no_code(condition: str) -> None:
    with pytest.raises(UsageError, match="where=") as refused:
        filter_rows(pd.DataFrame({"x": [1.0, 2.0]}), condition)
    assert "\n" not in str(refused.value)


def test_conditions_name_columns_as_they_are() -> None:
    table = pd.DataFrame([[1, 2, 3, "it's `N`"], [2, 3, 4, "b"]], columns=["N", "val-loss", "val-loss", "name"])
    assert filter_rows(table, "1 < N <= 2 and name in ['b', 'c'] | N == 7").index.tolist() == [1]
    assert filter_rows(table, 'name == "it\'s `N`"').index.tolist() == [0]
    with pytest.raises(UsageError, match="'val-loss' occurs more than once"):
        filter_rows(table, "`val-loss` > 1")
    with pytest.raises(UsageError, match="there is no column 'M'; the data have: N, val-loss"):
        filter_rows(table, "M > 1")

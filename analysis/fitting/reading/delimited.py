"""Tables as text: separator, header, quotes and decimal commas told from the text; no field ever changes its column."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from results.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

SEPARATORS = {",": "','", ";": "';'", "\t": "tab", "|": "'|'", " ": "space"}
"""What may stand between fields, by preference, and what each is called in messages."""
SAMPLED, SAMPLED_CHARACTERS = 50, 100_000  # rows by which separators are judged, and at most how much of the text
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*')
_COMMA_NUMBER = r"\s*[+-]?(?:\d+,\d+|,\d+)(?:[eE][+-]?\d+)?\s*"
_THOUSANDS = r"\s*[+-]?[1-9]\d{0,2},\d{3}\s*"
_POINT_NUMBER = r"\s*[+-]?\d*\.\d+(?:[eE][+-]?\d+)?\s*"


def read_delimited(text: str, file: str) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The table in a text, its columns typed, and notes on how it was read; `file` is what messages call it.

    Names that occur twice stay so; a column without a name is called "Unnamed: NUMBER". Delimiters at the end of
    lines are dropped where every row has as many. Raises DataError for a text without header or rows, and, with the
    number of the row, for one with more or fewer fields than the header has names, or a quote that is not closed.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text, separator = _body(text, file)
    stream = io.StringIO(text)
    lines = _fields(stream, separator)
    try:
        header = [name.strip() for name in next(lines)]
    except csv.Error as problem:
        raise DataError(f"file {file}: the header cannot be read: {problem}") from None
    _require_names(header, file)
    start = stream.tell()
    quoted = '"' in text or separator == " "  # without quotes, to count the separators of a line is as good and faster
    count, width = _checked(lines if quoted else stream, header, separator, file)
    stream.seek(start)
    table = _parsed(stream, separator, range(width), file)
    if len(table) != count:
        raise DataError(f"file {file}: {count} rows by the quotes, {len(table)} by the line ends")
    table.columns = [name or f"Unnamed: {number}" for number, name in enumerate(header[:width])]  # type: ignore[assignment]
    changed = _with_decimal_points(table, text[start:], separator)
    return table, (f"decimal commas were read as points in {', '.join(changed)}",) if changed else ()


def _body(text: str, file: str) -> tuple[str, str]:
    """The text from its header on, without what spreadsheets and numpy put before it, and its separator."""
    first, _, rest = text.lstrip("\n").partition("\n")
    told = _SEPARATOR_LINE.fullmatch(first)
    text = (rest if told else text).lstrip("\n")
    if not text.strip():
        raise DataError(f"file {file} is empty")
    while text.startswith("#"):  # a comment, or the names, as numpy.savetxt writes them
        line, _, rest = text.partition("\n")
        names = line.lstrip("# \t")
        separator = told[1] if told else _separator(f"{names}\n{rest}")
        widths = [_width(part, separator) for part in (names, rest.partition("\n")[0])]
        if not rest or (widths[0] == widths[1] and not rest.startswith("#")):
            text = f"{names}\n{rest}"
            break
        text = rest.lstrip("\n")
    separator = told[1] if told else _separator(text)
    if separator == " ":
        text = "\n".join(line.strip() for line in text.split("\n"))
    return text, separator


def _fields(lines: io.StringIO | Sequence[str], separator: str) -> Iterator[list[str]]:
    return csv.reader(lines, delimiter=separator, skipinitialspace=separator != "\t", strict=True)


def _width(line: str, separator: str) -> int:
    try:
        return len(next(_fields([line], separator), []))
    except csv.Error:
        return 0


def _separator(text: str) -> str:
    """The separator that gives most rows as many fields as the header, and of those the one that gives most fields."""
    best, separator = (0.0, 1), ","
    text = text[:SAMPLED_CHARACTERS]
    for candidate in SEPARATORS:
        if candidate == " " and best[1] > 1:
            break  # names have spaces; where another separator splits the header, it is that
        try:
            header, *rows = islice(_fields(io.StringIO(text), candidate), SAMPLED + 1)
        except (csv.Error, ValueError):
            continue
        rows = [row for row in rows if "".join(row).strip()]
        if candidate == " " and not all(len(row) > 1 for row in rows):
            break  # a single column, whose name has spaces
        # one more or less: delimiters at the end of the header, or of all rows but it
        agreeing = sum(abs(len(row) - len(header)) <= 1 for row in rows) / max(len(rows), 1)
        judged = (agreeing if rows else 1.0, len(header))
        if len(header) > 1 and judged > best:
            best, separator = judged, candidate
    return separator


def _require_names(header: list[str], file: str) -> None:
    named = [name for name in header if name]
    if not named:
        raise DataError(f"file {file}: the first line has no names of columns")
    if all(_is_number(name) for name in named):
        raise DataError(
            f"file {file} has no header: its first line is numbers only ({', '.join(named[:4])}"
            f"{', ...' if len(named) > 4 else ''}); write the names of the columns there"
        )


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


def _checked(lines: Iterable[list[str] | str], header: list[str], separator: str, file: str) -> tuple[int, int]:
    """How many rows there are and how many fields of each count; the others are empty, at the end of every line."""
    names = len(header)
    while not header[names - 1]:
        names -= 1
    count, beyond = 0, None
    widths: dict[int, int] = {}  # the first row of each
    try:
        for line in lines:
            width = line.count(separator) + 1 if isinstance(line, str) else len(line)
            if width != names or width == 1:
                row = line.strip("\n").split(separator) if isinstance(line, str) else line
                if not row or (width == 1 and not row[0].strip()):
                    continue
                if beyond is None and any(field.strip() for field in row[names:]):
                    beyond = count
                if width < names or (width > len(header) and beyond is not None):
                    _fail(file, count, width, header, separator)
            if width not in widths:
                widths[width] = count
            count += 1
    except csv.Error as problem:
        raise DataError(f"file {file}, row {count}: {problem}; is a quote not closed?") from None
    if not count:
        raise DataError(f"file {file} has a header but no rows")
    if len(widths) > 1:  # the rarer kind of row is not told from the other: the one unlike the header is named
        width, row_number = next(((w, r) for w, r in widths.items() if w not in (names, len(header))), (0, -1))
        if row_number < 0:
            width, row_number = list(widths.items())[1]
        _fail(file, row_number, width, header, separator)
    return count, names if beyond is None else len(header)


def _fail(file: str, row: int, width: int, header: list[str], separator: str) -> None:
    fields = f"{width} field{'s' if width != 1 else ''}"
    more = "" if width < len(header) else f"; quote a value that has a {SEPARATORS.get(separator, separator)} in it"
    raise DataError(
        f"file {file}, row {row}: {fields}, but the header has {len(header)} "
        f"(separator {SEPARATORS.get(separator, separator)}){more}"
    )


def _parsed(stream: io.StringIO, separator: str, columns: range, file: str) -> pd.DataFrame:
    import pandas as pd
    from pandas.errors import EmptyDataError, ParserError

    # to the last digit, as pandas does by default from 3.1 on
    exactly: Any = {} if tuple(map(int, pd.__version__.split(".")[:2])) >= (3, 1) else {"float_precision": "round_trip"}
    try:
        return pd.read_csv(
            stream, sep=separator, header=None, index_col=False, low_memory=False,
            skipinitialspace=separator != "\t", **exactly, usecols=list(columns),
            names=list(columns),
        )  # fmt: skip
    except (ParserError, EmptyDataError, ValueError) as problem:
        raise DataError(f"file {file} cannot be read: {str(problem).strip().splitlines()[0]}") from None


def _with_decimal_points(table: pd.DataFrame, text: str, separator: str) -> list[str]:
    """Make numbers of texts such as 1,5 where a comma can mean nothing else in this table; the columns changed.

    1,000 alone can: a thousand. A table that has decimal points, too, is left as it is.
    """
    if (separator == "," and '"' not in text) or not re.search(r"\d,\d|[^\d],\d", text):
        return []
    certain, texts = False, {}
    for number in range(table.shape[1]):
        column = table.iloc[:, number]
        if column.dtype.kind in "biufM":
            continue
        column = column.where(column.isna(), column.astype(str))
        commas = column.str.fullmatch(_COMMA_NUMBER).eq(True)
        if 2 * int(commas.sum()) >= int(column.notna().sum()) and commas.any():
            texts[number] = column.where(~commas, column.str.replace(",", "."))
            certain |= bool((commas & ~column.str.fullmatch(_THOUSANDS).eq(True)).any())
    end = rf'[{re.escape(separator)}"\n]'
    if not certain or re.search(rf"(?:^|(?<={end})){_POINT_NUMBER}(?:$|{end})", text):
        return []
    for number, column in texts.items():
        cells = column.to_numpy(dtype=object, na_value=float("nan"))
        try:
            table.isetitem(number, cells.astype(float))
        except ValueError:  # a text among them, which is named where the column is used
            table.isetitem(number, cells)
    return [str(table.columns[number]) for number in texts]

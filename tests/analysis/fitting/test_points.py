"""Bad input of every kind ends in a typed error that names row and column; odd but good input is answered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.fitting.fit import fit
from analysis.fitting.laws.known_laws import law_named
from analysis.fitting.reading.points import drop_worst, make_points
from analysis.fitting.reading.tables import filter_rows, read_table
from analysis.fitting.request import FitRequest
from results.errors import DataError, UsageError

X = {"x": np.array([1.0, 2, 3]), "metric": np.array([3.0, 2, 1.5])}


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("metric", 0.0, r"row 1, column 'metric': 0 is not a positive number"),
        ("metric", -2.0, r"row 1, column 'metric': -2 is not a positive number"),
        ("metric", np.nan, r"row 1, column 'metric': nan is not a finite number"),
        ("metric", np.inf, r"row 1, column 'metric': inf is not a finite number"),
        ("x", np.nan, r"row 1, column 'x': nan is not a finite number"),
        ("x", 0.0, r"row 1, column 'x': 0 is not a positive number"),
        ("weights", -1.0, r"row 1, column 'weights': -1 is not a weight of 0 or more"),
    ],
)
def test_a_bad_number_is_named_by_row_and_column(column: str, value: float, words: str) -> None:
    data = {**X, "weights": np.ones(3)}
    data[column] = np.where(np.arange(3) == 1, value, data[column])
    with pytest.raises(DataError, match=words):
        make_points(data, roles=["x"])


def test_text_in_a_number_column() -> None:
    with pytest.raises(DataError, match="row 2, column 'x': 'big' is not a number"):
        make_points({**X, "x": np.array(["1", "2", "big"], dtype=object)}, roles=["x"])
    numeric = make_points({**X, "x": np.array(["1", "2", "3e0"], dtype=object)}, roles=["x"])
    np.testing.assert_array_equal(numeric.columns["x"], [1, 2, 3])


def test_missing_column_lists_those_there_are() -> None:
    with pytest.raises(DataError, match="column 'tokens' is missing; the data have: x, metric"):
        make_points(X, roles=["x", "tokens"])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"x": [], "metric": []}, "no rows"),
        ({"x": [1.0, 2.0], "metric": [1.0]}, "2 rows, but 'metric' has 1"),
        ({"x": [[1.0]], "metric": [1.0]}, "not a column"),
        ({"x": [1.0, 2.0, np.nan], "metric": [1.0, 2.0]}, "column 'x': 3 rows, but 'metric' has 2"),
        ({"x": [1.0, 2.0], "metric": [1.0, 2.0, np.inf]}, "column 'x': 2 rows, but 'metric' has 3"),
        ({"x": [1.0, 2.0], "metric": [1.0, 2.0], "weights": [1.0]}, "column 'weights': 1 rows, but 'metric' has 2"),
        ({"x": [1.0, 2.0], "metric": [1.0, 2.0], "clusters": ["a"]}, "column 'clusters': 1 rows, but 'metric' has 2"),
    ],
)
def test_wrong_shapes(data: dict, words: str) -> None:
    with pytest.raises(DataError, match=words):
        make_points(data, roles=["x"])


def test_row_numbers_of_another_length() -> None:
    with pytest.raises(DataError, match="column 'metric': 4 rows, but 3 row numbers"):
        make_points({"x": np.arange(1.0, 5), "metric": [1.0, 2, 3, np.nan]}, roles=["x"], rows=np.arange(3))


def test_no_weight_at_all_and_empty_cluster_names() -> None:
    with pytest.raises(DataError, match="every weight is 0"):
        make_points({**X, "weights": np.zeros(3)}, roles=["x"])
    with pytest.raises(DataError, match="row 1, column 'run': empty"):
        make_points({**X, "clusters": np.array(["a", None, "b"], dtype=object)}, roles=["x"], names={"clusters": "run"})


def test_one_row_and_equal_rows() -> None:
    with pytest.raises(DataError, match="row 0 is the only row"):
        fit("power", {"x": [5.0], "metric": [2.0]})
    with pytest.raises(DataError, match="column 'x': 5 in every one of 4 rows"):
        fit("power", {"x": [5.0] * 4, "metric": [2.0] * 4})
    with pytest.raises(DataError, match="column 'metric': 2 in every one of 4 rows"):
        fit("power", {"x": [5.0, 6.0, 7.0, 8.0], "metric": [2.0] * 4})


def test_the_input_is_never_written_to() -> None:
    x, y = np.geomspace(1, 100, 8).astype(np.float32), np.linspace(3, 2, 8).astype(np.float32)
    x.flags.writeable = y.flags.writeable = False
    points = make_points({"x": x, "metric": y}, roles=["x"])
    assert points.metric.dtype == np.float64
    points.metric[0] = 9.0
    assert y[0] == 3.0


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=30, unique=True), st.integers(1, 29))
@settings(max_examples=50, deadline=None)
def test_drop_worst_keeps_what_is_below_the_cut_and_flags_the_rest(values: list[float], count: int) -> None:
    points = make_points({"x": np.arange(1.0, len(values) + 1), "metric": np.array(values)}, roles=["x"])
    if count >= len(values):
        with pytest.raises(UsageError, match=f"drop-worst={count}"):
            drop_worst(points, count)
        return
    kept = drop_worst(points, count)
    assert len(kept) == len(values) - count
    assert kept.metric.max() < sorted(values)[-count]
    assert {f.row for f in kept.flags} == {i for i, v in enumerate(values) if v >= sorted(values)[-count]}
    assert not any(f.used for f in kept.flags)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.csv", None, "does not exist"),
        ("empty.csv", b"", "is empty"),
        ("header.csv", b"params,tokens,loss\n", "no rows"),
        ("broken.parquet", b"not parquet", "cannot be read as .parquet"),
        ("ragged.csv", b"a,b\n1,2\n3,4,5\n", "row 1: 3 fields, but the header has 2"),
        ("binary.csv", bytes(range(128, 256)), "cannot be read as .csv"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=words) as error:
        read_table(path)
    assert "\n" not in str(error.value)


def test_parquet_and_csv_give_the_same_points(tmp_path: Path) -> None:
    table = pd.DataFrame({"params": np.geomspace(1e6, 1e9, 9), "tokens": np.geomspace(1e9, 1e8, 9)})
    table["loss"] = 1 + 10 / table.params**0.2
    table.to_csv(tmp_path / "t.csv", index=False)
    table.to_parquet(tmp_path / "t.parquet")
    law = law_named("chinchilla")
    from_csv, from_parquet = (
        FitRequest(read_table(tmp_path / f"t.{kind}").rows, law).points(law) for kind in ("csv", "parquet")
    )
    for name in law.columns:
        np.testing.assert_allclose(from_csv.columns[name], from_parquet.columns[name], rtol=1e-15)


def test_tokens_follow_from_params_and_flops_and_it_says_so() -> None:
    table = pd.DataFrame({"N": [1e6, 2e6], "C": [6e15, 24e15], "loss": [3.0, 2.5]})
    points = FitRequest(table, law_named("chinchilla"), params="N", flops="C").points(law_named("chinchilla"))
    np.testing.assert_allclose(points.columns["tokens"], [1e9, 2e9])
    assert points.notes == ("D = C / (6 N): tokens from C and N",)
    with pytest.raises(UsageError, match="params or tokens beside flops"):
        FitRequest(table, law_named("chinchilla"), flops="C").points(law_named("chinchilla"))
    with pytest.raises(UsageError, match="metric is not named"):
        FitRequest(table.rename(columns={"loss": "L"}), law_named("chinchilla")).points(law_named("chinchilla"))


def test_row_numbers_survive_filtering() -> None:
    table = pd.DataFrame({"x": [1.0, 2, 3, 4], "loss": [3.0, 2.5, -1, 2], "keep": [False, True, True, True]})
    with pytest.raises(DataError, match="row 2, column 'loss': -1"):
        FitRequest(filter_rows(table, "keep"), law_named("power")).points(law_named("power"))


@pytest.mark.parametrize(
    "expression", ["nothing > 1", "x >", "@pd.read_csv('a')", "x.__class__", "x > 'a'", "x.abs() > 1", "print(x)"]
)
def test_wrong_conditions_are_usage_errors(expression: str) -> None:
    with pytest.raises(UsageError, match="where="):
        filter_rows(pd.DataFrame({"x": [1.0, 2.0]}), expression)


def test_conditions_over_texts_and_names_with_spaces() -> None:
    table = pd.DataFrame({"Model Size": [1e6, 2e6, 3e6], "name": ["a__b", "x.y(z)", "@c"]})
    assert list(filter_rows(table, "`Model Size` > 1.5e6 and not (name == '@c')").index) == [1]
    assert list(filter_rows(table, 'name == "a__b" or name in ["x.y(z)"]').index) == [0, 1]


def test_a_condition_that_keeps_nothing() -> None:
    with pytest.raises(DataError, match="leaves no rows of 2"):
        filter_rows(pd.DataFrame({"x": [1.0, 2.0]}), "x > 5")


def test_a_column_that_occurs_twice() -> None:
    table = pd.DataFrame([[1.0, 2.0, 3.0]], columns=["x", "x", "loss"])
    with pytest.raises(DataError, match="more than once"):
        FitRequest(table, law_named("power")).points(law_named("power"))

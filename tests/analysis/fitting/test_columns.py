"""Columns by arithmetic, numbers with units, holes, exports of runs, repeats: in Python and on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.fitting.laws.known_laws import law_named
from analysis.fitting.reading.columns import TableColumns
from analysis.fitting.reading.quantities import quantity
from analysis.fitting.reading.run_exports import in_long_form
from analysis.fitting.reading.tables import Table
from analysis.fitting.request import FitRequest
from analysis.fitting.result import label_of
from results.errors import DataError, UsageError

TABLE = pd.DataFrame(
    {"N": [1.0, 2, 4], "val loss": [3.0, 2, 1], "se": [0.5, 0, 1], "a-b": [7.0, 8, 9], "run": ["x"] * 3}
)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1 - N", [0, -1, -3]),
        ("`val loss`*1e6", [3e6, 2e6, 1e6]),
        ("a-b", [7, 8, 9]),  # the name of a column wins over arithmetic
        ("`a-b` - N", [6, 6, 5]),
        ("2^N / max(N, se)", [2, 2, 4]),
        ("(N)", [1, 2, 4]),
        ("N - N", [0, 0, 0]),
    ],
)
def test_arithmetic_of_columns(text: str, values: list[float]) -> None:
    np.testing.assert_allclose(TableColumns(TABLE).values(text), values, rtol=1e-15)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("M*2", r"there is no column 'M', at character 1: \[M\]\*2; the data have: N, val loss, se, a-b, run"),
        ("1 - ", r"a number or a name is missing, at character"),
        ("N.abs()", r"'.' is not part of a formula"),
        ("eval(N)", r"unknown function 'eval'"),
        ("2*3", "no column is named here"),
        ("N = 2 + N", "an equals sign has no meaning here"),
        ("exp + N", "there is no column 'exp' .the function needs parentheses."),
        ("N/(1 - 1)", "division by zero"),
        ("1/se^2", r"row 1: '1/se\^2' is inf where se = 0$"),
        ("log(se - 1)", r"row 0: 'log\(se - 1\)' is nan where se = 0.5 \(and 2 more rows\)"),
        ("run*2", "row 0, column 'run': 'x' is not a number"),
        ("nosuch", "column 'nosuch' is missing; the data have: N"),
        ("val-loss", r"there is no column 'val', at character 1: \[val\]-loss"),
    ],
)
def test_wrong_arithmetic_marks_the_place_or_names_the_row(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as refused:
        TableColumns(TABLE).values(text)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1.3B", 1.3e9), ("350M", 350e6), ("10k", 1e4), ("10 K", 1e4), ("2T", 2e12), ("3G", 3e9), ("7b", 7e9),
        ("1,000", 1000), ("1,234,567.5", 1234567.5), ("1e12 FLOPs", 1e12), ("3 GFLOPs", 3e9), ("62 %", 0.62),
        ("62%", 0.62), ("1.3 billion", 1.3e9), ("2 million tokens", 2e6), ("1.2x10^18", 1.2e18), ("-4.5M", -4.5e6),
        ("350m", None), ("1,00", None), ("1,5", None), ("B", None), ("1.3 GB/s", None), ("1..3", None), ("", None),
        ("5 apples", None), ("0x10", None), ("1e9 x 10^999", None), ("12 KB", None),
    ],
)  # fmt: skip
def test_quantities(text: str, value: float | None) -> None:
    assert quantity(text) == (None if value is None else pytest.approx(value, rel=1e-15))


@given(st.floats(0, 1e6), st.sampled_from(["k", "M", "B", "T"]))
def test_quantities_are_the_number_times_the_factor(number: float, suffix: str) -> None:
    factor = {"k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}[suffix]
    assert quantity(f"{number:.6f}{suffix}") == pytest.approx(float(f"{number:.6f}") * factor)


def power_table(**changed: Any) -> pd.DataFrame:
    x = np.geomspace(1e3, 1e8, 12)
    return pd.DataFrame({"x": x, "loss": 2 + 30 * x**-0.4, **changed})


def test_units_are_an_option_and_an_error_shows_it() -> None:
    texts = [f"{x / 1e3:.12g}k" for x in power_table()["x"]]
    texts[0] = " 1000 "
    with pytest.raises(DataError, match=r"row 1, column 'x': '2.8\d*k' is not a number \(--units reads it as 28\d"):
        FitRequest(power_table(x=texts), "power").fit()
    result = FitRequest(power_table(x=texts), "power", units=True).fit()
    assert result.values["alpha"] == pytest.approx(0.4)
    assert [note for note in result.notes if "11 of 12 values of 'x' have a unit" in note]
    by_arithmetic = FitRequest(power_table(x=texts), "power", x="x*1e3", units=True).fit()
    assert by_arithmetic.values["alpha"] == pytest.approx(0.4)


def holes() -> pd.DataFrame:
    table = power_table(run=["a"] * 6 + ["b"] * 6)
    return pd.concat(
        [
            table,
            pd.DataFrame({"x": [0.0, 1e3, 1e4], "loss": [3.0, np.nan, np.inf], "run": "a"}),
            pd.DataFrame({"x": [1e5], "loss": [2.5], "run": [None]}),
        ],
        ignore_index=True,
    )


def test_rows_with_holes_are_left_out_and_counted() -> None:
    for where, words in (
        ("x == 0 or x > 2e3", "row 12, column 'x': 0 is not a positive number"),
        ("x > 0 and loss != 0", "row 13, column 'loss': nan is not a finite number"),
    ):
        with pytest.raises(DataError, match=words + r".*\(--skip-missing leaves such rows out\)$"):
            FitRequest(holes().drop(14), "power", where=where).fit()
    result = FitRequest(holes(), "power", skip_missing=True).fit()
    assert result.rows == 13
    [note] = result.notes
    assert note == "left out 3 of 16 rows: 1 where 'loss' is empty or NaN, 1 where 'loss' is infinite, 1 where 'x' is 0"
    groups = FitRequest(holes(), "power", group="run", skip_missing=True).fit_groups()
    assert {name: result.rows for name, result in groups.items()} == {"a": 6, "b": 6}
    assert "left out 1 of 16 rows: 'run' is empty" in groups["a"].notes
    with pytest.raises(DataError, match=r"row 15, column 'run': empty, but it names a group \(--skip-missing"):
        FitRequest(holes(), "power", group="run").fit_groups()
    with pytest.raises(DataError, match="skip-missing leaves no rows of 2: 2 where 'loss' is empty"):
        FitRequest(pd.DataFrame({"x": [1.0, 2], "loss": [None, np.nan]}), "power", skip_missing=True).fit()
    by_inverse = FitRequest(holes()[:15], "power", x="1/(1/x)", skip_missing=True).fit()
    assert by_inverse.rows == 12


def test_a_negative_loss_is_no_hole() -> None:
    table = power_table()
    table.loc[3, "loss"] = -1
    with pytest.raises(DataError, match=r"row 3, column 'loss': -1 is not a positive number .residuals[^(]*\)$"):
        FitRequest(table, "power", skip_missing=True).fit()


def wide_export(runs: int = 2) -> pd.DataFrame:
    steps = np.arange(0, 120, 10)
    table = pd.DataFrame({"Step": steps})
    for run in range(runs):
        loss = 2 + 30 * np.maximum(steps, 1) ** -0.4
        loss[run + 1 :: 4] = np.nan  # runs log at steps of their own
        for name, column in (("_step", np.where(np.isnan(loss), np.nan, steps)), ("val/loss", loss)):
            for bound in ("", "__MIN", "__MAX"):
                table[f"fine - run {run} - {name}{bound}"] = column
    return table


def test_a_wide_export_of_runs_is_melted() -> None:
    result = FitRequest(wide_export(), "m2", skip_missing=True).fit()
    assert result.values["alpha"] == pytest.approx(0.4)
    assert result.points is not None and result.points.names == {"x": "Step", "metric": "val/loss"}
    assert result.notes[0] == (
        "a wide export of runs was read as 18 rows of run, Step, _step, val/loss from 2 runs "
        "(left out: 8 columns __MIN and __MAX; 6 empty cells)"
    )
    assert "left out 1 of 18 rows: 1 where 'Step' is 0" in result.notes[2] or "where 'Step' is 0" in result.notes[-1]
    groups = FitRequest(wide_export(), "m2", group="run", skip_missing=True).fit_groups()
    assert set(groups) == {"fine - run 0", "fine - run 1"}


def test_a_wide_column_that_is_named_keeps_the_table_wide() -> None:
    request = FitRequest(wide_export(), "m2", x="Step", metric="fine - run 0 - val/loss", skip_missing=True)
    assert request.fit().rows == 8
    by_arithmetic = FitRequest(
        wide_export(), "m2", x="Step", metric="`fine - run 0 - val/loss` - 0.5", skip_missing=True, residual="raw"
    )
    assert by_arithmetic.fit().rows == 8
    plain = pd.DataFrame({"N": [1, 2], "train - loss": [1, 2], "note": ["a", "b"]})
    assert in_long_form(Table(plain)).rows is plain


def test_tensorboard_names_its_columns() -> None:
    steps = np.arange(1, 13) * 100
    table = pd.DataFrame({"Wall time": 1.7e9 + steps, "Step": steps, "Value": 2 + 30 * steps**-0.4})
    result = FitRequest(table, "m2").fit()
    assert result.values["alpha"] == pytest.approx(0.4)
    assert "x = Step" in result.notes


def test_repeats_are_judged_on_the_whole_row() -> None:
    table = power_table(seed=0)
    copied = pd.concat([table, table[:2]], ignore_index=True)
    [note] = FitRequest(copied, "power").points(law_named("power")).notes
    assert note.startswith("2 of 14 rows repeat an earlier one exactly (first: row 12)")
    copied.loc[12:, "seed"] = 1
    assert FitRequest(copied, "power").points(law_named("power")).notes == ()
    counted = pd.concat([table, table[:2]], ignore_index=True).rename_axis("Unnamed: 0").reset_index()
    assert len(FitRequest(counted, "power").points(law_named("power")).notes) == 1


def test_groups_are_found_as_numbers() -> None:
    labels = ["1e+18", "3e+18", "VQ", "1024"]
    assert [label_of(name, labels) for name in ("1e18", "3000000000000000000", "VQ", "1024.0")] == labels
    for name in ("1.1e18", "vq", "nan"):
        with pytest.raises(UsageError, match="is not one of the file's: 1e"):
            label_of(name, labels)


def test_arithmetic_in_every_place(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    n, d = np.exp(rng.uniform(16, 22, 60)), np.exp(rng.uniform(20, 26, 60))
    table = pd.DataFrame({"mparams": n / 1e6, "gtokens": d / 1e9, "se": 0.1 + rng.random(60)})
    table["miou"] = 1 - (0.2 + 40 / n**0.34 + 200 / d**0.37)
    table["quality"] = table["miou"] * 100
    plain = FitRequest(
        table.assign(N=n, D=d, error=1 - table["miou"], w=1 / table["se"] ** 2),
        "chinchilla", params="N", tokens="D", metric="error", weights="w",
    )  # fmt: skip
    table.to_csv(tmp_path / "t.csv", index=False)
    typed = FitRequest(
        tmp_path / "t.csv", "chinchilla", params="mparams*1e6", tokens="gtokens * 1e9", metric="1 - miou",
        weights="1/se^2",
    )  # fmt: skip
    assert typed.fit().values == pytest.approx(plain.fit().values, rel=1e-6)
    by_flops = FitRequest(
        table, "chinchilla", params="mparams*1e6", flops="6*mparams*gtokens*1e15", metric="1 - quality/100",
        weights="1/se^2",
    )  # fmt: skip
    assert by_flops.fit().values == pytest.approx(plain.fit().values, rel=1e-6)
    floored = FitRequest(table, "power", x="mparams*gtokens", metric="1 - miou", floor="0.1 + 0*miou").fit()
    assert floored.law.formula == "L = floor + A x^-alpha"


def test_legends_show_values_as_they_are() -> None:
    from analysis.reporting.figures.fit_figure import fit_figure

    x, k = np.tile(np.geomspace(1e15, 1e19, 6), 4), np.repeat([256.0, 1024, 16384, 131072], 6)
    table = pd.DataFrame({"params": k, "tokens": x, "loss": 2 + 3 / k**0.3 + 30 * (x / 1e15) ** -0.6})
    figure = fit_figure(FitRequest(table, "chinchilla").fit())
    texts = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert [text for text in texts if text.startswith("N = ")] == ["N = 256", "N = 1024", "N = 16384", "N = 131072"]

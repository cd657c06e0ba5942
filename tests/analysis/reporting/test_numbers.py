"""Every number that stands twice is equal: in sentences, table cells, figures, JSON, CSV and the page's own data."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from matplotlib.text import Text

from analysis.reporting import wording
from analysis.reporting.answer import answer
from analysis.reporting.figures.gallery import drawn
from analysis.reporting.page_data import page_data
from analysis.reporting.tables.all_tables import all_tables
from analysis.tokenizers.frames import load

FASHION = Path(__file__).parents[3] / "docs" / "studies" / "fashion"
NUMBER = re.compile(r"(?<![\w.])[+−]?\d[\d,]*(?:\.\d+)?(?:e-?\d+|[kM](?!\w))?(?: %)?(?![\w-])")


@pytest.fixture(scope="module", params=["fashion", "demo_like", "own"])
def study(request, demo_like, own_study):
    """Frames, answer and tables of the committed study, of a synthetic one, and of runs of one's own trainer."""
    made = {"demo_like": demo_like, "own": own_study}
    frames = load(FASHION) if request.param == "fashion" else made[request.param].frames()
    told = answer(frames)
    return frames, told, {table.name: table for table in all_tables(frames, told)}


def _leaves(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _leaves(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _leaves(inner)
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        yield float(value)


def _written(values: Iterable[float]) -> set[str]:
    """Every way in which sentences, tables and figures write these numbers."""
    texts = set()
    for value in values:
        texts |= {wording.number(value), wording.number(value, 2), wording.signed(value), wording.flops(value)}
        texts |= {wording.images(value), wording.percent(value), f"{value:,.0f}", f"{value:.0f}", f"{value:g}"}
        texts |= {f"{100 * value:.0f} %", f"{wording.number(100 * value, 2)} %", f"{wording.signed(100 * value, 2)} %"}
        texts |= {wording.percent(value).lstrip("<> ")}
        texts |= {f"{value / 2**20:.0f}", f"{wording.number(value)} %"}
    return texts


SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
POWER = re.compile(r"\$?([\d.]+)(?: × 10([⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+)|\\!\\times\\!10\^\{(-?\d+)\}\s*\$)")


def _numbers(text: str, names: Iterable[str]) -> list[str]:
    """The numbers of a text that are measurements: not in names, not small counts, not the 95 % of intervals."""
    # Figures set 2.0e11 as a product, and leave out the 0.
    text = POWER.sub(lambda m: f"{m[1] if '.' in m[1] else f'{m[1]}.0'}e{(m[2] or m[3]).translate(SUPERSCRIPTS)}", text)
    for name in sorted(map(str, names), key=len, reverse=True):
        text = re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", "", text)
    shown = [token.removeprefix("+") for token in NUMBER.findall(text)]
    return [token for token in shown if not re.fullmatch(r"\d{1,2}", token) and token not in ("95 %", "100")]


def _names(frames: Any) -> set[str]:
    columns = [frames.runs["family"], frames.runs["size"], frames.runs["label"], frames.runs["run_id"]]
    names = {str(v) for column in columns for v in column.dropna()} - {""}
    return names | set(frames.own["name"]) | {f"{a} + {b}" for a in frames.runs["family"] for b in frames.runs["size"]}


def _all_written(told: Any, tables: Any) -> set[str]:
    data = told.to_dict()
    del data["statements"], data["headline"]
    leaves = list(_leaves(data))
    for table in tables.values():
        for column in table.data.select_dtypes("number"):
            leaves += [float(v) for v in table.data[column] if math.isfinite(v)]
    written = _written(leaves)
    return written | {text.removeprefix("+") for text in written}


def test_every_number_of_the_sentences_is_one_of_the_tables_or_the_json(study):
    frames, told, tables = study
    written = _all_written(told, tables)
    text = " ".join([told.headline, *(statement.text for statement in told.statements)])
    numbers = _numbers(text, _names(frames))
    assert [n for n in numbers if n not in written] == []
    assert len(numbers) > (40 if told.best_pairs else 1)


def test_every_number_of_a_table_is_that_of_its_row_in_the_csv(study):
    frames, _, tables = study
    names = _names(frames)
    for table in tables.values():
        if table.name in ("guidance", "protocols", "excluded"):
            continue
        for row, (_, facts) in zip(table.rows, table.data.iterrows(), strict=True):
            known = _written(float(v) for v in facts if isinstance(v, int | float) and math.isfinite(v))
            # Each seed's value of a regulariser's effect is in answer.json.
            cells = row[:-1] if table.name == "regulariser" else row
            for cell in cells:
                strange = [n for n in _numbers(cell, names) if n not in known and n not in str(list(facts))]
                if table.name == "runs" and cell in str(list(facts)):
                    continue
                sums = {
                    f"{float(facts.get('parameters_other') or 0) + float(facts.get('parameters_embedding') or 0):,.0f}"
                }
                rate = {wording.number(v) for v in _rates(facts)}
                assert not set(strange) - sums - rate, (table.name, row, strange)


def _rates(facts: Any) -> Iterator[float]:
    """Bits a pixel, which the table of tokenizers shows beside tokens and codes."""
    if "codebook_size" in facts and "tokens_per_image" in facts and facts["codebook_size"]:
        for side in (28, 32, 64, 128, 256):
            yield float(facts["tokens_per_image"]) * math.log2(float(facts["codebook_size"])) / side**2


def test_every_number_written_into_a_figure_is_one_of_the_tables_or_the_json(study):
    frames, told, tables = study
    written, names = _all_written(told, tables), _names(frames)
    count = 0
    for name, figure in drawn(frames, told):
        axes = [which for axis in figure.axes for which in (axis.xaxis, axis.yaxis)]
        labels = [t for a in axes for tick in (*a.majorTicks, *a.minorTicks) for t in (tick.label1, tick.label2)]
        ticks = {id(label) for label in labels}
        for text in figure.findobj(Text):
            numbers = [] if id(text) in ticks else _numbers(text.get_text(), names)
            assert [n for n in numbers if n not in written] == [], (name, text.get_text())
            count += len(numbers)
    assert count > 10 or not told.best_pairs


def test_the_pages_own_data_are_the_texts_of_the_tables(study):
    frames, _, tables = study
    data = json.loads(json.dumps(page_data(frames, tables, {})))
    assert data["tables"]["runs"]["rows"] == [list(row) for row in tables["runs"].rows]
    points = data["points"]
    lengths = {len(points["run"])} | {len(a["values"]) for a in [*points["axes"].values(), *points["metrics"].values()]}
    assert len(lengths) == 1 and lengths.pop() > 0
    measured = frames.points if len(frames.points) else frames.own.rename(columns={"value": "own_missed"})
    metric = "gfid" if len(frames.points) else "own_missed"
    columns = (points["run"], points["axes"]["path_flops"]["values"], points["metrics"][metric]["values"])
    shown = {(data["ids"][run], flops): value for run, flops, value in zip(*columns, strict=True)}
    for run_id, flops, value in zip(measured["run_id"], measured["path_flops"], measured[metric], strict=True):
        assert shown[run_id, wording.flops(flops)] == wording.number(value)


def test_a_share_is_never_written_as_none_or_all():
    assert [wording.percent(v) for v in (0.0, 0.004, 0.21, 0.996, 1.0)] == [
        "< 1 %",
        "< 1 %",
        "21 %",
        "> 99 %",
        "> 99 %",
    ]

"""Rows measured elsewhere: forms, mappings, repetition, changes, damaged values by row and column; the joined table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from results import DataError, Recorder, Store, UsageError
from results.importing.importer import Imported, import_file, imported
from results.settings import joined

WIDE = """generator,N,codebook_size,tokens_per_image,images,path_flops,gFID,rfid,n
S,1e6,256,64,1000,1e12,20.5,2.5,50000
M,4e6,256,64,1000,4e12,15,2.5,50000
M,4e6,256,64,4000,1.6e13,12,,50000
"""
MAP = {"N": "parameters_other"}


class Scene:
    """A store and files to import."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, Store(folder)

    def take(self, text: str, name: str = "t.csv", columns: dict[str, str] | None = None, **options: Any) -> Imported:
        (self.folder / name).write_text(text)
        chosen = {name: to for name, to in MAP.items() if name in text} if columns is None else columns
        return import_file(self.store, self.folder / name, columns=chosen, **options)

    def rows(self, table: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.store.read(table).to_pylist()
        return rows


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_wide_form(scene: Scene) -> None:
    done = scene.take(WIDE, source="table 3")
    assert done == Imported(added=3, replaced=0, present=0, rows=5, others=(), rounded={})
    runs = {(row["generator"], row["train_images"]): row for row in scene.rows("runs")}
    assert set(runs) == {("S", 1000), ("M", 1000), ("M", 4000)}
    row = runs["M", 4000]
    assert (row["stage"], row["status"], row["source"]) == ("generator", "done", "table 3")
    assert (row["parameters_other"], row["codebook_size"], row["path_flops"]) == (4_000_000, 256, 1.6e13)
    assert (row["wall_seconds"], row["threads"], row["data_fingerprint"], row["started_at"]) == (None,) * 4
    assert row["tokenizer"] == "K256-T64" and row["tokenizer_seed"] == 0
    about = json.loads(row["provenance"])["imported"]
    assert (about["file"], about["source"], len(about["sha256"]), about["columns"]) == ("t.csv", "table 3", 64, MAP)
    assert str(scene.folder) not in row["provenance"]
    cells = {(row["metric"], row["images"], row["value"], row["n"], row["split"]) for row in scene.rows("evaluations")}
    assert ("gfid", 4000, 12.0, 50000, "train") in cells and ("rfid", 1000, 2.5, 50000, "validation") in cells
    assert scene.store.check().damaged == ()
    assert len(scene.store.finished()) == 3


def test_long_form_and_runs_that_are_named(scene: Scene) -> None:
    text = "run,images,step,metric,value,guidance,n,branch\n"
    text += "a,10,1,gfid,9,1,100,trunk\na,10,1,gfid,8,1.5,100,trunk\na,20,2,gfid,7,1,100,trunk\nb,10,1,rfid,1,,100,\n"
    assert scene.take(text).added == 2
    rows = {row["label"]: row for row in scene.rows("runs")}
    assert rows["a"]["stage"] == "generator" and rows["b"]["stage"] == "tokenizer"
    assert rows["a"]["train_images"] == 20 and rows["a"]["source"] == "t.csv"
    assert [row["value"] for row in scene.rows("evaluations") if row["run_id"] == rows["a"]["run_id"]] == [9, 8, 7]
    # A fact that is corrected does not make another run of it.
    with pytest.raises(
        UsageError, match=r"t\.csv row 1: run a of source 't\.csv' was imported before with other values"
    ):
        scene.take(text.replace("run,", "codebook_size,run,").replace("\na,", "\n512,a,").replace("\nb,", "\n512,b,"))


def test_parquet_is_read_like_csv(scene: Scene) -> None:
    scene.take(WIDE, source="x")
    table = {"generator": ["S"], "N": [1_000_000], "codebook_size": [256], "tokens_per_image": [64], "images": [1000],
             "path_flops": [1e12], "gFID": [20.5], "rfid": [2.5], "n": [50000.0]}  # fmt: skip
    pq.write_table(pa.table(table), scene.folder / "t.parquet")
    done = import_file(scene.store, scene.folder / "t.parquet", source="x", columns=MAP)
    assert (done.added, done.present) == (0, 1)


def test_the_same_file_again_adds_nothing_and_a_longer_one_what_is_new(scene: Scene) -> None:
    scene.take(WIDE)
    before = {table: scene.rows(table) for table in ("runs", "evaluations")}
    assert (scene.take(WIDE).added, scene.take(WIDE).present) == (0, 3)
    assert {table: scene.rows(table) for table in before} == before
    done = scene.take(WIDE + "L,9e6,256,64,1000,9e12,11,2.5,50000\n")
    assert (done.added, done.present, done.rows) == (1, 3, 2)
    # After a compaction, and after the index was made anew, it is still known.
    scene.store.compact()
    assert scene.take(WIDE).present == 3
    (segment,) = scene.store.view().version.segments
    (segment.path / "index.json").write_text("")
    assert len(Store(scene.folder).check().damaged) == 1
    assert import_file(Store(scene.folder), scene.folder / "t.csv", columns=MAP).present == 3


def test_changed_values_are_refused_or_replaced(scene: Scene) -> None:
    scene.take(WIDE)
    changed = WIDE.replace("15", "15.5") + "L,9e6,256,64,1000,9e12,11,2.5,50000\n"
    before = scene.rows("evaluations")
    with pytest.raises(UsageError, match=r"row 2: run K256-T64-M-1000-s0 .*--replace .*another --source"):
        scene.take(changed)
    assert scene.rows("evaluations") == before
    done = scene.take(changed, replace=True)
    assert (done.added, done.replaced, done.present) == (1, 1, 2)
    values = [row["value"] for row in scene.rows("evaluations") if row["metric"] == "gfid"]
    assert sorted(values) == [11, 12, 15.5, 20.5]
    assert scene.take(changed).present == 4
    assert scene.take(WIDE, source="another").added == 3
    assert len(scene.rows("runs")) == 7
    assert imported(scene.store, ["another"]) < imported(scene.store, ["another", "t.csv"])
    with pytest.raises(UsageError, match=r"source = 'x' is unknown; allowed: 'another', 't\.csv'"):
        imported(scene.store, ["x"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (WIDE.replace("15", "n/a"), r"t\.csv row 2, column gFID: 'n/a' is not a number"),
        (WIDE.replace("15", "inf"), r"row 2, column gFID: 'inf' is not a finite number"),
        (WIDE.replace("15", "nan"), r"row 2, column gFID: 'nan' is not a finite number"),
        (WIDE.replace("S,1e6,256", "S,1e6,25.6"), r"row 1, column codebook_size: '25.6' is no whole number"),
        (WIDE.replace("S,1e6,256", "S,1e6,-256"), r"row 1, column codebook_size: '-256' is negative"),
        (WIDE.replace("2.5,50000\nM", "2.5,0\nM", 1), r"row 1: protocol\.n = 0 is not allowed"),
        (WIDE.replace("M,4e6,256,64,1000", "M,4e6,256,64"), r"row 2 has 8 values, the header 9"),
        (WIDE.replace("rfid", "r").replace(",n", ",m"), r"columns without a meaning here: r, m; --map"),
        (WIDE.replace("images", "imagess"), r"Is imagess images\? --map imagess=images"),
        (WIDE.replace("gFID", "x").replace("rfid", "y"), "no measurement: it needs a column of a metric"),
        (WIDE.replace("gFID", "metric"), "metric without the other"),
        (WIDE.replace("rfid", "gfid"), "columns gFID and gfid are both gfid"),
        ("metric,value,gfid\ngfid,1,1\n", "metric and value, and also gfid; allowed: one of the two forms"),
        ("metric,value\ngFID2,1\n", "row 1: metric = 'gFID2' is unknown"),
        ("metric,value\ngfid,\n", "row 1 lacks metric or value"),
        ("run,gfid\na,1\na,2\n", "row 2 measures gfid of the same run at the same place as row 1; a column must tell"),
        ("run,seed,gfid,images\na,1,1,1\na,2,2,2\n", "row 2: seed = 2 differs from 1 in row 1 of the same run"),
        ("stage,gfid\npainter,1\n", "row 1: stage = 'painter'; allowed: tokenizer, generator, run"),
        ("gfid,split\n1,test\n", "row 1: split = 'test'; allowed: train, validation"),
        ("gfid\n", "has no rows"),
        ("", "has no"),
        ("gfid,n\n,3\n", "has no measured value in any row"),
        ("gfid,gfid\n1,2\n", "has the column 'gfid' more than once"),
    ],
)  # fmt: skip
def test_bad_files_end_with_one_line_and_nothing_is_taken(scene: Scene, text: str, words: str) -> None:
    keep = "no measurement" in words
    with pytest.raises(UsageError, match=words) as error:
        scene.take(text, keep=keep)
    assert "\n" not in str(error.value)
    assert not scene.store.folder.exists()


def test_bad_files_by_kind(scene: Scene) -> None:
    for name, content, words in (
        ("t.xlsx", b"x", "file = 't.xlsx' is not allowed; allowed: .csv, .tsv, .parquet"),
        ("t.parquet", b"PAR1", "no Parquet file"),
        ("t.csv", b"gfid\n\xff\n", r"not UTF-8 text: byte 5 is 0xff"),
    ):
        (scene.folder / name).write_bytes(content)
        with pytest.raises(UsageError, match=words):
            import_file(scene.store, scene.folder / name)
    with pytest.raises(DataError, match=r"cannot read .*No such file"):
        import_file(scene.store, scene.folder / "none.csv")
    for columns, words in (
        ({"M": "gfid"}, "--map M=gfid: t.csv has no column 'M'; its columns: generator, N"),
        ({"N": "parameters_othr"}, r"parameters_othr is no name here \(did you mean parameters_other\?\)"),
        ({"N": "n"}, "columns N and n are both n"),
    ):
        with pytest.raises(UsageError, match=words):
            scene.take(WIDE, columns=columns)
    with pytest.raises(UsageError, match="stage = 'x' is not allowed; allowed: tokenizer, generator, run"):
        scene.take(WIDE, stage="x")


def test_counts_read_off_a_figure_are_rounded_and_told(scene: Scene) -> None:
    assert scene.take(WIDE.replace("4e6", "3999999.7")).rounded == {"N": 2}
    assert {row["parameters_other"] for row in scene.rows("runs")} == {1_000_000, 4_000_000}


def test_columns_of_ones_own_are_kept_and_joined(scene: Scene, run_row: dict[str, Any]) -> None:
    text = WIDE.replace("generator,", "generator,tried by,").replace("\nS,", "\nS,A,").replace("\nM,", "\nM,B,")
    assert scene.take(text, keep=True).others == ("tried by",)
    recorder = Recorder("own", 1)
    recorder.evaluation(step=3, metric="own_score", value=5.0, protocol=_protocol("own_score"))
    spec = json.dumps({"stage": "run", "values": {"width": 7, "deep": {"er": [1]}, "flag": True}})
    row = {name: run_row[name] for name in ("label", "seed", "finished_at", "provenance")}
    tables = recorder.tables(row | {"stage": "run", "status": "done", "spec": spec})
    scene.store.append("own", tables, status="done", attempt=1)
    table = joined(scene.store)
    rows = table.to_pylist()
    assert len(rows) == 6 and table.column_names[:2] == ["run_id", "attempt"]
    (ours,) = [row for row in rows if row["run_id"] == "own"]
    assert (ours["run.width"], ours["run.deep.er"], ours["run.flag"], ours["other.tried by"]) == (7, "[1]", True, None)
    assert {row["other.tried by"] for row in rows if row["generator"] == "M"} == {"B"}
    assert {row["parameters_other"] for row in rows if row["generator"] == "S"} == {1_000_000}
    assert "spec" not in table.column_names
    assert len(joined(scene.store, ["own"])) == 1


def test_frames_see_imported_runs(scene: Scene) -> None:
    from analysis.reporting.tables.all_tables import generator_table, protocol_table, run_table
    from analysis.tokenizers.frames import load

    scene.take(WIDE)
    frames = load(scene.store)
    points = frames.points
    assert points["gfid"].tolist() == [15.0, 12.0, 20.5]
    assert points["size"].tolist() == ["M", "M", "S"] and points["images"].tolist() == [1000, 4000, 1000]
    assert frames.families["bits_per_image"].tolist() == [512.0]
    for table in (generator_table(frames), run_table(frames), protocol_table(frames)):
        assert table is not None and not [cell for row in table.rows for cell in row if "nan" in str(cell).lower()]
    scene.take(
        WIDE.replace("generator,", "data,generator,").replace("\nS", "\nimagenet,S").replace("\nM", "\nimagenet,M")
    )
    with pytest.raises(DataError, match=r"mixes data sets \(imagenet, unknown\)"):
        load(scene.store)


def _protocol(metric: str) -> Any:
    from results import Protocol

    return Protocol(metric, None)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 3), st.floats(0.1, 100)), min_size=1, max_size=8))
def test_whatever_is_imported_is_read_back(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    scene = Scene(tmp_path_factory.mktemp("import"))
    kept = {(run, images): value for run, images, value in rows}
    text = "run,images,gfid\n" + "".join(f"{run},{images},{value!r}\n" for (run, images), value in kept.items())
    assert scene.take(text).rows == len(kept)
    labels = {row["run_id"]: row["label"] for row in scene.rows("runs")}
    assert {(labels[r["run_id"]], r["images"]): r["value"] for r in scene.rows("evaluations")} == kept
    assert scene.take(text).added == 0

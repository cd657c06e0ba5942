"""Rows as JSON lines: every kind of line, bad ones by number and field, files that grow, resuming, the writer."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from results import Recorder, UsageError, open_rows
from results.jsonlines import Lines, LinesFile
from results.schema import METRICS


def take(*lines: Any, staged: bool = False, earlier: Recorder | None = None) -> Lines:
    """Lines into a new recorder."""
    taker = Lines(Recorder("r", 1), staged=staged, earlier=lambda: earlier)
    for line in lines:
        taker.take(line)
    return taker


def test_each_kind_of_line() -> None:
    lines = take(
        {"step": 1, "images": 64.0, "loss": math.nan, "grad": 1},
        {"step": 1, "split": "validation", "loss": 2.5, "branch": "decay@64"},
        {"metric": "gfid", "value": 3, "step": 1, "n": 10, "guidance": 1, "protocol": {"extractor": "x", "seed": 0}},
        {"metric": "own_score", "value": 3.5, "step": 1, "flag": "a bad day"},
        {"facts": {"codebook_size": 256, "learning_rate": 1}},
        {"progress": 0.5, "images_per_second": 12.5, "detail": "half"},
        {"status": "diverged", "message": "loss\nis nan"},
    )
    curves, evaluations = lines.recorder.rows["curves"], lines.recorder.rows["evaluations"]
    assert [(row["term"], row["images"], row["split"], row["branch"]) for row in curves] == [
        ("loss", 64, "train", "trunk"), ("grad", 64, "train", "trunk"), ("loss", None, "validation", "decay@64"),
    ]  # fmt: skip
    assert [(row["metric"], row["n"], row["guidance"], row["flag"]) for row in evaluations] == [
        ("gfid", 10, 1.0, None), ("own_score", None, None, "a bad day"),
    ]  # fmt: skip
    assert lines.recorder.known_facts == {"codebook_size": 256, "learning_rate": 1.0}
    assert lines.progress["images_per_second"] == 12.5
    assert lines.ending == ("diverged", "diverged", "loss is nan")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"loss": 1.0}, "field step is missing; a line of curves needs it"),
        ({"step": 1}, "curve at step 1 has no terms"),
        ({"step": 1.5, "loss": 1.0}, "step = 1.5 is not allowed; allowed: a whole number from 0"),
        ({"step": -1, "loss": 1.0}, "step = -1 is not allowed"),
        ({"step": 1, "loss": "0.5"}, "loss = '0.5' is not allowed; allowed: a number"),
        ({"step": 1, "loss": None}, "loss = None is not allowed"),
        ({"step": 1, "loss": True}, "loss = True is not allowed"),
        ({"step": 1, "loss": 1, "branch": "main"}, "branch = 'main' is not allowed; allowed: 'trunk' or"),
        ({"step": 1, "loss": 1, "branch": 3}, "branch = 3 is not allowed"),
        ({"step": 1, "loss": 1, "split": "test"}, "split = 'test' is not allowed; allowed: train, validation"),
        ({"step": 1, "loss": 1, "flops": math.inf}, "flops = inf is not allowed; allowed: a finite number"),
        ({"metric": "gFID", "value": 1, "step": 1, "n": 1}, "'gFID' is unknown; did you mean 'gfid'\\? allowed: rfid"),
        ({"metric": ["gfid"], "value": 1, "step": 1, "n": 1}, "metric = .* is unknown"),
        ({"metric": "gfid", "value": 1, "step": 1}, "field n is missing; metric 'gfid' needs it"),
        ({"metric": "gfid", "value": math.nan, "step": 1, "n": 1}, "value = nan is not allowed"),
        ({"metric": "gfid", "value": 1, "step": 1, "n": 0}, "n = 0 is not allowed; allowed: a whole number from 1"),
        ({"metric": "gfid", "value": 1, "step": 1, "n": 1, "fid": 2}, "field fid = 2 is not allowed; allowed: branch"),
        ({"metric": "gfid", "value": 1, "step": 1, "n": 1, "protocol": {"x": 1}}, "protocol = .*allowed: an object of"),
        ({"metric": "gfid", "value": 1, "step": 1, "n": 1, "guidance": "no"}, "guidance = 'no' is not allowed"),
        ({"facts": {"run_id": "x"}}, "fact run_id is not allowed; allowed: label"),
        ({"facts": {"codebook_size": 2.5}}, "codebook_size = 2.5 is not allowed; allowed: a whole number"),
        ({"facts": {"data": 3}}, "data = 3 is not allowed; allowed: text"),
        ({"facts": 3}, "facts = 3 is not allowed; allowed: an object"),
        ({"progress": 1.5}, "progress = 1.5 is not allowed; allowed: a number from 0 to 1"),
        ({"progress": "x"}, "progress = 'x' is not allowed"),
        ({"progress": 0.5, "eta": 3}, "field eta = 3 is not allowed; allowed: progress, images_per_second"),
        ({"progress": 0.5, "phase": 3}, "phase = 3 is not allowed; allowed: text"),
        ({"resume": -2}, "resume = -2 is not allowed; allowed: the last step that is kept, or -1 for none"),
        ({"resume": True}, "resume = True is not allowed"),
        ({"status": "finished"}, "status = 'finished' is not allowed; allowed: done, diverged, failed"),
        ({"status": "failed", "cause": "bad luck"}, "cause = 'bad luck' is not allowed; allowed: error, out_of_memory"),
    ],
)  # fmt: skip
def test_bad_lines_name_field_value_and_what_is_allowed(line: dict[str, Any], words: str) -> None:
    lines = take({"step": 0, "loss": 1.0})
    before = lines.recorder.rows
    with pytest.raises(UsageError, match=words) as error:
        lines.take(line)
    assert "\n" not in str(error.value)
    assert lines.recorder.rows == before


def test_the_specification_says_the_facts_of_a_stage() -> None:
    assert take({"facts": {"parameters_other": 5}}, staged=True).recorder.known_facts == {"parameters_other": 5}
    with pytest.raises(UsageError, match="fact width is not allowed, the specification says it; allowed: parameters_"):
        take({"facts": {"width": 5}}, staged=True)


def test_resume_takes_over_the_earlier_rows_up_to_the_step() -> None:
    earlier = take(*({"step": step, "loss": float(step)} for step in range(6)), {"facts": {"width": 3}}).recorder
    lines = take({"resume": 3}, {"step": 4, "loss": 40.0}, earlier=earlier)
    assert [row["value"] for row in lines.recorder.rows["curves"]] == [0, 1, 2, 3, 40]
    assert lines.recorder.known_facts == {"width": 3}
    # Without a line that says so an attempt stands for itself.
    assert len(take({"step": 4, "loss": 40.0}, earlier=earlier).recorder.rows["curves"]) == 1
    # A restart within an attempt goes back in its own rows.
    again = take({"resume": 3}, {"step": 4, "loss": 4}, {"resume": 1}, {"step": 2, "loss": 20}, earlier=earlier)
    assert [row["value"] for row in again.recorder.rows["curves"]] == [0, 1, 20]
    assert take({"resume": -1}, earlier=earlier).recorder.rows["curves"] == []
    with pytest.raises(UsageError, match="already has a row"):
        take({"resume": 3}, {"step": 3, "loss": 4.0}, earlier=earlier)


def test_a_file_that_grows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    file = LinesFile(path, Lines(Recorder("r", 1), staged=False))
    file.poll()
    with path.open("w") as out:
        out.write('{"step": 1, "loss": 1.0}\n\n{"step": 2, "lo')
        out.flush()
        file.poll()
        assert len(file.lines.recorder.rows["curves"]) == 1
        out.write('ss": 2.0}\n{"step": 3, "loss": 3.0}')
        out.flush()
        file.poll()
        assert len(file.lines.recorder.rows["curves"]) == 2
    # A last line without its end is whole all the same.
    assert file.close() is None
    assert len(file.lines.recorder.rows["curves"]) == 3
    path.write_text("{}")
    with pytest.raises(UsageError, match=r"rows\.jsonl became shorter"):
        file.poll()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"step": 1, "loss": 1}\n{"step": 2, "loss": "x"}\n', r"rows\.jsonl line 2: loss = 'x'"),
        ('{"step": 1, "loss": 1}\n\nloss=2\n', r"rows\.jsonl line 3: b?'loss=2' is not JSON"),
        ("[1]\n", r"rows\.jsonl line 1: \[1\] is not allowed; allowed: an object"),
        ("\xff\n", r"rows\.jsonl line 1: .* is not JSON"),
        ("[" * 100_000 + "\n", r"rows\.jsonl line 1: .* is not JSON"),
    ],
)
def test_bad_files_name_the_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=words):
        LinesFile(path, Lines(Recorder("r", 1), staged=False)).close()


def test_a_cut_last_line_is_told(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"step": 1, "loss": 1}\n{"step": 2, "lo')
    file = LinesFile(path, Lines(Recorder("r", 1), staged=False))
    assert file.close() == 'rows.jsonl line 2 is cut short and left out: b\'{"step": 2, "lo\''
    assert len(file.lines.recorder.rows["curves"]) == 1


def test_what_the_writer_writes_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.jsonl"
    monkeypatch.setenv("TOKENLAW_ROWS", str(path))
    monkeypatch.setenv("TOKENLAW_STAGE", "generator")
    monkeypatch.setenv("TOKENLAW_EARLIER", str(tmp_path / "1"))
    with open_rows() as rows:
        assert rows.earlier == tmp_path / "1"
        rows.resume(0)
        rows.curve(step=np.int64(1), images=64, loss=np.float32(0.1), grad=float("nan"))
        rows.evaluation("gfid", np.float64(1 / 3), step=1, n=10, protocol={"extractor": "x"})
        rows.facts(parameters_other=np.int32(5))
        rows.progress(0.5, phase="train")
        for wrong in (
            lambda: rows.curve(step=1, loss=1.0),
            lambda: rows.facts(width=3),
            lambda: rows.evaluation("fid", 1.0, step=1),
            lambda: rows.curve(step=2, loss=object()),  # type: ignore[arg-type]
        ):
            with pytest.raises(UsageError):
                wrong()
        rows.end("done")
    file = LinesFile(path, Lines(Recorder("r", 1)))
    assert file.close() is None
    curves = file.lines.recorder.rows["curves"]
    assert curves[0]["value"] == float(np.float32(0.1)) and math.isnan(curves[1]["value"])
    assert file.lines.recorder.rows["evaluations"][0]["value"] == 1 / 3
    assert file.lines.ending == ("done", "error", "")
    # A process that is started again within the attempt knows what was written.
    with open_rows() as rows, pytest.raises(UsageError, match="already has a row"):
        rows.curve(step=1, loss=1.0)
    assert len(path.read_text().splitlines()) == 6


def test_by_hand_rows_go_to_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TOKENLAW_ROWS", "TOKENLAW_STAGE", "TOKENLAW_EARLIER", "TOKENLAW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    with open_rows() as rows:
        rows.curve(step=1, loss=1.0)
        rows.facts(codebook_size=3)
    assert json.loads((tmp_path / "rows.jsonl").read_text().splitlines()[0])["loss"] == 1.0
    assert "gfid" in METRICS

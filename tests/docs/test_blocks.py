"""Every block of the documentation, pasted in any folder: studies are valid, commands work and print what is shown."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
import pytest

from results import Store
from sweeps.study.hardware import PROFILES
from sweeps.study.resources import Resources
from sweeps.study.sections import Limits
from sweeps.study.study import _SECTIONS, load_study, parse_study

from .reader import DOCUMENTS, Block, Reader, blocks, parse

NOT_RUN = {
    "git clone": "needs the address of the repository",
    "make": "installs everything; the gate does the same with `demo --smoke` and these tests",
    "python3 -m venv": "installs everything",
    "pip": "installs everything",
    "export": "sets what the reader of these tests has set already",
    "apt-get": "needs root",
    "python -m pytest": "is what runs this",
    "python tests/benchmarks": "measures for minutes; the page shows what it printed",
    "OPENBLAS_NUM_THREADS=1": "measures for minutes; the page shows what it printed",
    "python -m scaling.evaluation.networks.pretrain": "trains the feature network that the package ships",
    "squeue": "needs a cluster; tests/slurm has one",
    "cat runs/submissions": "needs a cluster; tests/slurm has one",
}
"""What is not executed, by how it begins, and why."""
PARSED = {
    r"^sampling.md: tokenlaw (import|sample|evaluate)": "needs LlamaGen's files; test_import.py makes some",
    r"^metrics.md: tokenlaw evaluate": "needs the reader's images; test_evaluate.py has some",
    r"--cluster slurm|^slurm.md: tokenlaw (status|cancel|doctor)": "needs a cluster; tests/slurm has one",
    r"^validation.md: ": "needs data that are not part of the package",
    r"^published.md: ": "needs tables that are not part of the package; test_published.py imports them where they are",
    r" STUDY\b": "stands for any study",
}
"""Commands of which only the options are checked, by document and command, and why."""
SLOW: dict[str, str | tuple[str, ...]] = {
    "README.md": "tokenlaw plan my-study.toml",
    "own-trainer.md": "tokenlaw plan study.toml",
    "tutorial.md": ("tokenlaw submit shapes.toml", "tokenlaw report shapes.toml", "tokenlaw figures shapes.toml"),
}
"""Blocks that train, or need what was trained: the commands that they begin with."""
FRAME = '[study]\nname = "doc"\n[generator]\nsize = "S"\nwarmup_images = 1024\ntrain_images = [4096]\n'
"""What a part of a study stands in."""
SMALL = {
    "[16384, 32768, 65536]": "[1024, 2048]",
    "warmup_images = 4096": "warmup_images = 256",
    "tokenizer = [0, 1, 2]": "tokenizer = [0]",
    "[seeds]": "[tokenizer]\ntrain_images = 2048\noptimiser = { warmup_images = 512 }\n[evaluation]\nsamples = 128\n"
    "[seeds]",
}
"""What makes the study of the README small enough to be trained here."""

ALL = [block for document in DOCUMENTS for block in blocks(document)]


def _reason(command: str) -> str | None:
    return next((why for begin, why in NOT_RUN.items() if command.startswith(begin)), None)


def _is_parsed(block: Block, command: str) -> bool:
    return any(re.search(pattern, f"{block.document}: {command}") for pattern in PARSED)


def _points(path: Path) -> None:
    """A table such as a reader of docs/fitting.md has."""
    rng = np.random.default_rng(0)
    c, ratio = np.repeat(np.geomspace(1e19, 1e23, 10), 8), np.tile(np.geomspace(1, 1000, 8), 10)
    n = np.sqrt(c / (6 * ratio))
    d, k = c / (6 * n), 2.0 ** rng.integers(4, 14, 80)
    loss = (1.7 + 400 / n**0.34 + 900 / d**0.3) * np.exp(rng.normal(0, 0.002, 80))
    pd.DataFrame({"N": n, "D": d, "C": c, "codebook_size": k, "K": k, "loss": loss}).to_csv(path, index=False)


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    return Reader(tmp_path, monkeypatch)


@pytest.mark.parametrize("block", [block for block in ALL if block.language == "toml"], ids=str)
def test_every_study_is_valid(block: Block, reader: Reader) -> None:
    if block.document == "data.md":
        reader.bring_pictures()
    if block.document == "tutorial.md":
        _read(_named("tutorial.md"), reader, lambda other: not other.commands[0].startswith("python "))
    study = parse_study(block.text if "[study]" in block.text else FRAME + block.text, str(block))
    assert "id" in study.sections.get("tokenizer", {}) or study.runs()


@pytest.mark.parametrize("block", [block for block in ALL if block.language == "python"], ids=str)
def test_every_program_compiles(block: Block) -> None:
    compile(block.text, str(block), "exec")


def test_every_block_is_of_a_kind_that_is_tested_or_is_output() -> None:
    assert {block.language for block in ALL} <= {"toml", "sh", "console", "python", "csv", "text"}
    assert sum(len(block.commands) for block in ALL) > 50
    for block in ALL:
        # Output and layouts; whoever writes commands into such a block gives it a language.
        assert block.language != "text" or not re.search(r"^(\$|tokenlaw) ", block.text, re.MULTILINE), block


def test_every_exception_is_used() -> None:
    commands = [(block.document, command) for block in ALL for command in block.commands]
    for begin in NOT_RUN:
        assert any(command.startswith(begin) for _, command in commands), begin
    for pattern in PARSED:
        assert any(re.search(pattern, f"{document}: {command}") for document, command in commands), pattern


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_work_as_pasted(document: Path, reader: Reader) -> None:
    """All but those that train, in order; where output is shown it is compared, unless it is told apart above."""
    _read(document, reader, _trains)


def _trains(block: Block) -> bool:
    return block.commands[0].startswith(SLOW.get(block.document, "none"))


def _named(name: str) -> Path:
    return next(path for path in DOCUMENTS if path.name == name)


def _read(
    document: Path, reader: Reader, leave: Callable[[Block], bool], smaller: Mapping[str, str] = MappingProxyType({})
) -> None:
    _points(reader.folder / "points.csv")
    if document.name == "data.md":
        reader.bring_pictures()
    if document.name == "tutorial.md":
        reader.keep_cache()
    for block in blocks(document):
        if block.file:
            text = block.text
            if block.language == "toml":
                for large, small in smaller.items():
                    assert large in text, f"{block}: {large}"
                    text = text.replace(large, small)
            (reader.folder / block.file).write_text(text)
        if document.name == "fitting.md" and "class CodebookLaw" in block.text:
            (reader.folder / "codebook_law.py").write_text(block.text)
        for command in block.commands:
            if _reason(command) is not None:
                continue
            if re.fullmatch(r"python [\w-]+\.py", command):
                reader.execute(command)
                continue
            assert command.startswith("tokenlaw "), f"{block}: {command} is neither run nor in NOT_RUN"
            if leave(block) or _is_parsed(block, command):
                parse(command)
                continue
            printed = reader.output(command)
            if block.language == "console":
                assert printed == block.shown, f"{block}: {command}"
            else:
                assert not printed or not printed[-1].startswith("error: "), f"{block}: {command}: {printed[-1]}"


def test_rows_measured_elsewhere(reader: Reader) -> None:
    """What docs/own-trainer.md imports is there once, however often it is imported."""
    _read(_named("own-trainer.md"), reader, _trains)
    assert len(list(csv.DictReader((reader.folder / "report.csv").open()))) == 12
    (take,) = [c for block in ALL for c in block.commands if c.startswith("tokenlaw store import table.csv")]
    assert "0 runs added, 0 replaced, 6 there before" in "".join(reader.output(take))
    assert "6 sets checked, 0 damaged" in "".join(reader.output("tokenlaw store check"))


@pytest.mark.slow
def test_the_study_of_the_readme_is_trained(reader: Reader) -> None:
    """From the file to the report, in small; what it says is only shorter."""
    (file,) = [block for block in ALL if block.document == "README.md" and block.language == "toml"]
    text = file.text
    for large, small in SMALL.items():
        assert large in text
        text = text.replace(large, small)
    (block,) = [block for block in ALL if block.commands and block.commands[0].startswith(SLOW["README.md"])]
    (reader.folder / file.file).write_text(text)
    for command in block.commands:
        if not _is_parsed(block, command):
            assert reader.type(command).exit_code == 0, command
    runs = load_study(file.file).runs()
    assert Store(reader.root).finished() == {run.run_id for run in runs}
    assert (reader.folder / "report" / "index.html").stat().st_size and (reader.folder / "tables/runs.parquet").exists()


@pytest.mark.slow
def test_the_trainer_of_ones_own_is_trained(reader: Reader) -> None:
    _read(_named("own-trainer.md"), reader, lambda block: False)
    store = Store(reader.root)
    external = {run_id: run for run_id, run in store.results().items() if run.wall_seconds}
    assert len(external) == 16 and store.failures() == {}
    rows = list(csv.DictReader((reader.folder / "measured.csv").open()))
    assert {(row["stage"], row["metric"], row["codebook_size"]) for row in rows} == {("run", "own_missed", "")}
    wide = [float(row["value"]) for row in rows if row["run.width"] == "32" and row["run.examples"] == "4000"]
    narrow = [float(row["value"]) for row in rows if row["run.width"] == "4" and row["run.examples"] == "4000"]
    assert len(wide) == len(narrow) == 2 and max(wide) < min(narrow)
    assert {row["parameters_other"] for row in rows} == {"4", "8", "16", "32"}
    assert (reader.root / "artifacts" / rows[0]["run_id"] / "weights.json").exists()
    # A second time nothing is trained, also from a compacted store; of a trainer that vanished `submit` says so.
    before = store.read("runs")
    assert "nothing to do" in "".join(reader.output("tokenlaw submit study.toml --wait"))
    assert Store(reader.root).read("runs").equals(before)
    shutil.move("train.py", "elsewhere.py")
    assert "done with another version of train.py" in "".join(reader.output("tokenlaw plan study.toml"))


@pytest.mark.slow
def test_the_tutorial_is_done(reader: Reader) -> None:
    """From the pictures to the figure, each block in turn, with fewer images; what it says is only less sure."""
    _read(
        _named("tutorial.md"), reader, lambda block: False, {"= 4096": "= 1024", "[2048, 4096, 8192]": "[1024, 2048]"}
    )
    runs = load_study("shapes.toml").runs()
    assert Store(reader.root).finished() == {run.run_id for run in runs} and len(runs) == 12
    assert "<html" in (reader.folder / "report" / "index.html").read_text()
    # What the page tells a reader to paste, and the parts of the figure that it names.
    text = _named("tutorial.md").read_text()
    (stem,) = re.findall(r"^\\input\{paper/([\w-]+)\}", text, re.MULTILINE)
    environment = (reader.folder / "paper" / f"{stem}.tex").read_text()
    assert f"\\includegraphics{{{stem}}}" in environment and f"\\label{{fig:{stem}}}" in environment
    assert {path.suffix for path in (reader.folder / "paper").iterdir()} == {".pdf", ".csv", ".json", ".txt", ".tex"}
    assert (reader.folder / "seen.png").stat().st_size


def test_studies_md_names_every_section_field_and_profile() -> None:
    text = _named("studies.md").read_text()
    for section in _SECTIONS:
        assert re.search(rf"`\[+{section}[\].]", text), section
    for name in (*Resources.model_fields, *Limits.model_fields):
        assert f"`{name}`" in text, name
    for profile in PROFILES.values():
        peak = f"{profile.peak:.4g}".replace("e+", "e")
        assert f"| `{profile.name}` | {peak} | {profile.mfu:g} |" in text


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_within_the_repository_lead_somewhere(document: Path) -> None:
    # What stands in a comment is for the site alone, which checks its links itself.
    text = re.sub(r"<!--.*?-->", "", document.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, heading = target.partition("#")
        if "://" in target:
            continue
        file = document.parent / path if path else document
        assert file.exists(), f"{document.name}: {target}"
        if heading:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            assert heading in {re.sub(r"[^\w -]", "", text).strip().lower().replace(" ", "-") for text in headings}, (
                target
            )


def test_recipes_name_what_the_files_beside_them_have() -> None:
    """Every name in a row of "your own" or "Where would I add ..." stands in one of the files that the row links to."""
    checked = 0
    for document in (_named("extending.md"), _named("design.md")):
        for row in re.findall(r"^\| .*\]\(\.\./.*$", document.read_text(), re.MULTILINE):
            # What a user types is of the commands; what is added has the names of the package.
            links = [document.parent / path for path in re.findall(r"\]\((\.\./[^)#]+)\)", row)]
            files = [file for path in links for file in (path.rglob("*.py") if path.is_dir() else [path])]
            code = "\n".join(file.read_text() for file in files)
            for name in re.findall(r"`([A-Za-z_]{3,})`", row):
                assert re.search(rf"\b{name}\b", code), f"{document.name}: {name} is in none of the files of {row[:60]}"
                checked += 1
    assert checked > 60

"""Where a command's measurements come from, and by what they are judged: one mechanism for every command on a study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from results.errors import UsageError

if TYPE_CHECKING:
    from analysis.tokenizers.frames import StudyFrames
    from results import Store

SOURCES = "allowed: a study, a folder that holds runs, curves and evaluations.parquet, or a data root"


def open_source(source: str, root: Path, sets: list[str] | None) -> tuple[Store, set[str] | None, Path | None]:
    """Store, run ids and folder of artifacts of a source: a study, a folder with the three tables, or a data root.

    Run ids are None for a folder: all of it. Raises UsageError for what is neither.
    """
    from results import Store

    folder = Path(source)
    if folder.is_dir():
        artifacts = folder / "artifacts"
        opened = Store(folder) if (folder / "store").is_dir() else Store.open_folder(folder)
        return opened, None, artifacts if artifacts.is_dir() else None
    if "/" in source and not source.endswith(".toml"):
        raise UsageError(f"source = {source!r} is no folder and no TOML file; {SOURCES}")
    from sweeps.study.study import load_study

    runs = load_study(source, list(sets or ()), root).runs()
    return Store(root), {run.run_id for run in runs}, root / "artifacts"


class Judged(NamedTuple):
    """By what a study is judged and what its compute includes, as the shared options say (options.py)."""

    metric: str | None = None
    guidance: str | None = None
    extractor: str | None = None
    total: bool = False
    generators: int = 1
    serve: float = 0.0


class Source(NamedTuple):
    """A source's frames, and the folder of artifacts of its runs, if there is one."""

    frames: StudyFrames
    artifacts: Path | None


def read_source(source: str, root: Path, sets: list[str] | None, judged: Judged | None = None) -> Source:
    """The measurements of a source. Raises UsageError for options that are not allowed, before anything is read, and
    what `open_source` and `load` raise."""
    from analysis.tokenizers.compute import Compute
    from analysis.tokenizers.frames import load
    from analysis.tokenizers.measure import Measure

    judged = judged or Judged()
    measure = Measure.of(judged.metric, judged.guidance, judged.extractor)
    compute = Compute(judged.total, judged.generators, judged.serve, measure.guided)
    opened, run_ids, artifacts = open_source(source, root, sets)
    return Source(load(opened, run_ids, measure=measure, compute=compute), artifacts)

"""The code of a trainer of one's own: what runs were trained with, against what lies beside the study file now.

No row holds it: an attempt's claim names its submission, and that the snapshot whose `trainer/` the command ran in. Of
attempts without these files, and of commands that name nothing in the study's folder, nothing is known.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

from results import Store, StoreError
from results.provenance import content_of
from results.store import atomic
from sweeps.planning.plan import Plan

from .attempts import SUPERSEDED, Attempt, attempts_at, attempts_folder
from .ledger import load_submission

CODE = {
    ".bash", ".c", ".cc", ".cfg", ".cpp", ".cu", ".cuh", ".go", ".h", ".hpp", ".ini", ".jl", ".js", ".lua", ".m", ".pl",
    ".py", ".pyx", ".r", ".rb", ".rs", ".sh", ".ts", ".yaml", ".yml",
}  # fmt: skip
"""What counts as code in a study's folder, besides files that the command names: not tables, texts and study files."""
FILES_SHOWN = 3


class TrainerCode:
    """The trainer's code in a folder, that of the study file or of a snapshot, compared with the frozen copies below a
    root that earlier attempts were made with."""

    def __init__(self, root: Path, folder: Path) -> None:
        self._root, self._folder = root, folder.resolve()
        self._snapshots: dict[str, str] = {}
        self._compared: dict[tuple[str, tuple[str, ...]], tuple[str, ...]] = {}

    def differences(self, run_id: str, attempt: int, command: tuple[str, ...]) -> tuple[str, ...]:
        """Files of the code that an attempt was made with which are changed or gone by now; none where unknown."""
        snapshot = self._snapshot(run_id, attempt)
        if (snapshot, command) not in self._compared:
            frozen = _code(_files(self._frozen(snapshot)), command) if snapshot else {}
            now = {name: self._folder / name for name in frozen}
            self._compared[snapshot, command] = tuple(
                name
                for name, path in frozen.items()
                if not now[name].is_file() or content_of(now[name]) != content_of(path)
            )
        return self._compared[snapshot, command]

    def mended(self, run_id: str, attempt: int, command: tuple[str, ...]) -> bool:
        """Whether code is changed or gone since an attempt, or new, such as a module that was missing."""
        snapshot = self._snapshot(run_id, attempt)
        if not snapshot or not self._frozen(snapshot).is_dir():
            return False
        if self.differences(run_id, attempt, command):
            return True
        from .code_snapshot import trainer_files

        # A snapshot lies below the root, of which a study's folder is read without.
        frozen = self._root.resolve() in self._folder.parents
        now = _files(self._folder) if frozen else trainer_files(self._folder, self._root.resolve())
        return not _code(now, command).keys() <= _files(self._frozen(snapshot)).keys()

    def _snapshot(self, run_id: str, attempt: int) -> str:
        claim = Attempt(attempts_folder(self._root) / run_id / str(attempt)).claim
        submission = claim.submission if claim is not None else ""
        if submission not in self._snapshots:
            self._snapshots[submission] = ""
            with suppress(StoreError):
                self._snapshots[submission] = load_submission(self._root, submission).snapshot
        return self._snapshots[submission]

    def _frozen(self, snapshot: str) -> Path:
        from .code_snapshot import snapshots_folder

        return snapshots_folder(self._root) / snapshot / "trainer"


def _files(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def _code(files: Mapping[str, Path], command: tuple[str, ...]) -> dict[str, Path]:
    return {name: path for name, path in files.items() if name in command or path.suffix.lower() in CODE}


def done_with_other_code(plan: Plan, root: Path) -> dict[str, tuple[str, ...]]:
    """For each run with a result whose trainer's code is another one by now: the files that changed or are gone.

    Reads the store's summaries and a claim a run. Raises StoreError for a damaged store.
    """
    trainers = {run.run_id: run.spec.trainer for run in plan.runs if run.spec.trainer}
    if not trainers or plan.study.folder is None:
        return {}
    code = TrainerCode(root, plan.study.folder)
    return {
        run_id: files
        for run_id, result in Store(root).results(trainers).items()
        if (files := code.differences(run_id, result.attempt, trainers[run_id]))
    }


def notice(other: dict[str, tuple[str, ...]]) -> str:
    """For people: `24 done with another version of t2.py; --rerun trains again`; "" for none."""
    if not other:
        return ""
    names = list(dict.fromkeys(name for files in other.values() for name in files))
    more = f" and {len(names) - FILES_SHOWN} more files" if len(names) > FILES_SHOWN else ""
    return f"{len(other)} done with another version of {', '.join(names[:FILES_SHOWN])}{more}; --rerun trains again"


def rerun(plan: Plan, root: Path, run_ids: Collection[str], reason: str) -> dict[str, Path]:
    """Make the next submission train these runs of a plan again, and the generators that rest on them.

    Their results are set aside in the store with the reason and supersede nothing until the new ones are there; of the
    artifacts the old ones stay until then. The new attempts begin at the beginning. Where each old result lies now, by
    run id; runs without a result are not in it. Raises StoreError, also if one of the runs is being worked on.
    """
    chosen = set(run_ids) | {run.run_id for run_id in run_ids for run in plan.dependents.get(run_id, ())}
    for run_id in chosen:
        attempts = attempts_at(root, run_id)
        if attempts and attempts[0].alive:
            raise StoreError(f"run {run_id} is being worked on; rerun it when that has ended")
    moved = Store(root).supersede(chosen, reason)
    for run_id in chosen:
        for attempt in attempts_at(root, run_id):
            atomic.write(attempt.path / SUPERSEDED, f"{reason}\n")
    return moved

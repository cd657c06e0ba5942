"""The code of a trainer of one's own: what runs were trained with, against what lies beside the study file now.

No row holds it: an attempt's claim names its submission, and that the snapshot whose `trainer/` the command ran in. Of
attempts without these files, and of commands that name nothing in the study's folder, nothing is known.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from results import Store, StoreError
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
    """The trainer's code in the folder of a study file, compared with the frozen copies below a root."""

    def __init__(self, root: Path, study: Path) -> None:
        self._root, self._folder = root, study.resolve().parent
        self._snapshots: dict[str, str] = {}
        self._differences: dict[tuple[str, tuple[str, ...]], tuple[str, ...]] = {}

    def differences(self, run_id: str, attempt: int, command: tuple[str, ...]) -> tuple[str, ...]:
        """Files of the code that an attempt was made with which are changed or gone by now; none where unknown."""
        claim = Attempt(attempts_folder(self._root) / run_id / str(attempt)).claim
        if claim is None or not claim.submission:
            return ()
        if claim.submission not in self._snapshots:
            try:
                self._snapshots[claim.submission] = load_submission(self._root, claim.submission).snapshot
            except StoreError:
                self._snapshots[claim.submission] = ""
        key = self._snapshots[claim.submission], command
        if key not in self._differences:
            self._differences[key] = self._compare(*key) if key[0] else ()
        return self._differences[key]

    def _compare(self, snapshot: str, command: tuple[str, ...]) -> tuple[str, ...]:
        from .code_snapshot import snapshots_folder

        frozen = snapshots_folder(self._root) / snapshot / "trainer"
        names = {path: path.relative_to(frozen).as_posix() for path in sorted(frozen.rglob("*")) if path.is_file()}
        code = {path: name for path, name in names.items() if name in command or path.suffix.lower() in CODE}
        return tuple(name for path, name in code.items() if _content(path) != _content(self._folder / name))


def done_with_other_code(plan: Plan, root: Path) -> dict[str, tuple[str, ...]]:
    """For each run with a result whose trainer's code is another one by now: the files that changed or are gone.

    Reads the store's summaries and a claim a run. Raises StoreError for a damaged store.
    """
    trainers = {run.run_id: run.spec.trainer for run in plan.runs if run.spec.trainer}
    study = Path(plan.study.source)
    if not trainers or not study.is_file():
        return {}
    code = TrainerCode(root, study)
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


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None

"""The code of a submission, frozen: jobs run from a copy, so that editing the checkout changes nothing under way.

<root>/snapshots/<hash>/  results/ analysis/ scaling/ sweeps/ pyproject.toml  trainer/  snapshot.json  diff.patch

The hash is that of the content, so that equal code shares one snapshot. `snapshot.json` says which commit the code came
from; `diff.patch` holds what differed from it (files that git does not know lie in the snapshot itself). Who may not
read a file may not read its copy, and nobody may write one.

A study that brings its own trainer takes its own folder along, as `trainer/`: the folder of the study file, if the
command names a file or a module (`-m`) there. Of a git checkout that is what git tracks and what is new and not
ignored; elsewhere everything but hidden files and caches. The command runs in `trainer/`, and `snapshot.json` names its
commit as well. A command that names nothing there (a program of the system, an installed package) is not copied.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from results import StoreError, UsageError
from results.provenance import content_of, output, provenance
from results.store import atomic

PACKAGES = ("results", "analysis", "scaling", "sweeps")
HOME = Path(__file__).resolve().parents[2]
"""Where the four packages of this process lie."""
MAX_TRAINER_BYTES = 50_000_000
MAX_TRAINER_FILES = 5_000
_INTERPRETER = re.compile(r"python[0-9.]*|torchrun|sh|bash|zsh|perl|julia|ruby|node|Rscript")
"""Programs that execute the file that their first argument names, unless it is an option."""


@dataclass(frozen=True)
class CodeSnapshot:
    """A frozen copy of the code."""

    path: Path

    @property
    def name(self) -> str:
        """The hash of its content, as the ledger names it."""
        return self.path.name

    @property
    def trainer(self) -> Path | None:
        """The folder of the study's own trainer; None without one."""
        folder = self.path / "trainer"
        return folder if folder.is_dir() else None


def snapshots_folder(root: Path) -> Path:
    """Where all snapshots below a root lie."""
    return root / "snapshots"


def take_snapshot(root: Path, study: Path | None = None, commands: Iterable[Sequence[str]] = ()) -> CodeSnapshot:
    """Freeze the code of this process, and the study's folder if one of `commands` names something in it.

    study   the study file; None for a built-in one
    Raises UsageError for a study's folder that is too large, StoreError if the root cannot be written or an earlier
    snapshot was changed by hand.
    """
    files = {path.relative_to(HOME).as_posix(): path for path in _package_files()}
    folder, commit = (None if study is None else study.resolve().parent), None
    if folder is not None and any(_names_something(command, folder) for command in commands):
        files |= {f"trainer/{name}": path for name, path in trainer_files(folder, root.resolve()).items()}
        commit = output(["git", "rev-parse", "HEAD"], folder)
    contents = {name: path.read_bytes() for name, path in sorted(files.items())}
    digest = _digest(contents)
    target = snapshots_folder(root) / digest[:16]
    if not (target / "snapshot.json").exists():
        modes = {name: path.stat().st_mode for name, path in files.items()}
        _write(target, contents, modes, digest, commit.decode().strip() if commit else None)
    elif _digest({name: content_of(target / name) for name in contents}) != digest:
        raise StoreError(f"{target} was changed; remove it when no job runs from it, and submit again")
    return CodeSnapshot(target)


def check_commands(study: Path, commands: Iterable[Sequence[str]]) -> None:
    """Raise UsageError for a trainer whose program or script should lie beside the study file, and does not."""
    folder = study.resolve().parent
    for command in commands:
        script = _script(command)
        if script is not None and not (folder / script).exists():
            raise UsageError(
                f"[worker] command = {list(command)} names {script!r}, which is not in {folder}; allowed: files in the "
                "study's folder, which jobs get a copy of, absolute paths, and programs on the path"
            )


def _script(command: Sequence[str]) -> str | None:
    """The relative path that a command needs: its program, or what a known interpreter shall execute. None if none."""
    program, first = command[0], command[1] if len(command) > 1 else "-"
    if "/" in program:
        script = program
    elif _INTERPRETER.fullmatch(program) and not first.startswith("-"):
        script = first
    else:
        return None
    return None if "{" in script or Path(script).is_absolute() else script


def load_snapshot(root: Path, name: str) -> CodeSnapshot:
    """The snapshot of that name. Raises StoreError if it is gone."""
    path = snapshots_folder(root) / name
    if not (path / "snapshot.json").exists():
        raise StoreError(f"{path}, the code of a submission, is gone; submit again")
    return CodeSnapshot(path)


def _package_files() -> list[Path]:
    paths = [HOME / "pyproject.toml", *(path for package in PACKAGES for path in (HOME / package).rglob("*"))]
    return [p for p in paths if p.is_file() and "__pycache__" not in p.parts and not p.name.startswith(".")]


def _digest(contents: dict[str, bytes]) -> str:
    digest = sha256()
    for name, content in contents.items():
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _write(target: Path, contents: dict[str, bytes], modes: dict[str, int], digest: str, commit: str | None) -> None:
    """Write all files beside the target and rename; whoever is first wins, with the same content."""
    facts = provenance()
    about = {"hash": digest, "git": facts["git"], "diff": facts["diff"], "code": facts["code"],
             "trainer_git": commit, "created": datetime.now(UTC).isoformat(timespec="seconds"),
             "files": len(contents)}  # fmt: skip

    def fill(folder: Path) -> None:
        for name, content in contents.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            # Whoever may not edit the checkout in mid-study shall not edit this by mistake either.
            path.chmod(modes[name] & 0o555 | stat.S_IRUSR)
        difference = ["git", "diff", "HEAD", "--binary", "--no-color", "--no-ext-diff", "--", *PACKAGES]
        (folder / "diff.patch").write_bytes((facts["diff"] and output(difference, HOME)) or b"")
        atomic.write_synced(folder / "snapshot.json", (json.dumps(about, indent=1) + "\n").encode())

    atomic.make_folder(target.parent)
    atomic.new_folder(target, fill)


def _names_something(command: Sequence[str], folder: Path) -> bool:
    """Whether a word of the command is a file of that folder, or the module after -m one in it."""
    for before, word in zip(["", *command], command, strict=False):
        if not word or "{" in word or Path(word).is_absolute():
            continue
        if (folder / word).is_file():
            return True
        module = folder / word.split(".")[0]
        if before == "-m" and (module.is_dir() or module.with_suffix(".py").is_file()):
            return True
    return False


def trainer_files(folder: Path, root: Path) -> dict[str, Path]:
    """Names below the study's folder, and the files. Raises UsageError if they are too many or too large."""
    listed = output(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], folder)
    names = _walk(folder, root) if listed is None else listed.decode(errors="surrogateescape").split("\0")
    files: dict[str, Path] = {}
    size = 0
    for name in names:
        path = folder / name
        if not path.is_file() or root in path.resolve().parents:
            continue
        size += path.stat().st_size
        files[name] = path
        if size > MAX_TRAINER_BYTES or len(files) > MAX_TRAINER_FILES:
            raise UsageError(
                f"the study's folder {folder} is too large to freeze with its trainer; allowed: "
                f"{MAX_TRAINER_FILES:,} files and {MAX_TRAINER_BYTES // 10**6} MB, without what git ignores (put the "
                "study and its trainer into a folder of their own, or data into .gitignore)"
            )
    return files


def _walk(folder: Path, root: Path) -> Iterable[str]:
    for name, folders, files in os.walk(folder):
        place = Path(name)
        folders[:] = [f for f in folders if not f.startswith(".") and f != "__pycache__" and place / f != root]
        yield from ((place / f).relative_to(folder).as_posix() for f in files if not f.startswith("."))

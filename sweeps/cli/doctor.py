"""What can be wrong with a machine and its SLURM cluster before anything runs there; advice where something is."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from results import TokenlawError
from results.provenance import cpu_model
from results.store import atomic
from sweeps.record.attempts import STALE_SECONDS
from sweeps.record.ledger import check_writable
from sweeps.record.slurm_client import Cluster, SlurmError, SlurmMissing, slurm
from sweeps.text import size
from sweeps.worker.process import cores

from .entry import NAMES, shadowed

HOME = Path(__file__).resolve().parents[2]
"""The folder that our packages lie in."""
TRAINING = ("torch", "safetensors")
BASE = ("numpy", "scipy", "pandas", "pyarrow", "pydantic", "typer", "rich", "matplotlib", "seaborn")
LITTLE_DISK = 5e9
"""Bytes free below which a demo may not fit beside its checkpoints."""
NETWORK = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "wekafs", "panfs", "pvfs", "orangefs", "glusterfs", "cifs", "smb",
           "quobyte", "vast", "9p", "virtiofs", "afs", "daos", "juicefs")  # fmt: skip
"""Beginnings of the names of file systems that many machines share; also behind fuse."""
SHORT_MINUTES = 10.0
SKEW_SECONDS = 5.0
PROBE_SECONDS = 20
"""How long a node may take to begin the probe; a full cluster is no reason to wait."""

PROBE = """
import importlib.util, json, platform, sys, time
from pathlib import Path
root = Path(sys.argv[1])
path = root / sys.argv[2]
seen = path.is_file()
back = path.with_name(path.name + "-back")
if seen:
    back.write_text("")
names = ("results", "analysis", "scaling", "sweeps", "torch", "safetensors", "pyarrow", "pydantic")
specs = {name: importlib.util.find_spec(name) for name in names}
found = {name: spec.origin if spec else None for name, spec in specs.items()}
print(json.dumps({"host": platform.node(), "python": platform.python_version(), "time": time.time(), "seen": seen,
                  "found": found}))
"""
"""Executed by a node: needs nothing but Python."""

Verdict = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: good, a warning, or a problem that stops work."""

    verdict: Verdict
    subject: str
    detail: str


def examine(root: Path) -> list[Finding]:
    """Everything there is to say about this machine, this root and the cluster."""
    return [*_python(), *_names(), *_root(root), _data(), *examine_cluster(root)]


def _python() -> Iterator[Finding]:
    good = sys.version_info >= (3, 11)
    yield Finding("ok" if good else "problem", "Python", f"{platform.python_version()} (3.11 or newer is needed)")
    yield Finding("ok", "machine", f"{cpu_model()}, {cores()} cores, {platform.system()} {platform.release()}")
    yield _packages("packages", BASE, "problem", "")
    advice = "; plans, fits and reports work, to train pip install '.[train]' in the clone"
    yield _packages("training", TRAINING, "warning", advice)


def _packages(subject: str, names: Sequence[str], verdict: Verdict, advice: str) -> Finding:
    """Versions of packages, or which are missing."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        return Finding(verdict, subject, f"missing: {', '.join(missing)}{advice}")
    return Finding("ok", subject, ", ".join(f"{name} {_version(name)}" for name in names))


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "of unknown version"


def _names() -> Iterator[Finding]:
    """The four import names are generic: another package, or a folder here, may go by one of them."""
    providers, folder = metadata.packages_distributions(), Path.cwd()
    clashes = [clash] if (clash := shadowed()) else []
    for name in NAMES:
        if others := sorted(set(providers.get(name, [])) - {"tokenlaw"}):
            clashes.append(f"{name} is also installed by {', '.join(others)}")
        there = (folder / name / "__init__.py").exists() or (folder / f"{name}.py").exists()
        if there and folder != HOME:
            clashes.append(f"python started in {folder} finds {name} there first; start it elsewhere, or with -P")
    yield Finding("problem" if clashes else "ok", "import names", "; ".join(clashes) or f"{', '.join(NAMES)} are ours")


def _root(root: Path) -> Iterator[Finding]:
    try:
        check_writable(root)
        yield Finding("ok", "data root", f"{root.absolute()} can be written")
        yield _exclusive(root)
    except TokenlawError as error:
        yield Finding("problem", "data root", str(error))
        return
    free = shutil.disk_usage(root).free
    yield Finding("ok" if free > LITTLE_DISK else "warning", "disk", f"{size(free)} free at {root.absolute()}")


def _exclusive(root: Path) -> Finding:
    """Renaming a folder onto one that is not empty must fail: what makes a run finish only once."""
    folders = [root / f".probe-{os.getpid()}-{letter}" for letter in "ab"]
    with atomic.storage(root):
        try:
            for folder in folders:
                folder.mkdir()
                (folder / "file").write_text("")
            try:
                folders[0].rename(folders[1])
            except OSError:
                return Finding("ok", "file system", "renames of folders are exclusive")
            detail = f"{root} lets a folder be renamed onto another; choose another root"
            return Finding("problem", "file system", detail)
        finally:
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)


def _data() -> Finding:
    from scaling.data.sources.builtin.catalogue_files import locate
    from scaling.specification.catalogue import DATASETS

    places = []
    for name in DATASETS:
        try:
            folders = {str(path.parent) for path in locate(name, lambda line: None).values()}
        except TokenlawError as error:
            return Finding("problem", "data", str(error))
        places.append(f"{name} in {', '.join(sorted(folders))}")
    return Finding("ok", "data", "; ".join(places))


def examine_cluster(root: Path) -> Iterator[Finding]:
    """Findings about the cluster that this machine is a client of; one line where there is none."""
    try:
        cluster = Cluster.read()
    except SlurmMissing:
        yield Finding("ok", "cluster", "SLURM is not installed here: studies run on this machine (--cluster local)")
        return
    except SlurmError as error:
        yield Finding("warning", "cluster", f"{error}; studies can run on this machine (--cluster local)")
        return
    yield Finding("ok", "cluster", f"{cluster.name or 'SLURM'}, SLURM {cluster.version}")
    try:
        yield from _partitions()
    except SlurmError as error:
        yield Finding("warning", "partitions", str(error))
    jobs = cluster.settings.get("MaxJobCount", "unknown")
    arrays = f"up to {cluster.max_array} elements (MaxArraySize), more are split; up to {jobs} jobs in all"
    yield Finding("ok", "arrays", arrays)
    yield _accounting(cluster.settings)
    yield from _preemption(cluster.settings)
    yield _shared(root)
    yield from _clock(root)
    yield from _probe(root)


def _partitions() -> Iterator[Finding]:
    """Partitions with state, limits and nodes."""
    lines = slurm(["sinfo", "--noheader", "--format=%P|%a|%l|%D|%A|%c|%m|%G"]).splitlines()
    shown, down, short = [], [], []
    for line in lines:
        name, state, limit, nodes, use, cpus, memory, gres = (part.strip() for part in line.split("|"))
        idle = use.partition("/")[2]
        gpus = f", {gres}" if gres not in ("(null)", "") else ""
        shown.append(f"{name} ({nodes} nodes, {idle} idle, {cpus} CPUs and {memory} MB each{gpus}, at most {limit})")
        if state != "up":
            down.append(f"{name} is {state}")
        if (minutes := _minutes(limit)) is not None and minutes < SHORT_MINUTES:
            short.append(f"{name} ends jobs after {limit}")
    if not shown:
        yield Finding("problem", "partitions", "the cluster shows none to this account; ask who runs it")
        return
    yield Finding("warning" if down else "ok", "partitions", "; ".join(shown + down))
    if short:
        yield Finding("warning", "time limits", f"{'; '.join(short)}: runs would be resumed again and again")


def _accounting(settings: Mapping[str, str]) -> Finding:
    kind = settings.get("AccountingStorageType", "")
    if "slurmdbd" in kind:
        return Finding("ok", "accounting", "slurmdbd: sacct tells how jobs ended")
    age = settings.get("MinJobAge", "300 sec")
    seconds = int(age.split()[0]) if age.split()[0].isdigit() else 300
    detail = f"none (no sacct): how a job was killed is known for {seconds} s after its end (MinJobAge)"
    if seconds < 60:
        return Finding("warning", "accounting", f"{detail}; then lack of memory and a lost node look like any kill")
    return Finding("ok", "accounting", f"{detail}; the store does not need it")


def _preemption(settings: Mapping[str, str]) -> Iterator[Finding]:
    if settings.get("JobRequeue", "1") == "0":
        yield Finding("warning", "requeue", "off by default (JobRequeue=0); our jobs ask for it with --requeue")
    if settings.get("PreemptType", "preempt/none") in ("preempt/none", "(null)"):
        return
    mode = settings.get("PreemptMode", "")
    if "CANCEL" in mode:
        detail = "preempted jobs are cancelled (PreemptMode=CANCEL): the next `submit`, or --wait, resumes them"
        yield Finding("warning", "preemption", detail)
    elif "preempt_send_user_signal" not in settings.get("SlurmctldParameters", ""):
        detail = "without a warning signal (preempt_send_user_signal): a preempted run goes back to its last checkpoint"
        yield Finding("ok", "preemption", f"{mode.lower()}, {detail}")
    else:
        yield Finding("ok", "preemption", f"{mode.lower()}, with a warning signal: runs save a checkpoint before it")


def _shared(root: Path) -> Finding:
    """Whether the root lies on a file system that the nodes see too, by its kind."""
    mount, kind = file_system(root, Path("/proc/mounts").read_text())
    name = kind.removeprefix("fuse.")
    if name.startswith(NETWORK):
        return Finding("ok", "shared file system", f"{root.absolute()} is on {kind} ({mount})")
    detail = f"{root.absolute()} is on {kind} ({mount}), which looks like a disk of this machine alone"
    advice = "jobs on other nodes would not find it; choose a root on the cluster's shared file system"
    return Finding("warning", "shared file system", f"{detail}: {advice}")


def file_system(path: Path, mounts: str) -> tuple[str, str]:
    """Mount point and kind of the file system of a path, from the text of /proc/mounts."""
    real, best = path.resolve(), ("/", "unknown")
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        # Spaces and the like are written as octal numbers.
        point = fields[1].encode().decode("unicode_escape")
        if (real == Path(point) or Path(point) in real.parents) and len(point) >= len(best[0]):
            best = (point, fields[2])
    return best


def _clock(root: Path) -> Iterator[Finding]:
    """The file server's clock against this machine's: heartbeats are judged by their age."""
    path = root / f".probe-clock-{os.getpid()}"
    try:
        before = time.time()
        path.write_text("")
        stamp, after = path.stat().st_mtime, time.time()
    except OSError as error:
        yield Finding("warning", "clock", f"{path} cannot be written: {error.strerror}")
        return
    finally:
        path.unlink(missing_ok=True)
    skew = max(before - stamp, stamp - after, 0.0)
    yield _skew("the file server", skew)


def _skew(whose: str, seconds: float) -> Finding:
    if seconds < SKEW_SECONDS:
        return Finding("ok", "clock", f"that of {whose} agrees with this machine's")
    detail = f"that of {whose} differs by {seconds:.0f} s"
    if seconds < STALE_SECONDS / 2:
        return Finding("warning", "clock", f"{detail}; let both follow one time server")
    return Finding("problem", "clock", f"{detail}: living runs would be held for dead; set the clocks")


def _probe(root: Path) -> Iterator[Finding]:
    """Ask one node: does it find this Python and its packages, this root, and the time?"""
    name = f".probe-node-{os.getpid()}"
    path = root / name
    try:
        path.write_text("")
        answer = _ask(root, name)
    except (OSError, SlurmError, ValueError) as error:
        why = f"no node answered within {PROBE_SECONDS} s ({' '.join(str(error).split())[:200]})"
        detail = f"{why}, so it was not checked; run doctor again when one is free"
        yield Finding("warning", "Python of the jobs", detail)
        return
    finally:
        back = path.with_name(f"{name}-back")
        returned = back.exists()
        for file in (path, back):
            file.unlink(missing_ok=True)
    node, packages = answer["host"], answer["found"]
    strange = [n for n in NAMES if not _is_ours(packages.get(n))]
    missing = [n for n in ("pyarrow", "pydantic") if not packages.get(n)]
    if strange or missing:
        wrong = [f"import {n} finds {packages.get(n)}" for n in strange] + [f"{n} is missing" for n in missing]
        detail = f"{sys.executable} on {node}: {'; '.join(wrong)}; install it there"
        yield Finding("problem", "Python of the jobs", detail)
    else:
        training = "with torch" if packages.get("torch") else "without torch: only commands of your own can be run"
        verdict = "ok" if packages.get("torch") else "warning"
        detail = f"{sys.executable} ({answer['python']}) on {node}, {training}"
        yield Finding(verdict, "Python of the jobs", detail)  # type: ignore[arg-type]
    if not (answer["seen"] and returned):
        yield Finding("problem", "root on the nodes", f"{node} does not see what is written to {root.absolute()}")
    else:
        yield Finding("ok", "root on the nodes", f"{node} and this machine see each other's files in {root.absolute()}")
    yield _skew(node, max(answer["asked"] - answer["time"], answer["time"] - answer["answered"], 0.0))


def _ask(root: Path, name: str) -> dict[str, Any]:
    """Run the probe on some node. Raises SlurmError, ValueError."""
    options = [f"--immediate={PROBE_SECONDS}", "--ntasks=1", "--time=2", "--job-name=tokenlaw-doctor", "--quiet"]
    command = ["srun", *options, sys.executable, "-P", "-c", PROBE, str(root.absolute()), name]
    asked = time.time()
    text = slurm(command, timeout=PROBE_SECONDS + 40)
    values = json.loads(text.strip().splitlines()[-1]) if text.strip() else None
    if not isinstance(values, dict):
        raise ValueError("the node printed nothing")
    return values | {"asked": asked, "answered": time.time()}


def _is_ours(origin: str | None) -> bool:
    return origin is not None and Path(origin).resolve().parent.parent == HOME


def _minutes(limit: str) -> float | None:
    """Minutes of a time limit such as 7-00:00:00, 30:00 or infinite (None)."""
    days, _, clock = limit.rpartition("-")
    parts = clock.split(":")
    if not all(part.isdigit() for part in parts) or (days and not days.isdigit()):
        return None
    numbers = [0, 0, 0, *(int(part) for part in parts)][-3:]
    return int(days or 0) * 1440 + numbers[0] * 60 + numbers[1] + numbers[2] / 60

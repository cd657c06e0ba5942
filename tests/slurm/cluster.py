"""A real SLURM cluster on this machine, for tests: munge, slurmctld and four slurmd in a temporary folder, as root.

    with Cluster(folder, max_array_size=1001) as cluster:
        cluster.run(["sbatch", "--wrap", "true"])

Nodes are n1 to n4, each with 4 CPUs, 4 GB of memory and two device files that stand for GPUs. With `accounting` a
slurmdbd on a mariadb of its own is there too, so that sacct works. One cluster at a time for each test process of a
run, by a file lock.
"""

from __future__ import annotations

import fcntl
import os
import platform
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

NODES = ("n1", "n2", "n3", "n4")
CPUS = 4
MEMORY_MB = 4000
START_SECONDS = 60.0
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")
ACCOUNTING_PROGRAMS = ("slurmdbd", "sacctmgr", "mariadbd", "mariadb-install-db")
LOCK = Path(tempfile.gettempdir()) / f"tokenlaw-slurm{os.environ.get('PYTEST_XDIST_WORKER', '')}.lock"


def why_not(accounting: bool = False) -> str | None:
    """What keeps a cluster from running here; None if one can."""
    if os.name != "posix" or platform.system() != "Linux":
        return "SLURM runs on Linux only"
    if os.geteuid() != 0:
        return "a SLURM cluster for tests needs root"
    missing = [name for name in PROGRAMS + ACCOUNTING_PROGRAMS * accounting if _program(name) is None]
    packages = "slurm-wlm munge" + " slurmdbd mariadb-server" * accounting
    return f"{', '.join(missing)} not installed (Debian: apt install {packages})" if missing else None


@dataclass
class Cluster:
    """The cluster while its `with` block runs. `folder` is made and removed by the caller."""

    folder: Path
    max_array_size: int = 1001
    max_job_count: int = 10_000
    preemption: bool = False
    """A partition `urgent` over the same nodes, whose jobs preempt (requeue) those of `main` after a warning signal."""
    accounting: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)
    """More lines of slurm.conf."""
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict, init=False)
    _lock: IO[str] | None = field(default=None, init=False)

    # --- up and down --------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        reason = why_not(self.accounting)
        if reason is not None:
            raise RuntimeError(reason)
        self._lock = LOCK.open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            self._prepare()
            self._start_munge()
            if self.accounting:
                self._start_database()
            self._write_configuration()
            self.start_controller()
            for node in NODES:
                self.start_node(node)
            self.wait_for(lambda: self.node_states() == ["idle"] * len(NODES), "idle nodes")
        except BaseException:
            self._tear_down()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._tear_down()

    def _tear_down(self) -> None:
        """Kill every process that was started here or by a daemon of ours, whatever state it is in."""
        for process in reversed(list(self._processes.values())):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while (left := list(self.processes())) and time.monotonic() < deadline:
            for pid, _ in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        for process in self._processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=5)
        self._processes.clear()
        shutil.rmtree(self._run, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def processes(self) -> Iterator[tuple[int, dict[str, str]]]:
        """Pid and environment of every process of this cluster: daemons, steps and jobs; they name its slurm.conf."""
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                pairs = (entry / "environ").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            variables = dict(pair.partition("=")[::2] for pair in pairs if "=" in pair)
            # A submitter that a test started names the same file, and belongs to the test; its jobs do not.
            client = "TOKENLAW_TEST_CLIENT" in variables and "SLURM_JOB_ID" not in variables
            if variables.get("SLURM_CONF") == str(self.configuration) and not client:
                yield int(entry.name), variables

    # --- what tests do with it ----------------------------------------------------------------------------------------

    @property
    def configuration(self) -> Path:
        """Its slurm.conf."""
        return self.folder / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        """This process's environment for clients of the cluster; jobs do not see that they were started by a test."""
        mine = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_"))}
        return mine | {"SLURM_CONF": str(self.configuration)}

    @property
    def client_environment(self) -> dict[str, str]:
        """The same for long-lived clients that the tear-down shall leave to the test."""
        return self.environment | {"TOKENLAW_TEST_CLIENT": "1"}

    def run(self, command: Sequence[str], timeout: float = 60.0) -> str:
        """Standard output of a client such as squeue; fails loudly."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=timeout, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def queue(self) -> dict[str, str]:
        """State of every job in the queue by its id, elements of arrays apart."""
        lines = self.run(["squeue", "--noheader", "--array", "--format=%i %T"]).splitlines()
        return dict(line.split() for line in lines)

    def node_states(self) -> list[str]:
        """Short states of all nodes, such as idle, in order."""
        lines = self.run(["sinfo", "--noheader", "--Node", "--partition=main", "--format=%N %t"]).splitlines()
        return [state.rstrip("*") if state != "idle*" else state for _, state in sorted(map(str.split, lines))]

    def start_controller(self, clean: bool = False) -> None:
        """Start slurmctld, with the state that it left behind."""
        self._start("slurmctld", ["slurmctld", "-D", *(["-c"] if clean else [])])
        self.wait_for(lambda: "is UP" in self.run(["scontrol", "ping"]), "slurmctld")

    def stop_controller(self, crash: bool = False) -> None:
        """Stop slurmctld; jobs go on. With `crash` it loses what happened in the last seconds."""
        self._kill("slurmctld", signal.SIGKILL if crash else signal.SIGTERM)

    def start_node(self, node: str) -> None:
        """Start the slurmd of a node."""
        self._start(f"slurmd-{node}", ["slurmd", "-D", "-N", node], TOKENLAW_TEST_NODE=node)

    def lose_node(self, node: str, *, leave_jobs: bool = False) -> list[int]:
        """Kill a node's slurmd and step daemons, and its jobs unless `leave_jobs`; the pids of jobs left alive."""
        self._kill(f"slurmd-{node}", signal.SIGKILL)
        left = []
        for pid, environment in list(self.processes()):
            daemon = environment.get("TOKENLAW_TEST_NODE") == node
            if not daemon and environment.get("SLURMD_NODENAME") != node:
                continue
            if leave_jobs and not daemon:
                left.append(pid)
                continue
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return left

    def wait_for(self, condition: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
        """Wait until something holds; a client that fails counts as not yet. Raises RuntimeError in the end."""
        deadline = time.monotonic() + seconds
        problem: Exception | None = None
        while time.monotonic() < deadline:
            try:
                if condition():
                    return
            except (RuntimeError, subprocess.TimeoutExpired, OSError) as error:
                problem = error
            for name, process in self._processes.items():
                if process.poll() is not None:
                    raise RuntimeError(f"{name} ended with {process.returncode}: {self._tail(name)}")
            time.sleep(0.05)
        raise RuntimeError(f"no {what} within {seconds:.0f} s: {problem or ''}")

    # --- parts --------------------------------------------------------------------------------------------------------

    @property
    def _run(self) -> Path:
        """Sockets have short paths, whatever the folder's is."""
        return Path(tempfile.gettempdir()) / f"tokenlaw-slurm-{os.getpid()}"

    def _prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("state", "spool", "logs"):
            (self.folder / name).mkdir(exist_ok=True)
        shutil.rmtree(self._run, ignore_errors=True)
        self._run.mkdir(mode=0o755)
        for number in range(2):
            device = self.folder / f"gpu{number}"
            if not device.exists():
                os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))

    def _start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        run = self._run
        options = [
            f"--key-file={key}",
            f"--socket={run}/munge",
            f"--pid-file={run}/munge.pid",
            f"--seed-file={run}/seed",
        ]
        self._start("munged", ["munged", "--foreground", "--force", "--num-threads=2", *options])
        self.wait_for((run / "munge").exists, "munge socket")

    def _start_database(self) -> None:
        data, run = self.folder / "mariadb", self._run
        options = ["--no-defaults", f"--datadir={data}", "--user=root"]
        subprocess.run(
            ["mariadb-install-db", *options, "--auth-root-authentication-method=normal", "--skip-test-db"],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
        port = _free_port()
        self._start(
            "mariadbd",
            ["mariadbd", *options, f"--socket={run}/mariadb", f"--pid-file={run}/mariadb.pid", f"--port={port}",
             "--bind-address=127.0.0.1", "--innodb-buffer-pool-size=32M", "--innodb-log-file-size=8M"],
        )  # fmt: skip
        client = ["mariadb", "--no-defaults", f"--socket={run}/mariadb", "--user=root"]
        self.wait_for(lambda: bool(self.run([*client, "-e", "select 1"])), "mariadb")
        user = "slurm@'127.0.0.1'"
        self.run([*client, "-e", f"create user {user} identified by 'slurm'; grant all on *.* to {user}"])
        self._database_port = _free_port()
        path = self.folder / "slurmdbd.conf"
        path.write_text(
            f"""AuthType=auth/munge
AuthInfo=socket={run}/munge
DbdHost={socket.gethostname()}
DbdAddr=127.0.0.1
DbdPort={self._database_port}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={port}
StorageUser=slurm
StoragePass=slurm
PidFile={run}/slurmdbd.pid
LogFile={self.folder}/logs/slurmdbd.log
"""
        )
        path.chmod(0o600)
        self._write_configuration()
        self._start("slurmdbd", ["slurmdbd", "-D"])
        self.wait_for(lambda: _listening(self._database_port), "slurmdbd")
        self.run(["sacctmgr", "--immediate", "add", "cluster", "tests"])
        self.run(["sacctmgr", "--immediate", "add", "account", "lab", "Description=lab", "Organization=lab"])
        self.run(["sacctmgr", "--immediate", "add", "user", "root", "Account=lab"])

    def _write_configuration(self) -> None:
        host, run = socket.gethostname(), self._run
        if not self.configuration.exists():
            self._ports = {name: _free_port() for name in ("slurmctld", *NODES)}
        settings = {
            "ClusterName": "tests",
            "SlurmctldHost": f"{host}(127.0.0.1)",
            "SlurmctldPort": self._ports["slurmctld"],
            "SlurmUser": "root",
            "SlurmdUser": "root",
            "AuthType": "auth/munge",
            "CredType": "cred/munge",
            # A requeued job waits until its old credential has expired: two minutes by default.
            "AuthInfo": f"socket={run}/munge,cred_expire=5",
            "StateSaveLocation": self.folder / "state",
            "SlurmdSpoolDir": self.folder / "spool" / "%n",
            "SlurmctldPidFile": f"{run}/slurmctld.pid",
            "SlurmdPidFile": f"{run}/slurmd-%n.pid",
            "SlurmctldLogFile": self.folder / "logs" / "slurmctld.log",
            "SlurmdLogFile": self.folder / "logs" / "slurmd-%n.log",
            "ProctrackType": "proctrack/linuxproc",
            "TaskPlugin": "task/none",
            "MpiDefault": "none",
            "SwitchType": "switch/none",
            "JobAcctGatherType": "jobacct_gather/linux",
            "JobAcctGatherFrequency": "task=1",
            "JobAcctGatherParams": "OverMemoryKill",
            "AccountingStorageType": "accounting_storage/slurmdbd" if self.accounting else "accounting_storage/none",
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_Core_Memory",
            "SlurmdParameters": "config_overrides",
            "SchedulerParameters": "sched_interval=2,sched_min_interval=0,bf_interval=2,batch_sched_delay=0",
            "GresTypes": "gpu",
            "MailProg": "/bin/true",
            "ReturnToService": 2,
            "KillWait": 5,
            "InactiveLimit": 0,
            "MinJobAge": 300,
            "SlurmctldTimeout": 10,
            "SlurmdTimeout": 10,
            "MaxArraySize": self.max_array_size,
            "MaxJobCount": self.max_job_count,
            "DefMemPerCPU": 200,
        }
        if self.accounting:
            settings |= {
                "AccountingStorageHost": "127.0.0.1",
                "AccountingStoragePort": self._database_port,
                "AccountingStoragePass": f"{run}/munge",
            }
        if self.preemption:
            settings |= {
                "PreemptType": "preempt/partition_prio",
                "PreemptMode": "REQUEUE",
                "SlurmctldParameters": "preempt_send_user_signal",
            }
        lines = [f"{name}={value}" for name, value in (settings | dict(self.settings)).items()]
        lines += [
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={self._ports[node]} CPUs={CPUS} "
            f"RealMemory={MEMORY_MB} Gres=gpu:2 State=UNKNOWN"
            for node in NODES
        ]
        everything = f"Nodes={','.join(NODES)} MaxTime=INFINITE DefaultTime=10 State=UP"
        if self.preemption:
            lines.append(f"PartitionName=main {everything} Default=YES PriorityTier=1 GraceTime=10")
            lines.append(f"PartitionName=urgent {everything} PriorityTier=10 PreemptMode=OFF")
        else:
            lines.append(f"PartitionName=main {everything} Default=YES")
        self.configuration.write_text("\n".join(map(str, lines)) + "\n")
        (self.folder / "gres.conf").write_text(f"NodeName={','.join(NODES)} Name=gpu File={self.folder}/gpu[0-1]\n")

    def _start(self, name: str, command: list[str], **variables: str) -> None:
        program = _program(command[0])
        assert program is not None
        with (self.folder / "logs" / f"{name}.out").open("ab") as output:
            self._processes[name] = subprocess.Popen(
                [program, *command[1:]],
                env=self.environment | variables,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _kill(self, name: str, number: int) -> None:
        process = self._processes.pop(name)
        with suppress(ProcessLookupError):
            process.send_signal(number)
        process.wait(timeout=30)

    def _tail(self, name: str) -> str:
        texts: list[Any] = []
        for suffix in ("out", "log"):
            path = self.folder / "logs" / f"{name}.{suffix}"
            if path.exists():
                texts += path.read_text(errors="replace").splitlines()[-5:]
        return " / ".join(texts)


def _program(name: str) -> str | None:
    return shutil.which(
        name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0

"""Which of how many processes of one training this is, from SLURM's or torchrun's environment. No torch."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from results.errors import UsageError

FIRST_PORT, PORTS = 20_000, 12_000
"""Ports for the rendezvous: below those that Linux gives to outgoing connections (32768)."""

Strategy = Literal["ddp", "fsdp2"]
"""How processes train one model: each holds all of it, or of a generator a part of every weight. Results are the same
but for the order of additions."""


@dataclass(frozen=True)
class Place:
    """A process's place in a training of `size` processes; `local` counts those on its node.

    `address` and `port` are where rank 0 listens. `key` is shared by the processes of one start and by no other.
    """

    rank: int = 0
    size: int = 1
    local: int = 0
    address: str = "127.0.0.1"
    port: int = 0
    key: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None, *, job: str | None = None) -> Place:
        """The place of this process.

        Torchrun's variables count wherever they are complete. SLURM's count only for the worker of a SLURM job
        (`job`), for they are set in every shell of an allocation too. Raises UsageError for values that contradict.
        """
        env = os.environ if environment is None else environment
        if {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= env.keys():
            port = _whole(env, "MASTER_PORT")
            start = f"{env.get('TORCHELASTIC_RUN_ID', '')}-{env.get('TORCHELASTIC_RESTART_COUNT', '0')}"
            place = cls(
                _whole(env, "RANK"), _whole(env, "WORLD_SIZE"), _whole(env, "LOCAL_RANK", "0"),
                env["MASTER_ADDR"], port, f"torchrun-{start}-{port}",
            )  # fmt: skip
        elif job is not None and {"SLURM_PROCID", "SLURM_NTASKS"} <= env.keys():
            # A job may begin its workers again, each time as another step.
            start = f"{job}-{env.get('SLURM_RESTART_COUNT', '0')}-{env.get('SLURM_STEP_ID', '0')}"
            nodes = env.get("SLURM_STEP_NODELIST") or env.get("SLURM_JOB_NODELIST") or "127.0.0.1"
            size = _whole(env, "SLURM_NTASKS")
            place = cls(
                _whole(env, "SLURM_PROCID"), size, _whole(env, "SLURM_LOCALID", "0"),
                first_host(nodes) if size > 1 else "127.0.0.1",
                # A restart takes another port: its predecessor's may still be held by a process that is not yet dead.
                FIRST_PORT + zlib.crc32(start.encode()) % PORTS, start,
            )  # fmt: skip
        else:
            return cls()
        if not 0 <= place.rank < place.size:
            raise UsageError(f"rank = {place.rank} is not below the number of processes, {place.size}")
        return place

    def hosted(self) -> Place:
        """For rank 0: the same with an address of this machine that has one, and a port that is free on it.

        Names of SLURM's nodes need not be names of the network, and a port may be in use. The other processes learn
        of it from rank 0; torchrun has made its own arrangement.
        """
        if self.size == 1 or self.key.startswith("torchrun"):
            return self
        names = (self.address, socket.gethostname())
        address = next((name for name in names if _resolves(name)), None) or _outgoing_address()
        return replace(self, address=address, port=_free_port(self.port))


def _resolves(name: str) -> bool:
    try:
        socket.getaddrinfo(name, None)
    except OSError:
        return False
    return True


def _outgoing_address() -> str:
    """The address with which this machine would speak to others; no packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def _free_port(wanted: int) -> int:
    """`wanted` if it is free on this machine, else another one that is."""
    with socket.socket() as probe:
        try:
            probe.bind(("", wanted))
        except OSError:
            probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _whole(environment: Mapping[str, str], name: str, absent: str = "") -> int:
    text = environment.get(name, absent)
    if not text.isdigit():
        raise UsageError(f"{name} = {text!r} in the environment is not allowed; allowed: a whole number from 0")
    return int(text)


def first_host(nodes: str) -> str:
    """The first host of a list of nodes of SLURM, such as gpu[003-004,007],login1; by `scontrol` if it is there."""
    try:
        done = subprocess.run(
            ["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, timeout=10, check=False
        )
        if done.returncode == 0 and done.stdout.strip():
            return done.stdout.split()[0]
    except (OSError, subprocess.TimeoutExpired):
        pass
    return parse_first_host(nodes)


def parse_first_host(nodes: str) -> str:
    """The same without scontrol. Raises UsageError for a text that is no list of nodes."""
    names = re.match(r"((?:[^\[\],]+|\[[^\[\]]+\])+)(,|$)", nodes.strip())
    if names is None:
        raise UsageError(f"nodes = {nodes!r} is no list of nodes, such as n1,n2 or gpu[003-004]")
    # A range 003-004 begins with its first number, zeros included.
    return re.sub(r"\[([^\[\]]+)\]", lambda bracket: re.split(r"[-,]", bracket[1])[0], names[1])

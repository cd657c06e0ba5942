"""One training by several processes: each takes its part of every global batch, and all take the same step.

Draws are made for the global batch and then shared out, losses are sums of parts weighted by their share, and gradients
are summed over processes before they are clipped. So the number of processes, and of microbatches within one, changes
results by no more than the order of floating-point additions; with one process and no microbatch it changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import accumulate, groupby, pairwise
from typing import Any

import torch
from torch import Tensor, distributed

from results.errors import RunError, UsageError
from scaling.networks import in_double
from scaling.ranks import Place

WAIT = timedelta(hours=24)
"""Longest wait of a rank for the others: rank 0 alone evaluates, while they wait."""
MEETING = timedelta(minutes=15)
"""Longest wait for all processes to come together."""
DEVICE = "TOKENLAW_DEVICE"
"""Environment variable: cpu, cuda or mps, where it should not be what the job was given."""
BUCKET_ELEMENTS = 2**23
"""Gradients summed in one call: 32 MiB in float32."""


class Ranks:
    """The processes of one training, and the collective operations that it needs.

    `device` is where this process computes, measurements included: its GPU where the job was given GPUs, else the CPU.
    """

    def __init__(self, place: Place, device: torch.device, control: Any = None) -> None:
        self.rank, self.size, self.device = place.rank, place.size, device
        self._control = control
        """A group of gloo, with a long patience, for what is decided together on CPUs."""

    @property
    def first(self) -> bool:
        """Whether this process writes and measures for all."""
        return self.rank == 0

    def parts(self, batch: int, microbatch: int | None = None) -> list[slice]:
        """This process's images of a global batch, at most `microbatch` at a time.

        Raises UsageError for more processes than images.
        """
        if self.size > batch:
            raise UsageError(f"processes = {self.size} are more than batch_size = {batch}; allowed: one an image")
        begin, end = (batch * rank // self.size for rank in (self.rank, self.rank + 1))
        count = -(-(end - begin) // (microbatch or batch))
        edges = [begin + (end - begin) * i // count for i in range(count + 1)]
        return [slice(a, b) for a, b in pairwise(edges)]

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Sum the gradients of all processes, in place."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        pending: list[tuple[Any, Tensor, list[Tensor]]] = []
        for bucket in _buckets(gradients):
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
            pending.append((distributed.all_reduce(flat, async_op=True), flat, bucket))
        for work, flat, bucket in pending:
            work.wait()
            for gradient, summed in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
                gradient.copy_(summed.view(gradient.shape))

    def sum(self, values: Tensor) -> Tensor:
        """The sum over processes."""
        if self.size > 1:
            values = values.clone()
            distributed.all_reduce(values)
        return values

    def sum_terms(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Sums over processes of scalars by name; all processes have the same names."""
        if self.size == 1:
            return terms
        summed = self.sum(torch.stack([in_double(value) for value in terms.values()]))
        return dict(zip(terms, summed, strict=True))

    def equal(self, value: Tensor) -> Tensor:
        """A process's share of a value that is the same in all, so that the sum over processes gives it back."""
        return value if self.size == 1 else value / self.size

    def gather(self, share: Tensor, batch: int) -> Tensor:
        """The global batch [batch, ...] from each process's share of it, in order."""
        if self.size == 1:
            return share
        # Parts differ in length, which the collective operations do not allow: a sum over zeros has no such limit.
        whole = share.new_zeros(batch, *share.shape[1:])
        whole[batch * self.rank // self.size : batch * (self.rank + 1) // self.size] = share
        return self.sum(whole)

    def any(self, flag: bool) -> bool:
        """Whether it holds for any process."""
        if self.size == 1:
            return flag
        raised = torch.tensor([int(flag)])
        distributed.all_reduce(raised, distributed.ReduceOp.MAX, group=self._control)
        return bool(raised)

    def told(self, value: Any) -> Any:
        """The value that rank 0 gives, for all: numbers, texts, lists, None."""
        if self.size == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0, group=self._control)
        return box[0]

    def by_first(self, action: Callable[[], None]) -> None:
        """Let rank 0 alone do something while the others wait; if it fails, all raise.

        A RunError is raised as it is in every process, anything else as a RunError in those that wait.
        """
        failure: BaseException | None = None
        if self.first:
            try:
                action()
            except BaseException as error:
                if self.size == 1:
                    raise
                failure = error
        ending = (str(failure), failure.cause if isinstance(failure, RunError) else "error") if failure else None
        ending = self.told(ending)
        if failure is not None:
            raise failure
        if ending is not None:
            raise RunError(f"rank 0: {ending[0]}", cause=ending[1])


ALONE = Ranks(Place(), torch.device("cpu"))
"""One process on the CPU."""


@contextmanager
def connected(place: Place | None, threads: int) -> Iterator[Ranks]:
    """Join the processes of a training for the time of the block, with `threads` threads each and
    deterministic kernels."""
    place = place or Place()
    device = _device(place)
    before = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    short = torch.backends.cudnn.allow_tf32
    torch.set_num_threads(threads)
    # Some kernels of accelerators have no deterministic form; on CPUs those in use have, and equality is promised.
    torch.use_deterministic_algorithms(True, warn_only=device.type != "cpu")
    # What is called float32, in training and in measurement, has no mantissa of 10 bits.
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield Ranks(place, device, _group(place, device) if place.size > 1 else None)
    finally:
        if place.size > 1 and distributed.is_initialized():
            distributed.destroy_process_group()
        torch.set_num_threads(before[0])
        torch.set_deterministic_debug_mode(before[1])
        torch.backends.cudnn.allow_tf32 = short


def _group(place: Place, device: torch.device) -> Any:
    """Bring the processes together; a group of gloo for what is decided on CPUs."""
    # Torchrun's agent listens at its address itself; elsewhere rank 0 does.
    listens = place.rank == 0 and not os.environ.get("TORCHELASTIC_USE_AGENT_STORE")
    store = distributed.TCPStore(place.address, place.port, place.size, listens, timeout=MEETING)
    distributed.init_process_group(
        "nccl" if device.type == "cuda" else "gloo", store=store, rank=place.rank, world_size=place.size, timeout=WAIT
    )
    return distributed.new_group(backend="gloo", timeout=WAIT)


def _device(place: Place) -> torch.device:
    """What $TOKENLAW_DEVICE names; else a GPU only where a job was given some: measurements of one machine stay
    comparable by default. Raises UsageError for a device that is not there."""
    asked = os.environ.get(DEVICE, "")
    if asked:
        available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        if not available.get(asked):
            names = ", ".join(name for name, there in available.items() if there)
            raise UsageError(f"${DEVICE} = {asked!r} is not there; allowed on this machine: {names}")
        return _gpu(place.local) if asked == "cuda" else torch.device(asked)
    given = any(os.environ.get(name) for name in ("SLURM_JOB_GPUS", "SLURM_STEP_GPUS", "SLURM_GPUS_ON_NODE"))
    if not (given and place.key and torch.cuda.is_available()):
        return torch.device("cpu")
    return _gpu(place.local)


def _gpu(number: int) -> torch.device:
    """The GPU of the process of that number on this node."""
    # cuBLAS is deterministic only with a workspace of fixed size, set before its first call.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    device = torch.device("cuda", number % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def _buckets(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """Groups of tensors of one type, of about BUCKET_ELEMENTS each, in order."""
    ends = accumulate(tensor.numel() for tensor in tensors)
    groups = groupby(zip(ends, tensors, strict=True), lambda pair: (pair[1].dtype, pair[0] // BUCKET_ELEMENTS))
    return [[tensor for _, tensor in group] for _, group in groups]

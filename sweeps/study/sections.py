"""The small sections of a study file, typed: [study], [seeds], [limits], [trackers], [worker]."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from scaling.specification.command_template import check_command

from .external_run import Stage
from .fields import Section


class About(Section):
    """[study]: what it is called (in ledger and reports) and what it is for."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    description: str = ""


SeedList = Annotated[list[Annotated[int, Field(ge=0, lt=2**63)]], Field(min_length=1)]
"""Seeds are columns of 64 bits in the store."""


class Seeds(Section):
    """[seeds]: seeds of the tokenizers; of the generators "same" (as their tokenizer's) or a list for each."""

    tokenizer: SeedList = Field([0])
    generator: Literal["same"] | SeedList = "same"


class RunSeeds(Section):
    """[seeds] of a study of runs without a stage: a list, each of which is run with each combination."""

    run: SeedList = Field([0])


class Limits(Section):
    """[limits]: the number of runs; FLOPs and GPU-hours that `submit` refuses to exceed; what is tried again."""

    runs: Annotated[int, Field(gt=0)] = 10_000
    flops: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    gpu_hours: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    retries: Annotated[int, Field(ge=0, le=100)] = 2
    """How often a run that failed with an error, or ran out of memory, is tried again in one submission."""
    out_of_memory_growth: Annotated[float, Field(ge=1, le=16)] = 1.5
    """Factor on the memory of a job after it ran out of it."""


class Trackers(Section):
    """[trackers]: programs of others that are told what is measured while runs run. Like resources no part of a run."""

    tensorboard: bool = False
    wandb: Literal["off", "online", "offline"] = "off"
    project: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^/\\#?%:]+$")] = "tokenlaw"
    """Of Weights & Biases."""

    @property
    def names(self) -> tuple[str, ...]:
        """The packages that are told."""
        return ("tensorboard",) * self.tensorboard + ("wandb",) * (self.wandb != "off")


class Worker(Section):
    """[worker]: a command that executes runs in place of this package's training, and for which runs it does."""

    command: list[str]
    stage: Stage | Annotated[list[Stage], Field(min_length=1)]
    threads: Annotated[int, Field(gt=0)] = 1
    """CPU threads of a run of no stage; the two stages have a field of their own for it."""

    @model_validator(mode="after")
    def _consistent(self) -> Worker:
        if self.external and len(self.stages) > 1:
            raise ValueError(
                f"stage = {list(self.stages)} mixes runs of no stage with others; allowed: one of the two in a study"
            )
        for stage in self.stages:
            check_command(self.command, stage)
        if self.threads != 1 and not self.external:
            raise ValueError(f"threads = {self.threads} is for runs of no stage; allowed: [{self.stages[0]}] threads")
        return self

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages that the command executes, each once."""
        return tuple(dict.fromkeys([self.stage] if isinstance(self.stage, str) else self.stage))

    @property
    def external(self) -> bool:
        """Whether it executes runs of no stage."""
        return "run" in self.stages

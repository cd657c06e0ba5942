"""Named hardware profiles: what a device computes in a second, to turn FLOPs into GPU-hours before anything has run.

An estimate is FLOPs / (peak x MFU). Peaks are the dense rates of the vendors' data sheets in the precision that
training uses there. The default MFU (model FLOPs utilisation: useful FLOPs over peak) is an assumption, to be replaced
by `mfu` in the study, and is replaced by what runs really took as soon as the store knows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator

from results.errors import UsageError
from scaling.specification.explanation import explain

from .fields import Section, nearest


@dataclass(frozen=True)
class Profile:
    """A device: its peak in FLOP/s of one device (for `cpu`: of one core), the default MFU, and what they rest on."""

    name: str
    device: Literal["gpu", "cpu"]
    peak: float
    mfu: float
    source: str


# PaLM reports an MFU of 0.462 for 540B parameters (arXiv 2204.02311, Table 3), and 0.21 to 0.33 for its predecessors.
# The models here are a thousand times smaller, so that launches, norms and the optimiser weigh more: 0.35 on A100 and
# less where the tensor cores are faster relative to memory.
_ASSUMED = "MFU assumed: below the 0.46 of PaLM (arXiv 2204.02311, Table 3), since models here are small"

PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        # One core with two AVX2 units at 3 GHz: 2 x 8 float32 x 2 x 3e9; 0.365 of it is what `run_columns` measured.
        Profile("cpu-laptop", "cpu", 9.6e10, 0.365, "float32, AVX2 at 3 GHz; MFU measured on this package's models"),
        # V100 SXM2 data sheet: 125 TFLOP/s on tensor cores, float16 (it has no bfloat16).
        Profile("v100", "gpu", 1.25e14, 0.30, f"V100 data sheet, float16; {_ASSUMED}"),
        # A100 data sheet: 312 TFLOP/s bfloat16 dense, for 40 and 80 GB alike.
        Profile("a100-40gb", "gpu", 3.12e14, 0.35, f"A100 data sheet, bfloat16 dense; {_ASSUMED}"),
        Profile("a100-80gb", "gpu", 3.12e14, 0.35, f"A100 data sheet, bfloat16 dense; {_ASSUMED}"),
        # L40S data sheet: 733 TFLOP/s with sparsity, 362 dense.
        Profile("l40s", "gpu", 3.62e14, 0.30, f"L40S data sheet, bfloat16 dense; {_ASSUMED}"),
        # H100 SXM data sheet: 1,979 TFLOP/s bfloat16 with sparsity, half of it dense.
        Profile("h100-80gb", "gpu", 9.895e14, 0.30, f"H100 SXM data sheet, bfloat16 dense; {_ASSUMED}"),
        # H200 SXM data sheet: the same compute as the H100, more memory.
        Profile("h200", "gpu", 9.895e14, 0.30, f"H200 SXM data sheet, bfloat16 dense; {_ASSUMED}"),
    )
}


class Hardware(Section):
    """[hardware]: the profile that GPU-hours are estimated with, and an MFU in place of its own."""

    profile: str
    mfu: Annotated[float, Field(gt=0, le=1)] | None = None

    @field_validator("profile")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in PROFILES:
            raise ValueError(
                f"profile = {value!r} is unknown; {nearest(value, PROFILES)}allowed: {', '.join(PROFILES)}"
            )
        return value

    @property
    def device(self) -> Profile:
        """The profile."""
        return PROFILES[self.profile]

    @property
    def utilisation(self) -> float:
        """The MFU that is assumed."""
        return self.device.mfu if self.mfu is None else self.mfu

    @property
    def rate(self) -> float:
        """FLOP/s that are assumed of one device."""
        return self.device.peak * self.utilisation

    def on(self, profile: str) -> Hardware:
        """Another device with as large a part of its usual utilisation as is assumed of this one."""
        share = self.utilisation / self.device.mfu
        return Hardware(profile=profile, mfu=min(1.0, float(f"{PROFILES[profile].mfu * share:.3g}")))

    @property
    def described(self) -> str:
        """For people: `a100-80gb at MFU 0.35`."""
        return f"{self.profile} at MFU {self.utilisation:g}"


def choose(of_study: Hardware | None, profile: str | None, mfu: float | None) -> Hardware | None:
    """The hardware of a study, or that of the command line in its place. Raises UsageError for an unknown profile."""
    if profile is None and mfu is None:
        return of_study
    name = profile or (of_study.profile if of_study else None)
    if name is None:
        raise UsageError(f"--mfu = {mfu} needs a profile; allowed: with --hardware {', '.join(PROFILES)}")
    inherited = of_study.mfu if of_study is not None and of_study.profile == name else None
    try:
        return Hardware(profile=name, mfu=inherited if mfu is None else mfu)
    except ValidationError as error:
        raise UsageError(f"--hardware, --mfu: {explain(error)}") from error

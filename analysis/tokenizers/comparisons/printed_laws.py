"""Laws of gFID as papers print them, put in as data: where two cross, what one saves, and what rounding leaves of that.

A printed law is gFID(C) = L_min + exp(lambda) C^alpha (arXiv 2412.16326, Sec. 3.3). Its coefficients have two
decimals or so, while ln C is 35 to 40: half a unit of alpha's last digit moves C^alpha by a fifth. So each claim is
made again at the corners of all rounded coefficients, and counts as stable only if it survives there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from results.errors import FitError

from ..rows import Record
from .crossover import split_point

SCAN = 2001


@dataclass(frozen=True)
class PrintedLaw(Record):
    """gFID(C) = floor + exp(lam) C^alpha, with so many decimals of alpha and lam printed; C as on the source's axis."""

    name: str
    alpha: float
    lam: float
    floor: float
    decimals: int = 2

    def gfid(self, flops: np.ndarray | float) -> np.ndarray:
        """gFID at compute on the law's own axis."""
        return np.asarray(self.floor + np.exp(self.lam + self.alpha * np.log(np.asarray(flops, dtype=float))))

    def flops_at(self, gfid: float) -> float:
        """Compute at which it reaches gFID. Raises FitError for one at or below its floor."""
        if gfid <= self.floor:
            raise FitError(f"{self.name} does not reach gFID {gfid:.4g}: its floor is {self.floor:.4g}")
        return math.exp((math.log(gfid - self.floor) - self.lam) / self.alpha)

    def roundings(self) -> list[PrintedLaw]:
        """The law at the corners of what rounds to its printed coefficients."""
        half = 0.5 * 10.0**-self.decimals
        return [replace(self, alpha=self.alpha + a, lam=self.lam + b) for a, b in product((-half, half), repeat=2)]


@dataclass(frozen=True)
class Claim(Record):
    """A number that printed laws give (None: there is none), over the roundings from `low` to `high`
    (None: at some there
    is none), and a warning where it does not survive them."""

    value: float | None
    low: float | None
    high: float | None
    warning: str | None


def printed_crossover(first: PrintedLaw, second: PrintedLaw, low: float, high: float) -> Claim:
    """Where `first`, the lower one before, gives way to `second` between two computes of their axis."""
    x = np.linspace(math.log(low), math.log(high), SCAN)

    def crossing(a: PrintedLaw, b: PrintedLaw) -> float | None:
        at, sign = split_point(x, np.log(a.gfid(np.exp(x))) - np.log(b.gfid(np.exp(x))))
        return math.exp(at) if at is not None and sign < 0 else None

    value = crossing(first, second)
    corners = [crossing(a, b) for a, b in product(first.roundings(), second.roundings())]
    return _claim(value, corners, f"{first.name} and {second.name}", "cross")


def printed_multiplier(base: PrintedLaw, treatment: PrintedLaw, flops: float) -> Claim:
    """Compute that `base` needs for the gFID of `treatment` at `flops`, over `flops`: above 1 the treatment saves."""

    def saving(a: PrintedLaw, b: PrintedLaw) -> float | None:
        try:
            return a.flops_at(float(b.gfid(flops))) / flops
        except FitError:
            return None

    value = saving(base, treatment)
    corners = [saving(a, b) for a, b in product(base.roundings(), treatment.roundings())]
    claim = _claim(value, corners, f"{treatment.name} against {base.name}", "save or cost compute")
    if claim.warning is None and claim.low is not None and claim.high is not None and claim.low < 1 < claim.high:
        text = f"from {claim.low:.2g} to {claim.high:.2g} by the rounding of the printed coefficients alone"
        claim = replace(claim, warning=f"{treatment.name} against {base.name}: {text}: which is better is not told")
    return claim


def _claim(value: float | None, corners: list[float | None], names: str, verb: str) -> Claim:
    known = [corner for corner in corners if corner is not None]
    lost = len(corners) - len(known)
    warning = None
    if (value is None and known) or (value is not None and lost):
        warning = (
            f"{names}: whether they {verb} is not told by the printed coefficients: {len(known)} of {len(corners)} "
            "roundings of them say so"
        )
    low, high = (min(known), max(known)) if known and not lost else (None, None)
    return Claim(value, low, high, warning)

"""Built-in laws that are formulas: product, signed-power, logistic, routed, farseer; no gradient is written by hand."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from itertools import product as combinations

import numpy as np

from results.errors import UsageError

from .formulas.law import FormulaLaw
from .law import Array, Columns, Law, Values


class Product(FormulaLaw):
    """L = k x^a, or L = k N^a D^b: a power that rises or falls, of either sign, without a floor.

    N_opt and D_opt against C (Hoffmann et al. 2022), the critical batch size against loss or tokens (McCandlish et al.
    2018; Zhang et al. 2024), the best learning rate against N and D (Li et al. 2025, "step law"). Where both params
    and tokens are named it is the law of both.
    """

    name = "product"
    source = "Hoffmann et al. 2022, arXiv 2203.15556, section 3.1; Li et al. 2025, arXiv 2503.04715, equation 1"
    FORMULAS: Mapping[str, tuple[str, str]] = {
        "x": ("k*x^a", "L = k x^a"),
        "params,tokens": ("k*params^a*tokens^b", "L = k N^a D^b"),
    }

    def __init__(self, columns: str = "x") -> None:
        if columns not in self.FORMULAS:
            raise UsageError(f"law product: columns={columns!r} is not x or params,tokens")
        text, formula = self.FORMULAS[columns]
        super().__init__(text, columns)
        self.formula = formula

    def for_columns(self, names: Collection[str]) -> Law:
        both = "x" not in names and len({"params", "tokens", "flops"} & set(names)) > 1
        return Product("params,tokens" if both else "x")

    def options(self) -> dict[str, float | str | int]:
        return {"columns": ",".join(self.columns)}


class SignedPower(FormulaLaw):
    """L = E + A x^-alpha with E and A of either sign: A < 0 rises towards E, as an accuracy does.

    The power law of Hestness et al. 2017 (arXiv 1712.00409), for what may rise and for metrics of any sign.
    """

    name = "signed-power"
    source = "Hestness et al. 2017, arXiv 1712.00409, with signs left free"

    def __init__(self) -> None:
        super().__init__("E + A/x^alpha", "x")
        self.formula = "L = E + A x^-alpha, A of either sign"

    def options(self) -> dict[str, float | str | int]:
        return {}


class Logistic(FormulaLaw):
    """L = low + (high - low) / (1 + (x0/x)^alpha): the odds of a share are a power law, (x/x0)^alpha.

    For accuracies, pass and win rates against compute, with chance at `low` and a ceiling `high`, both at least 0;
    high < low falls. `low` is its floor, so that it can be held at chance. Owen 2024 (arXiv 2401.04757), section 2.2;
    Ruan et al. 2024 (arXiv 2405.10938), equation 3, a sigmoid of the logarithm of compute.
    """

    name = "logistic"
    source = "Owen 2024, arXiv 2401.04757; Ruan et al. 2024, arXiv 2405.10938"

    def __init__(self) -> None:
        super().__init__("low + (high - low)/(1 + (x0/x)^alpha)", "x", "low=0:,high=0:")
        self.formula = "L = low + (high - low) / (1 + (x0/x)^alpha)"

    def options(self) -> dict[str, float | str | int]:
        return {}


class Routed(FormulaLaw):
    """log L = a log N + b log Ehat + c log N log Ehat + d, with the experts E saturated as Ehat.

    1/Ehat = 1/(E - 1 + 1/(1/E_start - 1/E_max)) + 1/E_max; N counts the parameters of the dense model. Clark et al.
    2022 (arXiv 2202.01169), equations 1 and 6. Logarithms are natural: c in decimal ones is ln(10) times as large.
    """

    name = "routed"
    source = "Clark et al. 2022, arXiv 2202.01169, section 3 (natural logarithms)"

    def __init__(self) -> None:
        log = "log(1/(1/(experts - 1 + 1/(1/E_start - 1/E_max)) + 1/E_max))"
        super().__init__(f"exp(a*log(params) + b*{log} + c*log(params)*{log} + d)", "params,experts")
        self.formula = "L = exp(a log N + b log Ehat + c log N log Ehat + d)"

    def options(self) -> dict[str, float | str | int]:
        return {}


class Farseer(FormulaLaw):
    """L = exp(s N^q + S) + exp(B N^b + Q) D^-exp(A N^a + E): Li et al. 2025 (arXiv 2506.10972).

    Floor, amplitude and exponent of the data term all move with N. D^-exp(...) makes the unit of D part of the law:
    counts of tokens, as there. N is scaled for the search, D and the loss are not.
    """

    name = "farseer"
    source = "Li et al. 2025, arXiv 2506.10972"
    FLOORS = (0.3, 0.6, 0.8, 0.92)  # shares of the smallest loss, by the floor of the largest N
    FLOOR_SLOPES = (0.0, -0.03, -0.1)  # d log floor / d log N
    SLOPES = (0.15, 0.3, 0.5)  # of the data term in D
    TURNS = (-0.3, -0.1, 0.0, 0.1)  # d log slope / d log N
    POWERS = (-0.15, 0.15)  # q and a
    AMPLITUDES = (-0.5, -0.1, 0.1)  # b

    def __init__(self) -> None:
        super().__init__("exp(s*params^q + S) + exp(B*params^b + Q)*tokens^(-exp(A*params^a + E))", "params,tokens")
        self.formula = "L = exp(s N^q + S) + exp(B N^b + Q) D^-exp(A N^a + E)"
        self.parameters = tuple(replace(q, linear=q.name in ("B", "Q")) for q in self.parameters)
        self.screening, self.smooth_trial, self.patience = 96, True, 5

    def starting_grid(self, fixed: Mapping[str, float]) -> dict[str, Array]:
        axes = (self.FLOORS, self.FLOOR_SLOPES, self.SLOPES, self.TURNS, self.POWERS, self.POWERS, self.AMPLITUDES)
        floor, floor_slope, slope, turn, q, a, b = np.array(list(combinations(*axes))).T
        s, rate = floor_slope / q, turn / a
        grid = {"s": s, "q": q, "S": np.log(floor), "b": b, "A": rate, "a": a, "E": np.log(slope) - rate}
        return {name: np.full(len(q), fixed[name]) if name in fixed else values for name, values in grid.items()}

    def start_values(self, p: Values, x: Columns, metric: Array) -> dict[str, Array]:
        # the grid's S is the logarithm of a share: of the smallest loss, by the floor at the largest N
        return {**p, "S": p["S"] + np.log(metric.min()) - p["s"] * x.value("params").max() ** p["q"]}

    def linear_system(self, p: Values, x: Columns, metric: Array) -> tuple[list[Array], Array, Array] | None:
        # the logarithm of what the floor leaves is linear in B and Q
        size = x.value("params")
        floor = np.exp(p["s"] * size ** p["q"] + p["S"])
        left = np.maximum(metric - floor, 1e-3 * metric)
        target = np.log(left) + np.exp(p["A"] * size ** p["a"] + p["E"]) * x.log("tokens")
        return [size ** p["b"], np.ones_like(target)], target, np.square(left / metric)

    def further(self, p: Values, x: Columns, times: Array) -> dict[str, Array]:
        # s N^q + S tends to a straight line in log N where q tends to 0, s grows with 1/q and S with -s
        moved = dict(p)
        for factor, power, offset in (("s", "q", "S"), ("B", "b", "Q"), ("A", "a", "E")):
            line = np.abs(p[power]) < 0.1
            moved[factor] = np.where(line, p[factor] * times, p[factor])
            moved[power] = np.where(line, p[power] / times, p[power])
            moved[offset] = p[offset] + p[factor] - moved[factor]
        return moved

    def options(self) -> dict[str, float | str | int]:
        return {}

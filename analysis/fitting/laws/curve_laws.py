"""Laws of learning curves, of one variable: m3, shifted-power, m4 and bnsl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from results.errors import UsageError

from .law import LOSS, Array, Columns, Law, Parameter, SeparableLaw, Term, Values
from .law_terms import EXPONENTS, MAX_EXPONENT, floor_of, scale_of

# where a broken law starts: the slope before a break and how it changes there, where (in shares of the logarithmic
# range of x: before, within and after the data) and how gradually. -5 and 5.5 with a break far before the data: the
# limit of a shifted power law, at the end of a long valley
SLOPES = (-5.0, 0.0, 0.1, 0.3, 0.8)
CHANGES = (-0.3, 0.2, 0.6, 1.5, 5.5)
BREAKS = (-2.0, -0.3, *(float(v) for v in np.linspace(0.03, 0.97, 16)), 1.15, 1.6)
WIDTHS = (0.015, 0.15, 1.0)


class M3(SeparableLaw):
    """L = a (1/x + g)^c, falling to a g^c: M3 of Alabdulmohsin et al. 2022 (arXiv 2209.06640), as in their code."""

    name = "m3"
    falls_with = ("x",)
    positive = True
    formula = "L = a (1/x + g)^c"
    screening = 8
    source = "Alabdulmohsin et al. 2022, arXiv 2209.06640, M3 (google-research/revisiting_neural_scaling_laws)"
    columns = ("x",)
    parameters = (
        scale_of("a", "c"),
        Parameter("g", 0.0, 1e4, unit={"x": -1.0}, grid=(0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)),
        Parameter("c", 0.0, 60.0, grid=EXPONENTS),
    )

    def terms(self, p: Values, x: Columns) -> Sequence[Term]:
        shifted = np.exp(-x.log("x")) + p["g"]
        log = np.log(shifted)
        value = np.exp(p["c"] * log)
        return [Term("a", value, {"c": value * log, "g": p["c"] * value / shifted})]


class ShiftedPower(SeparableLaw):
    """L = e + a (x + g)^-c: a power law with a floor whose first g of data counts for nothing."""

    name = "shifted-power"
    falls_with = ("x",)
    floor_signs = True
    floor_parameter = "e"
    formula = "L = e + a (x + g)^-c"
    screening = 8
    source = "pow4 of Domhan, Springenberg & Hutter 2015; Viering & Loog 2021, arXiv 2103.10948"
    columns = ("x",)
    parameters = (
        floor_of("e"),
        scale_of("a", "c"),
        Parameter("g", 0.0, 1e4, unit={"x": 1.0}, grid=(0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)),
        Parameter("c", 0.0, 60.0, grid=EXPONENTS),
    )

    def terms(self, p: Values, x: Columns) -> Sequence[Term]:
        shifted = x.value("x") + p["g"]
        log = np.log(shifted)
        value = np.exp(-p["c"] * log)
        return [Term("e", 1.0), Term("a", value, {"c": value * -log, "g": -p["c"] * value / shifted})]


class M4(Law):
    """(L - e) / (e0 - L)^k = a x^-c, solved for L: Alabdulmohsin et al. 2022 (arXiv 2209.06640), equation M4.

    e is the loss with unlimited data, e0 > L that of guessing; k = 0 gives the power law with a floor.
    """

    name = "m4"
    falls_with = ("x",)
    positive = True
    floor_parameter = "e"
    formula = "(L - e) / (e0 - L)^k = a x^-c"
    source = "Alabdulmohsin et al. 2022, arXiv 2209.06640, M4"
    columns = ("x",)
    free_coefficients = ("a",)
    screening = 18
    parameters = (
        scale_of("a", "c", loss=lambda p: 1.0 - p["k"]),
        Parameter("c", 0.0, MAX_EXPONENT, linear=True),
        Parameter("k", 0.0, 20.0, linear=True),
        Parameter("e", 0.0, unit={LOSS: 1.0}, grid=(0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.97)),
        Parameter("e0", 0.0, 1e3, unit={LOSS: 1.0}, grid=(1.003, 1.01, 1.03, 1.1, 1.3, 2.0)),
    )

    def predict(self, p: Values, x: Columns) -> Array:
        """L by safeguarded Halley steps in t = logit((L - e)/(e0 - e)): log(s) - k log(1 - s) = f rises with t."""
        width = np.maximum(p["e0"] - p["e"], 1e-12)
        k = p["k"]
        f = np.log(p["a"]) - p["c"] * x.log("x") + (k - 1.0) * np.log(width)
        # log s - k log(1 - s) = -softplus(-t) + k softplus(t); both ends are straight lines in t
        # (a concave function of t for k < 1, convex for k > 1): from the nearer line steps approach from one side
        t = np.where(f < 0, f, f / np.maximum(k, 1e-6))
        for _ in range(60):
            small = np.exp(-np.abs(t))
            rest = 1.0 / (1.0 + small)
            soft = np.log1p(small)
            above = np.maximum(t, 0.0)
            miss = (k - 1.0) * soft + k * above + (t - above) - f
            below = np.where(t > 0, small * rest, rest)  # 1 - s
            slope = np.maximum(below + k * (1.0 - below), 1e-12)
            move = miss / slope
            bend = 0.5 * (k - 1.0) * small * rest * rest / slope * move
            move /= np.clip(1.0 - bend, 0.5, 2.0)
            t = t - move
            # the error falls with its cube: below 1e-14 now. Beyond 40 L is its limit to rounding
            if np.abs(np.where(np.abs(t) < 40.0, move, 0.0)).max(initial=0.0) < 1e-5:
                break
        t = np.clip(t, -700.0, 700.0)
        return p["e"] + width / (1.0 + np.exp(-t))

    def evaluate(self, p: Values, x: Columns) -> tuple[Array, list[Array]]:
        value = self.predict(p, x)
        above = np.maximum(value - p["e"], 1e-300)
        below = np.maximum(p["e0"] - value, 1e-300)
        slope = above * below / (below + p["k"] * above)  # 1 / d(log lhs)/dL
        by_exponents = [-slope * x.log("x"), slope * np.log(below)]
        return value, [slope / p["a"], *by_exponents, slope / above, slope * p["k"] / below]

    def linear_system(self, p: Values, x: Columns, metric: Array) -> tuple[list[Array], Array, Array] | None:
        above, below = metric - p["e"], p["e0"] - metric
        shape = np.broadcast_shapes(above.shape, below.shape)
        above, below = np.broadcast_to(above, shape), np.broadcast_to(below, shape)
        log_x = np.broadcast_to(x.log("x"), shape)
        return [np.ones(shape), -log_x, np.log(below)], np.log(above), (above / metric) ** 2

    def start_values(self, p: Values, x: Columns, metric: Array) -> dict[str, Array]:
        # the grid's e and e0 are multiples of the smallest and the largest observation
        return {**p, "e": p["e"] * metric.min(), "e0": p["e0"] * metric.max()}

    def complete(self, p: Values, coefficients: Mapping[str, Array]) -> dict[str, Array]:
        return {**p, **coefficients, "a": np.exp(np.clip(coefficients["a"], -60.0, 60.0))}

    def further(self, p: Values, x: Columns, times: Array) -> dict[str, Array]:
        # s / (1 - s)^k with s = (L - e)/(e0 - e) tends to s exp(k s): k and e0 - e grow together
        k, width = p["k"], np.maximum(p["e0"] - p["e"], 1e-12)
        log_a = np.log(p["a"]) + k * np.log(width) - k * times * np.log(width * times)
        return {**p, "a": np.exp(np.clip(log_a, -600.0, 600.0)), "k": k * times, "e0": p["e"] + width * times}


class Bnsl(SeparableLaw):
    """L = a + b x^-c0 prod_i (1 + (x/d_i)^(1/f_i))^(-c_i f_i): Caballero et al. 2023 (arXiv 2210.14891), eq. 1."""

    name = "bnsl"
    floor_signs = True
    formula = "L = a + b x^-c0 prod_i (1 + (x/d_i)^(1/f_i))^(-c_i f_i)"
    floor_parameter = "a"
    source = "Caballero et al. 2023, arXiv 2210.14891, equation 1"
    columns = ("x",)

    def __init__(self, breaks: int = 1) -> None:
        if breaks not in (1, 2, 3):
            raise UsageError(f"law bnsl: breaks={breaks!r} is not 1, 2 or 3")
        self.breaks = breaks
        self.screening = 120 * breaks**2
        parameters = [floor_of("a"), scale_of("b", "c0"), Parameter("c0", -MAX_EXPONENT, MAX_EXPONENT, grid=SLOPES)]
        for i in range(1, breaks + 1):
            parameters += [
                Parameter(f"c{i}", -MAX_EXPONENT, MAX_EXPONENT, grid=CHANGES, plain=0.0),
                Parameter(f"d{i}", 1e-6, 1e6, log=True, unit={"x": 1.0}, grid=BREAKS),
                Parameter(f"f{i}", 1e-2, 30.0, log=True, grid=WIDTHS),
            ]
        self.parameters = tuple(parameters)

    def terms(self, p: Values, x: Columns) -> Sequence[Term]:
        log = x.log("x")
        exponent = -p["c0"] * log
        relative = {"c0": -log}  # slopes, divided by the value
        for i in range(1, self.breaks + 1):
            c, d, f = p[f"c{i}"], p[f"d{i}"], p[f"f{i}"]
            scaled = (log - np.log(d)) / f
            small = np.exp(-np.abs(scaled))
            soft = np.maximum(scaled, 0.0) + np.log1p(small)
            sigmoid = np.where(scaled > 0, 1.0, small) / (1.0 + small)
            exponent = exponent - c * f * soft
            relative |= {f"c{i}": -f * soft, f"d{i}": c * sigmoid / d, f"f{i}": -c * (soft - sigmoid * scaled)}
        value = np.exp(np.clip(exponent, -600.0, 600.0))
        return [Term("a", 1.0), Term("b", value, {name: value * slope for name, slope in relative.items()})]

    def further(self, p: Values, x: Columns, times: Array) -> dict[str, Array]:
        # a break outside the data bends them by c f (x/d)^(+-1/f): c grows with d^(1/f), after the data, or with
        # d^(-1/f), before them, where the slope c0 + c and the value at the break stay what they are
        out, middle = dict(p), x.log("x").mean(axis=-1, keepdims=True)
        for i in range(1, self.breaks + 1):
            c, d, f = p[f"c{i}"], p[f"d{i}"], p[f"f{i}"]
            before = np.log(d) < middle
            shift = np.clip(np.where(before, -1.0, 1.0) * f * np.log(times), -60.0, 60.0)
            log_d = np.log(d)
            more = np.where(before, c - c * times, 0.0)
            lift = np.where(before, c * log_d - c * times * (log_d + shift), 0.0)
            out |= {f"c{i}": c * times, f"d{i}": d * np.exp(shift), "c0": out["c0"] + more}
            out["b"] = out["b"] * np.exp(np.clip(lift, -600.0, 600.0))
        return out

    def start_values(self, p: Values, x: Columns, metric: Array) -> dict[str, Array]:
        log = x.log("x")
        first, length = log.min(), log.max() - log.min()
        d = {f"d{i}": np.exp(first + p[f"d{i}"] * length) for i in range(1, self.breaks + 1)}
        return {**p, **d}

    def basins(self, grid: Values) -> list[Array]:
        # where each break lies, how sharp it is, and to which side the curve bends there
        each = range(1, self.breaks + 1)
        return [label for i in each for label in (grid[f"d{i}"], grid[f"f{i}"], np.sign(grid[f"c{i}"]))]

    def options(self) -> dict[str, float | str | int]:
        return {"breaks": self.breaks}

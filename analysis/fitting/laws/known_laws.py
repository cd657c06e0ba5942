"""The laws that ship with tokenlaw, each a value with its formula, slopes, bounds, units and source; laws by name."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from results.errors import UsageError

from .curve_laws import M3, M4, Bnsl, ShiftedPower
from .formula_laws import Farseer, Logistic, Product, Routed, SignedPower
from .formulas.equation import formula_law
from .formulas.grammar import is_formula
from .law import LOSS, Array, Columns, Law, Parameter, SeparableLaw, Term, Values
from .law_terms import EXPONENTS, MAX_EXPONENT, amplitude_of, exponent_of, floor_and_powers, floor_of, power_of
from .schedule_law import MultiPower
from .tied import TiedLaw

SIGNED_FLOOR = "signed_floor"
"""The option with which any law that has a floor as a coefficient gets one of either sign."""
COARSE_EXPONENTS = tuple(float(v) for v in np.geomspace(0.05, 2.0, 7))


def share(first: Array, second: Array) -> Array:
    """first / (first + second), nan where both are 0."""
    with np.errstate(invalid="ignore"):
        return np.asarray(first / (first + second))


class PowerLaw(SeparableLaw):
    """L = E + A x^-alpha with E free ("free"), a number (0 for none) or a column (such as rFID) named "floor".

    Sources: Hestness et al. 2017 (arXiv 1712.00409); with a floor as M2 of Alabdulmohsin et al. 2022.
    """

    name = "power"
    falls_with = ("x",)
    source = "Hestness et al. 2017, arXiv 1712.00409; Alabdulmohsin et al. 2022 (M1, M2), arXiv 2209.06640"
    formula = "L = E + A x^-alpha"
    columns: tuple[str, ...] = ("x",)
    parameters: tuple[Parameter, ...] = (amplitude_of("A", "x", "alpha"), exponent_of("alpha"))

    def __init__(self, floor: float | str = "free") -> None:
        self.floor = floor
        if floor == "free":
            self.floor_parameter, self.parameters = "E", (floor_of(), *self.parameters)
            self.floor_signs = True
            return
        self.positive = floor == 0
        if floor != "column" and (isinstance(floor, str) or not np.isfinite(floor)):
            raise UsageError(f"law power: floor={floor!r} is neither 'free', 'column' nor a finite number")
        shown = "floor" if isinstance(floor, str) else f"{floor:g}"
        self.formula = f"L = {shown} + A x^-alpha" if floor else "L = A x^-alpha"
        if floor:
            # a number is a column too, so that it is scaled with the metric like any other quantity in its unit
            self.columns, self.metric_columns = ("x", "floor"), ("floor",)
            self.constant_columns = {} if isinstance(floor, str) else {"floor": float(floor)}

    def terms(self, p: Values, x: Columns) -> Sequence[Term]:
        term = power_of(p, x, "A", "x", "alpha")
        if self.floor == "free":
            return [Term("E", 1.0), term]
        if "floor" in self.columns:
            return [Term(None, x.value("floor")), term]
        return [term]

    def with_floor(self, value: float | None, called: str) -> tuple[Law, dict[str, float]]:
        if self.floor != "free":
            return super().with_floor(value, called)
        return PowerLaw("column" if value is None else value), {}

    def options(self) -> dict[str, float | str | int]:
        return {"floor": self.floor}


class Chinchilla(SeparableLaw):
    """L = E + A/N^alpha + B/D^beta: Hoffmann et al. 2022 (arXiv 2203.15556), section 3.3, approach 3."""

    name = "chinchilla"
    falls_with = ("params", "tokens")
    floor_signs = True
    formula = "L = E + A/N^alpha + B/D^beta"
    source = "Hoffmann et al. 2022, arXiv 2203.15556, section 3.3; Besiroglu et al. 2024, arXiv 2404.10102"
    columns = ("params", "tokens")
    floor_parameter = "E"
    powers = ("A", "params", "alpha"), ("B", "tokens", "beta")
    parameters = floor_and_powers(*powers)

    def terms(self, p: Values, x: Columns) -> Sequence[Term]:
        return [Term("E", 1.0), *(power_of(p, x, *power) for power in self.powers)]

    def derived(self, p: Values) -> dict[str, Array]:
        return {"a": share(p["beta"], p["alpha"])}


class Vocabulary(SeparableLaw):
    """L = E + A1/Nnv^alpha1 + A2/Nv^alpha2 + B/D^beta, non-vocabulary and vocabulary parameters apart.

    Tao et al. 2024 (arXiv 2407.13623), section 4.3, write -E: unigram-normalised losses are negative, so E is free
    in sign here, and raw residuals are needed where the loss is not positive.
    """

    name = "vocabulary"
    falls_with = ("params_non_vocabulary", "params_vocabulary", "tokens")
    formula = "L = E + A1/Nnv^alpha1 + A2/Nv^alpha2 + B/D^beta"
    source = "Tao et al. 2024, arXiv 2407.13623, section 4.3 (their E has the opposite sign)"
    columns = ("params_non_vocabulary", "params_vocabulary", "tokens")
    floor_parameter = "E"
    powers = (
        ("A1", "params_non_vocabulary", "alpha1"),
        ("A2", "params_vocabulary", "alpha2"),
        ("B", "tokens", "beta"),
    )
    parameters = floor_and_powers(*powers, grid=COARSE_EXPONENTS, lower=-np.inf)

    def terms(self, p: Values, x: Columns) -> Sequence[Term]:
        return [Term("E", 1.0), *(power_of(p, x, *power) for power in self.powers)]


class Kaplan(Law):
    """L = ((Nc/N)^(alpha_N/alpha_D) + Dc/D)^alpha_D: Kaplan et al. 2020 (arXiv 2001.08361), equation 1.5."""

    name = "kaplan"
    falls_with = ("params", "tokens")
    positive = True
    formula = "L = ((Nc/N)^(alpha_N/alpha_D) + Dc/D)^alpha_D"
    source = "Kaplan et al. 2020, arXiv 2001.08361, equation 1.5"
    columns = ("params", "tokens")
    parameters = (
        Parameter("Nc", 1e-60, 1e60, log=True, linear=True, unit={"params": 1.0, LOSS: lambda p: 1.0 / p["alpha_N"]}),
        Parameter("Dc", 1e-60, 1e60, log=True, linear=True, unit={"tokens": 1.0, LOSS: lambda p: 1.0 / p["alpha_D"]}),
        Parameter("alpha_N", 1e-3, MAX_EXPONENT, log=True, grid=EXPONENTS),
        Parameter("alpha_D", 1e-3, MAX_EXPONENT, log=True, grid=EXPONENTS),
    )

    def predict(self, p: Values, x: Columns) -> Array:
        return self.evaluate(p, x)[0]

    def evaluate(self, p: Values, x: Columns) -> tuple[Array, list[Array]]:
        from_params = np.log(p["Nc"]) - x.log("params")
        u = np.exp(p["alpha_N"] / p["alpha_D"] * from_params)
        v = np.exp(np.log(p["Dc"]) - x.log("tokens"))
        total = u + v
        log_total = np.log(total)
        value = np.exp(p["alpha_D"] * log_total)
        by_params = value * u / total
        by_exponent = by_params * from_params
        return value, [
            by_params * p["alpha_N"] / p["Nc"],
            value * v / total * p["alpha_D"] / p["Dc"],
            by_exponent,
            value * log_total - by_exponent * p["alpha_N"] / p["alpha_D"],
        ]

    def linear_system(self, p: Values, x: Columns, metric: Array) -> tuple[list[Array], Array, Array] | None:
        # L^(1/alpha_D) is linear in Nc^(alpha_N/alpha_D) and Dc
        ratio = p["alpha_N"] / p["alpha_D"]
        target = metric ** (1.0 / p["alpha_D"])
        basis = [np.exp(-ratio * x.log("params")), np.broadcast_to(1.0 / x.value("tokens"), target.shape)]
        return basis, target, p["alpha_D"] ** 2 / target**2

    def complete(self, p: Values, coefficients: Mapping[str, Array]) -> dict[str, Array]:
        nc = np.maximum(coefficients["Nc"], 1e-300) ** (p["alpha_D"] / p["alpha_N"])
        return {**p, "Nc": nc, "Dc": coefficients["Dc"]}

    def derived(self, p: Values) -> dict[str, Array]:
        return {"a": share(p["alpha_D"], p["alpha_N"])}


class DataConstrained(Law):
    """Repeated data: L = E + A/N'^alpha + B/D'^beta with D' = U + U R_D (1 - exp(-(D/U - 1)/R_D)).

    U = min(D, unique tokens), and likewise N' from U_N = min(N, the compute-optimal N for U) with R_N.
    Muennighoff et al. 2023 (arXiv 2305.16264), equations 5 to 10.
    """

    name = "data-constrained"
    falls_with = ("params", "tokens")
    floor_signs = True
    formula = "L = E + A/N'^alpha + B/D'^beta, X' = U + U R (1 - exp(-(X/U - 1)/R))"
    source = "Muennighoff et al. 2023, arXiv 2305.16264, section 3.1"
    columns = ("params", "tokens", "unique_tokens")
    scaled_with: Mapping[str, str] = MappingProxyType({"unique_tokens": "tokens"})
    floor_parameter = "E"
    parameters = (
        *floor_and_powers(*Chinchilla.powers, grid=COARSE_EXPONENTS),
        Parameter("R_N", 1e-3, 1e6, log=True, grid=(1.0, 5.0, 25.0)),
        Parameter("R_D", 1e-3, 1e6, log=True, grid=(3.0, 15.0, 75.0)),
    )

    @staticmethod
    def _effective(total: Array, unique: Array, r: Array) -> tuple[Array, Array, Array]:
        """X', its slope in unique, its slope in r; X' = unique where nothing is repeated (total = unique)."""
        repeats = np.maximum(total / unique - 1.0, 0.0)
        decay = np.exp(-repeats / r)
        value = unique * (1.0 + r * (1.0 - decay))
        by_unique = 1.0 + r * (1.0 - decay) - (repeats + 1.0) * decay
        return value, by_unique, unique * (1.0 - decay - repeats / r * decay)

    def predict(self, p: Values, x: Columns) -> Array:
        return self.evaluate(p, x)[0]

    def evaluate(self, p: Values, x: Columns) -> tuple[Array, list[Array]]:
        alpha, beta = np.maximum(p["alpha"], 1e-6), np.maximum(p["beta"], 1e-6)
        unique = np.minimum(x.value("tokens"), x.value("unique_tokens"))
        log_unique = np.log(unique)
        # the N for which `unique` tokens are compute-optimal at C = 6ND: alpha A N^-alpha = beta B D^-beta
        log_ratio = np.log(alpha * p["A"] / (beta * p["B"])) + beta * log_unique
        log_best = np.clip(log_ratio / alpha, -200.0, 200.0)
        base = np.exp(np.minimum(x.log("params"), log_best))
        moves = log_best < x.log("params")  # where U_N follows the parameters
        n, n_by_base, n_by_r = self._effective(x.value("params"), base, p["R_N"])
        d, _, d_by_r = self._effective(x.value("tokens"), unique, p["R_D"])
        log_n, log_d = np.log(n), np.log(d)
        by_n, by_d = np.exp(-alpha * log_n), np.exp(-beta * log_d)
        value = p["E"] + p["A"] * by_n + p["B"] * by_d
        slope_n = -alpha * p["A"] * by_n / n  # dL/dN'
        slope_d = -beta * p["B"] * by_d / d
        through = np.where(moves, slope_n * n_by_base * base, 0.0)  # dL/dlog(base)
        return value, [
            np.ones_like(value),
            by_n + through / (alpha * p["A"]),
            by_d - through / (alpha * p["B"]),
            -p["A"] * by_n * log_n + through * (1.0 - log_ratio) / alpha**2,
            -p["B"] * by_d * log_d + through * (log_unique - 1.0 / beta) / alpha,
            slope_n * n_by_r,
            slope_d * d_by_r,
        ]

    def linear_system(self, p: Values, x: Columns, metric: Array) -> tuple[list[Array], Array, Array] | None:
        # U_N needs A and B, so the start takes N' = N; polishing brings U_N in
        unique = np.minimum(x.value("tokens"), x.value("unique_tokens"))
        d, _, _ = self._effective(x.value("tokens"), unique, p["R_D"])
        by_n = np.exp(-p["alpha"] * x.log("params"))
        by_d = np.exp(-p["beta"] * np.log(d))
        shape = np.broadcast_shapes(by_n.shape, by_d.shape)
        return [np.ones(shape), np.broadcast_to(by_n, shape), by_d], metric, 1.0 / metric**2


LAWS: dict[str, Callable[..., Law]] = {
    "power": PowerLaw,
    "chinchilla": Chinchilla,
    "kaplan": Kaplan,
    "data-constrained": DataConstrained,
    "vocabulary": Vocabulary,
    "m3": M3,
    "shifted-power": ShiftedPower,
    "m4": M4,
    "bnsl": Bnsl,
    "product": Product,
    "signed-power": SignedPower,
    "logistic": Logistic,
    "routed": Routed,
    "farseer": Farseer,
    "multi-power": MultiPower,
}
STORED: dict[str, Callable[..., Law]] = {
    "formula": formula_law,
    "tied": lambda law, options, ties: TiedLaw(law_named(law, **json.loads(options)), json.loads(ties)),
}
"""How laws that have no name of their own are built again from a fit's file."""


def law_named(name: Law | str, **options: float | str | int) -> Law:
    """The law of that name; `bnsl-2` is short for bnsl with breaks=2, `m1` for power with floor=0, `m2` for power.

    A law itself is returned as it is.

    Raises UsageError for an unknown name or option.
    """
    if isinstance(name, Law):
        return name
    if is_formula(name):
        raise UsageError(f"law {name!r}: analysis.law(FORMULA, columns=[...]) makes a law of a formula")
    if options.pop(SIGNED_FLOOR, False):
        return law_named(name, **options).with_signed_floor()
    key = name.lower().replace("_", "-")
    if key in ("m1", "m2"):
        options = {"floor": 0.0 if key == "m1" else "free", **options}
        key = "power"
    if key.startswith("bnsl-") and key[5:].isdigit():
        key, options = "bnsl", {"breaks": int(key[5:]), **options}
    if key not in LAWS and not (key in STORED and options):
        known = ", ".join(sorted(LAWS))
        raise UsageError(f"law {name!r} is unknown; allowed: {known}, m1, m2, bnsl-1, bnsl-2, bnsl-3, or a formula")
    try:
        return (LAWS | STORED)[key](**options)
    except TypeError:
        raise UsageError(f"law {name!r} does not take the options {sorted(options)}") from None


def separate(text: str) -> list[str]:
    """The laws of a text that names several, separated by commas that stand within no parentheses."""
    return [part.strip() for part in re.split(r",(?![^()]*\))", text) if part.strip()]


def register(name: str, law: Callable[..., Law]) -> None:
    """Make a law of one's own available by name, to `fit` and to the command line's process.

    Raises UsageError where the name is taken.
    """
    if name in LAWS:
        raise UsageError(f"law {name!r} exists already; choose another name")
    LAWS[name] = law


def known_name(text: str) -> str:
    """The name of a law: `text` itself, or that of the class in FILE.py:CLASS. That file is run, the class registered.

    Raises UsageError where there is no such file or class, the file fails, or the name is one of another law.
    """
    path, sign, class_name = text.rpartition(":")
    if not sign or not path.endswith(".py"):
        return text
    if not Path(path).is_file():
        raise UsageError(f"law {text!r}: file {path!r} does not exist")
    spec = importlib.util.spec_from_file_location("tokenlaw_user_law", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        user_class = getattr(module, class_name, None)
        law = user_class() if isinstance(user_class, type) and issubclass(user_class, Law) else None
    except Exception as problem:  # whatever a user's file raises, the answer is one line
        reason = (str(problem).splitlines() or [""])[0]
        raise UsageError(f"law {text!r}: {type(problem).__name__}: {reason}") from problem
    if law is None or user_class is None:
        raise UsageError(f"law {text!r}: {path!r} has no law {class_name!r}, a subclass of analysis.Law")
    name = str(getattr(law, "name", ""))
    if not name or name != name.lower().replace("_", "-") or "," in name:
        raise UsageError(f"law {text!r}: its name {name!r} is not lower-case letters, digits and hyphens")
    if LAWS.get(name) is not user_class:  # the file may have registered it itself
        register(name, user_class)
    return name

"""The public names of analysis: each is there, documented, known to type checkers, and imported only when used."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import analysis

HEAVY = ("numpy", "pandas", "scipy", "matplotlib")


@pytest.mark.parametrize("name", analysis.__all__)
def test_every_name_resolves_and_is_documented(name: str) -> None:
    thing = getattr(analysis, name)
    assert callable(thing)
    assert thing.__doc__ and not thing.__doc__.startswith(f"{thing.__name__}("), "a docstring of its own"


def test_type_checkers_see_the_same_objects() -> None:
    tree = ast.parse(Path(analysis.__file__).read_text(encoding="utf-8"))
    [checked] = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {}
    for statement in checked.body:
        assert isinstance(statement, ast.ImportFrom) and statement.module
        home = import_module(f".{statement.module}", "analysis")
        seen |= {alias.name: getattr(home, alias.name) for alias in statement.names}
    assert seen == {name: getattr(analysis, name) for name in analysis.__all__}


def test_an_unknown_name_is_an_attribute_error_that_lists_the_known_ones() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'fitt'; it has: .*\bfit\b"):
        _ = analysis.fitt


def test_importing_analysis_imports_nothing_heavy() -> None:
    code = f"import sys, analysis; analysis.__all__; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_the_names_work_together_as_the_docstring_says() -> None:
    from analysis import bootstrap, fit, optimum, predict

    rng = np.random.default_rng(3)
    n, d = np.exp(rng.uniform(np.log(1e7), np.log(1e10), 60)), np.exp(rng.uniform(np.log(1e9), np.log(1e12), 60))
    loss = (1.7 + 400 * n**-0.34 + 410 * d**-0.28) * np.exp(0.002 * rng.standard_normal(60))
    result = fit("chinchilla", {"params": n, "tokens": d, "metric": loss})
    drawn = bootstrap(result, replicates=40)
    band = predict(drawn, {"params": [1e9], "tokens": [2e10]})
    assert band.low[0] <= band.value[0] <= band.high[0]
    best = optimum(result, 1e21, draws=drawn.coordinates)
    assert best.params.low < best.params.value < best.params.high  # type: ignore[operator]

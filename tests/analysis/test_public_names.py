"""The names of `from analysis import ...`: each resolves, and the import itself costs nothing."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import analysis


def test_every_name_resolves_and_no_other() -> None:
    for name in analysis.__all__:
        assert getattr(analysis, name) is not None
    assert set(analysis.__all__) <= set(dir(analysis))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = analysis.nothing


def test_the_import_brings_no_large_package() -> None:
    code = "import sys, analysis; print([m for m in ('numpy', 'pandas', 'scipy', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_fit_by_the_public_names() -> None:
    x = np.geomspace(1, 1e4, 12)
    result = analysis.fit("power", {"x": x, "metric": 1.5 + 3 * x**-0.4})
    assert result.values["alpha"] == pytest.approx(0.4)

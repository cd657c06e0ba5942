"""The request of a fit: a table and its columns, laws by name or value, floors that laws name themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.fitting.laws.known_laws import LAWS, PowerLaw, law_named
from analysis.fitting.request import FitRequest
from results.errors import DataError, UsageError


def table() -> pd.DataFrame:
    """Two groups of a power law above a floor of 2."""
    c = np.tile(np.geomspace(1e15, 1e19, 12), 2)
    return pd.DataFrame({"C": c, "loss": 2 + 30 * (c / 1e15) ** -0.6, "kind": np.repeat(["a", "b"], 12), "low": 2.0})


class OwnLaw(PowerLaw):
    """A law of one's own, whose floor it names itself."""

    name = "own"

    def with_floor(self, value: float | None, called: str) -> tuple[PowerLaw, dict[str, float]]:
        return self, {"E": 2.0 if value is None else value}


def test_a_frame_and_a_file_give_the_same_fit(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    table().to_csv(path, index=False)
    fits = [FitRequest(data, "power", flops="C", floor=2.0).fit() for data in (table(), path)]
    assert fits[0].values == pytest.approx(fits[1].values)
    assert fits[0].values["alpha"] == pytest.approx(0.6)
    assert set(FitRequest(table(), "power", flops="C", group="kind").fit_groups()) == {"a", "b"}


def test_every_law_names_its_own_floor() -> None:
    floors = {name: law_named(name).floor_parameter for name in LAWS if name in ("m3", "m4", "bnsl", "kaplan", "power")}
    assert floors == {"m3": None, "m4": "e", "bnsl": "a", "kaplan": None, "power": "E"}
    for name in sorted(set(LAWS) - {"formula"}):
        law = law_named(name)
        assert law.floor_parameter is None or law.floor_parameter in law.names
    assert FitRequest(table(), OwnLaw(), flops="C", floor=2.0).fit().values["E"] == pytest.approx(2.0)
    assert FitRequest(table(), "power", flops="C", floor="low").fit().law.formula == "L = floor + A x^-alpha"


def test_what_cannot_be_asked_for() -> None:
    with pytest.raises(UsageError, match=r"floor=1\.0: law m3 has no floor"):
        _ = FitRequest(table(), "m3", flops="C", floor=1.0).laws
    with pytest.raises(UsageError, match="one law is needed, not 2"):
        FitRequest(table(), "power,m3", flops="C").fit()
    with pytest.raises(DataError, match="column 'kin' is missing"):
        _ = FitRequest(table(), "power", flops="C", group="kin").table

"""Where SLURM is expected, its absence is a failure and no skip."""

from __future__ import annotations

import pytest

from . import conftest


def test_absence_fails_where_slurm_is_expected(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setattr(conftest, "why_not", lambda **options: "slurmctld not installed")
    for expected, ending in (("1", pytest.fail.Exception), ("", pytest.skip.Exception)):
        monkeypatch.setenv("TOKENLAW_EXPECT_SLURM", expected)
        with pytest.raises(ending, match="slurmctld not installed"):
            next(conftest._up(tmp_path_factory))

"""docs/studies.md: its studies are valid, and what it shows is what the commands print."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sweeps.cli.app import app
from sweeps.study.hardware import PROFILES
from sweeps.study.resources import Resources
from sweeps.study.sections import Limits
from sweeps.study.study import _SECTIONS, parse_study

DOC = (Path(__file__).parents[3] / "docs" / "studies.md").read_text()
FILES = dict(re.findall(r"`(\w+\.toml)`:\n\n```toml\n(.*?)```", DOC, re.DOTALL))
TOML = re.findall(r"```toml\n(.*?)```", DOC, re.DOTALL)
CONSOLE = re.findall(r"```console\n\$ tokenlaw ([^\n]*)\n(.*?)```", DOC, re.DOTALL)
FRAME = '[study]\nname = "doc"\n[generator]\nsize = "S"\nwarmup_images = 1024\ntrain_images = [4096]\n'


@pytest.mark.parametrize("text", TOML)
def test_every_study_in_it_is_valid(text: str) -> None:
    study = parse_study(text if "[study]" in text else FRAME + text, "doc")
    if "id" not in study.sections.get("tokenizer", {}):
        assert study.runs()


def test_there_are_files_and_commands() -> None:
    assert set(FILES) == {"codebooks.toml", "isoflop.toml"}
    assert len(CONSOLE) >= 5


@pytest.mark.parametrize(("command", "shown"), CONSOLE)
def test_commands_print_what_it_shows(
    command: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOKENLAW_ROOT", str(tmp_path / "root"))
    for name, text in FILES.items():
        Path(name).write_text(text)
    words, _, last = command.partition(" | tail -")
    done = CliRunner().invoke(app, shlex.split(words), catch_exceptions=False)
    assert done.exit_code == (2 if shown.startswith("error: ") else 0)
    lines = (done.stderr if done.exit_code else done.stdout).splitlines()
    assert (lines[-int(last) :] if last else lines) == shown.splitlines()


def test_every_section_field_and_profile_is_named() -> None:
    for section in _SECTIONS:
        assert re.search(rf"`\[+{section}[\].]", DOC), section
    for name in (*Resources.model_fields, *Limits.model_fields):
        assert f"`{name}`" in DOC, name
    for profile in PROFILES.values():
        peak = f"{profile.peak:.4g}".replace("e+", "e")
        assert f"| `{profile.name}` | {peak} | {profile.mfu:g} |" in DOC

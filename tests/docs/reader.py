"""A reader of the documentation: its blocks, and a folder in which somebody pastes them one after the other."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from analysis.fitting.laws.known_laws import LAWS
from sweeps.cli.app import app
from tests.scaling.data.made_pictures import made, write_folder

HOME = Path(__file__).parents[2]
DOCUMENTS = [HOME / "README.md", *sorted((HOME / "docs").glob("*.md"))]
_BLOCK = re.compile(r"(?P<before>[^\n]*\n)?\n?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"(tokenlaw|make|python|pip|git|bash) ")


@dataclass(frozen=True)
class Block:
    """A fenced block: where it begins, its language, its text, and the name of the file that it is, "" for none."""

    document: str
    line: int
    language: str
    text: str
    file: str

    @property
    def commands(self) -> list[str]:
        """The lines that a reader types: all of `sh`, those after a prompt of `console`."""
        if self.language == "sh":
            return [line for line in self.text.splitlines() if line.strip()]
        return [line[2:] for line in self.text.splitlines() if line.startswith("$ ")] * (self.language == "console")

    @property
    def shown(self) -> list[str]:
        """The lines after the one command of a `console` block."""
        return self.text.splitlines()[1:]

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


def blocks(document: Path) -> Iterator[Block]:
    """The blocks of a document. One without a language is told by how it begins: a prompt, a command, or else text."""
    content = document.read_text(encoding="utf-8")
    for match in _BLOCK.finditer(content):
        language, text = match["language"], match["text"]
        if not language:
            language = "console" if text.startswith("$ ") else "sh" if _COMMAND.match(text) else "text"
        named = re.search(r"`([\w-]+\.\w+)`:[^:]*$", match["before"] or "")
        line = content.count("\n", 0, match.start("text"))
        yield Block(document.name, line, language, text, named[1] if named else "")


class Reader:
    """Somebody in a folder of their own, with a data root, who types what a document shows."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.root, self._monkeypatch = folder, folder / "root", monkeypatch
        # What a reader of the clone has at hand.
        (folder / "docs").symlink_to(HOME / "docs")
        monkeypatch.chdir(folder)
        monkeypatch.setenv("TOKENLAW_ROOT", str(self.root))
        monkeypatch.setenv("COLUMNS", "200")
        # `python` of a trainer is this one.
        monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))

    def bring_pictures(self) -> None:
        """A folder of pictures, as a reader of docs/data.md has, and a cache of their own."""
        write_folder(self.folder / "photographs", made(140, side=64))
        self.keep_cache()

    def keep_cache(self) -> None:
        """What is learned of pictures is kept in the folder, not in the cache of who runs the tests."""
        self._monkeypatch.setenv("XDG_CACHE_HOME", str(self.folder / "cache"))

    def type(self, command: str) -> Result:
        """Execute a command of tokenlaw; of a pipe into `tail -N` the command before it."""
        words = shlex.split(command.partition(" | tail -")[0], comments=True)
        laws = dict(LAWS)
        try:
            return CliRunner().invoke(app, words[1:], catch_exceptions=False)
        finally:
            # Each command is a process of its own: a law that it registered is gone with it.
            LAWS.clear()
            LAWS.update(laws)

    def execute(self, command: str) -> None:
        """Execute a program that the document shows; it must not fail."""
        words = [sys.executable, *shlex.split(command)[1:]]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stderr}"

    def output(self, command: str) -> list[str]:
        """What a command prints that must not fail, or with exit code 2 its error."""
        done = self.type(command)
        assert done.exit_code in (0, 2), f"{command}\n{done.output}"
        lines = (done.stderr if done.exit_code else done.stdout).splitlines()
        last = command.partition(" | tail -")[2]
        return lines[-int(last) :] if last else lines


def parse(command: str) -> None:
    """Check that a command of tokenlaw exists and has these options, without executing it."""
    words = shlex.split(command, comments=True)[1:]
    group = typer.main.get_command(app)
    while words and words[0] in getattr(group, "commands", {}):
        group = group.get_command(None, words.pop(0))
    assert not hasattr(group, "commands") or "--help" in words, f"{command}: no such command"
    group.make_context(command, words)

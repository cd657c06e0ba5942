"""The command `tokenlaw`: which commands there are, and how each ends. A command is imported when it is asked for."""

from __future__ import annotations

import os
import signal
import stat
import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from results.errors import TokenlawError

COMMANDS = {
    **dict.fromkeys(("figures", "report"), "store"),
    **dict.fromkeys(("fit", "predict"), "laws.fit"),
    "optimum": "laws.optimum",
    "joint": "laws.joint",
    "next": "laws.next",
    **dict.fromkeys(("validate", "compare"), "laws.compare"),
    "isoflop": "laws.optimum",
    **dict.fromkeys(("demo", "plan", "submit", "status", "retry", "cancel", "logs", "run", "doctor"), "studies"),
    "store": "store",
    "data": "data",
    "evaluate": "evaluate",
    **dict.fromkeys(("sample", "export", "import"), "models"),
}
"""The file that holds each command by its name, in the order of --help: a function, or a group of commands."""


class _Group(TyperGroup):
    """Builds a command when it is asked for. Ends every error of ours in one line, an interrupt in 130."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = dict.fromkeys(COMMANDS)  # type: ignore[assignment]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in COMMANDS and self.commands[cmd_name] is None:
            module = import_module(f"sweeps.cli.{COMMANDS[cmd_name]}")
            # A command may not shadow a name of Python's: `next_` is that of next.
            command = getattr(module, cmd_name, None) or getattr(module, f"{cmd_name}_")
            if not isinstance(command, typer.Typer):
                function, command = command, typer.Typer(add_completion=False)
                command.command(cmd_name)(function)
            self.commands[cmd_name] = typer.main.get_command(command)
        return super().get_command(ctx, cmd_name)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except TokenlawError as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(error.exit_code) from error
        except KeyboardInterrupt as error:
            raise SystemExit(128 + signal.SIGINT) from error


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Scaling laws for two-stage image generators: which tokenizer and which generator to train together.",
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"tokenlaw {version('tokenlaw')}")
        raise typer.Exit()


@app.callback()
def _callback(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point of the command."""
    # Nothing that it or its jobs write is writable for everybody, whatever the user's mask allows.
    os.umask(os.umask(0o077) | stat.S_IWOTH)
    app()


if __name__ == "__main__":
    main()

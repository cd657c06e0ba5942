"""The command of a trainer that takes the place of ours, and the placeholders in it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

PLACEHOLDERS: dict[str, str] = {
    "spec": "the file with the run's specification, as JSON",
    "rows": "the file for the rows that the command measures, JSON lines",
    "out": "the folder for what the run leaves, such as weights; kept with the run",
    "checkpoints": "the folder for checkpoints; removed when the run is done",
    "earlier": "the folder of the earlier attempt to resume from, empty if there is none",
    "seed": "the run's seed",
    "run_id": "the run's id",
    "attempt": "the number of this attempt at the run, from 1",
    "stage": "tokenizer, generator or run",
    "tokenizer": "the folder with the artifacts of the generator's tokenizer",
}
_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


def check_command(command: Sequence[str], stage: str) -> None:
    """Raise ValueError for a command that cannot be run: empty, an unknown placeholder, a path out of the snapshot."""
    if not command or not command[0].strip():
        raise ValueError(f"trainer = {list(command)} names no program; allowed: a list of texts, the program first")
    for argument in command:
        if any(character in argument for character in "\0\n\r"):
            raise ValueError(f"trainer has {argument!r}; allowed: texts without line breaks")
        for name in _PLACEHOLDER.findall(argument):
            if name not in PLACEHOLDERS:
                raise ValueError(
                    f"trainer has the unknown placeholder {{{name}}}; allowed: "
                    f"{', '.join(f'{{{known}}}' for known in PLACEHOLDERS)}"
                )
            if name == "tokenizer" and stage != "generator":
                raise ValueError(f"trainer has {{tokenizer}}, but a run of stage {stage} has none; allowed: generators")
        if not argument.startswith("-") and "/" in argument and ".." in PurePosixPath(argument).parts:
            raise ValueError(
                f"trainer has {argument!r}, a path outside the root of the code that is frozen with a submission; "
                "allowed: paths below it, or absolute ones"
            )


def fill(command: Sequence[str], values: Mapping[str, object]) -> list[str]:
    """The command with its placeholders replaced; braces around anything else stay. No shell is involved.

    Raises KeyError for a placeholder without a value.
    """
    return [_PLACEHOLDER.sub(lambda placeholder: str(values[placeholder.group(1)]), argument) for argument in command]

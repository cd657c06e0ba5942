"""A law of the user's own, named FILE.py:CLASS on the command line, made known under the name that it gives itself."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from results.errors import UsageError


def known_name(text: str) -> str:
    """The name of a law: `text` itself, or that of the class in FILE.py:CLASS. That file is run, the class registered.

    Raises UsageError where there is no such file or class, the file fails, or the name is one of another law.
    """
    path, sign, name = text.rpartition(":")
    if not sign or not path.endswith(".py"):
        return text
    from analysis.fitting.known_laws import LAWS, register
    from analysis.fitting.law import Law

    if not Path(path).is_file():
        raise UsageError(f"--law {text!r}: file {path!r} does not exist")
    spec = importlib.util.spec_from_file_location("tokenlaw_own_law", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        made = getattr(module, name, None)
        law = made() if isinstance(made, type) and issubclass(made, Law) else None
    except Exception as problem:  # whatever a user's file raises, the answer is one line
        reason = (str(problem).splitlines() or [""])[0]
        raise UsageError(f"--law {text!r}: {type(problem).__name__}: {reason}") from problem
    if law is None or made is None:
        raise UsageError(f"--law {text!r}: {path!r} has no law {name!r}, a subclass of analysis.fitting.law.Law")
    own = str(getattr(law, "name", ""))
    if not own or own != own.lower().replace("_", "-") or "," in own:
        raise UsageError(f"--law {text!r}: its name {own!r} is not lower-case letters, digits and hyphens")
    if LAWS.get(own) is not made:  # the file may have registered it itself
        register(own, made)
    return own

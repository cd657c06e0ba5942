"""A law of the user's own, FILE.py:CLASS, made known under the name that it gives itself."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from results.errors import UsageError

from .known_laws import LAWS, register
from .law import Law


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
        raise UsageError(f"law {text!r}: {path!r} has no law {class_name!r}, a subclass of analysis.fitting.law.Law")
    name = str(getattr(law, "name", ""))
    if not name or name != name.lower().replace("_", "-") or "," in name:
        raise UsageError(f"law {text!r}: its name {name!r} is not lower-case letters, digits and hyphens")
    if LAWS.get(name) is not user_class:  # the file may have registered it itself
        register(name, user_class)
    return name

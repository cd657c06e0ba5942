"""Whether the tokenizer of a run is there: its result in the store, and its weights among the artifacts."""

from __future__ import annotations

from results import Store
from scaling.specification.spec import GeneratorRun
from sweeps.study.external_run import AnyRun

from . import artifacts
from .outcome import Outcome


def blocking(store: Store, spec: AnyRun) -> str | None:
    """Why a run cannot start: its tokenizer is not done, or its artifacts are gone. None if it can."""
    if not isinstance(spec, GeneratorRun):
        return None
    parent, label = spec.tokenizer.run_id, spec.tokenizer.label
    summary = store.results([parent]).get(parent)
    if summary is None:
        return f"its tokenizer {label} ({parent}) is not done"
    if summary.status != "done":
        return f"its tokenizer {label} ({parent}) {summary.status}"
    folder = artifacts.folder(store.root, parent)
    if not folder.is_dir():
        artifacts.publish(store.root, parent)
    if not folder.is_dir():
        return f"{folder}, the weights of its tokenizer {label}, is gone; restore it, or {_otherwise(store, parent)}"
    return None


def blocked_by(run_id: str, tokenizer: str, state: str) -> Outcome:
    """The outcome of a run whose tokenizer of that label ended as `state`, such as failed."""
    how = {"interrupted": "was interrupted", "storage": "met a root that cannot be written"}.get(state, state)
    return Outcome(run_id, "blocked", cause=state, message=f"its tokenizer {tokenizer} {how}")


def _otherwise(store: Store, parent: str) -> str:
    """What helps where the weights cannot be restored: a tokenizer without rows is trained again."""
    if any(name.run_id == parent and name.failed is None for name in store.view().loose):
        return f"remove {store.folder / parent} to train the tokenizer again"
    # Of a large file no single run can be removed, and a folder beside it would not count.
    return "train it again under another data root (--root): the rows of this one are compacted and stay"

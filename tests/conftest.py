"""For all tests: none changes what outlives it, their order, second runs are named, and a disk that is soon full."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# Property-based tests have no deadline, since machines are slow or busy.
settings.register_profile("patient", parent=settings.default, deadline=None)
settings.load_profile("patient")

PACKAGES = ("results", "analysis", "scaling", "sweeps")
OUTLIVING_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM)


# --- no test changes what outlives it ---------------------------------------------------------------------------------


def _process_state() -> dict[str, Any]:
    """What tests share in one process, by name."""
    # Torch sets variables of its own when it is first used, pytest one for each test.
    passing = ("TORCHINDUCTOR", "_TORCHINDUCTOR", "PYTEST")
    variables = {name: value for name, value in os.environ.items() if not name.startswith(passing)}
    state: dict[str, Any] = {f"os.environ[{name!r}]": value for name, value in variables.items()}
    state |= {f"the handler of {number.name}": signal.getsignal(number) for number in OUTLIVING_SIGNALS}
    state |= {"the working folder": str(Path.cwd()), "sys.path": list(sys.path), "sys.argv": list(sys.argv)}
    if (torch := sys.modules.get("torch")) is not None:
        state["torch's threads"] = torch.get_num_threads()
        state["torch's deterministic mode"] = torch.get_deterministic_debug_mode()
        state["torch's default type"] = torch.get_default_dtype()
    return state


def _module_names() -> dict[str, dict[str, Any]]:
    """What each name of our modules stands for."""
    ours = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in PACKAGES}
    return {name: dict(vars(module)) for name, module in ours.items()}


@pytest.fixture(autouse=True)
def _nothing_outlives_a_test() -> Iterator[None]:
    """Fails a test that leaves the process otherwise than it found it: those after it would depend on the order."""
    state, names = _process_state(), _module_names()
    yield
    after = _process_state()
    # torch may have been imported in between; what it began with is not known then.
    changed = [name for name, value in state.items() if name not in after or after[name] != value]
    changed += [name for name in after if name not in state and name.startswith("os.environ")]
    for module, before in names.items():
        now = vars(sys.modules[module]) if module in sys.modules else {}
        changed += [f"{module}.{name}" for name, value in before.items() if now.get(name) is not value]
    assert not changed, f"the test leaves changed: {', '.join(changed)}"


# --- the order --------------------------------------------------------------------------------------------------------


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests begin first, so that no process is left alone with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow") is not None}
    items.sort(key=lambda item: item.path not in slow)


# --- a second run -----------------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--gate",
        choices=("first", "second"),
        help="names tests that need a second run, or passed only on it; one not marked `processes` then fails it",
    )


def _second_passes(config: pytest.Config) -> tuple[list[str], list[str]]:
    """Ids of the tests of real processes, and of others, that did not fail now."""
    reporter = config.pluginmanager.getplugin("terminalreporter")
    failed = {report.nodeid for kind in ("failed", "error") for report in reporter.stats.get(kind, ())}
    passed = {report.nodeid: "processes" in report.keywords for report in reporter.stats.get("passed", ())}
    passed |= {report.nodeid: "processes" in report.keywords for report in reporter.stats.get("skipped", ())}
    right = {node: marked for node, marked in passed.items() if node not in failed}
    return [node for node, marked in right.items() if marked], [node for node, marked in right.items() if not marked]


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.getoption("--gate") == "second" and _second_passes(session.config)[1]:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    gate = config.getoption("--gate")
    if gate == "first":
        failed = config.pluginmanager.getplugin("lfplugin").lastfailed
        text = f"a second run is needed by: {', '.join(map(str, failed))}" if failed else "no test needed a second run"
        terminalreporter.write_line(text, bold=True)
    elif gate == "second":
        of_processes, others = _second_passes(config)
        terminalreporter.write_line(f"passed only on their second run: {', '.join(of_processes + others) or 'none'}")
        if others:
            terminalreporter.write_line(
                f"which fails the gate, since not of real processes: {', '.join(others)}", red=True, bold=True
            )


# --- a GPU ------------------------------------------------------------------------------------------------------------


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") is not None:
        torch = pytest.importorskip("torch")
        if not torch.cuda.is_available():
            pytest.skip("needs a GPU, and torch finds none")


# --- a disk that is soon full -----------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MB in memory, mounted for the test."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    command = ["mount", "-t", "tmpfs", "-o", "size=16m,mode=0755", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    yield folder
    # At once or, should a process still have a file open in it, when that has ended.
    subprocess.run(["umount", "--lazy", str(folder)], check=True)

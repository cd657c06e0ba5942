"""Features in files: what is read is what was written, damage is noticed, memory does not grow with their number."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from results.errors import StoreError
from scaling.evaluation import kept_rows as module
from scaling.evaluation.kept_rows import Spool, kept_rows

ROOT = Path(__file__).parents[3]
ROWS = torch.arange(70, dtype=torch.float32).reshape(10, 7)


def blocks() -> Iterator[Tensor]:
    return iter(ROWS.split(4))


@pytest.mark.parametrize("kept", [0, 10, 2**24])
def test_a_spool_gives_back_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    monkeypatch.setattr(module, "IN_MEMORY", kept)
    spool = Spool(tmp_path / "new")
    for block in blocks():
        spool.add(block)
    rows = spool.rows()
    assert torch.equal(rows, ROWS)
    rows[0] = 5
    # A file without a name: nothing is left behind.
    assert list(tmp_path.rglob("*.*")) == []
    with pytest.raises(ValueError, match="no images"):
        Spool(tmp_path).rows()


def test_rows_are_kept_and_computed_once(tmp_path: Path) -> None:
    path, calls = tmp_path / "cache/rows.npy", []

    def counted() -> Iterator[Tensor]:
        calls.append(1)
        return blocks()

    first, again = (kept_rows(path, 10, counted) for _ in range(2))
    assert torch.equal(first, ROWS) and torch.equal(again, ROWS) and len(calls) == 1
    assert [file.name for file in path.parent.iterdir()] == ["rows.npy"]
    assert np.array_equal(np.load(path), ROWS.numpy())
    first[0] = -1
    assert torch.equal(kept_rows(path, 10, counted), ROWS)


@pytest.mark.parametrize("damage", ["cut", "changed", "longer", "empty", "other"])
def test_a_damaged_file_is_computed_again(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "rows.npy"
    kept_rows(path, 10, blocks)
    content = path.read_bytes()
    changed = bytearray(content)
    changed[150] ^= 1
    path.write_bytes(
        {"cut": content[:-9], "changed": bytes(changed), "longer": content + b"1", "empty": b"", "other": b"x" * 300}[
            damage
        ]
    )
    assert torch.equal(kept_rows(path, 10, blocks), ROWS)
    assert "is damaged" in caplog.text and path.read_bytes() == content


def test_what_cannot_be_kept_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="features of 10 images, 11 were expected"):
        kept_rows(tmp_path / "rows.npy", 11, blocks)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        kept_rows(tmp_path / "file" / "rows.npy", 10, blocks)


MEMORY = """
import sys, torch
from pathlib import Path
from scaling.evaluation.kept_rows import kept_rows, Spool
from scaling.evaluation.memorisation import nearest_neighbours

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024

def blocks(n, peak):
    generator = torch.Generator().manual_seed(0)
    for _ in range(n // 500):
        peak.append(anonymous())
        yield torch.randn(500, 512, generator=generator)

n, peak = int(sys.argv[1]), []
rows = kept_rows(Path(sys.argv[2]), n, lambda: blocks(n, peak))
spool = Spool(Path(sys.argv[2]).parent)
for block in blocks(n, peak):
    spool.add(block)
held = spool.rows()
peak.append(anonymous())
found = nearest_neighbours(held[-300:], rows)
peak.append(anonymous())
assert found.indices.tolist() == list(range(n - 300, n))
print(max(peak))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux's /proc")
def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    """40,000 rows of 512 are 82 MB in either set; a process with 80,000 of them holds no more."""
    peaks = []
    for n in (40_000, 80_000):
        command = [sys.executable, "-c", MEMORY, str(n), str(tmp_path / f"{n}.npy")]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        assert done.returncode == 0, done.stderr
        peaks.append(float(done.stdout))
    assert peaks[1] < peaks[0] + 30, peaks

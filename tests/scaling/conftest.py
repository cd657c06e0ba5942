"""Real images for the tests of `scaling`: found where any user's are, never installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from results.errors import DataError
from scaling.data.sources.builtin import catalogue_files as sources


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Models here are tiny: two threads that wait for each other on a busy machine cost minutes and gain nothing."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def fashion_mnist() -> dict[str, Path]:
    """Verified files of Fashion-MNIST; tests that need them are skipped where no source has them."""
    try:
        return sources.locate("fashion-mnist")
    except DataError as error:
        pytest.skip(f"Fashion-MNIST is not here: {error}")

"""Places that tests of misuse and faults start from, and what they must leave."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.aftermath import Place, pool_processes
from tests.e2e.waiting import wait_for


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "queue")


@pytest.fixture
def nothing_is_left() -> Iterator[None]:
    """After the test, no process runs that did not run before it."""
    before = pool_processes()
    yield
    wait_for(lambda: pool_processes() <= before, 10)

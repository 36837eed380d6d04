from __future__ import annotations

import pytest

from tests.core.queue import Queue


@pytest.fixture
def queue() -> Queue:
    return Queue()

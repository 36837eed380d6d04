"""Waiting for a pool's jobs."""

from __future__ import annotations

import os
import signal
import time

import pytest

from osqueue import LocalPool
from tests.e2e import handlers


def test_the_timeout_of_join_counts_while_a_submit_is_unanswered(tmp_path):
    with LocalPool(handlers.nothing, workers=1, path=tmp_path / "queue") as pool:
        pid = pool._engine._broker.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            pool.submit(1)
            began = time.monotonic()
            with pytest.raises(TimeoutError):
                pool.join(timeout=0.2)
            took_s = time.monotonic() - began
        finally:
            os.kill(pid, signal.SIGCONT)
        pool.join(60)

    assert took_s < 6

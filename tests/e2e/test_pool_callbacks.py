"""Callbacks of futures: what they may do, and what is refused since it could never end."""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable
from typing import Any

import pytest

from osqueue import LocalPool
from tests.e2e import handlers

JOBS = 50


def test_a_callback_that_exits_is_logged_and_keeps_no_other_future_waiting(caplog: pytest.LogCaptureFixture) -> None:
    def leave(_: object) -> None:
        raise SystemExit(3)

    with LocalPool(handlers.double, workers=1) as pool:
        futures = [pool.submit(number) for number in range(JOBS)]
        for future in futures:
            future.add_done_callback(leave)

        assert [future.result(30) for future in futures] == [2 * number for number in range(JOBS)]
        assert pool.submit(100).result(30) == 200

    assert any(record.levelno == logging.ERROR and "callback" in record.message for record in caplog.records)


def in_a_callback(pool: LocalPool[Any, Any], call: Callable[[], object]) -> object:
    """What a call returns or raises in the callback of a future."""
    said: queue.SimpleQueue[object] = queue.SimpleQueue()

    def callback(_: object) -> None:
        try:
            said.put(call())
        except Exception as error:  # noqa: BLE001
            said.put(error)

    pool.submit(1).add_done_callback(callback)
    return said.get(timeout=30)


def test_waiting_in_a_callback_for_another_job_of_the_pool_is_refused_instead_of_waiting_for_ever() -> None:
    with LocalPool(handlers.double, workers=1) as pool:
        for call in (
            lambda: pool.submit(2).result(),
            lambda: pool.submit(2).exception(),
            lambda: list(pool.map([2])),
            lambda: list(pool.map([2], ordered=False)),
        ):
            error = in_a_callback(pool, call)
            assert isinstance(error, RuntimeError)
            assert "callback" in str(error)
        ended = pool.submit(4)
        ended.result(30)
        assert in_a_callback(pool, ended.result) == 8

        with LocalPool(handlers.double, workers=1) as other:
            assert in_a_callback(pool, lambda: other.submit(3).result(30)) == 6
        assert pool.submit(5).result(30) == 10


def test_every_other_method_may_be_called_in_a_callback() -> None:
    with LocalPool(handlers.double, workers=1) as pool:
        job_id = in_a_callback(pool, lambda: pool.push(2))
        assert isinstance(job_id, int)
        for call in (
            lambda: pool.push_many([1, 2]),
            lambda: pool.join(30),
            pool.stats,
            lambda: pool.get(job_id),
            lambda: pool.cancel(job_id),
            lambda: pool.requeue([]),
            lambda: (pool.pause(), pool.resume()),
            lambda: pool.resize(2),
            lambda: list(pool.dead()),
        ):
            assert not isinstance(in_a_callback(pool, call), Exception)

        assert in_a_callback(pool, pool.shutdown) is None

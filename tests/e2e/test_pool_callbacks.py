"""Callbacks of futures that do what callbacks should not."""

from __future__ import annotations

import logging

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

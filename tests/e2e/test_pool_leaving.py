"""What a pool says, and leaves behind, when its block is left before every job has ended."""

from __future__ import annotations

import gc
import logging
from pathlib import Path

import pytest

from osqueue import Broker, JobFailed, LocalPool, PoolBroken
from tests.e2e import handlers
from tests.e2e.waiting import wait_for


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.WARNING, "osqueue")
    return caplog


def messages(warnings: pytest.LogCaptureFixture) -> list[str]:
    return [message for message in map(logging.LogRecord.getMessage, warnings.records) if "in memory" not in message]


def test_a_named_path_is_one_warning_with_counts_and_how_to_go_on(
    tmp_path: Path, warnings: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "queue"
    pool = LocalPool(handlers.double, workers=1, path=path)
    pool.push_many([1, 2], delay=3600)
    with pytest.raises(ZeroDivisionError), pool:
        raise ZeroDivisionError

    [warning] = messages(warnings)
    assert "2 unfinished jobs wait (2 delayed)" in warning
    assert f"open the same path={path} again to go on" in warning


def test_nothing_is_said_when_nothing_is_left_or_when_a_stop_was_asked_for(
    tmp_path: Path, warnings: pytest.LogCaptureFixture
) -> None:
    pool = LocalPool(handlers.double, workers=1, path=tmp_path / "done")
    pool.submit(1).result(60)
    with pytest.raises(ZeroDivisionError), pool:
        raise ZeroDivisionError
    pool = LocalPool(handlers.double, workers=1, path=tmp_path / "stopped")
    pool.push(1, delay=3600)
    pool.stop()

    assert messages(warnings) == []


def test_a_private_queue_with_unfinished_jobs_is_kept_and_its_path_goes_on(
    warnings: pytest.LogCaptureFixture,
) -> None:
    pool = LocalPool(handlers.double, workers=1)
    path = pool._directory.path
    pool.push(1, delay=3)
    with pytest.raises(ZeroDivisionError), pool:
        raise ZeroDivisionError

    [warning] = messages(warnings)
    assert "1 unfinished job waits (1 delayed); the private directory is kept" in warning
    assert f"open path={path} again to go on" in warning
    with LocalPool(handlers.double, workers=1, path=path) as pool:
        assert pool.join(60).succeeded == 1


def test_the_error_of_a_dead_job_leaves_the_warning_of_dead_jobs_and_no_talk_of_unfinished_ones(
    warnings: pytest.LogCaptureFixture,
) -> None:
    pool = LocalPool(handlers.fail, workers=1, max_attempts=1)
    path = pool._directory.path
    with pytest.raises(JobFailed, match="no 1"), pool:
        pool.submit(1).result(60)

    [warning] = messages(warnings)
    assert warning.startswith("1 job died; first error: ValueError: no 1")
    assert f"the private directory is kept: {path}" in warning
    assert path.exists()


def test_jobs_of_other_tasks_are_named_once_however_often_they_are_waited_past(
    warnings: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    with Broker.open(tmp_path) as broker:
        broker.push(b"1", task="other")

    with LocalPool(handlers.double, workers=1, path=tmp_path) as pool:
        pool.join(60)
        pool.join(60)

    [warning] = messages(warnings)
    assert warning == "jobs of tasks without a handler in this pool stay in the queue: other: 1"


def test_a_pool_whose_workers_cannot_start_says_nothing_of_jobs_when_there_are_none(
    warnings: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    pool = LocalPool("tests.no_such_module:function", workers=1, path=tmp_path)
    wait_for(lambda: pool._engine.error is not None)
    with pytest.raises(PoolBroken), pool:
        pool.stats()

    assert [text for text in messages(warnings) if "the pool was stopped" in text] == []


def test_a_private_queue_whose_dead_jobs_were_discarded_is_removed(warnings: pytest.LogCaptureFixture) -> None:
    pool = LocalPool(handlers.fail, workers=1, max_attempts=1)
    path = pool._directory.path
    future = pool.submit(1)
    assert future.exception(60)
    pool.discard([future.job_id or 0])
    with pytest.raises(JobFailed), pool:
        future.result()

    assert messages(warnings) == []
    assert not path.exists()


def test_all_futures_are_cancelled_though_their_jobs_are_too_large_to_be_looked_at_together(tmp_path: Path) -> None:
    large = "x" * 4_000_000
    pool = LocalPool(handlers.anything, workers=1, path=tmp_path / "queue")
    pool.pause()
    futures = [pool.submit(large) for _ in range(8)]
    wait_for(lambda: pool.stats().ready == len(futures))
    pool.shutdown(cancel_futures=True)

    assert all(future.cancelled() for future in futures)
    with Broker.open(tmp_path / "queue") as broker:
        assert broker.stats().cancelled == len(futures)


def test_a_private_pool_that_is_dropped_with_unfinished_jobs_is_kept_and_named(
    warnings: pytest.LogCaptureFixture,
) -> None:
    pool = LocalPool(handlers.double, workers=1)
    path = pool._directory.path
    pool.push(1, delay=3600)
    pool.push(2, delay=3600)
    del pool
    gc.collect()

    wait_for(lambda: messages(warnings))
    [warning] = messages(warnings)
    assert "the pool was never closed; 2 unfinished jobs wait (2 delayed); the private directory is kept" in warning
    assert str(path) in warning
    with Broker.open(path) as broker:
        assert broker.stats().delayed == 2


def test_a_pool_that_is_dropped_in_its_own_thread_does_not_wait_there_and_tells_what_is_left(
    warnings: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    pool = LocalPool(handlers.double, workers=1, path=tmp_path)
    pool.push(1, delay=3600)
    holder = [pool]
    pool._engine.reactor.call(holder.clear)
    del pool

    wait_for(lambda: messages(warnings))
    [warning] = messages(warnings)
    assert "the pool was never closed; 1 unfinished job waits (1 delayed)" in warning

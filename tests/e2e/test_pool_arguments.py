"""Each argument of a pool, a push and an opening reaches what it is for; what it then does is tested where that is."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from osqueue import Broker, Client, JobRecord, JobTimeout, LeaseLost, LocalPool
from tests.e2e import course_handlers as course
from tests.e2e import handlers, misused_handlers
from tests.e2e.waiting import wait_for

HOUR_S = 3600.0
STEP_S = 0.25
"""Due times are rounded up, by less than that."""


def waits_s(record: JobRecord) -> float:
    """How long after its last failed attempt a job is due."""
    assert record.due_at is not None
    return (datetime.fromisoformat(record.due_at) - datetime.fromisoformat(record.errors[-1].at)).total_seconds()


def failed(pool: LocalPool[Any, Any], attempts: int = 1) -> JobRecord:
    """A job of one pool whose attempts failed."""
    job_id = pool.push(1)
    wait_for(lambda: len(pool.get(job_id).errors) == attempts)
    return pool.get(job_id)


@pytest.mark.parametrize(
    ("settings", "attempts", "expected_s"),
    [
        ({"retry_backoff": HOUR_S}, 1, HOUR_S),
        ({"retry_backoff": HOUR_S}, 2, 2 * HOUR_S),
        ({"retry_backoff": HOUR_S, "retry_backoff_max": 1.5 * HOUR_S}, 2, 1.5 * HOUR_S),
        ({"retry_backoff": 1.0, "retry_backoff_max": 1.0}, 1, 1.0),
    ],
)
def test_a_retry_comes_after_the_back_off_doubled_each_time_up_to_its_maximum(
    settings: dict[str, float], attempts: int, expected_s: float
) -> None:
    settings = {"retry_backoff_max": 10 * HOUR_S, **settings}
    handler = handlers.fail if attempts == 1 else misused_handlers.fail_again_at_once
    with LocalPool(handler, workers=1, retry_jitter=False, **settings) as pool:
        record = failed(pool, attempts)
        pool.cancel(record.id)

    assert expected_s <= waits_s(record) <= expected_s + STEP_S


def test_with_jitter_it_comes_anywhere_before() -> None:
    with LocalPool(handlers.fail, workers=1, retry_backoff=HOUR_S, retry_backoff_max=HOUR_S) as pool:
        records = [failed(pool) for _ in range(6)]
        for record in records:
            pool.cancel(record.id)

    waits = [waits_s(record) for record in records]
    assert max(waits) <= HOUR_S + STEP_S
    assert len({round(wait) for wait in waits}) > 1


def test_an_embedded_brokers_retries_are_stated_by_whoever_opens_it(tmp_path: Path) -> None:
    with Broker.open(tmp_path, max_attempts=3, retry_backoff=100, retry_backoff_max=150, retry_jitter=False) as broker:
        job_id = broker.push(b"1")
        for delay in (0, None):
            job = broker.claim(wait=20)
            assert job is not None
            broker.fail(job, "no", delay=delay)
        assert 150 <= waits_s(broker.get(job_id)) <= 150 + STEP_S

    with Broker.open(tmp_path, max_attempts=1) as broker:
        once = broker.push(b"2")
        job = broker.claim()
        assert job is not None
        broker.fail(job, "no")
        assert broker.get(once).state == "dead"


@pytest.mark.parametrize(
    ("settings", "attempts"),
    [
        ({"retry_on": OSError}, 1),
        ({"no_retry_on": ValueError}, 1),
        ({"retry_on": (OSError, ValueError)}, 2),
        ({"no_retry_on": (OSError,)}, 2),
        ({"max_attempts": 1}, 1),
    ],
)
def test_what_a_pool_is_told_to_retry_it_retries(settings: dict[str, Any], attempts: int) -> None:
    with LocalPool(handlers.fail, workers=1, **{"max_attempts": 2, "retry_backoff": 0, **settings}) as pool:
        job_id = pool.push(1)
        pool.join(30)
        record = pool.get(job_id)
        pool.discard(job_id)

    assert (record.state, record.attempts) == ("dead", attempts)


def test_a_pools_timeout_ends_an_attempt_that_takes_longer() -> None:
    with LocalPool(handlers.sleep, workers=1, timeout=0.3, max_attempts=1) as pool:
        with pytest.raises(JobTimeout):
            pool.submit(60).result(30)
        pool.discard(record.id for record in pool.dead())


def test_a_worker_above_its_memory_is_replaced() -> None:
    with LocalPool(course.pid, workers=1, max_memory_per_child=1) as pool:
        assert len(set(pool.map(range(20)))) > 1


def test_a_pools_lease_is_that_of_the_bare_claims_beside_it(tmp_path: Path) -> None:
    with LocalPool(handlers.double, workers=1, path=tmp_path, lease=0.3) as pool, Client.connect(tmp_path) as client:
        client.push(b"1", task="mine", max_attempts=1)
        job = client.claim(tasks=["mine"])
        assert job is not None
        wait_for(lambda: pool.get(job.id).state == "dead", 20)  # the default is a term of 30 s
        with pytest.raises(LeaseLost):
            client.complete(job)
        pool.discard(job.id)


def test_a_pool_has_as_many_workers_as_it_is_told() -> None:
    with LocalPool(handlers.double, workers=3) as pool:
        wait_for(lambda: pool.stats().workers == 3)


def test_stated_types_take_the_place_of_annotations() -> None:
    with LocalPool(handlers.anything, workers=1, payload_type=handlers.Point, result_type=handlers.Point) as pool:
        assert pool.submit(handlers.Point(1, 2)).result(30) == handlers.Point(1, 2)


def options_kept(pool: LocalPool[Any, Any], job_id: int) -> tuple[str, str, int, int]:
    """Task, state, priority and attempts of a job that has failed once, or waits."""
    record = pool.get(job_id)
    return record.task, record.state, record.priority, record.attempts


@pytest.mark.parametrize("method", ["push", "push_many", "submit"])
def test_every_option_of_a_push_is_the_jobs(method: str) -> None:
    tasks = {"default": handlers.double, "fail": handlers.fail, "sleep": handlers.sleep}
    with LocalPool(tasks, workers=1, retry_backoff=0) as pool:

        def push(payload: float, **options: Any) -> int:
            if method == "submit":
                future = pool.submit(payload, **options)
                wait_for(lambda: future.job_id)
                return future.job_id or 0
            return pool.push_many([payload], **options)[0] if method == "push_many" else pool.push(payload, **options)

        later = push(1, task="fail", delay=HOUR_S, priority=7)
        once = push(1, task="fail", max_attempts=1)
        short = push(60, task="sleep", timeout=0.2, max_attempts=1)
        assert pool.get(later).state == "delayed"
        pool.cancel(later)
        pool.join(30)

        assert options_kept(pool, later) == ("fail", "cancelled", 7, 0)
        assert options_kept(pool, once) == ("fail", "dead", 0, 1)
        assert options_kept(pool, short) == ("sleep", "dead", 0, 1)
        assert pool.get(short).errors[0].error_type == "JobTimeout"
        pool.discard([once, short])


def test_a_record_tells_all_of_a_job(tmp_path: Path) -> None:
    with LocalPool({"twice": handlers.fail_once}, workers=1, retry_backoff=0, path=tmp_path) as pool:
        job_id = pool.push(str(tmp_path / "seen"), task="twice", priority=5, key="order-7", delay=0.1)
        later = pool.push("later", task="twice", delay=HOUR_S)
        wait_for(lambda: pool.get(job_id).state == "succeeded")
        record, waiting = pool.get(job_id), pool.get(later)
        pool.cancel(later)

    told = (record.id, record.task, record.state, record.priority, record.key, record.attempts, record.result)
    assert told == (job_id, "twice", "succeeded", 5, "order-7", 2, b'"seen"')
    assert record.payload == f'"{tmp_path}/seen"'.encode()
    assert record.worker is not None
    assert record.started_at is not None
    assert record.finished_at is not None
    assert record.pushed_at < record.started_at <= record.finished_at
    [error] = record.errors
    assert (error.error_type, error.message, error.attempt) == ("ValueError", "the first time", 1)
    assert "in fail_once" in error.traceback
    assert record.pushed_at < error.at <= record.finished_at
    assert waiting.due_at is not None
    wait = datetime.fromisoformat(waiting.due_at) - datetime.fromisoformat(waiting.pushed_at)
    assert HOUR_S <= wait.total_seconds() <= HOUR_S + STEP_S

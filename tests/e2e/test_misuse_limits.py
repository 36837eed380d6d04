"""Limits that a program runs into: each is named, nothing is lost, and it goes on once there is room."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import pytest

from osqueue import Broker, LocalPool, QueueFull
from tests.cli.command_line import osqueue
from tests.e2e import handlers

LANES = 256
"""Pairs of priority and task that may have waiting jobs."""


def test_jobs_of_300_priorities_are_refused_by_name_at_the_limit_and_go_on_as_they_drain(tmp_path: Path) -> None:
    with Broker.open(tmp_path / "queue") as broker:
        with pytest.raises(QueueFull, match=r"too many lanes \(pairs of priority and task\).* limit=256"):
            [broker.push(b"%d" % priority, priority=priority) for priority in range(300)]
        assert [record.id for record in broker.list("ready")] == list(range(1, LANES + 1))
        assert broker.push(b"in a lane that is there", priority=0) == LANES + 1

        order = [job.payload for job in broker.claim_many(200)]
        assert order == [b"%d" % priority for priority in range(LANES - 1, LANES - 201, -1)]
        more = [broker.push(b"more", priority=priority) for priority in range(LANES, 300)]

        assert len(broker.claim_many(1000)) == LANES + 1 - 200 + len(more)
        assert broker.claim() is None


def test_dead_jobs_of_300_priorities_are_requeued_up_to_the_limit_and_the_error_says_which(tmp_path: Path) -> None:
    with Broker.open(tmp_path / "queue", max_attempts=1) as broker:
        for priorities in (range(150), range(150, 300)):
            for priority in priorities:
                broker.push(b"1", priority=priority)
            for job in broker.claim_many(len(priorities)):
                broker.fail(job, "why")
        ids = list(range(1, 301))

        with pytest.raises(QueueFull, match=r"too many lanes \(pairs of priority and task\).* limit=256") as caught:
            broker.requeue(ids)

        assert caught.value.changed == ids[:LANES]
        broker.claim_many(LANES)
        assert broker.requeue(ids) == ids[LANES:]


def test_jobs_of_many_tasks_and_priorities_run_through_a_pool_that_waits_for_room(tmp_path: Path) -> None:
    tasks = {f"task-{number}": handlers.double for number in range(20)}
    with LocalPool(tasks, workers=1, path=tmp_path / "queue") as pool:
        pool.pause()
        refused = []
        for priority, task in itertools.product(range(15), tasks):
            try:
                pool.push(1, task=task, priority=priority)
            except QueueFull:
                refused.append((priority, task))
        assert len(refused) == 300 - LANES
        pool.resume()
        pool.join()
        for priority, task in refused:
            pool.push(1, task=task, priority=priority)

    with LocalPool(tasks, workers=1, path=tmp_path / "queue") as pool:
        assert pool.stats().succeeded == 300


@pytest.mark.parametrize("priority", [-1001, 1001, 10**30])
def test_a_priority_out_of_range_is_refused_by_name_and_those_at_the_ends_are_taken(
    tmp_path: Path, priority: int
) -> None:
    with LocalPool(handlers.double, workers=1, path=tmp_path / "queue") as pool:
        for push in (pool.push, pool.submit):
            with pytest.raises(ValueError, match="priority must be between -1,000 and 1,000"):
                push(1, priority=priority)
        with pytest.raises(ValueError, match="priority must be between -1,000 and 1,000"):
            pool.push_many([1], priority=priority)

        assert [pool.push(1, priority=limit) for limit in (-1000, 1000)] == [1, 2]

    done = osqueue("push", "queue", "1", "--priority", priority, cwd=tmp_path)
    assert done.returncode == 2
    assert "priority must be between -1,000 and 1,000" in done.stderr


def test_pushes_from_ten_threads_have_ids_of_their_own_and_none_is_lost(tmp_path: Path) -> None:
    ids: list[int] = []

    def push(pool: LocalPool[int, int], thread: int) -> None:
        ids.extend([pool.push(thread * 100 + number) for number in range(50)])
        ids.extend(pool.push_many(range(50)))
        futures = [pool.submit(number) for number in range(50)]
        assert [future.result(60) for future in futures] == [2 * number for number in range(50)]
        ids.extend(future.job_id or 0 for future in futures)

    with LocalPool(handlers.double, workers=1, path=tmp_path / "queue") as pool:
        threads = [threading.Thread(target=push, args=(pool, number)) for number in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(100)
        stats = pool.join(60)

    assert sorted(ids) == list(range(1, 1501))
    assert (stats.pushed, stats.succeeded) == (1500, 1500)

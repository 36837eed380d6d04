"""A pool whose broker dies, hangs, or cannot go on."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from osqueue import Corrupt, JobFailed, LocalPool, PoolBroken
from tests.e2e import handlers
from tests.e2e.waiting import wait_for


def broker_pid(pool: LocalPool) -> int | None:
    return pool._engine._broker.pid


def kill_broker(pool: LocalPool) -> None:
    pid = broker_pid(pool)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: broker_pid(pool) not in (None, pid))


def test_every_future_resolves_though_the_broker_is_killed_again_and_again(tmp_path):
    log = tmp_path / "log"
    with LocalPool(handlers.append, workers=2, path=tmp_path / "queue") as pool:
        futures = []
        for wave in range(3):
            for number in range(1000):
                futures.append(pool.submit({"file": str(log), "text": f"{wave}-{number}"}))
                if number == 500:
                    kill_broker(pool)
        for future in futures:
            future.result(60)
        stats = pool.join()

    assert (stats.succeeded, stats.pushed) == (3000, 3000)
    lines = log.read_text().split()
    assert len(lines) == len(set(lines)) == 3000


def test_futures_resolve_though_their_push_was_not_answered_before_the_broker_died(tmp_path):
    with LocalPool(handlers.double, workers=2, path=tmp_path / "queue") as pool:
        for wave in range(4):
            pid = broker_pid(pool)
            assert pid is not None
            pool.submit(0).result(30)
            futures = []
            for number in range(200):
                futures.append(pool.submit(number))
                time.sleep(0.0001 * wave)
            os.kill(pid, signal.SIGKILL)

            assert [future.result(60) for future in futures] == list(range(0, 400, 2))


def test_pushes_that_are_on_their_way_when_the_broker_dies_are_done_once(tmp_path):
    with LocalPool(handlers.nothing, workers=1, path=tmp_path / "queue") as pool:
        ids: list[int] = []
        stop = threading.Event()

        def push() -> None:
            while not stop.is_set():
                ids.append(pool.push(1))

        threads = [threading.Thread(target=push) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(3):
            before = len(ids)
            wait_for(lambda before=before: len(ids) > before + 20)
            kill_broker(pool)
        stop.set()
        for thread in threads:
            thread.join(60)
        stats = pool.join()

    assert len(ids) == len(set(ids)) == stats.pushed == stats.succeeded


def test_a_job_that_runs_while_the_broker_dies_is_not_run_twice(tmp_path):
    started, go = tmp_path / "started", tmp_path / "go"
    with LocalPool(handlers.wait_for_file, workers=1, path=tmp_path / "queue") as pool:
        future = pool.submit({"started": str(started), "go": str(go)})
        wait_for(started.exists)
        started.unlink()
        kill_broker(pool)
        go.touch()

        assert future.result(30) == "went"
        assert not started.exists()
        assert pool.get(future.job_id).attempts == 1


def test_a_wait_for_all_jobs_outlives_the_broker(tmp_path):
    started, go = tmp_path / "started", tmp_path / "go"
    with LocalPool(handlers.wait_for_file, workers=1, path=tmp_path / "queue") as pool:
        pool.push({"started": str(started), "go": str(go)})
        wait_for(started.exists)
        joined: list[int] = []
        thread = threading.Thread(target=lambda: joined.append(pool.join().succeeded))
        thread.start()
        kill_broker(pool)
        assert thread.is_alive()
        go.touch()
        thread.join(30)

    assert joined == [1]


def test_a_stopped_broker_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr("osqueue.pool.broker_child.PING_S", 0.05)
    monkeypatch.setattr("osqueue.pool.broker_child.SILENT_PINGS", 20)
    with LocalPool(handlers.double, workers=1, path=tmp_path / "queue") as pool:
        pid = broker_pid(pool)
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)

        assert pool.submit(4).result(60) == 8
        assert broker_pid(pool) != pid


def test_a_broker_that_always_dies_breaks_the_pool_for_everybody(tmp_path):
    pool = LocalPool(handlers.sleep, workers=1, path=tmp_path / "queue")
    future = pool.submit(60)

    def kill_until_broken() -> bool:
        pid = broker_pid(pool)
        with contextlib.suppress(ProcessLookupError):
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
        return pool._engine.error is not None

    wait_for(kill_until_broken, 60)

    with pytest.raises(PoolBroken):
        future.result(10)
    with pytest.raises(PoolBroken):
        pool.push(1)
    with pytest.raises(PoolBroken, match="signal=SIGKILL"), pool:
        pass


@pytest.mark.parametrize(
    ("wait", "end"), [(lambda pool, _: pool.pause(), Corrupt), (lambda _, future: future.cancel(), False)]
)
def test_who_waits_for_jobs_to_be_taken_back_is_told_that_the_queue_is_lost(tmp_path, wait, end):
    started, path = tmp_path / "started", tmp_path / "queue"
    pool = LocalPool(handlers.wait_for_file, workers=1, path=path, grace=0.1)
    futures = [pool.submit({"started": str(started), "go": str(tmp_path / "go")}) for _ in range(2)]
    wait_for(started.exists)
    wait_for(lambda: len(pool._engine._supervisor.held()) == 2)
    pid = broker_pid(pool)
    os.kill(pid, signal.SIGSTOP)
    ends: list[object] = []

    def note_end() -> None:
        try:
            ends.append(wait(pool, futures[1]))
        except Corrupt as error:
            ends.append(type(error))

    waiting = threading.Thread(target=note_end)
    waiting.start()
    root = path / "queue.json"
    root.write_bytes(root.read_bytes()[:-20])
    os.kill(pid, signal.SIGKILL)
    waiting.join(60)

    assert ends == [end]
    with pytest.raises(Corrupt), pool:
        pass


def test_workers_that_cannot_start_break_the_pool_and_the_error_says_why():
    pool = LocalPool("no_such_module:handler", workers=1, max_attempts=1)
    future = pool.submit(1)

    with pytest.raises(PoolBroken):
        future.result(60)
    with pytest.raises(PoolBroken):
        pool.push(1)
    with pytest.raises(PoolBroken, match="no_such_module"), pool:
        pool.join()


def test_a_root_that_is_damaged_is_refused_by_name(tmp_path: Path):
    path = tmp_path / "queue"
    with LocalPool(handlers.double, workers=1, path=path) as pool:
        pool.push(1)
    root = path / "queue.json"
    root.write_bytes(root.read_bytes()[:-20])

    with pytest.raises(Corrupt, match=r"queue\.json"):
        LocalPool(handlers.double, workers=1, path=path)


def test_a_failed_job_is_the_same_error_after_the_broker_has_been_replaced(tmp_path):
    with LocalPool(handlers.fail, workers=1, path=tmp_path / "queue", max_attempts=2, retry_backoff=0.01) as pool:
        future = pool.submit(1)
        kill_broker(pool)

        with pytest.raises(JobFailed, match="no 1"):
            future.result(30)
        pool.discard(future.job_id)

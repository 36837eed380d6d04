"""``max_queued``: push is refused, push_many and map wait, and nobody is left waiting."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import logging
import os
import signal
import threading
import time

import pytest

from osqueue import Broker, Client, LocalPool, PoolBroken, QueueFull
from osqueue.pool.cancellation import Cancellation
from osqueue.pool.future import JobFuture
from tests.e2e import broken_in_workers, paced_handlers
from tests.e2e.program import Program
from tests.e2e.waiting import wait_for

pytestmark = pytest.mark.usefixtures("nothing_is_left")


class Gates:
    """Jobs that begin and end when the test says so."""

    def __init__(self, place):
        self.place = place

    def job(self, name):
        return {"place": str(self.place), "name": str(name)}

    def open(self, name=None):
        (self.place / ("go" if name is None else f"go-{name}")).touch()

    def begun(self, name):
        return (self.place / f"begun-{name}").exists()


@pytest.fixture
def gates(tmp_path):
    return Gates(tmp_path)


def waiting(queue):
    stats = queue.stats()
    return stats.ready + stats.delayed


class InThread:
    """A call in a thread, and how it ended."""

    def __init__(self, call):
        self.result = self.error = None
        self._thread = threading.Thread(target=self._run, args=(call,))
        self._thread.start()

    def _run(self, call):
        try:
            self.result = call()
        except Exception as error:  # noqa: BLE001  told by `error`
            self.error = error

    @property
    def goes_on(self):
        return self._thread.is_alive()

    def end(self):
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self


def test_push_is_refused_while_as_many_wait_and_what_runs_does_not_wait(gates):
    with LocalPool(paced_handlers.gated, workers=1, max_queued=2) as pool:
        pool.push(gates.job("a"))
        wait_for(lambda: gates.begun("a"))
        # It has begun a moment ago: nobody has told the broker yet.
        pool.push(gates.job("b"))
        pool.push(gates.job("c"), delay=0.5)
        with pytest.raises(QueueFull, match="max_queued=2"):
            pool.push(gates.job("d"))
        assert waiting(pool) == 2
        gates.open("a")
        wait_for(lambda: gates.begun("b"))
        pool.push(gates.job("d"))
        gates.open()


def test_push_many_of_more_jobs_than_the_bound_waits_while_workers_drain_it():
    most = 0
    with LocalPool(paced_handlers.short, workers=2, max_queued=20) as pool:
        pushing = InThread(lambda: pool.push_many(range(1_000)))
        while pushing.goes_on:
            most = max(most, waiting(pool))
        ids = pushing.end().result
        assert list(ids) == list(range(1, 1_001))
        assert pool.join().succeeded == 1_000
    assert 0 < most <= 20


def test_push_many_reads_no_further_than_what_it_pushes_next(gates):
    read = itertools.count()
    with LocalPool(paced_handlers.gated, workers=1, max_queued=1) as pool:
        pushing = InThread(lambda: pool.push_many(gates.job(next(read)) for _ in range(1_000)))
        wait_for(lambda: gates.begun(0))
        time.sleep(0.3)
        assert next(read) <= 200
        pool.stop(0)
        assert pushing.end().error.pushed == 2


def test_workers_are_all_busy_though_few_may_wait(gates):
    with LocalPool(paced_handlers.gated, workers=6, max_queued=1) as pool:
        pushing = InThread(lambda: pool.push_many([gates.job(n) for n in range(7)]))
        wait_for(lambda: all(gates.begun(n) for n in range(6)))
        pushing.end()
        assert pool.stats().running == 6
        gates.open()


def test_several_who_wait_all_get_in_and_the_bound_holds():
    most = 0
    with LocalPool(paced_handlers.short, workers=2, max_queued=5) as pool:
        pushing = [InThread(lambda: pool.push_many(range(100))) for _ in range(3)]
        mapping = InThread(lambda: list(pool.map(range(100), buffersize=50)))
        while any(one.goes_on for one in (*pushing, mapping)):
            most = max(most, waiting(pool))
        ids = list(itertools.chain(*(one.end().result for one in pushing)))
        assert len(set(ids)) == 300
        assert mapping.end().result == list(range(100))
        assert pool.join().succeeded == 400
    assert most <= 5


def test_a_future_that_comes_back_unpushed_while_it_is_cancelled_is_cancelled():
    future = JobFuture(lambda _: False, lambda: None)

    class ComesBack:
        """What a `Submitter` says of a future whose push is in flight, and then did not fit."""

        returned = False

        def withdraw(self, futures):
            return [one for one in futures if self.returned]

        async def ids(self, futures):
            self.returned = True
            return {}

    cancellation = Cancellation(None, ComesBack(), None)

    assert asyncio.run(cancellation.unstarted([future])) == [future]


def test_map_waits_and_keeps_its_order(gates):
    with LocalPool(paced_handlers.short, workers=2, max_queued=3) as pool:
        assert list(pool.map(range(300))) == list(range(300))
        assert sorted(pool.map(range(100), ordered=False)) == list(range(100))


def test_submit_does_not_wait_its_future_says_that_the_queue_is_full(gates):
    with LocalPool(paced_handlers.gated, workers=1, max_queued=2) as pool:
        first = pool.submit(gates.job("a"))
        wait_for(lambda: gates.begun("a"))
        futures = [pool.submit(gates.job(n)) for n in range(4)]
        errors = [future.exception(30) for future in futures[2:]]
        assert [type(error) for error in errors] == [QueueFull, QueueFull]
        assert "use map" in str(errors[0])
        gates.open()
        assert [future.result(30) for future in (first, *futures[:2])] == ["a", "0", "1"]


def test_a_shutdown_that_cancels_takes_back_what_map_has_wait_for_room(gates):
    pool = LocalPool(paced_handlers.gated, workers=1, max_queued=1)
    results = pool.map([gates.job(n) for n in range(50)])
    wait_for(lambda: gates.begun(0) and waiting(pool) == 1)
    leaving = InThread(lambda: pool.shutdown(cancel_futures=True))
    wait_for(lambda: all(future.cancelled() for future in list(results._waiting._futures)[1:]))
    gates.open(0)
    leaving.end()

    assert next(results) == "0"
    with pytest.raises(concurrent.futures.CancelledError):
        next(results)
    assert not gates.begun(1)


def test_a_future_whose_job_waits_for_room_can_be_cancelled(gates):
    with LocalPool(paced_handlers.gated, workers=1, max_queued=1) as pool:
        results = pool.map([gates.job(n) for n in range(4)])
        wait_for(lambda: gates.begun(0) and waiting(pool) == 1)
        assert results._waiting._futures[3].cancel()
        gates.open()
        assert [next(results) for _ in range(3)] == ["0", "1", "2"]
    assert not gates.begun(3)


@pytest.mark.parametrize("leave", ["stop", "shutdown"])
def test_leaving_ends_the_wait_of_push_many_with_a_clear_error(gates, leave):
    pool = LocalPool(paced_handlers.gated, workers=1, max_queued=1)
    pushing = InThread(lambda: pool.push_many([gates.job(n) for n in range(10)]))
    wait_for(lambda: gates.begun(0) and waiting(pool) == 1)
    assert pushing.goes_on
    if leave == "stop":
        pool.stop(0)
    else:
        leaving = InThread(pool.shutdown)
        pushing.end()
        gates.open()
        leaving.end()

    error = pushing.end().error

    assert isinstance(error, RuntimeError)
    assert "closed while push_many waited for room" in str(error)
    assert error.pushed == 2


def test_stop_ends_what_map_waits_for_and_does_not_wait_itself(gates, monkeypatch):
    monkeypatch.setattr("osqueue.pool.engine._END_S", 600)
    pool = LocalPool(paced_handlers.gated, workers=1, max_queued=1)
    mapping = InThread(lambda: list(pool.map([gates.job(n) for n in range(10)])))
    wait_for(lambda: gates.begun(0) and waiting(pool) == 1)
    pool.stop(0)

    assert "stopped" in str(mapping.end().error)


def test_join_beside_a_waiting_push_many_goes_on_to_the_end():
    with LocalPool(paced_handlers.short, workers=1, max_queued=2) as pool:
        pushing = InThread(lambda: pool.push_many(range(50)))
        wait_for(lambda: pool.stats().pushed > 2)
        pushing.end()
        assert pool.join().succeeded == 50


def test_a_wait_goes_on_with_the_next_broker(gates):
    with LocalPool(paced_handlers.gated, workers=1, max_queued=1) as pool:
        pushing = InThread(lambda: pool.push_many([gates.job(n) for n in range(3)]))
        mapping = InThread(lambda: list(pool.map([gates.job("m")])))
        wait_for(lambda: waiting(pool) == 1 and pool.stats().running == 1)
        os.kill(pool._engine._broker.pid, signal.SIGKILL)
        gates.open()
        assert len(pushing.end().result) == 3
        assert mapping.end().result == ["m"]


def test_a_pool_that_breaks_ends_the_waits_with_its_own_error(tmp_path):
    pool = LocalPool(broken_in_workers.double, workers=1, max_queued=1)
    pushing = InThread(lambda: pool.push_many([1, 2, 3]))
    assert isinstance(pushing.end().error, PoolBroken)
    pool.stop()


def test_ctrl_c_ends_a_wait_and_leaves_nothing(tmp_path):
    program = Program(
        tmp_path,
        """
        import pathlib, time
        from osqueue import LocalPool

        def slow(value):
            time.sleep(0.2)

        if __name__ == "__main__":
            with LocalPool(slow, workers=1, max_queued=1) as pool:
                try:
                    pathlib.Path("waits").touch()
                    pool.push_many([1] * 1000)
                except KeyboardInterrupt:
                    print("stopped waiting")
                while True:
                    try:
                        print("id", pool.push(2) > 1)
                        break
                    except Exception as error:
                        time.sleep(0.05)
        """,
    )
    program.wait_for("waits")
    time.sleep(0.5)

    program.interrupt()

    ended = program.end()
    assert (ended.status, ended.out) == (0, "stopped waiting\nid True\n"), ended.err


def test_a_client_waits_likewise_and_a_broker_in_this_process_too(tmp_path):
    with Broker.open(tmp_path / "queue", max_queued=3) as broker, Client.connect(tmp_path / "queue") as client:
        pushing = InThread(lambda: client.push_many(b"%d" % n for n in range(100)))
        with pytest.raises(QueueFull, match="max_queued=3"):
            wait_for(lambda: broker.push(b"0") < 0)
        claimed = []
        while len(claimed) < 100:
            jobs = broker.claim_many(2, wait=10)
            claimed += [job.payload for job in jobs if job.payload != b"0" or b"0" not in claimed]
            assert waiting(broker) <= 3
            for job in jobs:
                broker.complete(job)
        assert len(pushing.end().result) == 100


def test_closing_a_client_ends_its_wait(tmp_path):
    with Broker.open(tmp_path / "queue", max_queued=1) as broker:
        pushing = InThread(lambda: broker.push_many([b"1", b"2"]))
        wait_for(lambda: waiting(broker) == 1)
    assert "closed" in str(pushing.end().error)
    assert pushing.error.pushed == 1


def test_a_wait_in_a_paused_pool_is_told(gates, caplog):
    caplog.set_level(logging.WARNING, "osqueue")
    with LocalPool(paced_handlers.short, workers=1, max_queued=1) as pool:
        pool.pause()
        pushing = InThread(lambda: pool.push_many([1, 2, 3]))
        wait_for(lambda: "waits for room in a paused pool" in caplog.text)
        assert waiting(pool) == 1
        pool.resume()
        assert list(pushing.end().result) == [1, 2, 3]


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("2", TypeError)])
def test_a_bound_that_is_none_is_refused_by_name(tmp_path, value, error):
    with pytest.raises(error, match="max_queued"):
        LocalPool(paced_handlers.short, max_queued=value, path=tmp_path / "queue")
    with pytest.raises(error, match="max_queued"):
        Broker.open(tmp_path / "queue", max_queued=value)
    assert not (tmp_path / "queue").exists()

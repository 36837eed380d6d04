"""A pool, for real: broker, supervisor, workers."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from osqueue import (
    InvalidPayload,
    JobCancelled,
    JobFailed,
    JobNotFound,
    JobTimeout,
    LocalPool,
    PayloadTooLarge,
    QueueLocked,
    UnknownTask,
    WorkerCrashed,
)
from tests.e2e import handlers
from tests.e2e.waiting import wait_for


@pytest.fixture
def waiting(tmp_path: Path) -> dict[str, str]:
    """A payload of `handlers.wait_for_file`."""
    return {"started": str(tmp_path / "started"), "go": str(tmp_path / "go")}


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPool]:
    """One pool of many tasks, for tests that leave nothing behind."""
    tasks = {
        "default": handlers.double,
        "swap": handlers.swap,
        "anything": handlers.anything,
        "fail": handlers.fail,
        "fail_odd": handlers.fail_odd,
        "sleep": handlers.sleep,
    }
    with LocalPool(
        tasks, workers=2, path=tmp_path_factory.mktemp("queue"), max_attempts=1, max_payload=1_000_000
    ) as pool:
        yield pool


def test_a_pushed_job_runs_and_its_record_has_the_result(pool):
    job_id = pool.push(21)
    pool.join()

    record = pool.get(job_id)
    assert (record.state, record.payload, record.result, record.attempts) == ("succeeded", b"21", b"42", 1)


def test_push_many_gives_ids_in_order_and_reads_lazily(pool):
    ids = pool.push_many(iter(range(1000)))
    pool.join()

    assert len(ids) == 1000
    assert list(ids) == sorted(ids)
    assert pool.get(ids[999]).result == b"1998"


def test_a_future_gives_the_result_as_the_declared_type(pool):
    future = pool.submit(handlers.Point(1, 2), task="swap")

    assert future.result(30) == handlers.Point(2, 1)
    assert pool.get(future.job_id).state == "succeeded"


def test_futures_work_with_as_completed_wait_and_asyncio(pool):
    futures = [pool.submit(number) for number in range(20)]

    assert {future.result() for future in concurrent.futures.as_completed(futures, 30)} == set(range(0, 40, 2))
    assert len(concurrent.futures.wait(futures, 30).done) == 20

    async def ask() -> int:
        return await asyncio.wrap_future(pool.submit(4))

    assert asyncio.run(ask()) == 8


def test_a_callback_may_push_more(pool):
    done: list[int] = []

    def more(future: concurrent.futures.Future[int]) -> None:
        if future.result() < 100:
            pool.submit(future.result()).add_done_callback(more)
            done.append(pool.push(1))

    pool.submit(20).add_done_callback(more)
    wait_for(lambda: len(done) == 2)
    pool.join()


def test_map_keeps_the_order_or_not(pool):
    assert list(pool.map(range(50))) == list(range(0, 100, 2))
    assert list(pool.map([0.3, 0.0], task="sleep")) == [0.3, 0.0]
    assert sorted(pool.map(range(50), ordered=False)) == list(range(0, 100, 2))


def test_map_out_of_order_gives_what_has_ended_while_others_still_run(tmp_path):
    files = [{"started": str(tmp_path / f"started-{name}"), "go": str(tmp_path / f"go-{name}")} for name in "ab"]
    Path(files[1]["go"]).touch()
    with LocalPool(handlers.wait_for_file, workers=2) as pool:
        results = pool.map(files, ordered=False)

        assert next(results) == "went"
        Path(files[0]["go"]).touch()
        assert list(results) == ["went"]


def test_map_reads_no_further_ahead_than_its_buffer(pool):
    read: list[int] = []
    results = pool.map((read.append(number) or number for number in range(1000)), buffersize=5)

    assert next(results) == 0
    assert len(read) <= 6


def test_a_failed_item_raises_in_its_turn_and_ends_the_map(pool):
    results = pool.map([0, 2, 3, 4], task="fail_odd")

    assert [next(results), next(results)] == [0, 2]
    with pytest.raises(JobFailed, match="odd: 3"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_map_can_return_errors_in_their_turn(pool):
    results = list(pool.map([0, 1, 2], task="fail_odd", return_exceptions=True))

    assert (results[0], results[2]) == (0, 2)
    assert isinstance(results[1], JobFailed)


def test_an_error_of_the_maps_iterable_comes_after_what_it_gave(pool):
    def payloads() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError

    results = pool.map(payloads())

    assert next(results) == 2
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_a_failure_carries_type_message_and_the_remote_traceback(pool):
    future = pool.submit(5, task="fail")

    with pytest.raises(JobFailed, match="ValueError: no 5") as caught:
        future.result(30)
    error = caught.value
    assert (error.job_id, error.error_type, error.attempts) == (future.job_id, "ValueError", 1)
    assert "handlers.py" in error.traceback
    assert "remote traceback" in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.job_id, again.traceback) == (JobFailed, error.job_id, error.traceback)


def test_dead_jobs_are_listed_requeued_and_discarded(pool):
    for record in pool.dead():
        pool.discard(record.id)
    job_id = pool.push(7, task="fail")
    pool.join()

    [record] = pool.dead()
    assert (record.id, record.errors[0].error_type) == (job_id, "ValueError")
    assert pool.requeue([job_id]) == [job_id]
    pool.join()
    [record] = pool.dead()
    assert record.attempts == 2
    assert pool.discard(job_id) == [job_id]
    assert not list(pool.dead())
    assert pool.get(job_id).state == "dead"
    with pytest.raises(JobNotFound):
        pool.requeue(10**9)


def test_what_cannot_be_pushed_is_refused_by_name_and_nothing_is_pushed(pool):
    before = pool.stats().pushed

    for payload, task, error in [
        (object(), "anything", InvalidPayload),
        (float("nan"), "anything", InvalidPayload),
        ("\ud800", "anything", InvalidPayload),
        ("text", "default", InvalidPayload),
        ("x" * 1_000_001, "anything", PayloadTooLarge),
        (1, "unheard of", UnknownTask),
    ]:
        for push in (pool.push, pool.submit):
            with pytest.raises(error):
                push(payload, task=task)

    assert pool.stats().pushed == before


def test_a_bad_payload_ends_push_many_and_the_error_counts_what_is_pushed(pool):
    with pytest.raises(InvalidPayload) as caught:
        pool.push_many([1, 2, "three", 4])

    assert caught.value.pushed == 2
    assert caught.value.__notes__ == ["item 2 of the iterable; 2 jobs were pushed before it"]
    pool.join()
    with pytest.raises(InvalidPayload) as caught:
        pool.push_many([1, "two"])
    assert caught.value.__notes__ == ["item 1 of the iterable; 1 job was pushed before it"]
    pool.join()


def test_whoever_calls_it_as_an_executor_is_told_that_the_handler_is_the_pools(pool):
    with pytest.raises(TypeError, match=r"write map\(payloads\): the handler is the pool's"):
        pool.map(handlers.double, [1, 2])
    with pytest.raises(TypeError, match=r"write submit\(payload\): the handler is the pool's"):
        pool.submit(handlers.double, 1)


def test_a_map_that_is_dropped_early_leaves_at_most_1000_jobs_to_wait_for(pool):
    before = pool.join().pushed

    next(pool.map(range(5000)))
    pool.join()

    # One refill may follow the first result.
    assert pool.stats().pushed - before <= 1001


def test_stats_say_what_there_is(pool):
    pool.join()
    stats = pool.stats()

    assert stats.workers == 2
    assert stats.ready == stats.running == stats.delayed == 0
    assert stats.pushed >= stats.succeeded + stats.dead + stats.cancelled > 0
    assert stats.tasks["default"].pushed > 0


def test_join_gives_up_in_time(pool):
    pool.push(0.5, task="sleep")

    with pytest.raises(TimeoutError):
        pool.join(0.05)
    pool.join()


def test_an_unknown_job_is_not_found(pool):
    with pytest.raises(JobNotFound):
        pool.get(10**9)
    with pytest.raises(JobNotFound):
        pool.cancel(10**9)


def test_a_delayed_job_waits_and_can_be_cancelled(pool):
    future = pool.submit(1, delay=3600)
    wait_for(lambda: pool.stats().delayed == 1)

    assert future.cancel()
    assert future.cancelled()
    pool.join(30)
    assert pool.get(future.job_id).state == "cancelled"


def test_a_second_pool_on_the_same_path_is_refused_with_the_holder(pool):
    with pytest.raises(QueueLocked) as caught:
        LocalPool(handlers.double, path=pool._directory.path, workers=1)

    assert caught.value.pid is not None
    assert str(caught.value.pid) in str(caught.value)


def test_a_job_that_has_not_begun_can_be_cancelled_by_its_future_and_a_running_one_by_the_pool(tmp_path, waiting):
    with LocalPool(handlers.wait_for_file, workers=1, grace=0.2) as pool:
        running = pool.submit(waiting)
        wait_for(Path(waiting["started"]).exists)
        behind = [pool.submit(waiting) for _ in range(3)]

        assert not running.cancel()
        assert behind[1].cancel()
        assert pool.cancel(behind[2])
        assert pool.stats().running == 1
        assert pool.cancel(running)
        with pytest.raises(JobCancelled):
            running.result(30)
        assert concurrent.futures.wait([behind[1]], 5).done
        Path(waiting["go"]).touch()
        assert behind[0].result(30) == "went"
        assert not pool.cancel(behind[0])


def test_a_timeout_and_a_dead_worker_are_errors_of_their_own():
    with LocalPool({"sleep": handlers.sleep, "die": handlers.kill_itself}, workers=2, max_attempts=1) as pool:
        slow = pool.submit(60, task="sleep", timeout=0.2)
        dies = pool.submit(1, task="die")

        with pytest.raises(JobTimeout) as timeout:
            slow.result(30)
        assert isinstance(timeout.value, TimeoutError)
        with pytest.raises(WorkerCrashed, match="SIGKILL"):
            dies.result(30)
        for record in pool.dead():
            pool.discard(record.id)


def test_higher_priorities_run_first(tmp_path, waiting):
    log = tmp_path / "log"
    tasks = {"default": handlers.append, "wait": handlers.wait_for_file}
    with LocalPool(tasks, workers=1) as pool:
        pool.submit(waiting, task="wait")
        wait_for(Path(waiting["started"]).exists)
        blockers = [pool.push(waiting, task="wait") for _ in range(4)]
        for priority in (0, 5, -5):
            pool.push({"file": str(log), "text": str(priority)}, priority=priority)
        assert blockers
        Path(waiting["go"]).touch()

    assert log.read_text().split() == ["5", "0", "-5"]


def test_opening_the_same_path_again_goes_on(tmp_path):
    path = tmp_path / "queue"
    with LocalPool(handlers.double, workers=1, path=path) as pool:
        first = pool.push(1)
        pool.join()
        pool.push_many([1, 2, 3], delay=0.5)
        pool.stop()
    with LocalPool(handlers.double, workers=1, path=path) as pool:
        stats = pool.join()
        assert pool.get(first).result == b"2"

    assert (stats.pushed, stats.succeeded) == (4, 4)


def test_leaving_the_block_waits_for_every_job_delayed_ones_too(tmp_path):
    path = tmp_path / "queue"
    with LocalPool(handlers.double, workers=2, path=path) as pool:
        pool.push_many(range(50))
        future = pool.submit(4, delay=0.3)

    assert future.result(0) == 8
    with LocalPool(handlers.double, workers=1, path=path) as pool:
        assert pool.stats().succeeded == 51


def test_leaving_it_by_an_exception_leaves_the_rest_in_the_queue(tmp_path):
    path = tmp_path / "queue"
    pool = LocalPool(handlers.double, workers=1, path=path)
    future = pool.submit(1, delay=3600)
    wait_for(lambda: future.job_id is not None)
    with pytest.raises(ZeroDivisionError), pool:
        raise ZeroDivisionError

    assert isinstance(future.exception(5), Exception)
    with LocalPool(handlers.double, workers=1, path=path) as pool:
        assert pool.stats().delayed == 1
        pool.stop()


def test_a_stop_gives_what_runs_its_grace_and_returns_it_uncharged(tmp_path, waiting):
    path = tmp_path / "queue"
    pool = LocalPool(handlers.wait_for_file, workers=1, path=path)
    job_id = pool.push(waiting)
    wait_for(Path(waiting["started"]).exists)
    pool.stop(grace=0.1)

    Path(waiting["go"]).touch()
    with LocalPool(handlers.wait_for_file, workers=1, path=path) as pool:
        pool.join()
        assert pool.get(job_id).attempts == 1


def test_dead_jobs_are_one_warning_with_the_command_and_keep_a_private_directory(caplog):
    with caplog.at_level(logging.WARNING, "osqueue"), LocalPool(handlers.fail, workers=1, max_attempts=1) as pool:
        pool.push_many([1, 2])
        path = pool._directory.path

    [warning] = [record.getMessage() for record in caplog.records if "died" in record.getMessage()]
    assert warning.startswith("2 jobs died; first error: ValueError: no 1")
    assert f"osqueue list {path} --state dead" in warning
    assert path.exists()
    with LocalPool(handlers.fail, workers=1, path=path) as pool:
        assert len(list(pool.dead())) == 2


def test_a_private_directory_is_gone_after_a_clean_exit():
    with LocalPool(handlers.double, workers=1) as pool:
        pool.push(1)
        path = pool._directory.path
        assert path.exists()

    assert not path.exists()


def test_jobs_without_a_handler_are_named_and_not_waited_for(tmp_path, caplog):
    path = tmp_path / "queue"
    with LocalPool({"other": handlers.double}, workers=1, path=path) as pool:
        pool.push(1, task="other", delay=3600)
        pool.stop()
    with caplog.at_level(logging.WARNING, "osqueue"), LocalPool(handlers.double, workers=1, path=path) as pool:
        pool.push(1)
        assert pool.join(30).tasks["other"].delayed == 1

    assert any("other: 1" in record.getMessage() for record in caplog.records)


def test_shutdown_is_as_in_concurrent_futures(waiting):
    pool = LocalPool(handlers.wait_for_file, workers=1)
    running = pool.submit(waiting)
    wait_for(Path(waiting["started"]).exists)
    waits = [pool.submit(waiting) for _ in range(5)]

    pool.shutdown(wait=False, cancel_futures=True)

    assert all(future.cancelled() for future in waits)
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(waiting)
    Path(waiting["go"]).touch()
    assert running.result(30) == "went"
    pool.shutdown()
    wait_for(lambda: "osqueue-shutdown" not in {thread.name for thread in threading.enumerate()})


def test_thousands_of_futures_are_cancelled_on_the_way_out(tmp_path, waiting):
    path = tmp_path / "queue"
    pool = LocalPool(handlers.wait_for_file, workers=1, path=path)
    running = pool.submit(waiting)
    wait_for(Path(waiting["started"]).exists)
    waits = [pool.submit(waiting) for _ in range(3000)]
    # One of two: the ids do not form runs, so the broker's answers are long.
    kept = [future for future in waits[::2] if not future.cancel()]
    assert kept == []

    closing = threading.Thread(target=pool.shutdown, kwargs={"cancel_futures": True})
    closing.start()
    wait_for(lambda: all(future.done() for future in waits))
    Path(waiting["go"]).touch()
    closing.join(60)

    assert not closing.is_alive()
    assert all(future.cancelled() for future in waits)
    assert running.result(0) == "went"
    with LocalPool(handlers.wait_for_file, workers=1, path=path) as again:
        assert (again.stats().succeeded, again.stats().cancelled) == (1, 3000)


def test_any_thread_may_use_it(pool):
    results: list[int] = []

    def use() -> None:
        results.extend(pool.map(range(10)))

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert sorted(results) == sorted(list(range(0, 20, 2)) * 4)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"workers": 0}, ValueError),
        ({"mp_context": "fork"}, ValueError),
        ({"timeout": -1}, ValueError),
        ({"grace": "long"}, TypeError),
        ({"max_attempts": 0}, ValueError),
        ({"retry_backoff": -1}, ValueError),
        ({"lease": 0}, ValueError),
        ({"max_payload": 0}, ValueError),
        ({"retry_on": "ValueError"}, TypeError),
        ({"path": 5}, TypeError),
        ({"path": "s3://bucket"}, ValueError),
    ],
)
def test_wrong_settings_are_refused_by_name_before_anything_starts(settings, error):
    with pytest.raises(error, match=next(iter(settings))):
        LocalPool(handlers.double, **settings)


def test_a_lambda_is_refused_with_the_way_out():
    with pytest.raises(TypeError, match="lambda"):
        LocalPool(lambda x: x)


def test_a_path_that_is_a_file_is_refused(tmp_path):
    path = tmp_path / "file"
    path.touch()

    with pytest.raises(ValueError, match="file"):
        LocalPool(handlers.double, path=path, workers=1)


def test_a_path_longer_than_a_socket_address_works(tmp_path):
    path = tmp_path / ("a" * 100) / ("b" * 100)
    with LocalPool(handlers.double, path=path, workers=1) as pool:
        assert pool.submit(2).result(30) == 4

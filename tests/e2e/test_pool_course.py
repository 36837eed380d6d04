"""Soft timeouts, initializers and finalizers, and replaced workers, as a pool's user sees them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from osqueue import JobTimeout, LocalPool, PoolBroken, SoftTimeout
from tests.e2e import course_handlers as course
from tests.e2e import handlers
from tests.e2e.aftermath import Place
from tests.e2e.program import Program, processes_of
from tests.e2e.waiting import wait_for

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.mark.parametrize("handler", [course.sleep, course.sleep_async])
def test_an_uncaught_soft_timeout_is_a_job_timeout_of_the_future(handler):
    with LocalPool(handler, workers=1, soft_timeout=0.2, timeout=60, max_attempts=1) as pool:
        future = pool.submit(60)

        with pytest.raises(JobTimeout, match="SoftTimeout: the job ran longer than its soft timeout") as caught:
            future.result(60)
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.error_type == "SoftTimeout"
        assert f"in {handler.__name__}" in caught.value.traceback
        assert pool.submit(0).result(60) == "slept"
        pool.discard(record.id for record in pool.dead())


def test_a_caught_soft_timeout_is_a_success_and_an_uncaught_one_is_retried():
    tasks = {"caught": course.sleep_and_clean_up, "retried": course.sleep_the_first_time}
    with LocalPool(tasks, workers=1, soft_timeout=0.2, retry_backoff=0) as pool:
        assert pool.submit(60, task="caught").result(60) == "cleaned up"
        retried = pool.submit(60, task="retried")
        assert retried.result(60) == 2
        record = pool.get(retried.job_id)

    assert [error.error_type for error in record.errors] == ["SoftTimeout"]


def test_soft_timeouts_can_be_made_final():
    with LocalPool(course.sleep, workers=1, soft_timeout=0.2, no_retry_on=SoftTimeout) as pool:
        error = pool.submit(60).exception(60)
        assert (type(error), error.attempts) == (JobTimeout, 1)
        pool.discard(record.id for record in pool.dead())


def test_the_initializers_result_is_there_in_every_job_and_the_finalizer_gets_it_when_the_pool_is_left(tmp_path):
    with LocalPool(
        course.word, workers=2, initializer=course.load, initargs=(str(tmp_path), "ab"), finalizer=course.release
    ) as pool:
        assert list(pool.map(range(4))) == ["", "ab", "abab", "ababab"]
        wait_for(lambda: pool.stats().workers == 2)

    ends = Counter(path.name.partition("-")[2] for path in tmp_path.iterdir())
    assert list(ends.values()) == [2, 2]


def test_an_initializer_that_raises_breaks_the_pool_with_its_traceback(place: Place):
    with (  # noqa: PT012
        pytest.raises(PoolBroken, match="no such model") as caught,
        LocalPool(handlers.double, path=place.path, workers=2, initializer=course.refuse) as pool,
    ):
        assert isinstance(pool.submit(5).exception(60), PoolBroken)
        pool.join(60)

    assert "in refuse" in str(caught.value)
    with LocalPool(handlers.double, path=place.path, workers=1) as pool:
        succeeded = pool.join(60).succeeded
    place.is_intact(succeeded=succeeded)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"initializer": lambda: None}, TypeError),
        ({"finalizer": lambda state: None}, TypeError),
        ({"initargs": (1,)}, ValueError),
        ({"initargs": "model.bin", "initializer": course.load}, TypeError),
        ({"initargs": (open, lambda: None), "initializer": course.load}, TypeError),
        ({"soft_timeout": 0}, ValueError),
        ({"soft_timeout": 5, "timeout": 5}, ValueError),
        ({"max_tasks_per_child": 0}, ValueError),
        ({"max_tasks_per_child": True}, TypeError),
        ({"max_memory_per_child": 1e9}, TypeError),
    ],
)
def test_wrong_arguments_are_refused_by_name_before_the_queue_is_opened(place: Place, settings, error):
    before = place.files()

    with pytest.raises(error, match=next(iter(settings))):
        LocalPool(handlers.double, path=place.path, **settings)

    assert place.files() == before


def test_while_an_initializer_hangs_join_gives_up_in_time_and_a_stop_ends_at_once(place: Place):
    directory = str(place.path.parent)
    with LocalPool(handlers.double, path=place.path, initializer=course.hang, initargs=(directory,)) as pool:
        job_id = pool.push(1)
        wait_for(Path(directory, "hanging").exists)
        with pytest.raises(TimeoutError):
            pool.join(0.1)
        pool.stop(grace=600)

    with LocalPool(handlers.double, path=place.path, workers=1) as pool:
        pool.join(60)
        assert (pool.get(job_id).state, pool.get(job_id).attempts) == ("succeeded", 1)
    place.is_intact(succeeded=1)


HANGING = """
from osqueue import LocalPool
from tests.e2e import course_handlers, handlers

if __name__ == "__main__":
    with LocalPool(handlers.double, path="queue", grace=600, initializer=course_handlers.hang, initargs=(".",)) as pool:
        pool.push(1)
"""


def test_ctrl_c_while_an_initializer_hangs_ends_everything_and_keeps_the_jobs(place: Place):
    program = Program(place.path.parent, HANGING)
    program.wait_for("hanging")

    program.interrupt()
    ended = program.end(60)

    assert ended.err.rstrip().endswith("KeyboardInterrupt")
    wait_for(lambda: not processes_of(place.path.parent), 10)
    with LocalPool(handlers.double, path=place.path, workers=1) as pool:
        assert pool.join(60).succeeded == 1
    place.is_intact(succeeded=1)


@pytest.mark.parametrize("max_tasks", [1, 3])
def test_workers_are_replaced_after_so_many_jobs_and_none_runs_more(place: Place, max_tasks):
    with LocalPool(course.pid, path=place.path, workers=2, max_tasks_per_child=max_tasks, max_attempts=1) as pool:
        runs = Counter(pool.map(range(40)))
        stats = pool.join(60)

    assert max(runs.values()) == max_tasks
    assert (stats.succeeded, stats.dead) == (40, 0)
    place.is_intact(succeeded=40)


def test_a_pool_that_is_left_while_workers_are_replaced_waits_for_every_job(place: Place):
    with LocalPool(handlers.double, path=place.path, workers=2, max_tasks_per_child=1) as pool:
        pool.push_many(range(30))

    place.is_intact(succeeded=30)

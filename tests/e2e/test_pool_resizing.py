"""Pause, resume and another number of workers, with real processes."""

from __future__ import annotations

import logging
import os
import random
import threading
from pathlib import Path

import pytest

from osqueue import Client, LocalPool, PoolBroken
from tests.e2e import broken_in_workers, handlers, paced_handlers
from tests.e2e.program import Program
from tests.e2e.waiting import wait_for

pytestmark = pytest.mark.usefixtures("nothing_is_left")


def job(place, name):
    return {"place": str(place), "name": str(name)}


def has_begun(place, name):
    return (place / f"begun-{name}").exists()


def workers(pool):
    return pool.stats().workers


def standing(pool):
    return len(pool._engine._supervisor._processes)


# ---------------------------------------------------------------------------------------------------------------- pause


def test_in_a_paused_pool_no_job_begins_what_runs_finishes_and_pushing_goes_on(tmp_path):
    with LocalPool(paced_handlers.gated, workers=2) as pool:
        ids = [pool.push(job(tmp_path, n)) for n in range(6)]
        wait_for(lambda: pool.stats().running == 2)

        pool.pause()
        pool.pause()

        running = [n for n in range(6) if has_begun(tmp_path, n)]
        assert pool.stats().ready == 4
        ids.append(pool.push(job(tmp_path, 6)))
        for n in running:
            (tmp_path / f"go-{n}").touch()
        wait_for(lambda: pool.stats().succeeded == 2)
        assert [n for n in range(7) if has_begun(tmp_path, n)] == running
        assert {pool.get(one).state for one in ids} == {"succeeded", "ready"}
        with pytest.raises(TimeoutError):
            pool.join(timeout=0.2)

        (tmp_path / "go").touch()
        pool.resume()
        pool.resume()
        assert pool.join(30).succeeded == 7
        assert all(pool.get(one).attempts == 1 for one in ids), "uncharged"


def test_what_a_paused_pool_has_given_back_can_be_taken_by_others(tmp_path):
    path = tmp_path / "queue"
    with LocalPool(handlers.anything, workers=1, path=path) as pool, Client.connect(path) as client:
        pool.pause()
        pool.push_many(range(10))
        for _ in range(5):
            taken = client.claim(wait=10)
            assert taken is not None
            client.complete(taken)
        assert pool.stats().succeeded == 5
        pool.resume()
        pool.join(30)


def test_a_pool_of_short_jobs_can_be_paused_at_any_moment():
    with LocalPool(paced_handlers.short, workers=2) as pool:
        pool.push_many(range(2_000))
        for _ in range(10):
            wait_for(lambda: pool.stats().running > 0 or pool.stats().succeeded == 2_000)
            pool.pause()
            wait_for(lambda: pool.stats().running == 0)
            ended = pool.stats().succeeded
            assert pool.stats().ready == 2_000 - ended
            assert pool.stats().succeeded == ended
            pool.resume()
        stats = pool.join(60)
        assert (stats.succeeded, stats.dead) == (2_000, 0)
        assert all(pool.get(n).attempts == 1 for n in range(1, 2_000, 97))


def test_leaving_a_paused_pool_resumes_it_and_says_so(caplog):
    caplog.set_level(logging.WARNING, "osqueue")
    with LocalPool(handlers.double, workers=1) as pool:
        pool.pause()
        future = pool.submit(2)
    assert future.result(0) == 4
    assert "left while it was paused" in caplog.text


def test_a_paused_pool_stops_and_its_jobs_wait_for_the_next(tmp_path):
    path = tmp_path / "queue"
    pool = LocalPool(handlers.double, workers=1, path=path)
    pool.pause()
    pool.push(2)
    pool.stop()

    with LocalPool(handlers.double, workers=1, path=path) as again:
        assert again.join(30).succeeded == 1, "it is not remembered"


def test_a_paused_pool_lives_through_the_death_of_its_broker(tmp_path):
    with LocalPool(handlers.double, workers=1) as pool:
        pool.pause()
        pool.push(1)
        os.kill(pool._engine._broker.pid, 9)
        pool.push(2)
        assert pool.stats().ready == 2
        pool.resume()
        assert pool.join(30).succeeded == 2


# --------------------------------------------------------------------------------------------------------------- resize


def test_a_pool_grows_while_its_workers_are_busy(tmp_path):
    with LocalPool(paced_handlers.gated, workers=1) as pool:
        pool.push_many([job(tmp_path, n) for n in range(4)])
        wait_for(lambda: pool.stats().running == 1)

        pool.resize(4)

        wait_for(lambda: pool.stats().running == 4)
        assert workers(pool) == 4
        (tmp_path / "go").touch()


def test_a_pool_shrinks_when_its_surplus_has_done_what_it_is_on(tmp_path):
    with LocalPool(paced_handlers.gated, workers=3) as pool:
        ids = pool.push_many([job(tmp_path, n) for n in range(9)])
        wait_for(lambda: pool.stats().running == 3)

        pool.resize(1)

        assert pool.stats().running == 3
        for n in range(3):
            (tmp_path / f"go-{n}").touch()
        wait_for(lambda: workers(pool) == 1 and standing(pool) == 1)
        wait_for(lambda: pool.stats().running == 1)
        (tmp_path / "go").touch()
        assert pool.join(30).succeeded == 9
        assert [pool.get(one).attempts for one in ids] == [1] * 9
        assert workers(pool) == 1


def test_a_worker_of_a_slot_that_was_added_pays_for_its_job_as_any_other(tmp_path):
    with LocalPool(
        {"gated": paced_handlers.gated, "kill": handlers.kill_itself}, workers=1, max_attempts=1, path=tmp_path / "q"
    ) as pool:
        pool.push(job(tmp_path, 0), task="gated")
        wait_for(lambda: has_begun(tmp_path, 0))
        pool.resize(2)
        future = pool.submit(1, task="kill")
        error = future.exception(30)
        assert type(error).__name__ == "WorkerCrashed"
        assert error.attempts == 1
        wait_for(lambda: workers(pool) == 2)
        (tmp_path / "go").touch()


def test_a_killed_program_is_charged_for_what_ran_in_slots_that_were_added(tmp_path):
    program = Program(
        tmp_path,
        """
        import pathlib, time
        from osqueue import LocalPool
        from tests.e2e import paced_handlers

        if __name__ == "__main__":
            pool = LocalPool(paced_handlers.gated, workers=1, path="q")
            pool.resize(3)
            pool.push_many([{"place": str(pathlib.Path.cwd()), "name": str(n)} for n in range(3)])
            time.sleep(60)
        """,
    )
    for n in range(3):
        program.wait_for(f"begun-{n}")
    program.process.kill()
    program.end()

    with LocalPool(paced_handlers.gated, workers=1, path=tmp_path / "q", retry_backoff=0) as again:
        (tmp_path / "go").touch()
        again.join(60)
        assert [again.get(n).attempts for n in (1, 2, 3)] == [2, 2, 2]


def test_growing_and_shrinking_leaves_neither_processes_nor_descriptors():
    def descriptors():
        return len(list(Path("/proc/self/fd").iterdir()))

    with LocalPool(handlers.double, workers=1) as pool:
        assert pool.submit(1).result(30) == 2
        pool.resize(2)
        wait_for(lambda: workers(pool) == 2)
        pool.resize(1)
        wait_for(lambda: standing(pool) == 1)
        before = descriptors()
        for n in range(50):
            pool.resize(4)
            if n % 5 == 0:
                wait_for(lambda: workers(pool) == 4)
            pool.resize(1)
            assert pool.submit(n).result(30) == 2 * n
        wait_for(lambda: standing(pool) == workers(pool) == 1)
        wait_for(lambda: descriptors() <= before)
        assert len(pool._engine._supervisor._foreman._crew.members) == 1


def test_everything_at_once_from_several_threads():
    pool = LocalPool(paced_handlers.short, workers=2)
    ids = pool.push_many(range(800))
    ends = threading.Event()
    refused = []

    def meddle(seed):
        dice = random.Random(seed)
        while not ends.is_set():
            try:
                dice.choice([pool.pause, pool.resume, lambda: pool.resize(dice.randint(1, 5))])()
            except RuntimeError as error:
                refused.append(error)
                return

    threads = [threading.Thread(target=meddle, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    wait_for(lambda: pool.stats().succeeded > 100)
    ends.set()
    for thread in threads:
        thread.join(30)
    pool.resume()
    pool.resize(2)
    assert pool.join(60).succeeded == len(ids)
    wait_for(lambda: workers(pool) == 2)
    assert refused == []
    pool.shutdown()


def test_a_stop_beside_them_ends_them_with_a_clear_error():
    pool = LocalPool(paced_handlers.short, workers=2)
    pool.push_many(range(1_000))
    refused = []

    def meddle(do):
        try:
            while True:
                do()
        except RuntimeError as error:
            refused.append(str(error))

    calls = [pool.pause, pool.resume, lambda: pool.resize(3), lambda: pool.resize(1)]
    threads = [threading.Thread(target=meddle, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    wait_for(lambda: pool.stats().succeeded >= 1)
    pool.stop(1)
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()

    assert len(refused) == 4
    assert all("closed" in message for message in refused), refused


# --------------------------------------------------------------------------------------------------------------- misuse


@pytest.mark.parametrize(
    ("n", "error", "says"),
    [
        (0, ValueError, r"pause\(\)"),
        (-1, ValueError, "between 1 and 4,096"),
        (4097, ValueError, "between 1 and 4,096"),
        ("3", TypeError, "whole number"),
        (2.0, TypeError, "whole number"),
        (True, TypeError, "whole number"),
        (False, TypeError, "whole number"),
        (None, TypeError, "whole number"),
    ],
)
def test_a_number_of_workers_that_is_none_is_refused_and_changes_nothing(n, error, says):
    with LocalPool(handlers.double, workers=1) as pool:
        with pytest.raises(error, match=says):
            pool.resize(n)
        assert pool.submit(1).result(30) == 2
        assert workers(pool) == 1


@pytest.mark.parametrize("verb", ["pause", "resume", "resize"])
def test_a_closed_pool_takes_no_such_order(verb):
    pool = LocalPool(handlers.double, workers=1)
    pool.shutdown()

    with pytest.raises(RuntimeError, match="closed"):
        getattr(pool, verb)(*([2] if verb == "resize" else []))


@pytest.mark.parametrize("verb", ["pause", "resume", "resize"])
def test_a_broken_pool_tells_why(verb):
    pool = LocalPool(broken_in_workers.double, workers=1)
    with pytest.raises(PoolBroken):
        pool.submit(1).result(30)

    with pytest.raises(PoolBroken):
        getattr(pool, verb)(*([2] if verb == "resize" else []))
    pool.stop()


def test_a_pool_whose_blame_file_was_removed_refuses_to_grow_and_goes_on(tmp_path):
    with LocalPool(handlers.double, workers=1, path=tmp_path / "q") as pool:
        assert pool.submit(1).result(30) == 2
        [file] = (tmp_path / "q" / "blame").iterdir()
        file.unlink()
        with pytest.raises(OSError, match="No such file"):
            pool.resize(2)
        assert pool.submit(2).result(30) == 4

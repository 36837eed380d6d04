"""Pools and clients used where or when they cannot be: closed, copied, forked, in a handler, without their place."""

from __future__ import annotations

import copy
import logging
import pickle
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from osqueue import Broker, Client, JobNotFound, LocalPool, PoolBroken, Queue, StorageLost, Unavailable
from osqueue.client import operations
from tests.e2e import handlers, misused_handlers
from tests.e2e.program import Program
from tests.e2e.running_command import RunningCommand
from tests.e2e.waiting import wait_for

pytestmark = pytest.mark.usefixtures("nothing_is_left")

UNKNOWN = 10**9
Pool = LocalPool[Any, Any]

METHODS: dict[str, Callable[[Pool], object]] = {
    "push": lambda pool: pool.push(1),
    "push_many": lambda pool: pool.push_many([1]),
    "push_many of nothing": lambda pool: pool.push_many([]),
    "submit": lambda pool: pool.submit(1),
    "map": lambda pool: list(pool.map([1])),
    "map of nothing": lambda pool: pool.map([]),
    "join": lambda pool: pool.join(),
    "stats": lambda pool: pool.stats(),
    "get": lambda pool: pool.get(1),
    "cancel": lambda pool: pool.cancel(1),
    "dead": lambda pool: pool.dead(),
    "requeue": lambda pool: pool.requeue([1]),
    "discard": lambda pool: pool.discard([1]),
    "pause": lambda pool: pool.pause(),
    "resume": lambda pool: pool.resume(),
    "resize": lambda pool: pool.resize(1),
}
VERBS: dict[str, Callable[[Client], object]] = {
    "push": lambda queue: queue.push(b"1"),
    "push_many": lambda queue: queue.push_many([b"1"]),
    "claim": lambda queue: queue.claim(),
    "claim_many": lambda queue: queue.claim_many(1),
    "cancel": lambda queue: queue.cancel(1),
    "requeue": lambda queue: queue.requeue(1),
    "discard": lambda queue: queue.discard(1),
    "get": lambda queue: queue.get(1),
    "stats": lambda queue: queue.stats(),
    "list": lambda queue: [*queue.list()],
    "dead": lambda queue: [*queue.dead()],
    "history": lambda queue: [*queue.history()],
    "prune": lambda queue: queue.prune(0),
    "wait_idle": lambda queue: queue.wait_idle(),
}


@pytest.fixture(scope="module")
def closed_pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    pool = LocalPool(handlers.double, workers=1, path=tmp_path_factory.mktemp("closed"))
    pool.shutdown()
    return pool


@pytest.mark.parametrize("method", METHODS)
def test_a_closed_pool_says_so_whatever_it_is_asked_for(closed_pool: Pool, method: str) -> None:
    with pytest.raises(RuntimeError, match="the pool has been closed"):
        METHODS[method](closed_pool)


def test_a_closed_pool_cannot_be_entered(closed_pool: Pool) -> None:
    with pytest.raises(RuntimeError, match="the pool has been closed"), closed_pool:
        pytest.fail("the block was entered")


def test_push_many_of_a_closed_or_broken_pool_says_that_it_pushed_nothing(closed_pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as of_closed:
        closed_pool.push_many([1])
    pool = LocalPool("tests.no_such_module:function", workers=1, path=tmp_path / "broken")
    wait_for(lambda: pool._engine.error is not None, 60)
    with pytest.raises(PoolBroken) as of_broken:
        pool.push_many([1])
    pool.stop()

    assert (of_closed.value.pushed, of_broken.value.pushed) == (0, 0)  # type: ignore[attr-defined]


def test_a_pool_may_be_closed_twice_and_its_futures_asked_afterwards(tmp_path: Path) -> None:
    pool = LocalPool(handlers.double, workers=1, path=tmp_path / "queue")
    future = pool.submit(2)
    with pool:
        pass

    for _ in range(2):
        pool.shutdown()
        pool.stop()
    assert (future.result(), future.cancel()) == (4, False)


@pytest.mark.parametrize("verb", VERBS)
def test_a_closed_client_or_broker_says_so_whatever_it_is_asked_for(tmp_path: Path, verb: str) -> None:
    with Broker.open(tmp_path / "queue") as broker, Client.connect(tmp_path / "queue") as client:
        broker.push(b"1")
        job = broker.claim()
    assert job is not None

    for queue in (client, broker):
        with pytest.raises(RuntimeError, match="has been closed"):
            VERBS[verb](queue)
        with pytest.raises(RuntimeError, match="has been closed"):
            queue.complete(job)
        queue.close()


@pytest.mark.parametrize("duplicate", [pickle.dumps, copy.copy, copy.deepcopy])
def test_pools_clients_and_queues_are_not_copied_or_pickled_and_say_what_to_do(
    tmp_path: Path, duplicate: Callable[[object], object]
) -> None:
    with LocalPool(handlers.double, workers=1, path=tmp_path / "queue") as pool:
        with pytest.raises(TypeError, match=r"current_job\(\)\.push.*Client\.connect"):
            duplicate(pool)
        with Client.connect(tmp_path / "queue") as client:
            with pytest.raises(TypeError, match=r"Client\.connect"):
                duplicate(client)
            if duplicate is not copy.copy:  # a queue is a typed face, and two of them over one client are fine
                with pytest.raises(TypeError, match=r"Client\.connect"):
                    duplicate(Queue(client, int))

        assert pool.submit(2).result(30) == 4


def test_a_handler_may_have_a_pool_of_its_own(tmp_path: Path) -> None:
    with LocalPool(misused_handlers.double_in_a_pool, workers=1, path=tmp_path / "queue") as pool:
        assert pool.submit([1, 2, 3]).result(60) == [2, 4, 6]


def test_a_pool_whose_directory_was_deleted_says_so_and_makes_no_new_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "queue"
    with caplog.at_level(logging.ERROR):
        pool = LocalPool(handlers.double, workers=1, path=path)
        future = pool.submit(2, delay=3600)
        assert pool.submit(1).result(30) == 2
        shutil.rmtree(path)

        with pytest.raises(StorageLost, match=r"queue\.json"):
            pool.push(1)
        for call in (pool.stats, pool.join, lambda: pool.submit(1), pool.shutdown):
            with pytest.raises(StorageLost):
                call()
        assert isinstance(future.exception(30), StorageLost)

    assert not path.exists()


FORKED = """
import os, sys
from osqueue import Client, LocalPool
from tests.e2e.test_misuse_lifetime import METHODS

def quick(value):
    return value

def refused(call, *args):
    try:
        call(*args)
    except RuntimeError as error:
        return "belongs to the parent of this forked process" in str(error)

if __name__ == "__main__":
    with LocalPool(quick, workers=1, path="queue") as pool, Client.connect("queue") as client:
        later = pool.submit(1, delay=3600)
        assert pool.submit(1).result(30) == 1
        child = os.fork()
        if child == 0:
            calls = {**METHODS, "result": lambda pool: later.result(), "client": lambda pool: client.push(b"1")}
            calls["ENDING"] = lambda pool: pool.ENDING()
            print("child:", [name for name, call in calls.items() if not refused(call, pool)], flush=True)
            END
        else:
            print("parent:", os.waitpid(child, 0)[1], pool.submit(3).result(30), pool.stats().workers, flush=True)
            later.cancel()
    print("left", flush=True)
"""


@pytest.mark.parametrize("end", ["sys.exit(0)", "os._exit(0)", "pass", "os.kill(os.getpid(), 9)", "1 / 0"])
@pytest.mark.parametrize("ending", ["stop", "shutdown", "stats"])
def test_a_forked_child_is_refused_every_method_and_however_it_ends_the_pool_goes_on(
    tmp_path: Path, end: str, ending: str
) -> None:
    ended = Program(tmp_path, FORKED.replace("ENDING", ending).replace("END", end)).end()

    lines = ended.out.splitlines()
    expected = {"os.kill(os.getpid(), 9)": "9", "1 / 0": "256"}.get(end, "0")
    assert [line for line in lines if line != "left"] == ["child: []", f"parent: {expected} 3 1"]
    assert lines.count("left") == (2 if end == "pass" else 1)
    assert ended.status == 0
    assert ("ZeroDivisionError" in ended.err) if end == "1 / 0" else (ended.err == "")


def push_without_a_broker(client: Client, serving: RunningCommand, payload: bytes) -> Unavailable:
    """What a push says whose broker is killed and stays away."""
    serving.process.kill()
    serving.process.wait()
    with pytest.raises(Unavailable) as caught:
        client.push(payload)
    return caught.value


def test_a_broker_that_stays_away_is_unavailable_after_the_patience_and_again_pushes_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunningCommand(tmp_path, "serve", "jobs") as serving, monkeypatch.context() as patch:
        serving.wait_until_it_says("serving")
        client = Client.connect(tmp_path / "jobs")
        assert client.push(b"1") == 1
        patch.setattr(operations, "PATIENCE_MS", 300)
        error = push_without_a_broker(client, serving, b"2")
        with pytest.raises(Unavailable) as again:
            error.again()
        with pytest.raises(RuntimeError, match="only be repeated in the process that began it"):
            pickle.loads(pickle.dumps(error)).again()

    with RunningCommand(tmp_path, "serve", "jobs") as serving, client:
        serving.wait_until_it_says("serving")
        assert again.value.again() == 2
        assert client.push(b"3") == 3
        assert client.stats().pushed == 3


@pytest.mark.slow
def test_the_patience_is_a_minute(tmp_path: Path) -> None:
    with RunningCommand(tmp_path, "serve", "jobs") as serving:
        serving.wait_until_it_says("serving")
        with Client.connect(tmp_path / "jobs") as client:
            began = time.monotonic()
            push_without_a_broker(client, serving, b"1")

    assert time.monotonic() - began >= 60


def test_ids_that_no_job_has_are_not_found_by_any_verb(tmp_path: Path) -> None:
    with (
        LocalPool(handlers.double, workers=1, path=tmp_path / "queue") as pool,
        Client.connect(tmp_path / "queue") as queue,
    ):
        for face in (pool, queue):
            for verb in (face.get, face.cancel, face.requeue, face.discard):
                with pytest.raises(JobNotFound, match=str(UNKNOWN)):
                    verb(UNKNOWN)


def test_requeue_and_discard_change_no_job_that_is_not_dead(tmp_path: Path) -> None:
    with Broker.open(tmp_path / "queue") as broker:
        succeeded, running, ready, delayed, cancelled = (broker.push(b"1", delay=3600 * (n == 3)) for n in range(5))
        first = broker.claim()
        assert first is not None
        broker.complete(first)
        broker.claim()
        broker.cancel(cancelled)
        ids = [succeeded, running, ready, delayed, cancelled]

        assert (broker.requeue(ids), broker.discard(ids)) == ([], [])
        assert [broker.get(job_id).state for job_id in ids] == ["succeeded", "running", "ready", "delayed", "cancelled"]

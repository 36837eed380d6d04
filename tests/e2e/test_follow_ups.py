"""Follow-up jobs: `current_job().push`."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from osqueue import Broker, LocalPool, current_job
from tests.cli.command_line import documents, osqueue, succeed
from tests.e2e import follow_up_handlers as handlers
from tests.e2e.waiting import wait_for

KILLS = 200


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPool]:
    tasks = {
        "default": handlers.push_then,
        "leaf": handlers.leaf,
        "nap": handlers.nap,
        "point": handlers.point,
        "keep": handlers.keep_job,
        "use": handlers.push_on_kept_job,
    }
    with LocalPool(
        tasks, workers=1, path=tmp_path_factory.mktemp("queue"), retry_backoff=0, max_attempts=3, max_payload=10_000
    ) as pool:
        yield pool


def end_of(pool: LocalPool, instruction: dict[str, Any]) -> tuple[Any, list[Any]]:
    """A job's record and those of all that it left behind, once nothing is left to do."""
    job_id = pool.push(instruction)
    pushed = pool.join().pushed
    return pool.get(job_id), [pool.get(one) for one in range(job_id + 1, pushed + 1)]


def test_follow_up_jobs_run_with_their_options(pool: LocalPool) -> None:
    follow_ups = [
        {"payload": [1], "task": "leaf"},
        {"payload": [2], "task": "leaf", "priority": 7, "delay": 0.5, "key": "k"},
        {"payload": 30, "task": "nap", "timeout": 0.2, "max_attempts": 1},
    ]
    record, [one, two, three] = end_of(pool, {"push": follow_ups})
    pool.discard(three.id)

    assert (record.state, record.result) == ("succeeded", b'"done"')
    assert (one.result, two.result) == (b"[1]", b"[2]")
    assert (two.priority, two.key, two.state) == (7, "k", "succeeded")
    begun, pushed = (datetime.fromisoformat(at) for at in (two.started_at, two.pushed_at))
    assert (begun - pushed).total_seconds() >= 0.5
    assert (three.state, [error.error_type for error in three.errors]) == ("dead", ["JobTimeout"])


def test_an_attempt_that_fails_pushes_nothing_and_the_one_that_succeeds_pushes_once(pool: LocalPool) -> None:
    record, followed = end_of(pool, {"push": [{"payload": 1, "task": "leaf"}], "fail": 2})

    assert (record.state, record.attempts) == ("succeeded", 3)
    assert len(followed) == 1


@pytest.mark.parametrize(
    ("options", "error_type", "says"),
    [
        ({"payload": 1, "task": "nobody"}, "UnknownTask", "no handler for this task"),
        ({"payload": "text", "task": "point"}, "InvalidPayload", "declared type"),
        ({"payload": 1, "task": "leaf", "priority": 1001}, "ValueError", "priority"),
        ({"payload": 1, "task": "leaf", "delay": "soon"}, "TypeError", "delay"),
        ({"payload": 1, "task": "leaf", "key": ""}, "ValueError", "key"),
    ],
)
def test_what_cannot_be_pushed_is_an_error_of_the_handler(
    pool: LocalPool, options: dict[str, Any], error_type: str, says: str
) -> None:
    record, followed = end_of(pool, {"push": [{"payload": 1, "task": "leaf"}, options]})
    pool.discard(record.id)

    assert record.state == "dead"
    assert record.errors[-1].error_type == error_type
    assert says in record.errors[-1].message
    assert followed == []


def test_one_job_leaves_so_many_behind_at_most(pool: LocalPool) -> None:
    record, followed = end_of(pool, {"push": [], "more": 10_000})
    assert (record.state, len(followed)) == ("succeeded", 10_000)

    record, followed = end_of(pool, {"push": [], "more": 10_001})
    pool.discard(record.id)
    assert (record.state, followed) == ("dead", [])
    assert record.errors[-1].error_type == "QueueFull"
    assert "push a job that pushes the rest" in record.errors[-1].message


def test_a_follow_up_may_be_as_large_as_any_payload(pool: LocalPool) -> None:
    record, followed = end_of(pool, {"push": [], "more": 2, "length": 9_998})
    assert [len(one.payload) for one in followed] == [10_000, 10_000]

    record, followed = end_of(pool, {"push": [], "more": 1, "length": 9_999})
    pool.discard(record.id)
    assert (record.state, record.errors[-1].error_type, followed) == ("dead", "PayloadTooLarge", [])


def test_nothing_follows_a_job_that_has_ended(pool: LocalPool) -> None:
    assert pool.submit(None, task="keep").result() is None

    assert "the job has ended" in pool.submit(None, task="use").result()


def test_there_is_no_job_outside_a_handler() -> None:
    with pytest.raises(RuntimeError, match="only inside a handler"):
        current_job()


def test_workers_of_one_task_hand_over_to_those_of_another(tmp_path: Path) -> None:
    tmp_path.joinpath("stages.py").write_text(
        "from osqueue import current_job\n"
        "def first(n): current_job().push(n + 1, task='second')\n"
        "def second(n): return n * 10\n"
    )
    succeed("push", "queue", "4", "--task", "first", cwd=tmp_path)

    osqueue("work", "queue", "first=stages:first", "--burst", "-j", "1", cwd=tmp_path)
    osqueue("work", "queue", "second=stages:second", "--burst", "-j", "1", cwd=tmp_path)

    assert [(one["task"], one["result"]) for one in documents("history", "queue", cwd=tmp_path)] == [
        ("first", None),
        ("second", 50),
    ]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_tree_of_5_000_jobs_grows_whole_while_its_workers_are_killed(tmp_path: Path) -> None:
    dice = random.Random(7)
    pids = tmp_path / "pids"
    pids.mkdir()
    queue = tmp_path / "queue"
    done = threading.Event()
    killed: list[int] = []

    def kill_workers() -> None:
        while len(killed) < KILLS and not done.is_set():
            alive = [int(path.name) for path in pids.iterdir()]
            if not alive:
                done.wait(0.002)
                continue
            pid = dice.choice(alive)
            (pids / str(pid)).unlink()
            done.wait(dice.uniform(0, 0.05))
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    with LocalPool(
        handlers.grow, workers=4, path=queue, max_attempts=20, retry_backoff=0.01,
        initializer=handlers.note_pid, initargs=(str(pids),),
    ) as pool:  # fmt: skip
        killer = threading.Thread(target=kill_workers)
        killer.start()
        try:
            pool.push(1)
            stats = pool.join(500)
            wait_for(lambda: len(killed) >= 20)
        finally:
            done.set()
            killer.join()

    print(f"kills: {len(killed)}")
    assert (stats.pushed, stats.succeeded, stats.dead) == (handlers.LAST_NODE, handlers.LAST_NODE, 0)
    with Broker.open(queue) as broker:
        nodes = Counter(record.payload for record in broker.history())
    assert nodes == Counter(b"%d" % node for node in range(1, handlers.LAST_NODE + 1)), "each node exactly once"
    assert len(killed) == KILLS

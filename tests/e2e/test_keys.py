"""`key=`: one unfinished job for each key."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from osqueue import Broker, Client, LocalPool, Queue, Rejected
from tests.cli.command_line import document, osqueue, succeed
from tests.e2e import handlers


@pytest.fixture
def waiting(tmp_path: Path) -> dict[str, str]:
    """A payload of `handlers.wait_for_file`."""
    return {"started": str(tmp_path / "started"), "go": str(tmp_path / "go")}


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[LocalPool]:
    tasks = {"default": handlers.wait_for_file, "double": handlers.double}
    with LocalPool(tasks, workers=2, path=tmp_path / "queue", max_attempts=1) as pool:
        yield pool


def test_a_push_with_a_key_that_is_held_returns_the_holder_and_its_future_gets_the_holders_result(
    pool: LocalPool, waiting: dict[str, str]
) -> None:
    first = pool.submit(waiting, key="order-7")
    second = pool.submit({**waiting, "started": "elsewhere"}, key="order-7")
    pushed = pool.push(waiting, key="order-7", priority=5)
    other = pool.push(21, task="double", key="order-8")
    Path(waiting["go"]).touch()

    assert first.result(60) == second.result(60)
    assert first.job_id == second.job_id == pushed != other
    assert pool.join(60).pushed == 2
    assert pool.get(pushed).key == "order-7"
    assert pool.push(waiting, key="order-7") > other


def test_whoever_waits_for_a_cancelled_job_is_told_also_through_its_key(
    pool: LocalPool, waiting: dict[str, str]
) -> None:
    futures = [pool.submit(21, task="double", delay=600, key="k") for _ in range(3)]
    assert pool.cancel(futures[0])

    for future in futures:
        with pytest.raises(CancelledError):
            future.result(60)


def test_clients_brokers_and_queues_take_keys(tmp_path: Path) -> None:
    with Broker.open(tmp_path / "queue", max_attempts=1) as broker:
        queue = Queue(broker, int)
        assert queue.push(1, key="k") == broker.push(b"2", key="k") == 1
        with Client.connect(tmp_path / "queue") as client:
            assert client.push(b"3", key="k") == 1
            job = client.claim()
            assert job is not None
            client.fail(job, "no")
            assert client.push(b"4", key="k") == 2
            with pytest.raises(Rejected, match="belongs to another unfinished job by now id=1 holder=2"):
                client.requeue(1)
            assert client.get(1).state == "dead"


@pytest.mark.parametrize("key", ["", "k" * 257, "\ud800"])
def test_a_key_that_is_none_is_refused_by_name(tmp_path: Path, key: str) -> None:
    with Broker.open(tmp_path / "queue") as broker, pytest.raises(ValueError, match="key"):
        broker.push(b"1", key=key)


def test_a_key_that_is_no_text_is_refused_by_name(tmp_path: Path) -> None:
    with Broker.open(tmp_path / "queue") as broker, pytest.raises(TypeError, match="key is text, not int 7"):
        broker.push(b"1", key=7)  # type: ignore[arg-type]


def test_the_command_line_pushes_with_a_key(tmp_path: Path) -> None:
    assert succeed("push", "queue", "1", "--key", "order-7", cwd=tmp_path) == "1\n"
    again = osqueue("push", "queue", "2", "--key", "order-7", cwd=tmp_path)
    assert (again.returncode, again.stdout) == (0, "1\n")
    assert "job 1 has this key and is unfinished: nothing was pushed" in again.stderr
    assert document("push", "queue", "2", "--key", "order-7", cwd=tmp_path)["pushed"] == 0

    assert document("show", "queue", "1", cwd=tmp_path)["key"] == "order-7"
    assert "order-7" in succeed("show", "queue", "1", cwd=tmp_path)
    wrong = osqueue("push", "queue", "--file", "-", "--key", "k", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "--key is for one payload" in wrong.stderr

"""The blocking client over real sockets, against the model broker."""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from osqueue.client import Client, operations
from osqueue.client.push_many import BATCH_JOBS, FIRST_BATCH_JOBS
from osqueue.errors import InvalidPayload, OsqueueError, PayloadTooLarge, SessionLost, Unavailable
from tests.client.live_broker import LiveBroker


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[LiveBroker]:
    broker = LiveBroker(tmp_path)
    yield broker
    broker.stop()


@pytest.fixture
def client(broker: LiveBroker, tmp_path: Path) -> Iterator[Client]:
    with Client.connect(tmp_path) as client:
        yield client


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.005)


def test_ids_come_in_push_order(client):
    assert [client.push(b"1"), client.push(b"2")] == [1, 2]


def test_a_directory_without_a_broker_is_unavailable_at_once(tmp_path):
    with pytest.raises(Unavailable, match="no broker has the queue in this directory open: start"):
        Client.connect(tmp_path)


def test_a_directory_that_is_not_there_is_said_not_to_be(tmp_path):
    with pytest.raises(Unavailable, match="no such directory"):
        Client.connect(tmp_path / "nope")


def test_a_socket_whose_broker_is_dead_is_unavailable_at_once(broker, tmp_path):
    broker.close()
    assert (tmp_path / "broker.sock").exists()

    with pytest.raises(Unavailable, match="no broker has the queue in this directory open: start"):
        Client.connect(tmp_path)


def test_a_directory_with_a_path_longer_than_a_socket_address_works(tmp_path):
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    broker = LiveBroker(deep)
    try:
        with Client.connect(deep) as client:
            assert client.push(b"1") == 1
    finally:
        broker.stop()


def test_the_socket_is_for_its_owner_only(broker, tmp_path):
    assert (tmp_path / "broker.sock").stat().st_mode & 0o777 == 0o600


def test_text_is_a_type_error_and_large_payloads_are_refused_before_they_are_sent(client, broker):
    client.stats()

    with pytest.raises(TypeError, match="bytes"):
        client.push("text")
    with pytest.raises(PayloadTooLarge, match="bytes=1001 limit=1000"):
        client.push(b"x" * 1001)
    assert broker.model.applied == []


def test_push_many_gives_compact_ids_and_grows_its_batches(client, broker):
    ids = client.push_many(b"%d" % number for number in range(30_000))

    assert len(ids) == 30_000
    assert (ids[0], ids[-1], ids[12_345]) == (1, 30_000, 12_346)
    assert len(ids._runs) == 1
    assert broker.model.applied == [b"%d" % number for number in range(30_000)]


def test_push_many_reads_no_further_ahead_than_its_batches_in_flight(client, broker):
    read = 0

    def payloads() -> Iterator[bytes]:
        nonlocal read
        for number in itertools.count():
            read += 1
            yield b"%d" % number

    # Before its welcome a client does not know whether the queue has a bound, and has one batch in flight.
    wait_for(lambda: client._face.connection.session.open)
    broker.answering.clear()
    thread = threading.Thread(target=lambda: client.push_many(itertools.islice(payloads(), 200_000)), daemon=True)
    thread.start()
    wait_for(lambda: read >= FIRST_BATCH_JOBS * 15)
    time.sleep(0.2)
    in_flight = FIRST_BATCH_JOBS * (1 + 2 + 4 + 8 + 16)

    assert read <= in_flight
    broker.answering.set()
    broker.drop()
    thread.join(30)
    assert not thread.is_alive()
    assert len(broker.model.applied) == 200_000


def test_a_batch_is_never_larger_than_its_limits(client, broker):
    sizes: list[int] = []
    received = broker.model.received

    def spy(message):
        if hasattr(message, "operation"):
            sizes.append(len(message.operation.payloads))
        return received(message)

    broker.model.received = spy
    client.push_many(b"1" for _ in range(60_000))

    assert sizes[0] <= FIRST_BATCH_JOBS
    assert max(sizes) <= BATCH_JOBS
    client.push_many(b"x" * 1000 for _ in range(10_000))
    assert sum(sizes) == 70_000


def test_an_error_of_the_iterable_ends_it_and_says_how_many_are_pushed(client, broker):
    def payloads() -> Iterator[bytes]:
        for number in range(100):
            yield b"%d" % number
        raise InvalidPayload("line 101 is broken")

    with pytest.raises(InvalidPayload, match="line 101") as caught:
        client.push_many(payloads())

    assert caught.value.pushed == 100
    assert len(broker.model.applied) == 100


def test_any_error_of_the_iterable_carries_the_count(client):
    def payloads() -> Iterator[bytes]:
        yield b"1"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        client.push_many(payloads())

    assert caught.value.pushed == 1


def test_a_slow_iterable_does_not_keep_its_first_jobs_waiting(client, broker):
    gate = threading.Event()

    def payloads() -> Iterator[bytes]:
        yield b"first"
        time.sleep(0.1)
        yield b"second"
        gate.wait(20)
        yield b"third"

    thread = threading.Thread(target=lambda: client.push_many(payloads()), daemon=True)
    thread.start()
    wait_for(lambda: len(broker.model.applied) == 2)
    gate.set()
    thread.join(20)

    assert broker.model.applied == [b"first", b"second", b"third"]


def test_a_lost_connection_and_a_new_broker_are_not_noticed(client, broker):
    client.push(b"1")
    broker.answering.clear()
    answers: list[int] = []
    threads = [threading.Thread(target=lambda: answers.append(client.push(b"x"))) for _ in range(5)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(broker.model.applied) == 6)
    broker.close()
    broker.answering.set()
    broker.open()
    for thread in threads:
        thread.join(20)

    assert sorted(answers) == [2, 3, 4, 5, 6]
    assert len(broker.model.applied) == 6


def test_what_gets_no_answer_is_unavailable_and_again_is_the_same_push(client, broker, monkeypatch):
    client.push(b"1")
    monkeypatch.setattr(operations, "PATIENCE_MS", 200)
    broker.answering.clear()

    with pytest.raises(Unavailable) as caught:
        client.push(b"2")
    assert "again" not in str(caught.value), "what only a program can do is a note, and not for a shell"
    assert caught.value.__notes__ == ["error.again() repeats this very operation"]
    broker.answering.set()
    broker.drop()

    assert caught.value.again() == 2
    assert broker.model.applied == [b"1", b"2"]


def test_again_of_many_ids_goes_on_with_those_that_were_not_asked_for_yet(client, broker, monkeypatch):
    client.push(b"1")
    monkeypatch.setattr(operations, "PATIENCE_MS", 200)
    broker.answering.clear()

    with pytest.raises(Unavailable) as caught:
        client.requeue(range(1, 601))
    with pytest.raises(Unavailable) as again:
        caught.value.again()
    broker.answering.set()
    broker.drop()

    assert again.value.again() == [*range(1, 601)]
    assert again.value.again() == [*range(1, 601)]
    assert broker.model.requeued == [*range(1, 601)]


def test_what_the_broker_left_of_an_operation_is_named_in_the_next_ones(client, broker):
    broker.model.requeued_at_once = 100

    assert client.requeue(range(1, 601)) == [*range(1, 601)]
    assert broker.model.requeued == [*range(1, 601)]


def test_again_of_a_part_goes_on_with_what_the_broker_left_of_it(client, broker, monkeypatch):
    client.push(b"1")
    broker.model.requeued_at_once = 100
    monkeypatch.setattr(operations, "PATIENCE_MS", 200)
    broker.answering.clear()

    with pytest.raises(Unavailable) as caught:
        client.requeue(range(1, 301))
    broker.answering.set()
    broker.drop()

    assert caught.value.again() == [*range(1, 301)]
    assert broker.model.requeued == [*range(1, 301)], "each once"


def test_a_forgotten_session_is_renewed_unseen(client, broker):
    client.push(b"1")
    broker.model.forget()

    assert client.push(b"2") == 2
    assert broker.hellos == 2


def test_a_forgotten_session_is_an_error_for_what_may_have_happened(client, broker):
    client.push(b"1")
    broker.answering.clear()
    errors: list[Exception] = []

    def push() -> None:
        try:
            client.push(b"2")
        except SessionLost as error:
            errors.append(error)

    thread = threading.Thread(target=push)
    thread.start()
    wait_for(lambda: len(broker.model.applied) == 2)
    broker.model.forget()
    broker.answering.set()
    broker.drop()
    thread.join(20)

    assert len(errors) == 1
    assert client.push(b"3") == 3
    with pytest.raises(RuntimeError):
        pickle.loads(pickle.dumps(errors[0])).again()


def test_leaving_says_goodbye(broker, tmp_path):
    with Client.connect(tmp_path) as client:
        client.push(b"1")

    wait_for(lambda: broker.model.said_goodbye)
    with pytest.raises(RuntimeError, match="closed"):
        client.push(b"2")


def test_many_threads_push_at_once(client, broker):
    ids: list[int] = []
    threads = [threading.Thread(target=lambda: ids.extend(client.push(b"x") for _ in range(100))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert sorted(ids) == list(range(1, 801))


def test_in_a_forked_child_every_call_raises_and_the_parent_goes_on(client, broker):
    client.push(b"1")
    pid = os.fork()
    if pid == 0:
        try:
            client.push(b"child")
        except RuntimeError as error:
            os._exit(42 if "forked" in str(error) else 1)
        os._exit(2)
    _, status = os.waitpid(pid, 0)

    assert os.waitstatus_to_exitcode(status) == 42
    assert client.push(b"2") == 2
    assert broker.model.applied == [b"1", b"2"]


def test_a_closed_client_waits_for_nothing_however_often_it_is_asked(broker, tmp_path):
    client = Client.connect(tmp_path)
    client.close()

    for _ in range(2):
        with pytest.raises(RuntimeError, match="closed"):
            client.wait_idle(timeout=10)


def test_a_forked_child_does_not_wait_for_what_its_parent_has_asked(broker, client):
    broker.answering.clear()

    def wait() -> None:
        with contextlib.suppress(RuntimeError, OsqueueError):  # the client is closed at the test's end
            client.wait_idle()

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    wait_for(lambda: bool(client.waits._open))
    pid = os.fork()
    if pid == 0:
        try:
            client.wait_idle(timeout=10)
        except RuntimeError as error:
            os._exit(42 if "forked" in str(error) else 1)
        finally:
            os._exit(2)
    _, status = os.waitpid(pid, 0)

    assert os.waitstatus_to_exitcode(status) == 42


def test_a_claim_gives_a_job_that_names_its_attempt(client):
    job = client.claim("worker-1")

    assert job is not None
    assert (job.id, job.task, job.payload, job.attempt) == (1, "default", b"1", 1)
    assert job.pushed_at == "1970-01-01T00:00:00.000Z"
    client.heartbeat(job)


def test_arguments_are_checked_by_name(client):
    for call, name in [
        (lambda: client.push(b"1", priority=1001), "priority"),
        (lambda: client.push(b"1", delay=-1), "delay"),
        (lambda: client.push(b"1", timeout=0), "timeout"),
        (lambda: client.push(b"1", max_attempts=0), "max_attempts"),
        (lambda: client.push(b"1", task=""), "task"),
        (lambda: client.claim(wait=-1), "wait"),
        (lambda: client.claim_many(0), "jobs"),
    ]:
        with pytest.raises(ValueError, match=name):
            call()
    with pytest.raises(TypeError, match="tasks"):
        client.claim(tasks="default")

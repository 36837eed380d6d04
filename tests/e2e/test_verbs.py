"""The verbs of a queue, the same over an embedded broker and over a client that has joined it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from osqueue import (
    Broker,
    Client,
    InvalidPayload,
    JobNotFound,
    LeaseLost,
    PayloadTooLarge,
    Queue,
    QueueFull,
)
from osqueue.core.messages import Answer, FromBroker, Hello, Numbered, Push, Welcome
from osqueue.transport.frames import read_frame, write_frame
from osqueue.transport.unix import connect_unix
from tests.e2e.waiting import wait_for

UNCLEAN = [b'1},{"id":9', b"NaN", b'"\xed\xa0\x80"', b"[" * 5000 + b"]" * 5000, b"", b"\xff\x00", b'{"a":\n1}']


class Task(msgspec.Struct):
    name: str
    size: int = 0


@pytest.fixture(params=["embedded", "joined"])
def queue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Client]:
    with Broker.open(tmp_path, lease=0.5, max_attempts=2, retry_backoff=0, max_payload=100_000) as broker:
        if request.param == "embedded":
            yield broker
            return
        with Client.connect(tmp_path) as client:
            yield client


def test_a_job_is_pushed_claimed_and_completed_with_the_very_bytes(queue):
    job_id = queue.push(b'{"a": 1}', priority=3)

    job = queue.claim("worker-1")
    assert job is not None
    assert (job.id, job.payload, job.attempt, job.task) == (job_id, b'{"a": 1}', 1, "default")
    queue.heartbeat(job)
    assert queue.get(job_id).state == "running"
    queue.complete(job, b"[2]")

    record = queue.get(job_id)
    assert (record.state, record.result, record.attempts, record.worker) == ("succeeded", b"[2]", 1, "worker-1")
    assert queue.claim() is None


@pytest.mark.parametrize("payload", UNCLEAN)
def test_bytes_that_are_no_clean_json_come_back_byte_for_byte(queue, payload):
    job_id = queue.push(payload)

    job = queue.claim()
    assert job is not None
    assert job.payload == payload
    queue.complete(job, payload)
    assert (queue.get(job_id).payload, queue.get(job_id).result) == (payload, payload)


def test_stats_count_jobs_by_state_and_task_and_know_how_long_the_oldest_has_waited(queue):
    assert queue.stats().oldest_ready_s is None
    queue.push_many([b"1", b"2", b"3", b"4"])
    queue.push(b"5", task="other", delay=3600)
    queue.complete(queue.claim())
    queue.fail(queue.claim(), retry=False)
    queue.claim()
    queue.cancel(queue.push(b"6"))
    gone = queue.push(b"7", task="gone")
    queue.fail(queue.claim(tasks=["gone"]), retry=False)
    queue.discard(gone)

    stats = queue.stats()

    def counts(of):
        return of.ready, of.delayed, of.running, of.succeeded, of.dead, of.cancelled, of.discarded, of.pushed

    assert counts(stats) == (1, 1, 1, 1, 1, 1, 1, 7)
    assert counts(stats.tasks["default"]) == (1, 0, 1, 1, 1, 1, 0, 5)
    assert counts(stats.tasks["other"]) == (0, 1, 0, 0, 0, 0, 0, 1)
    assert counts(stats.tasks["gone"]) == (0, 0, 0, 0, 0, 0, 1, 1)
    waited_s = queue.stats().oldest_ready_s
    wait_for(lambda: queue.stats().oldest_ready_s > waited_s)


def test_a_claim_waits_for_a_push(queue):
    jobs = []
    thread = threading.Thread(target=lambda: jobs.append(queue.claim(wait=20)))
    thread.start()
    job_id = queue.push(b"1")
    thread.join(20)

    assert jobs[0].id == job_id


def test_a_claim_that_finds_nothing_ends_with_its_wait(queue):
    assert queue.claim(wait=0.1) is None


def test_a_claim_takes_its_own_tasks_only(queue):
    queue.push(b"1", task="other")

    assert queue.claim() is None
    assert queue.claim(tasks=["more", "other"]).task == "other"


def test_several_jobs_are_claimed_at_once(queue):
    queue.push_many([b"1", b"2", b"3"])

    jobs = queue.claim_many(2)

    assert [job.payload for job in jobs] == [b"1", b"2"]
    for job in jobs:
        queue.complete(job)


def test_a_failed_job_runs_again_and_is_dead_in_the_end(queue):
    job_id = queue.push(b"1")
    queue.fail(queue.claim(wait=5), "first")
    second = queue.claim(wait=5)
    assert second.attempt == 2
    queue.fail(second, ValueError("second"))

    [record] = queue.dead()
    assert record.id == job_id
    assert [error.message for error in record.errors] == ["first", "second"]
    assert record.errors[1].error_type == "ValueError"


def test_a_failure_may_have_a_delay_or_be_final(queue):
    queue.push(b"1")
    queue.fail(queue.claim(), "later", delay=3600)
    assert queue.stats().delayed == 1
    queue.push(b"2")
    queue.fail(queue.claim(), "never", retry=False)
    assert queue.stats().dead == 1


def test_dead_jobs_are_requeued_and_discarded(queue):
    job_id = queue.push(b"1")
    queue.fail(queue.claim(), "x", retry=False)

    assert queue.requeue([job_id, 999]) == [job_id]
    queue.fail(queue.claim(wait=5), "x", retry=False)
    assert queue.discard(job_id) == [job_id]
    assert queue.get(job_id).state == "dead"
    assert queue.requeue(job_id) == []
    with pytest.raises(JobNotFound):
        queue.discard(999)


def test_a_lost_lease_is_refused_and_changes_nothing(queue):
    job_id = queue.push(b"1")
    stale = queue.claim()
    again = queue.claim(wait=20)

    assert again.id == job_id
    for call in (lambda: queue.complete(stale), lambda: queue.fail(stale), lambda: queue.heartbeat(stale)):
        with pytest.raises(LeaseLost):
            call()
    queue.complete(again)
    assert queue.get(job_id).attempts == 2


def test_heartbeats_in_the_background_keep_a_lease(queue):
    queue.push(b"1")
    job = queue.claim()

    with queue.heartbeating(job, interval=0.1) as beats:
        assert queue.claim(wait=1.5) is None
        assert not beats.lost.is_set()
    queue.complete(job)


def test_heartbeats_in_the_background_say_when_the_lease_was_lost(queue):
    job_id = queue.push(b"1")
    job = queue.claim()
    beats = queue.heartbeating(job, interval=0.05)

    beats.__enter__()
    queue.cancel(job_id)
    assert beats.lost.wait(20)
    with pytest.raises(LeaseLost):
        beats.__exit__(None, None, None)


def test_heartbeats_in_the_background_are_sent_as_often_as_a_short_lease_needs_them(queue):
    queue.push(b"1")
    job = queue.claim()

    with queue.heartbeating(job) as beats:  # every 5 seconds, by default; the lease is half a second
        assert queue.claim(wait=1.5) is None
        assert not beats.lost.is_set()
    queue.complete(job)


@pytest.mark.parametrize("finish", ["complete", "fail"])
def test_a_job_that_is_finished_inside_the_block_was_not_lost(queue, finish):
    for _ in range(20):
        queue.push(b"1", max_attempts=1)
        job = queue.claim()
        with queue.heartbeating(job, interval=0.001):
            getattr(queue, finish)(job)

    stats = queue.stats()
    assert stats.succeeded + stats.dead == 20


def test_a_job_is_cancelled_once_whether_it_waits_or_runs(queue):
    waiting, running = queue.push(b"1", delay=3600), queue.push(b"2")
    job = queue.claim()

    assert queue.cancel(waiting)
    assert queue.cancel(running)
    assert not queue.cancel(running)
    assert queue.get(waiting).state == queue.get(running).state == "cancelled"
    with pytest.raises(LeaseLost):
        queue.complete(job)
    with pytest.raises(JobNotFound):
        queue.cancel(999)


def test_lists_and_history_say_what_is_there(queue):
    ids = queue.push_many([b"%d" % number for number in range(2500)])
    queue.complete(queue.claim(), b"1")
    queue.push(b"x", delay=3600)

    assert [record.id for record in queue.list("ready")] == list(ids)[1:]
    assert len(list(queue.list())) == 2500
    assert [record.id for record in queue.list("delayed")] == [2501]
    assert [(record.id, record.state) for record in queue.history()] == [(1, "succeeded")]


def test_waiting_for_idle_ends_with_the_last_job(queue):
    queue.push(b"1")
    job = queue.claim()
    with pytest.raises(TimeoutError):
        queue.wait_idle(timeout=0.05)
    done: list[int] = []
    thread = threading.Thread(target=lambda: done.append(queue.wait_idle().succeeded))
    thread.start()
    queue.complete(job)
    thread.join(20)

    assert done == [1]


def test_limits_are_refused_by_name(queue):
    queue.stats()
    with pytest.raises(PayloadTooLarge):
        queue.push(b"x" * 100_001)
    with pytest.raises(PayloadTooLarge) as caught:
        queue.push_many([b"1", b"x" * 100_001])
    assert caught.value.pushed == 1
    with pytest.raises(JobNotFound):
        queue.get(999)


def test_a_single_claim_for_which_there_is_no_room_is_refused_by_name_and_goes_on_when_there_is(queue):
    queue.push_many([b"1"] * 5_000)
    held = [queue.claim() for _ in range(50)]
    assert None not in held

    with pytest.raises(QueueFull, match="claim more jobs at a time"):
        held.extend(iter(queue.claim, None))  # jobs are ready: never None

    for job in held[-10:]:
        queue.complete(job)
    assert queue.claim() is not None


def test_an_outcome_survives_a_reopening(tmp_path):
    with Broker.open(tmp_path) as broker:
        ids = broker.push_many(UNCLEAN)
        broker.complete(broker.claim(), b"done")
    with Broker.open(tmp_path) as broker:
        assert broker.get(ids[0]).result == b"done"
        assert [job.payload for job in broker.claim_many(100)] == UNCLEAN[1:]


def test_a_typed_queue_takes_and_gives_values(queue):
    tasks = Queue(queue, Task, task="build")
    job_id = tasks.push(Task("index", 3))
    tasks.push_many([Task("a"), Task("b")])

    job = tasks.claim("worker-1")
    assert job.payload == Task("index", 3)
    tasks.heartbeat(job)
    tasks.complete(job, result={"ok": True})
    assert queue.get(job_id).result == b'{"ok":true}'
    tasks.fail(tasks.claim(), "no", retry=False)
    assert tasks.claim().payload == Task("b")
    assert tasks.claim() is None


def test_a_typed_queue_passes_options_on(queue):
    tasks = Queue(queue, Task)
    low = tasks.push(Task("low"), priority=-5, timeout=9, max_attempts=1)
    plain = tasks.push(Task("plain"), max_attempts=1)
    [high] = tasks.push_many([Task("high")], priority=5, timeout=9, max_attempts=1)
    later = [tasks.push(Task("later"), delay=3600), *tasks.push_many([Task("later")], delay=3600)]
    assert [queue.get(job_id).state for job_id in later] == ["delayed", "delayed"]

    for expected in (high, plain, low):
        job = tasks.claim(wait=1)
        assert job.id == expected
        tasks.fail(job, "no")
        assert queue.get(expected).state == "dead"
    assert tasks.claim(wait=0.1) is None
    tasks.push(Task("again"))
    again = tasks.claim(wait=1)
    tasks.fail(again, "later", delay=3600)
    assert queue.get(again.id).state == "delayed"


def test_a_typed_queue_refuses_other_values_and_buries_what_is_none_of_its_own(queue):
    tasks = Queue(queue, Task)
    with pytest.raises(InvalidPayload):
        tasks.push({"name": 5})
    bad = queue.push(b'{"nome": 1}')
    good = tasks.push(Task("x"))

    assert tasks.claim().id == good
    wait_for(lambda: queue.get(bad).state == "dead")


def test_a_client_whose_place_others_have_taken_goes_on_unseen(queue, tmp_path):
    queue.push(b"1")
    session = queue._face.connection.session
    wait_for(lambda: not session.busy)
    first = session._id
    others = [_other_session(tmp_path, f"{number:016x}") for number in range(300)]

    assert queue.push(b"2") == 302
    assert session._id != first
    assert queue.stats().pushed == 302
    for other in others:
        other.close()


def _other_session(directory: Path, session: str) -> socket.socket:
    """A session that pushes once and then says nothing more, not even goodbye."""
    sock = connect_unix(directory)
    sock.settimeout(20)
    decoder = msgspec.msgpack.Decoder(FromBroker)
    write_frame(sock, Hello(session))
    assert isinstance(read_frame(sock, decoder), Welcome)
    write_frame(sock, Numbered(1, 0, Push([b"x"])))
    assert isinstance(read_frame(sock, decoder), Answer)
    write_frame(sock, Numbered(1, 1, Push([b"x"])))  # it has its answer
    return sock


def test_names_and_errors_that_are_no_unicode_are_escaped_and_nothing_hangs(queue):
    queue.push(b"1")
    job = queue.claim("w\udce9")

    queue.fail(job, OSError("caf\udce9.txt"), retry=False)

    [dead] = queue.dead()
    assert dead.errors[0].message == "caf\\udce9.txt"
    assert queue.push(b"2") == 2


def test_a_state_that_does_not_exist_is_refused_by_name(queue):
    with pytest.raises(ValueError, match="state is one of delayed"):
        list(queue.list("bogus"))


def test_a_thousand_dead_jobs_are_requeued_and_discarded_in_one_call(tmp_path):
    with Broker.open(tmp_path / "jobs") as queue:
        ids = list(queue.push_many([b"1"] * 1000, max_attempts=1))
        for job in queue.claim_many(1000):
            queue.fail(job, retry=False)

        assert queue.discard(ids[::2]) == ids[::2]
        assert queue.requeue(ids[1::2]) == ids[1::2]

        stats = queue.stats()
        assert (stats.ready, stats.dead) == (500, 0)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [(1.5, TypeError), ("1", TypeError), (None, TypeError), (True, TypeError), (-1, ValueError), (2**70, ValueError)],
)
def test_what_is_no_id_is_refused_at_once_by_every_verb_that_takes_one(queue, wrong, error):
    for verb in (queue.cancel, queue.get, queue.requeue, queue.discard):
        with pytest.raises(error):
            verb([wrong] if verb in (queue.requeue, queue.discard) else wrong)

    assert queue.push(b"1") == 1


@pytest.mark.parametrize(("since_ms", "found"), [(-(10**17), 1), (-1, 1), (0, 1), (10**17, 0)])
def test_history_since_a_time_that_has_no_date(queue, since_ms, found):
    queue.push(b"1")
    queue.complete(queue.claim())

    assert len(list(queue.history(since_ms))) == found
    with pytest.raises(TypeError, match="since_ms is a whole number"):
        queue.history(1.5)
    assert queue.stats().succeeded == 1

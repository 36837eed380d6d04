from __future__ import annotations

import pytest

from osqueue.core.messages import Answer, Claim, Granted, Holder, Reply
from osqueue.errors import Corrupt
from tests.core.queue import Queue


@pytest.fixture
def reopened(queue: Queue) -> Queue:
    """A queue whose only jobs are in a segment that is not in memory."""
    queue.session().push(*[b'"%0100d"' % n for n in range(300)])
    queue.reopen()
    queue.session().hello()
    return queue


def test_a_claim_that_may_not_wait_still_waits_for_the_segment_of_its_job(reopened: Queue) -> None:
    assert [job.id for job in reopened.session().claim()] == [1]


def test_a_claim_that_waits_for_a_segment_asks_for_no_tick(reopened: Queue) -> None:
    reopened.machine.claim("a", 1, Claim(7, ["default"]), reopened.now_ms)
    reopened.machine.settle(reopened.now_ms)

    assert reopened.machine.objects.take_wanted() != set()
    assert reopened.machine.next_alarm_ms() is None


def test_a_claim_that_may_not_wait_ends_empty_when_its_segment_is_damaged(reopened: Queue) -> None:
    session = reopened.session()
    reopened.machine.claim("a", 1, Claim(7, ["default"]), reopened.now_ms)
    reopened.machine.settle(reopened.now_ms)
    (key,) = reopened.machine.objects.take_wanted()
    with pytest.raises(Corrupt):
        reopened.machine.objects.load(key, b"")

    reopened.commit()

    assert [(message.ticket, message.jobs) for message in session.received(Granted)] == [(7, [])]


@pytest.mark.parametrize("delay_s", [1, 1200, 40_000], ids=["read", "split", "split twice"])
def test_a_claim_that_may_not_wait_still_waits_for_the_segment_of_an_overdue_job(queue: Queue, delay_s: int) -> None:
    session = queue.session()
    session.push(*[b'"%0100d"' % n for n in range(200)], delay_s=delay_s)
    queue.now_ms += (delay_s + 2) * 1000
    queue.reopen()

    assert len(session.claim(500)) == 200


def test_a_claim_that_may_not_wait_ends_empty_when_the_segment_of_its_overdue_job_is_damaged(queue: Queue) -> None:
    session = queue.session()
    session.push(*[b'"%0100d"' % n for n in range(200)], delay_s=1)
    queue.now_ms += 3000
    queue.reopen()
    for segment in queue.machine.state.backlog.segments.values():
        queue.machine.objects.unreadable(segment.key)

    queue.machine.claim("a", 1, Claim(7, ["default"]), queue.now_ms)
    queue.commit()

    assert [(message.ticket, message.jobs) for message in session.received(Granted)] == [(7, [])]


def test_a_claim_of_another_task_does_not_wait_for_the_segment_of_an_overdue_job(queue: Queue) -> None:
    queue.session().push(*[b'"%0100d"' % n for n in range(200)], delay_s=1)
    queue.now_ms += 3000
    queue.reopen()

    queue.machine.claim("a", 1, Claim(7, ["other"]), queue.now_ms)
    queue.machine.settle(queue.now_ms)

    assert [(message.ticket, message.jobs) for _, message in queue.machine.take_outbox()] == [(7, [])]


def killed_clients(queue: Queue) -> None:
    """So many that their sessions push idle ones out of the root."""
    for number in range(260):
        client = queue.session(f"killed-{number}")
        client.push(b"1", task="other")
        queue.machine.disconnected(client.name)


def test_a_session_that_has_only_claimed_is_kept_with_its_lease(queue: Queue) -> None:
    queue.session("p").push(b"1")
    worker = queue.session("w")
    [job] = worker.claim()

    killed_clients(queue)

    assert worker.heartbeat((job.id,))
    assert worker.complete(job) == []


def test_a_session_that_was_forgotten_while_its_claim_waited_begins_anew_before_it_holds_anything(queue: Queue) -> None:
    worker = queue.session("w")
    worker.hello(holder=Holder("boot", "namespace", 1, 1))
    assert worker.claim(2, standing=True) == []
    killed_clients(queue)

    queue.session("p").push(b"1")

    assert worker.received(Granted) == []
    assert [message.body.code for message in worker.received(Answer)] == ["session_lost"]
    renewed = queue.session("w-2")
    [job] = renewed.claim(2, standing=True)
    assert renewed.complete(job) == []


@pytest.mark.parametrize("allowed", [1, 2, 3])
def test_only_the_last_attempt_that_a_job_is_allowed_is_handed_out_as_such(queue: Queue, allowed: int) -> None:
    session = queue.session()
    session.push(b"1", max_attempts=allowed)
    told = []
    for _ in range(allowed):
        [job] = session.claim(standing=True)
        told.append(job.last)
        session.fail(job, retry_delay_s=0)

    assert told == [False] * (allowed - 1) + [True]
    assert session.claim(standing=True) == []


def test_a_last_attempt_is_still_one_when_its_hand_out_is_repeated_over_a_new_connection(queue: Queue) -> None:
    session = queue.session()
    session.push(b"1", b"2", max_attempts=1)
    session.push(b"3", max_attempts=2)
    session.claim(3, standing=True)
    queue.reopen()

    session.hello(held=[])

    [granted] = session.received(Granted)
    assert [(job.id, job.last) for job in granted.jobs] == [(1, True), (2, True), (3, False)]


def test_attempts_that_a_requeue_grants_count_for_which_one_is_the_last(queue: Queue) -> None:
    session = queue.session()
    session.push(b"1", max_attempts=2)
    for _ in range(2):
        session.fail(session.claim(standing=True)[0], retry_delay_s=0)
    session.requeue(1)

    told = []
    for _ in range(2):
        [job] = session.claim(standing=True)
        told.append((job.attempt, job.last))
        session.fail(job, retry_delay_s=0)

    assert told == [(3, False), (4, True)]


def test_a_single_claim_for_which_the_root_has_no_room_is_refused_when_it_may_wait_no_longer(queue: Queue) -> None:
    session = queue.session()
    session.push(*[b"1"] * 100)
    while session.claim():
        pass
    assert [reply.body.code for reply in session.received(Reply)] == ["queue_full"]

    queue.machine.claim("a", 1, Claim(7, ["default"], wait_s=5), queue.now_ms)
    queue.commit()
    assert len(session.received(Reply)) == 1
    queue.wait(6)

    assert [reply.ticket for reply in session.received(Reply)][-1] == 7


def test_a_claim_of_jobs_that_are_all_damaged_finds_none_however_little_room_there_is(queue: Queue) -> None:
    session = queue.session()
    session.push(*[b"1"] * 100)
    while session.claim():
        pass
    other = queue.session("b")
    other.push(*[b'"%0100d"' % n for n in range(300)], task="t")
    queue.unload()
    for key in [key for key in queue.store if key.startswith("segments/")]:
        queue.machine.objects.unreadable(key)

    assert other.claim(tasks=("t",)) == []
    assert other.received(Reply) == []

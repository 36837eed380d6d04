"""How many lanes, pairs of priority and task, may have waiting jobs: whatever asks for more is told so."""

from __future__ import annotations

import pytest

from osqueue.core.lane_order import MAX_LANES
from osqueue.core.messages import MAX_IDS, Holder, Outcome, Push, Refused
from tests.core.queue import Queue, Session

LOCAL = Holder("boot", "namespace", 1, 1)
ROOT_BYTES = 128 * 1024
PRIORITIES = range(-300, 300)


@pytest.fixture
def queue() -> Queue:
    return Queue(max_attempts=1)


def bury(session: Session, priorities: range = PRIORITIES) -> list[int]:
    """A dead job of each priority."""
    ids = []
    for at in range(0, len(priorities), MAX_LANES):
        for priority in priorities[at : at + MAX_LANES]:
            ids += session.push(b"1", priority=priority)
        for job in session.claim(MAX_LANES):
            session.fail(job)
    return ids


def refused_push(session: Session) -> Refused:
    refused = session.say(Push([b"1"], priority=999))
    assert isinstance(refused, Refused)
    return refused


def test_as_many_dead_jobs_are_requeued_as_there_may_be_lanes_and_then_none(queue: Queue) -> None:
    session = queue.session()
    ids = bury(session)
    waiting = session.push(b"1", b"2", priority=999 - 500)

    first = session.requeue(*ids[:MAX_IDS])
    done = sum(last - one + 1 for one, last in first.ids)
    refused = session.requeue(*ids[done:][:MAX_IDS])

    assert (done, first.left) == (MAX_LANES - 1, 1), "beside the lane that has jobs"
    assert refused == refused_push(session)
    assert (session.stats().ready, session.stats().dead) == (done + len(waiting), len(ids) - done)


def test_what_was_refused_for_its_lane_is_requeued_once_there_is_room(queue: Queue) -> None:
    session = queue.session()
    ids = bury(session)
    session.requeue(*ids[:MAX_IDS])
    assert session.requeue(*ids[MAX_IDS:][:MAX_IDS]).code == "queue_full"

    session.claim(100)

    assert session.requeue(*ids[MAX_IDS:][:MAX_IDS]).left == MAX_IDS - 100
    assert session.stats().dead == len(ids) - MAX_IDS - 100


def test_what_is_not_dead_or_has_a_lane_already_is_no_reason_to_refuse(queue: Queue) -> None:
    session = queue.session()
    ids = bury(session)
    [again] = bury(session, range(PRIORITIES[0], PRIORITIES[0] + 1))
    session.requeue(*ids[:MAX_IDS])

    answer = session.requeue(777_777, ids[0], again, ids[-1], ids[-2])

    assert (answer.ids, answer.unknown, answer.left) == ([(again, again)], [777_777], 2)


def test_the_root_stays_small_however_many_priorities_have_dead_jobs(queue: Queue) -> None:
    session = queue.session()
    ids = bury(session, range(-1000, 1001))

    for at in range(0, len(ids), 100):
        session.requeue(*ids[at : at + 100])

    assert session.stats().ready == MAX_LANES
    assert queue.biggest_root <= ROOT_BYTES


def test_lanes_beyond_the_limit_that_retries_have_made_make_no_room_for_pushes_once_they_are_empty() -> None:
    queue = Queue(max_attempts=2, retry_backoff_s=1.0)
    session = queue.session()
    session.hello(holder=LOCAL)
    for first in (0, MAX_LANES):
        for priority in range(first, first + MAX_LANES):
            session.push(b"1", priority=priority)
        session.claim(MAX_LANES, standing=True)
    jobs = session.list()
    session.report(*[Outcome(job.id, 1, "failed") for job in jobs])
    assert session.say(Push([b"1"], priority=0)).ids, "in a lane that is there"
    queue.wait(5)
    assert len(session.claim(len(jobs) + 1, standing=True)) == len(jobs) + 1

    pushed = [session.say(Push([b"1"], priority=priority)) for priority in range(2 * MAX_LANES)]

    assert sum(isinstance(body, Refused) for body in pushed) == MAX_LANES

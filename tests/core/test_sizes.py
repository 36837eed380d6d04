"""What goes into one segment, one archive object, one message, and in which order it comes out again."""

from __future__ import annotations

import msgspec
import pytest

from osqueue.core.claims import GRANT_BYTES, WINDOW_BYTES
from osqueue.core.finished import OBJECT_BYTES
from osqueue.core.messages import Claim, Granted, Numbered, Outcome, Push, Report
from osqueue.core.segment import MAX_BYTES, MAX_JOBS, NeedsObjectsError
from tests.core.queue import Queue, Session

PAYLOAD_BYTES = 300_000
PAYLOAD = b'"%b"' % (b"-" * (PAYLOAD_BYTES - 2))


def granted(session: Session, jobs: int) -> list[Granted]:
    """What a standing claim of so many jobs is sent, message by message."""
    session.queue.machine.claim(session.name, session.birth, Claim(1, ["default"], jobs, standing=True), 0)
    session.queue.commit()
    return session.received(Granted)


def test_a_segment_holds_so_many_jobs_and_bytes_at_most_and_one_larger_job_alone() -> None:
    queue = Queue(max_payload_bytes=2 * MAX_BYTES)
    session = queue.session()

    session.push(*[b"1"] * (2 * MAX_JOBS + 500))
    session.push(*[PAYLOAD] * 30)
    session.push(b'"%b"' % (b"-" * MAX_BYTES), b"1")

    segments = list(queue.machine.state.backlog.located.ready())
    sizes = [sum(job.payload_size() for job in segment.loaded()) for segment in segments]
    assert [segment.slots for segment in segments][:3] == [MAX_JOBS, MAX_JOBS, 500]
    assert [size for size in sizes if size > MAX_BYTES] == [MAX_BYTES + 2]
    assert sizes.count(13 * PAYLOAD_BYTES) == 2
    assert [job.id for segment in segments for job in segment.loaded()] == list(range(1, 2 * MAX_JOBS + 500 + 32 + 1))


def test_jobs_of_two_tasks_in_one_segment_go_out_by_id(queue: Queue) -> None:
    session = queue.session()
    for number in range(30):
        session.push(*[b'"%0100d"' % number] * 10, task="ab"[number % 2])
    assert any(len(segment.line.spans) == 2 for segment in queue.machine.state.backlog.located.ready())

    jobs = session.claim(400, ("a", "b"), standing=True)

    assert [job.id for job in jobs] == list(range(1, 301))


def test_large_jobs_are_sent_in_messages_of_limited_size_and_up_to_the_holders_window(queue: Queue) -> None:
    session = queue.session()
    session.push(*[PAYLOAD] * 100)

    messages = granted(session, 100)

    sizes = [sum(len(job.payload) for job in message.jobs) for message in messages]
    assert all(size < GRANT_BYTES + PAYLOAD_BYTES for size in sizes)
    assert WINDOW_BYTES <= sum(sizes) < WINDOW_BYTES + PAYLOAD_BYTES

    jobs = [job for message in messages for job in message.jobs]
    for job in jobs[:10]:
        session.complete(job)
    after = [job for message in session.received(Granted) for job in message.jobs]
    assert len(after) == len(jobs) + 10


def test_records_beyond_one_objects_size_go_into_several(queue: Queue) -> None:
    session = queue.session()
    jobs: list[tuple[int, int]] = []
    session.push(*[PAYLOAD] * 40)
    for _ in range(40):
        [job] = session.claim(standing=True)
        jobs.append((job.id, job.attempt))
    before = set(queue.store)

    session.report(*[Outcome(job_id, attempt, "succeeded", 1, 2) for job_id, attempt in jobs])

    sizes = [len(queue.store[key]) for key in set(queue.store) - before if key.startswith("archive/")]
    assert len(sizes) == 2
    assert OBJECT_BYTES - PAYLOAD_BYTES - 1000 < max(sizes) <= OBJECT_BYTES
    assert sorted(record.id for record in queue.archived()) == list(range(1, 41))


def test_a_record_larger_than_an_object_is_one_alone() -> None:
    queue = Queue(max_payload_bytes=2 * OBJECT_BYTES)
    session = queue.session()
    session.push(b'"%b"' % (b"-" * OBJECT_BYTES))
    [job] = session.claim()

    session.complete(job)

    assert [len(data) > OBJECT_BYTES for key, data in queue.store.items() if key.startswith("archive/")] == [True]
    assert [record.id for record in queue.archived()] == [1]


@pytest.mark.parametrize("key", ["", "k" * 256])
@pytest.mark.parametrize("payload", [b"1", PAYLOAD])
def test_what_an_outcome_says_it_takes_is_enough_for_its_follow_up_jobs(key: str, payload: bytes) -> None:
    many = 1 if payload is PAYLOAD else 10_000
    one_push = Push([payload] * many, "t" * 64, -1000, 1e9 / 3, 1e5 / 3, 2**31, key)
    many_pushes = [Push([payload], "t" * 64, -1000, 1e9 / 3, 1e5 / 3, 2**31, key)] * many

    for pushes in ([one_push], many_pushes):
        outcome = Outcome(1, 1, "succeeded", follow_ups=pushes)
        size = len(msgspec.msgpack.encode(outcome))
        assert size <= outcome.size() + 100
        assert outcome.size() <= 2 * size


def test_whoever_names_jobs_of_several_segments_is_told_all_that_must_be_read(queue: Queue) -> None:
    session = queue.session()
    session.push(*[b'"%0100d"' % n for n in range(300)])
    session.push(*[b'"%0100d"' % n for n in range(300)])
    jobs = session.claim(600, standing=True)
    queue.unload()
    outcomes = [Outcome(job.id, job.attempt, "succeeded") for job in (jobs[0], jobs[-1])]

    with pytest.raises(NeedsObjectsError) as caught:
        queue.machine.numbered("a", session.birth, Numbered(3, 2, Report(session.lease, outcomes)), queue.now_ms)

    assert caught.value.keys == sorted(segment.key for segment in queue.machine.state.backlog.located.ready())

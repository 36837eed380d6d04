"""Cancel, requeue and discard of jobs that are too large to be in memory together: the first ones, the rest later."""

from __future__ import annotations

from typing import Any

import pytest

from osqueue.core import locator
from osqueue.core.messages import MAX_IDS, Changed, Numbered, Refused, Requeue
from osqueue.core.segment import NeedsObjectsError
from tests.core.queue import Queue, Session

SEGMENT_BYTES = 60_000
LARGE = b'"%b"' % (b"x" * SEGMENT_BYTES)


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    """One that may look up jobs of two large segments together."""
    monkeypatch.setattr(locator, "TOGETHER_BYTES", 5 * SEGMENT_BYTES // 2)
    return Queue(max_attempts=1)


def waiting(session: Session, segments: int) -> list[int]:
    """So many segments of two large jobs; the first job of each."""
    return [session.push(LARGE, LARGE, priority=0)[0] for _ in range(segments)]


def dead(session: Session, count: int, payload: bytes = LARGE) -> list[int]:
    """So many jobs that died, each large one in a segment of its own."""
    ids = []
    for _ in range(count):
        ids += session.push(payload)
        [job] = session.claim()
        session.fail(job)
    return ids


def ids_of(changed: Changed) -> list[int]:
    return [job_id for first, last in changed.ids for job_id in range(first, last + 1)]


def in_memory(queue: Queue) -> int:
    return sum(segment.line.length for segment in queue.machine.state.backlog.segments.values() if segment.jobs)


@pytest.mark.parametrize(("verb", "state"), [("requeue", "ready"), ("discard", None)])
def test_as_many_dead_jobs_are_changed_as_may_be_in_memory_together(queue: Queue, verb: str, state: str | None) -> None:
    session = queue.session()
    ids = dead(session, 5)
    queue.unload()
    answers = []

    while ids:
        answers.append(getattr(session, verb)(*ids))
        ids = ids[len(ids) - answers[-1].left :]

    assert [(ids_of(answer), answer.left) for answer in answers] == [([1, 2], 3), ([3, 4], 1), ([5], 0)]
    assert session.list("dead") == []
    assert [job.state for job in session.list()] == [state] * 5 if state else session.list() == []


def test_what_is_cancelled_together_is_read_together_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locator, "TOGETHER_BYTES", 9 * SEGMENT_BYTES // 2)
    queue = Queue()
    session = queue.session()
    ids = waiting(session, 5)
    queue.unload()

    answer = session.cancel(*ids)

    assert (ids_of(answer), answer.left) == (ids[:2], 3)
    assert in_memory(queue) <= locator.TOGETHER_BYTES
    assert {session.get(job_id).state for job_id in ids[2:]} == {"ready"}


def test_which_ids_are_looked_at_does_not_depend_on_what_is_in_memory(queue: Queue) -> None:
    session = queue.session()
    ids = dead(session, 5)

    in_memory_already = session.requeue(*ids)

    assert (ids_of(in_memory_already), in_memory_already.left) == (ids[:2], 3)


def test_an_operation_that_did_a_part_has_the_same_answer_when_it_is_said_again(queue: Queue) -> None:
    session = queue.session()
    ids = dead(session, 5)
    first = session.requeue(*ids)

    assert session.say(Requeue(ids), number=session.number, acked=0) == first
    queue.reopen()
    session.hello()
    assert session.say(Requeue(ids), number=session.number, acked=0) == first
    assert len(session.list("dead")) == 3


def test_one_job_is_looked_at_however_large_it_is(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    session = queue.session()
    ids = dead(session, 2)
    monkeypatch.setattr(locator, "TOGETHER_BYTES", 1)
    queue.unload()

    assert [ids_of(session.requeue(*ids[at:])) for at in range(2)] == [[1], [2]]


def test_ids_that_are_unknown_are_told_by_the_part_that_looks_at_them(queue: Queue) -> None:
    session = queue.session()
    ids = dead(session, 3)

    first = session.discard(777, *ids, 888)
    second = session.discard(*ids[2:], 888)

    assert (first.unknown, first.left) == ([777], 2)
    assert (second.unknown, second.left) == ([888], 0)


def test_small_jobs_are_changed_as_many_together_as_one_operation_may_name(queue: Queue) -> None:
    session = queue.session()
    session.push(*[b"1"] * (2 * MAX_IDS))
    for job in session.claim(2 * MAX_IDS):
        session.fail(job)
    queue.unload()

    assert session.requeue(*range(1, MAX_IDS + 1)) == Changed([(1, MAX_IDS)])
    assert session.cancel(*range(1, MAX_IDS + 1)) == Changed([(1, MAX_IDS)])


def test_segments_are_read_a_few_at_a_time_to_see_what_is_in_them(queue: Queue) -> None:
    session = queue.session()
    ids = dead(session, 6)
    queue.reopen()
    session.hello()
    needed: list[NeedsObjectsError] = []

    def requeue() -> Any:
        try:
            queue.machine.numbered("a", session.birth, Numbered(session.number + 1, session.number, Requeue(ids)), 0)
        except NeedsObjectsError as error:
            needed.append(error)
            raise

    queue.retry(requeue)

    assert needed
    assert all(sum(len(queue.store[key]) for key in error.keys) <= locator.TOGETHER_BYTES for error in needed)
    assert not needed[0].together, "what was only looked into may leave memory"


def test_an_operation_that_names_too_many_ids_is_refused(queue: Queue) -> None:
    answer = queue.session().requeue(*range(MAX_IDS + 1))

    assert isinstance(answer, Refused)

"""Payloads are views of the object that they were read from: what leaves its segment does not keep the whole of it."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw

from osqueue.core.messages import JobError, Outcome, Verdict
from osqueue.core.model import Job
from tests.core.queue import Queue, Session


def segment_of(session: Session, **options: Any) -> None:
    """A segment of 300 jobs that is read from its bytes, so that its payloads are views of them."""
    session.push(*[b'"%0100d"' % n for n in range(300)], **options)
    session.queue.reopen()
    session.hello()


def is_its_own(job: Job) -> bool:
    """Whether a payload keeps no more than itself in memory."""
    assert isinstance(job.payload, Raw)
    return job.payload.copy() is job.payload


@pytest.mark.parametrize("verdict", ["failed", "dead"])
def test_a_job_that_fails_does_not_keep_the_whole_segment_in_memory_that_it_left(
    queue: Queue, verdict: Verdict
) -> None:
    session = queue.session()
    segment_of(session)
    [job] = session.claim()

    session.report(Outcome(job.id, job.attempt, verdict, error=JobError("ValueError")))

    assert is_its_own(queue.machine.state.backlog.inline.jobs[job.id])


def test_a_job_that_is_requeued_does_not_keep_the_whole_segment_in_memory_that_it_left(queue: Queue) -> None:
    session = queue.session()
    segment_of(session)
    for job in session.claim(100, standing=True):
        session.report(Outcome(job.id, job.attempt, "dead", error=JobError("ValueError")))
    [dead, *_] = [s for s in queue.machine.state.backlog.segments.values() if s.line.kind == "dead"]
    queue.reopen()
    session.hello()

    session.requeue(dead.line.first_id)

    assert is_its_own(queue.machine.state.backlog.inline.jobs[dead.line.first_id])


def test_segments_that_are_split_do_not_keep_the_one_in_memory_that_they_came_from(queue: Queue) -> None:
    session = queue.session()
    segment_of(session, delay_s=40_000)
    segments = queue.machine.state.backlog.segments.values()
    [before] = segments
    queue.now_ms += 39_990_000

    queue.commit()

    assert [segment.line.level < before.line.level for segment in segments] == [True]
    assert all(is_its_own(job) for segment in segments for job in segment.loaded())

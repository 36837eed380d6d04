"""Jobs that a worker has not begun."""

from __future__ import annotations

from osqueue.core.messages import Handout
from osqueue.worker.inbox import Inbox


def inbox_of(*ids: int) -> Inbox:
    inbox = Inbox()
    inbox.put([Handout(job_id, 1, "default", b"", 0) for job_id in ids], 0)
    return inbox


def test_all_are_taken_back_in_their_order():
    inbox = inbox_of(1, 2, 3)

    assert inbox.take_back() == [1, 2, 3]
    assert not inbox.jobs


def test_of_named_jobs_only_those_that_are_here_are_taken_back_and_the_others_stay_in_order():
    inbox = inbox_of(1, 2, 3, 4)

    assert inbox.take_back({4, 2, 9}) == [2, 4]
    assert [job.id for job in inbox.jobs] == [1, 3]


def test_waiting_ends_with_news_and_after_the_end_only_while_jobs_are_left():
    inbox = inbox_of(1)
    assert inbox.wait()

    inbox.end()
    assert inbox.wait()
    inbox.jobs.popleft()
    assert not inbox.wait()

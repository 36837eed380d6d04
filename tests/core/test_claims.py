from __future__ import annotations

import pytest

from osqueue.core.messages import Claim, Granted
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
    reopened.machine.claim("a", Claim(7, ["default"]), reopened.now_ms)
    reopened.machine.settle(reopened.now_ms)

    assert reopened.machine.take_wanted() != set()
    assert reopened.machine.next_alarm_ms() is None


def test_a_claim_that_may_not_wait_ends_empty_when_its_segment_is_damaged(reopened: Queue) -> None:
    session = reopened.session()
    reopened.machine.claim("a", Claim(7, ["default"]), reopened.now_ms)
    reopened.machine.settle(reopened.now_ms)
    (key,) = reopened.machine.take_wanted()
    with pytest.raises(Corrupt):
        reopened.machine.load(key, b"")

    reopened.commit()

    assert [(message.ticket, message.jobs) for message in session.received(Granted)] == [(7, [])]

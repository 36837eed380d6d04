"""A queue of which every listing meets many segments at once."""

from __future__ import annotations

import random

from osqueue.core.messages import Holder, JobError, Outcome
from tests.core.queue import Queue, Session

SPILLED = 3000
"""Dead jobs, and delayed ones with higher ids."""
SLOTS = 100
"""What to make `sealing.MAX_JOBS`, so that so few jobs need many segments."""
DAY_S = 24 * 60 * 60
_HORIZONS_S = [60, 8 * 60, 60 * 60, 8 * 60 * 60, 3 * DAY_S, 30 * DAY_S]
_LOCAL = Holder("boot", "namespace", 1, 1)


def scattered_queue() -> Queue:
    """Delayed and dead jobs in small segments, after a restart; their ids overlap."""
    dice = random.Random(7)
    queue = Queue(max_attempts=1)
    publisher, worker = queue.session(), queue.sessions.setdefault("worker", Session(queue, "worker"))
    worker.hello(holder=_LOCAL)
    publisher.push(*[b'"%0100d"' % n for n in range(SPILLED)])
    jobs = worker.claim(SPILLED, standing=True)
    dice.shuffle(jobs)
    for at in range(0, SPILLED, 100):
        part = [Outcome(job.id, job.attempt, "dead", error=JobError("ValueError", "no")) for job in jobs[at : at + 100]]
        worker.report(*part)
    for _ in range(SPILLED // 10):
        delay_s = dice.uniform(10, dice.choice(_HORIZONS_S))
        publisher.push(*[b'"%0100d"' % n for n in range(10)], delay_s=delay_s)
    queue.reopen()
    publisher.hello()
    return queue

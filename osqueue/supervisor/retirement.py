"""Workers that have done their share, or are too many: each ends in good order, and another takes its slot if wanted.

    up ──so many jobs sent──▶ gets no more ──the last one has ended──▶ told to end ──▶ ended, or killed if it is late
       ──above its memory───▶ gives back what it has not begun ──▶ as above
       ──surplus────────────▶ likewise

Rules:
* No worker is sent more jobs than it may still run; what it gives back it has not run.
* Memory is what the worker tells with its outcomes: between two jobs, as far as it can.
* Ending takes at most ``grace``: finalizers run then. This holds for a stop as well (`osqueue.supervisor.ending`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from osqueue.supervisor.crew import Crew, Member
from osqueue.supervisor.effects import Effect, KillWorker, SendWorker
from osqueue.worker.messages import End, GiveBack

LEAST_END_NS = 1_000_000_000
"""How long a worker may take to end, however short the grace: finalizers run, streams are flushed."""


class Retirement:
    """Decides which workers are to end, and sees every worker that is told to end to its end.

    Args:
        max_jobs: how many jobs a worker may run; None for no limit.
        max_memory_bytes: above how much resident memory a worker is replaced; None for no limit.
        grace_ns: how long ending may take.
    """

    def __init__(self, *, max_jobs: int | None, max_memory_bytes: int | None, grace_ns: int) -> None:
        self._max_jobs = sys.maxsize if max_jobs is None else max_jobs
        self._max_memory_bytes = sys.maxsize if max_memory_bytes is None else max_memory_bytes
        self._grace_ns = grace_ns

    def may_have(self, member: Member) -> int:
        """How many more jobs the worker may be sent."""
        return 0 if member.worn else self._max_jobs - member.finished - len(member.sent)

    def measured(self, member: Member, rss_bytes: int) -> Iterator[Effect]:
        """The worker had so much memory after a job; 0 if it did not say."""
        if rss_bytes <= self._max_memory_bytes or member.worn:
            return
        member.worn = True
        if member.sent:
            yield SendWorker(member.slot, GiveBack(0))

    def advance(self, crew: Crew, now_ns: int) -> Iterator[Effect]:
        """What is to be done now."""
        for member in crew.standing():
            if not member.sent and (crew.is_surplus(member) or self.may_have(member) == 0):
                member.end(now_ns + max(self._grace_ns, LEAST_END_NS))
                yield SendWorker(member.slot, End())
        for member in crew.present():
            if member.is_late(now_ns):
                member.condemn("stop")
                yield KillWorker(member.slot)

    def next_ns(self, crew: Crew) -> int | None:
        """When `advance` must look again, if nothing happens before."""
        ends = (m.end_by_ns for m in crew.present() if m.state == "ending" and m.end_by_ns is not None)
        return min(ends, default=None)

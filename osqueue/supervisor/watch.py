"""What a look at the running jobs brings up: timeouts, cancelled jobs that do not stop, workers stuck on one job.

The blame file says at any time which job each worker is on and since when, so no worker needs to tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec import Struct

from osqueue.blame import Blamed
from osqueue.core.messages import Handout
from osqueue.supervisor.crew import Crew, KilledFor, Member
from osqueue.worker.messages import GiveBack, WriteOut

_NS_PER_S = 1_000_000_000
_STUCK_NS = 20_000_000
_AGAIN_NS = 20_000_000

RunningOn = Callable[[int], Blamed | None]
"""Which job a slot's worker is on now, by the blame file."""


class Due(Struct, frozen=True):
    """What is to be done about one worker: kill it for the sake of a job, or send it a message."""

    member: Member
    kill_for: KilledFor | None = None
    job_id: int = 0
    message: GiveBack | WriteOut | None = None


class Watch:
    """Looks at a worker only when something may have come up; most messages make the next look later.

    Args:
        timeout_s: the pool's hard timeout, for jobs without one of their own.
        running_on: which job a slot's worker is on now.
    """

    def __init__(self, timeout_s: float | None, running_on: RunningOn) -> None:
        self._timeout_s = timeout_s
        self._running_on = running_on

    def timeout_s(self, job: Handout) -> float | None:
        """The job's hard timeout."""
        return self._timeout_s if job.timeout_s is None else job.timeout_s

    def current(self, member: Member) -> Blamed | None:
        """What the member's worker is on, if it is one of the jobs that it was sent."""
        blamed = self._running_on(member.slot) if member.sent else None
        if blamed is None or blamed.pid != member.pid:
            return None  # the slot's last user wrote that
        job = member.sent.get(blamed.job_id)
        return None if job is None or job.attempt != blamed.attempt else blamed

    def due(self, crew: Crew, now_ns: int, *, hungry: bool) -> Iterator[Due]:
        """What is to be done now.

        Args:
            hungry: a worker is idle, and there is nothing to give it but what others have not begun.
        """
        for member in crew.standing():
            look_ns = self._look_ns(member, hungry=hungry)
            if look_ns is not None and look_ns <= now_ns:
                member.looked_ns = now_ns
                yield from self._look(member, now_ns, hungry=hungry)

    def next_ns(self, crew: Crew, *, hungry: bool) -> int | None:
        """When something may come up."""
        looks = (self._look_ns(member, hungry=hungry) for member in crew.standing())
        return min((look for look in looks if look is not None), default=None)

    def _look(self, member: Member, now_ns: int, *, hungry: bool) -> Iterator[Due]:
        current = self.current(member)
        if current is None:
            return
        member.since_ns = max(member.since_ns, current.started_ns)
        until_ns = member.doomed.get(current.job_id)
        if until_ns is not None and now_ns >= until_ns:
            yield Due(member, kill_for="cancel", job_id=current.job_id)
            return
        timeout_s = self.timeout_s(member.sent[current.job_id])
        if timeout_s is not None and now_ns >= current.started_ns + timeout_s * _NS_PER_S:
            yield Due(member, kill_for="timeout", job_id=current.job_id)
            return
        if len(member.sent) > 1 and now_ns >= current.started_ns + _STUCK_NS:
            yield from self._unstick(member, hungry=hungry)

    def _unstick(self, member: Member, *, hungry: bool) -> Iterator[Due]:
        if hungry and not member.stuck:
            member.stuck = member.nudged = True
            yield Due(member, message=GiveBack(0))
        elif not member.nudged:
            member.nudged = True
            yield Due(member, message=WriteOut())

    def _look_ns(self, member: Member, *, hungry: bool) -> int | None:
        """The earliest time at which something can be due: nothing it runs began before ``since_ns``."""
        if not member.sent:
            return None
        looks: list[float] = []
        if len(member.sent) > 1 and (not member.nudged or (hungry and not member.stuck)):
            looks.append(member.since_ns + _STUCK_NS)
        timeouts_s = [t for t in (self._timeout_s, member.least_timeout_s) if t is not None]
        if timeouts_s:
            looks.append(member.since_ns + min(timeouts_s) * _NS_PER_S)
        if member.doomed:
            looks.append(min(member.doomed.values()))
        return max(int(min(looks)), member.looked_ns + _AGAIN_NS) if looks else None

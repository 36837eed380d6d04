"""Claims and leases: who waits for jobs, and who gets them; `osqueue.core.ending` says how a lease ends.

Rules:
* A claim is parked until there is a job for it; a push and the claim that it satisfies share one commit.
* Claims are not numbered: the lease is the memory. After a reconnect the holder names what it has, is sent what it
  lacks, and is told what it no longer holds.
* Leases take room in the root: while there is none, claims wait, and one that cannot wait longer is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Literal

from osqueue.core import policy
from osqueue.core.ending import LeaseEndings
from osqueue.core.lanes import Taken
from osqueue.core.leases import Lease
from osqueue.core.locator import Place
from osqueue.core.messages import (
    Answer,
    Beaten,
    Claim,
    Granted,
    Handout,
    Heartbeat,
    Hello,
    Holder,
    Lost,
    Refused,
    Reply,
    Welcome,
)
from osqueue.core.model import INLINE, LeaseLine
from osqueue.core.policy import is_last_attempt
from osqueue.core.segment import NeedsObjectsError
from osqueue.core.settings import QueueSettings
from osqueue.core.state import QueueState

GRANT_JOBS = 8192
GRANT_BYTES = 1024 * 1024
WINDOW_BYTES = 16 * 1024 * 1024
"""Payload bytes that one holder may have; more wait, however many jobs it asked for."""


LOST = Refused("session_lost", "this client was silent while others took its place; what became of it is unknown")

NO_ROOM = "claims hold as much as the queue can remember: report what is claimed, or claim more jobs at a time"

Obstacle = Literal["no jobs", "objects", "no room"]
"""What keeps a claim from being granted now: its jobs' objects are being read, or the root has no room for a lease."""


class Parked:
    """A claim that waits."""

    def __init__(self, session: str, birth: int, claim: Claim, now_ms: int) -> None:
        self.session = session
        self.birth = birth
        self.ticket = claim.ticket
        self.tasks = frozenset(claim.tasks)
        self.jobs = claim.jobs
        self.standing = claim.standing
        self.worker = policy.clip(claim.worker)
        self.obstacle: Obstacle = "no jobs"
        self.deadline_ms = None if claim.standing else now_ms + round(max(0.0, claim.wait_s) * 1000)


class Claims:
    """Parked claims (memory) over leases (durable)."""

    def __init__(self, state: QueueState, endings: LeaseEndings) -> None:
        self._state = state
        self._endings = endings
        self._parked: list[Parked] = []
        self._holders: dict[str, Holder | None] = {}

    # --------------------------------------------------------------------------------------------------- connections

    def hello(self, hello: Hello, now_ms: int) -> None:
        """A holder is here, perhaps again.

        Raises:
            NeedsObjectsError: what its lease holds is not in memory; nothing has changed.
        """
        state = self._state
        lease = state.leases.standing(hello.session)
        places = state.places(lease.runs) if lease is not None else []
        self.disconnected(hello.session)
        self._take_back_unheard(hello, now_ms)
        self._holders[hello.session] = hello.holder
        welcome = Welcome(
            hello.birth or state.frame.version,
            state.frame.epoch,
            now_ms,
            lease.number if lease is not None else 0,
            state.settings.max_payload_bytes,
            round(state.settings.lease_s * 1000),
            bounded=state.settings.max_queued is not None,
        )
        state.outbox.append((hello.session, welcome))
        if lease is not None:
            state.leases.extend(lease, now_ms)
        self._compare(hello, lease, places)

    def _take_back_unheard(self, hello: Hello, now_ms: int) -> None:
        """Grants of single claims that never reached their claimer."""
        for lease in self._state.leases.of_session(hello.session):
            if not lease.standing and lease.number not in hello.leases:
                self._endings.end(lease, [], now_ms, marks=False)

    def _compare(self, hello: Hello, lease: Lease | None, places: list[Place]) -> None:
        # As attempts, not as jobs: a holder may still report one attempt of a job while it has the next one.
        ours = {(place.job.id, place.job.attempts + 1): place for place in places}
        held = set(hello.held)
        known = {job_id for job_id, _ in held & ours.keys()}
        # First what is lost, since the next attempt of the same job may follow.
        if lost := list(dict.fromkeys(job_id for job_id, _ in hello.held if job_id not in known)):
            self._state.outbox.append((hello.session, Lost(lost)))
        lacking = [place for attempt, place in ours.items() if attempt not in held]
        if lacking and lease is not None:
            for part in _messages([_handout(place, lease, self._state.settings) for place in lacking]):
                self._state.outbox.append((hello.session, Granted(0, lease.number, part)))

    def disconnected(self, session: str) -> None:
        """The session's connection has ended: its claims wait no longer; its leases are as they were."""
        self._parked = [parked for parked in self._parked if parked.session != session]
        self._holders.pop(session, None)

    def goodbye(self, session: str, now_ms: int) -> None:
        """The session ends: what it was only handed is given back, what it had claimed singly is charged.

        Raises:
            NeedsObjectsError: jobs to be charged are not in memory; nothing has changed.
        """
        leases = self._state.leases.of_session(session)
        self._state.places(run for lease in leases if not lease.standing for run in lease.runs)
        for lease in leases:
            self._endings.end(lease, [] if lease.standing else None, now_ms, marks=False)
        self.disconnected(session)

    # -------------------------------------------------------------------------------------------------------- claims

    def claim(self, session: str, birth: int, claim: Claim, now_ms: int) -> None:
        """Park a claim; a standing one adds to what was asked before, or takes it back."""
        for parked in self._parked:
            if claim.standing and parked.standing and parked.session == session:
                parked.jobs = parked.jobs + claim.jobs if claim.tasks else 0
                parked.ticket = claim.ticket
                parked.tasks = frozenset(claim.tasks)
                return
        self._parked.append(Parked(session, birth, claim, now_ms))

    def grant(self, now_ms: int) -> None:
        """Give parked claims what is ready; end those whose time is over."""
        self._parked = [parked for parked in self._parked if self._stays(parked, now_ms)]

    def _stays(self, parked: Parked, now_ms: int) -> bool:
        """Grant what can be granted to one claim; says whether it is to be looked at again."""
        if self._is_lost(parked):
            self._state.outbox.append((parked.session, Answer(0, LOST)))
            return False
        parked.obstacle = self._grant(parked)
        if parked.standing:
            return True
        if parked.jobs == 0:
            return False
        if parked.deadline_ms is None or parked.deadline_ms > now_ms or parked.obstacle == "objects":
            return True
        if parked.obstacle == "no jobs" and self._state.backlog.deferred.awaits(parked.tasks):
            # Overdue jobs count as delayed until their segment has been read or split.
            parked.obstacle = "objects"
            return True
        no_room = parked.obstacle == "no room"
        none = Reply(parked.ticket, Refused("queue_full", NO_ROOM)) if no_room else Granted(parked.ticket, 0, [])
        self._state.outbox.append((parked.session, none))
        return False

    def _is_lost(self, parked: Parked) -> bool:
        """Whether its session was forgotten while it waited: it begins anew before it holds anything."""
        return self._state.sessions.is_lost(parked.session, parked.birth)

    def _knows(self, parked: Parked) -> bool:
        """See to it that the root knows the session of a lease to come, so that it is not forgotten with the lease."""
        sessions = self._state.sessions
        session = sessions.get(parked.session)
        if session is None:
            session = sessions.new(parked.session, parked.birth)
            session.used = self._state.frame.version
            if not sessions.make_room(session, self._state.has_lease):
                return False
            sessions.add(session)
        return True

    def _grant(self, parked: Parked) -> Obstacle:
        """Give a claim what is ready; says why it is not more."""
        state = self._state
        lease = state.leases.standing(parked.session) if parked.standing else None
        while parked.jobs > 0 and state.has_ready(parked.tasks):
            if not (state.leases.have_room() and self._knows(parked)):
                return "no room" if state.backlog.lanes.have(parked.tasks) else "no jobs"
            window = WINDOW_BYTES - (lease.payload_bytes if lease is not None else 0)
            taken = Taken(min(parked.jobs, GRANT_JOBS), min(GRANT_BYTES, window), state.settings)
            state.backlog.lanes.take(parked.tasks, taken)
            state.wanted |= taken.wanted
            if not taken.handouts:
                return "objects" if taken.wanted else "no jobs"
            lease = self._lend(parked, lease, taken)
            state.outbox.append((parked.session, Granted(parked.ticket, lease.number, taken.handouts)))
            parked.jobs = parked.jobs - len(taken.handouts) if parked.standing else 0
        return "no jobs"

    def _lend(self, parked: Parked, lease: Lease | None, taken: Taken) -> Lease:
        state = self._state
        if lease is None:
            holder = self._holders.get(parked.session) if parked.standing else None
            line = LeaseLine(
                state.frame.next_lease, parked.session, [], parked.worker, standing=parked.standing, holder=holder
            )
            state.frame.next_lease += 1
            lease = state.leases.add(line)
        for object_, first, last, attempt, alone in taken.runs:
            lease.runs.add(object_, first, last, attempt, alone=alone)
        lease.payload_bytes += taken.payload_bytes
        for task, count in Counter(job.task for job in taken.handouts).items():
            state.counts.move(task, "ready", "leased", count)
        state.changed = True
        return lease

    def heartbeat(self, session: str, beat: Heartbeat, now_ms: int) -> None:
        """Extend a lease; costs no write, and of a standing one no read either.

        Raises:
            NeedsObjectsError: jobs of a bare claim are not in memory.
        """
        lease = self._state.leases.get(beat.lease)
        held = lease is not None and lease.session == session
        if lease is not None and held:
            self._state.leases.extend(lease, now_ms)
            # A supervisor hears of a cancelled job by itself; the holder of a bare claim asks in this way alone.
            held = lease.standing or self._holds_all(lease, beat.running)
            # Whose end is being reported does not wait again meanwhile.
            begun = dict.fromkeys((*lease.begun, *beat.running))
            lease.begun = {job_id: task for job_id in begun if (task := self._task_held(lease, job_id)) is not None}
            lease.last_named = beat.running
            lease.progress = {one.id: one for one in beat.progress if one.id in lease.begun}
        self._state.outbox.append((session, Beaten(beat.ticket, held)))

    def next_deadline_ms(self) -> int | None:
        # One whose objects are being read ends when they have arrived, not by time.
        waiting = [parked for parked in self._parked if parked.obstacle != "objects"]
        deadlines = [parked.deadline_ms for parked in waiting if parked.deadline_ms is not None]
        return min(deadlines, default=None)

    # ---------------------------------------------------------------------------------------------------------- private

    def _holds_all(self, lease: Lease, ids: list[int]) -> bool:
        places = [self._state.find(job_id) for job_id in ids]
        return all(place is not None and lease.runs.find(place.object, place.slot) for place in places)

    def _task_held(self, lease: Lease, job_id: int) -> str | None:
        """The task of a job that the lease holds; None if it holds it no more. No segment is read for that."""
        try:
            place = self._state.find(job_id)
        except NeedsObjectsError:
            return lease.begun.get(job_id) or self._task_nearby(lease, job_id)
        return place.job.task if place is not None and lease.runs.find(place.object, place.slot) else None

    def _task_nearby(self, lease: Lease, job_id: int) -> str | None:
        """The task of most jobs that the lease holds in segments which may hold this one; None if it holds none there.

        Where they are of several tasks it is a guess. Counts of what runs are never above what is leased of a task.
        """
        segments = self._state.backlog.segments
        near = [n for n in lease.runs.objects() if n != INLINE and segments[n].may_hold(job_id)]
        tasks = Counter[str]()
        for task, count in self._state.backlog.by_task((n, *run) for n in near for run in lease.runs.of(n)):
            tasks[task] += count
        return max(tasks, key=tasks.__getitem__, default=None)


def _handout(place: Place, lease: Lease, settings: QueueSettings) -> Handout:
    run = lease.runs.find(place.object, place.slot)
    job = place.job
    alone = run is not None and run[3]
    last = is_last_attempt(job, settings)
    return Handout(job.id, job.attempts + 1, job.task, job.payload_bytes(), job.pushed_ms, job.timeout_s, alone, last)


def _messages(jobs: list[Handout]) -> Iterable[list[Handout]]:
    part: list[Handout] = []
    size = 0
    for job in jobs:
        if part and (len(part) == GRANT_JOBS or size + len(job.payload) > GRANT_BYTES):
            yield part
            part, size = [], 0
        part.append(job)
        size += len(job.payload)
    if part:
        yield part

"""What becomes of a lease that ends without its holder's word.

Rules:
* Jobs that are known to have run are charged; jobs that were only handed out are not.
* Where nothing is known nobody pays the first time: those jobs are marked, go out alone, and are charged if their
  lease ends so again.
* Jobs in damaged segments go back uncharged: nobody can say what they are.
"""

from __future__ import annotations

from collections.abc import Iterable

from osqueue.core.leases import Lease
from osqueue.core.locator import Place
from osqueue.core.messages import JobError, Outcome
from osqueue.core.segment import NeedsObjectsError
from osqueue.core.state import QueueState

Attempt = tuple[int, int]
"""A job's id, and the number of a run of it."""


class LeaseEndings:
    """Ends leases; ``seed`` makes the dice of the retry jitter."""

    def __init__(self, state: QueueState, seed: str) -> None:
        self._state = state
        self._seed = seed

    def expire(self, now_ms: int) -> None:
        """End the leases whose term is over."""
        for lease in self._state.leases.expired(now_ms):
            try:
                self.end(lease, self._ran(lease) if lease.standing else None, now_ms, marks=False)
            except NeedsObjectsError as error:
                lease.needs = frozenset(error.keys)
                self._state.wanted |= lease.needs

    def _ran(self, lease: Lease) -> list[Attempt]:
        """What its last heartbeat named."""
        places = self._state.locate(list(lease.last_named))
        return [(place.job.id, place.job.attempts + 1) for place in places if place is not None]

    def end(self, lease: Lease, charged: Iterable[Attempt] | None, now_ms: int, *, marks: bool) -> None:
        """End one lease.

        Args:
            lease: the lease.
            charged: ids and attempts that are known to have run; None for all of them.
            now_ms: the time.
            marks: nothing is known of who ran: charge those that were marked before, mark the others.

        Raises:
            NeedsObjectsError: jobs to be charged are not in memory; nothing has changed.
        """
        state = self._state
        for place in self._who_pays(lease, charged, marks=marks):
            released = lease.release(place, place.job.attempts + 1)
            assert released is not None, "the lease holds whom it charges"
            error = JobError("HostLost", "the job's holder was lost while it ran the job")
            outcome = Outcome(place.job.id, place.job.attempts + 1, "failed", error=error, worker=lease.worker)
            state.charge(place, outcome, now_ms=now_ms, seed=self._seed)
        state.give_back((*run[:4], run[4] or marks) for run in lease.runs)
        state.leases.end(lease)
        state.changed = True

    def _who_pays(self, lease: Lease, charged: Iterable[Attempt] | None, *, marks: bool) -> list[Place]:
        if marks:
            return self._state.places(run for run in lease.runs if run[4])
        if charged is None:
            return self._state.places(lease.runs)
        attempts = list(dict.fromkeys(charged))
        places = self._state.locate([job_id for job_id, _ in attempts])
        found = zip(places, (attempt for _, attempt in attempts), strict=True)
        return [place for place, attempt in found if place is not None and lease.holds(place, attempt)]

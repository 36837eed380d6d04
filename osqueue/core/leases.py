"""Leases: who has taken which jobs, and until when.

Rules:
* Ownership is durable, deadlines are not: after a restart, or a tick that comes late, a lease has a full term again.
* A local supervisor's lease has no deadline; it ends with its process.
* A lease's number is never used again.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from osqueue.core.locator import Place
from osqueue.core.messages import Progress
from osqueue.core.model import LeaseLine
from osqueue.core.runs import Run, Runs, expand

MAX_BYTES = 8 * 1024
"""Half of the root's part for leases: what they hold may come back, and then stands beside new ones for a while."""
_LEASE_BYTES = 120
_HOLDER_BYTES = 240


class Lease:
    """What one holder has."""

    def __init__(self, line: LeaseLine) -> None:
        self.number = line.number
        self.session = line.session
        self.worker = line.worker
        self.standing = line.standing
        self.holder = line.holder
        self.runs = Runs(expand(line.runs))
        self.deadline_ms: int | None = None
        self.begun: dict[int, str] = {}
        """What has begun, as its holder has said, and has not ended, as far as that is known: ids, with their tasks."""
        self.last_named: list[int] = []
        """What its last heartbeat named as running."""
        self.progress: dict[int, Progress] = {}
        """How far some of the begun ones are."""
        self.is_remote = False
        self.payload_bytes = 0
        self.needs: frozenset[str] = frozenset()
        """Keys of objects that are being read: its term is over, and it ends when they are here."""

    @property
    def has_deadline(self) -> bool:
        return self.holder is None or self.is_remote

    def holds(self, place: Place, attempt: int) -> bool:
        """Whether it holds this attempt of a job."""
        run = self.runs.find(place.object, place.slot)
        return run is not None and run[2] == attempt

    def release(self, place: Place, attempt: int) -> Run | None:
        """It no longer holds this attempt of a job; returns the run that the job was in, None if it was in none."""
        run = self.runs.remove(place.object, place.slot, attempt)
        if run is not None:
            self.begun.pop(place.job.id, None)
            self.progress.pop(place.job.id, None)
            self.payload_bytes = max(0, self.payload_bytes - place.job.payload_size())
        return run

    def potential_bytes(self) -> int:
        """How much its line may take."""
        return _LEASE_BYTES + self.runs.potential_bytes() + (_HOLDER_BYTES if self.holder is not None else 0)

    def line(self) -> LeaseLine:
        return LeaseLine(
            self.number, self.session, self.runs.lines(), self.worker, standing=self.standing, holder=self.holder
        )


class Leases:
    """All leases. Not thread-safe; owned by the machine."""

    def __init__(self, lines: Iterable[LeaseLine], *, term_ms: int, now_ms: int) -> None:
        self._term_ms = term_ms
        self._leases = {line.number: Lease(line) for line in lines}
        self._granted: set[int] = set()
        """New ones that no commit has taken along yet."""
        self.extend_all(now_ms)

    def get(self, number: int) -> Lease | None:
        return self._leases.get(number)

    def all(self) -> list[Lease]:
        return list(self._leases.values())

    def of_session(self, session: str) -> list[Lease]:
        return [lease for lease in self._leases.values() if lease.session == session]

    def standing(self, session: str) -> Lease | None:
        """The session's one lease that is added to."""
        return next((lease for lease in self.of_session(session) if lease.standing), None)

    def add(self, line: LeaseLine) -> Lease:
        """A new lease; its term begins when its commit has landed."""
        lease = self._leases[line.number] = Lease(line)
        self._granted.add(line.number)
        return lease

    def end(self, lease: Lease) -> None:
        del self._leases[lease.number]
        self._granted.discard(lease.number)

    def take_granted(self) -> set[int]:
        """The leases that a commit which is planned now makes durable."""
        granted, self._granted = self._granted, set()
        return granted

    def landed(self, granted: Iterable[int], now_ms: int) -> None:
        """A commit has landed: terms of the leases that it granted begin."""
        for number in granted:
            if (lease := self._leases.get(number)) is not None:
                self.extend(lease, now_ms)

    def treat_as_remote(self, lease: Lease, now_ms: int) -> None:
        """Nobody here can tell whether the lease's holder lives: it has a term like any other."""
        lease.is_remote = True
        self.extend(lease, now_ms)

    def extend(self, lease: Lease, now_ms: int) -> None:
        lease.deadline_ms = now_ms + self._term_ms if lease.has_deadline else None
        lease.needs = frozenset()

    def extend_all(self, now_ms: int) -> None:
        """A full term again for every lease whose term has begun."""
        for lease in self._leases.values():
            if lease.number not in self._granted:
                self.extend(lease, now_ms)

    def expired(self, now_ms: int) -> list[Lease]:
        return [x for x in self._leases.values() if x.deadline_ms is not None and x.deadline_ms <= now_ms]

    def next_deadline_ms(self) -> int | None:
        alarms = [x.deadline_ms for x in self._leases.values() if x.deadline_ms is not None and not x.needs]
        return min(alarms, default=None)

    def needs(self) -> set[str]:
        """Keys of objects that leases wait for whose term is over: they end when these have been read."""
        return {key for lease in self._leases.values() for key in lease.needs}

    def have_room(self) -> bool:
        """Whether the root has room for more runs; while not, claims wait."""
        return sum(lease.potential_bytes() for lease in self._leases.values()) <= MAX_BYTES

    def held(self) -> Runs:
        """Every slot that some lease holds."""
        return Runs([run for lease in self._leases.values() for run in lease.runs])

    def encoded(self) -> bytes:
        return msgspec.json.encode([lease.line() for lease in self._leases.values()])

"""A segment in memory: its line in the root and, while loaded, its jobs; and the bounded set of loaded ones."""

from __future__ import annotations

from collections.abc import Iterable

from osqueue.core.model import Job, SegmentLine, Span
from osqueue.core.objects import segment_key
from osqueue.errors import Corrupt

MAX_JOBS = 10_000
MAX_BYTES = 4 * 1024 * 1024
CACHE_BYTES = 32 * 1024 * 1024


class NeedsObjectsError(Exception):
    """An operation needs objects that are not in memory: it has changed nothing; load ``keys`` and offer it again."""

    def __init__(self, keys: Iterable[str]) -> None:
        super().__init__()
        self.keys = sorted(set(keys))


class Segment:
    """One immutable run of waiting jobs, of which some may have left."""

    def __init__(self, line: SegmentLine, jobs: list[Job] | None = None) -> None:
        self.line = line
        self.number = line.number
        self.key = segment_key(line.number, line.epoch)
        self.jobs = jobs
        self.leased = 0
        self.holes = 0
        self.damaged = False
        self.stored = jobs is None
        """Whether its object has landed, so that its jobs may be dropped from memory and read again."""
        self._slots: dict[int, int] | None = None

    @property
    def slots(self) -> int:
        """Jobs that were ever in here."""
        return sum(span.count for span in self.line.spans)

    @property
    def waiting(self) -> int:
        """Jobs that nobody has taken."""
        return sum(span.count - span.taken for span in self.line.spans) - self.holes

    def load(self, jobs: list[Job]) -> None:
        self.jobs = jobs

    def unload(self) -> None:
        self.jobs = None
        self._slots = None

    def loaded(self) -> list[Job]:
        """Its jobs, by slot.

        Raises:
            NeedsObjectsError: they are not in memory.
            Corrupt: the object is damaged or missing.
        """
        if self.damaged:
            raise self.damage()
        if self.jobs is None:
            raise NeedsObjectsError([self.key])
        return self.jobs

    def damage(self) -> Corrupt:
        """The error of whoever needs its jobs while nobody can read them."""
        error = Corrupt(f"a segment is damaged or missing; see `osqueue verify` key={self.key}")
        error.key = self.key
        return error

    def slot_of(self, job_id: int) -> int | None:
        """The slot of a job that was ever in here.

        Raises:
            NeedsObjectsError: its jobs are not in memory.
        """
        guess = job_id - self.line.first_id
        jobs = self.loaded()
        if guess < len(jobs) and jobs[guess].id == job_id:
            return guess
        if self._slots is None:
            self._slots = {job.id: slot for slot, job in enumerate(jobs)}
        return self._slots.get(job_id)

    def span_of(self, slot: int) -> Span:
        """The lane's span that holds a slot."""
        for span in self.line.spans:
            if slot < span.first + span.count:
                return span
        raise IndexError(slot)


class LoadedSegments:
    """Which segments are in memory: at most `CACHE_BYTES` of them, the longest unused leave first."""

    def __init__(self, limit_bytes: int = CACHE_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._bytes = 0
        self._segments: dict[int, Segment] = {}

    def touch(self, segment: Segment) -> None:
        """Note that a loaded segment was used."""
        if self._segments.pop(segment.number, None) is None:
            self._bytes += segment.line.length
        self._segments[segment.number] = segment

    def forget(self, segment: Segment) -> None:
        if self._segments.pop(segment.number, None) is not None:
            self._bytes -= segment.line.length
        segment.unload()

    def trim(self, keep: set[str]) -> None:
        """Unload what is beyond the limit, but for the most recent, ``keep``, and what the store does not have yet."""
        if self._bytes <= self._limit_bytes:
            return
        for segment in list(self._segments.values())[:-1]:
            if segment.stored and segment.key not in keep:
                self.forget(segment)
            if self._bytes <= self._limit_bytes:
                return

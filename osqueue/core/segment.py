"""A segment in memory: its line in the root and, while loaded, its jobs; and the bounded set of loaded ones.

What a spilled segment's look-ups need, where an id stands and when a job is due, stays in memory once it was read.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence

from osqueue.core.model import Job, SegmentLine, Span
from osqueue.core.objects import segment_key
from osqueue.core.runs import Run
from osqueue.errors import Corrupt

MAX_JOBS = 10_000
MAX_BYTES = 4 * 1024 * 1024
CACHE_BYTES = 32 * 1024 * 1024


class NeedsObjectsError(Exception):
    """An operation needs objects that are not in memory: load ``keys`` and offer it again.

    It has changed no job and has no answer; `osqueue.core.machine` says what may stand already.

    Attributes:
        together: whether what it asked for before must be in memory too by then.
    """

    def __init__(self, keys: Iterable[str], *, together: bool = True) -> None:
        super().__init__()
        self.keys = sorted(set(keys))
        self.together = together


class IdIndex:
    """Slots of jobs by id, for a segment whose ids leave gaps: 16 bytes a job."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        order = sorted(range(len(jobs)), key=lambda slot: jobs[slot].id)
        self._ids = array("q", (jobs[slot].id for slot in order))
        self._slots = array("l", order)

    def slot_of(self, job_id: int) -> int | None:
        """The slot of a job; None if it was never in here."""
        at = bisect_left(self._ids, job_id)
        return self._slots[at] if at < len(self._ids) and self._ids[at] == job_id else None

    def between(self, after: int, last: int) -> Sequence[int]:
        """The slots of the jobs with ids above ``after`` up to ``last``, by id."""
        return self._slots[bisect_right(self._ids, after) : bisect_right(self._ids, last)]


class Dues:
    """When the jobs of a deferred segment are due, and how far they are ready, span by span: 8 bytes a job."""

    def __init__(self, line: SegmentLine, jobs: Sequence[Job]) -> None:
        self._spans = line.spans
        self._times = [array("q", _due_times(span, jobs)) for span in line.spans]
        self._ready = [bisect_right(times, line.woken_ms) for times in self._times]

    def end_of(self, span: Span) -> int:
        """The slot below which the span's jobs are due."""
        return span.first + self._ready[self._at(span)]

    def _at(self, span: Span) -> int:
        return next(at for at, one in enumerate(self._spans) if one is span)

    def wake(self, now_ms: int, holes: Sequence[Run]) -> Iterator[tuple[str, int]]:
        """Make ready what is due by now; how many jobs of which task that is, without those that have left early."""
        for at, (span, times, _) in enumerate(self._all()):
            before = max(self._ready[at], span.taken)
            self._ready[at] = bisect_right(times, now_ms, before)
            if self._ready[at] > before:
                first, last = span.first + before, span.first + self._ready[at] - 1
                yield span.task, _slots_without(holes, first, last)

    def delayed(self, holes: Sequence[Run]) -> Iterator[tuple[str, int]]:
        """How many jobs of which task are not due yet, without those that have left early."""
        for span, times, ready in self._all():
            first, last = span.first + max(ready, span.taken), span.first + len(times) - 1
            yield span.task, _slots_without(holes, first, last)

    def next_ms(self) -> int | None:
        """When the next job is due."""
        following = ((times, max(ready, span.taken)) for span, times, ready in self._all())
        return min((times[at] for times, at in following if at < len(times)), default=None)

    def _all(self) -> Iterator[tuple[Span, array[int], int]]:
        return zip(self._spans, self._times, self._ready, strict=True)


def _slots_without(holes: Sequence[Run], first: int, last: int) -> int:
    """How many slots from ``first`` to ``last`` are no holes."""
    return last - first + 1 - sum(max(0, min(last, run[1]) - max(first, run[0]) + 1) for run in holes)


def _due_times(span: Span, jobs: Sequence[Job]) -> Iterator[int]:
    """Of a span's jobs; those that have been handed out, in whatever order, come first and are due."""
    for at in range(span.count):
        yield 0 if at < span.taken else jobs[span.first + at].due_ms


class Segment:
    """One immutable run of jobs, of which some may have left."""

    def __init__(self, line: SegmentLine, jobs: list[Job] | None = None) -> None:
        self.line = line
        self.number = line.number
        self.key = segment_key(line.number, line.epoch)
        self.jobs: list[Job] | None = None
        self.leased = 0
        self.holes = 0
        self.damaged = False
        self.stored = jobs is None
        """Whether its object has landed, so that its jobs may be dropped from memory and read again."""
        self.dues: Dues | None = None
        """Of a deferred one that has been in memory."""
        self._index: IdIndex | None = None
        if jobs is not None:
            self.load(jobs)

    @property
    def spilled(self) -> bool:
        """Whether its jobs were deferred or dead before they were written here, so that its ids overlap others'."""
        return self.line.kind != "ready"

    @property
    def indexed(self) -> bool:
        """Whether `slot_of` can tell where a job stands."""
        return self._index is not None or self.jobs is not None

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
        if self.spilled and self._index is None:
            self._index = IdIndex(jobs)
        if self.line.kind == "deferred" and self.dues is None:
            self.dues = Dues(self.line, jobs)

    def unload(self) -> None:
        self.jobs = None
        if not self.spilled:
            self._index = None

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

    def may_hold(self, job_id: int) -> bool:
        """Whether a job's id lies among those of its jobs."""
        return self.line.first_id <= job_id <= self.line.last_id

    def slot_of(self, job_id: int) -> int | None:
        """The slot of a job that was ever in here.

        Raises:
            NeedsObjectsError: its jobs are not in memory, nor is an index of them.
        """
        if self._index is None:
            jobs = self.loaded()
            guess = job_id - self.line.first_id
            if guess < len(jobs) and jobs[guess].id == job_id:
                return guess
            self._index = IdIndex(jobs)
        return self._index.slot_of(job_id)

    def slots_between(self, after: int, last: int) -> Sequence[int]:
        """The slots of all jobs that were ever in here with ids above ``after`` up to ``last``, by id.

        Raises:
            NeedsObjectsError: its jobs are not in memory, nor is an index of them.
        """
        if self._index is None:
            self._index = IdIndex(self.loaded())
        return self._index.between(after, last)

    def span_of(self, slot: int) -> Span:
        """The span that holds a slot."""
        for span in self.line.spans:
            if slot < span.first + span.count:
                return span
        raise IndexError(slot)

    def is_untaken(self, slot: int) -> bool:
        """Whether nobody has ever taken the slot; its job may still have left early."""
        span = self.span_of(slot)
        return slot >= span.first + span.taken

    def is_delayed(self, slot: int) -> bool:
        """Whether the time of an untaken slot's job has not come."""
        return self.dues is not None and slot >= self.dues.end_of(self.span_of(slot))


class LoadedSegments:
    """Which segments are in memory: at most `CACHE_BYTES` of them, the longest unused leave first."""

    def __init__(self) -> None:
        self._limit_bytes = CACHE_BYTES
        self._bytes = 0
        self._segments: dict[int, Segment] = {}

    def touch(self, segment: Segment) -> None:
        """Note that a loaded segment was used."""
        if self._segments.pop(segment.number, None) is None:
            self._bytes += segment.line.length
        self._segments[segment.number] = segment

    def are_many(self) -> bool:
        """Whether some are to leave as soon as they may."""
        return self._bytes > self._limit_bytes

    def forget(self, segment: Segment) -> None:
        if self._segments.pop(segment.number, None) is not None:
            self._bytes -= segment.line.length
        segment.unload()

    def trim(self, keep: set[str]) -> None:
        """Unload what is beyond the limit, but for the most recent, ``keep``, and what the store does not have yet."""
        if not self.are_many():
            return
        for segment in list(self._segments.values())[:-1]:
            if segment.stored and segment.key not in keep:
                self.forget(segment)
            if not self.are_many():
                return

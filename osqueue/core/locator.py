"""Where a job stands, by its id.

    inline ─▶ the one ready segment whose ids lie around it ─▶ spilled segments whose ids do

A job that has failed, or was deferred, has left the segment that it was pushed into: its slot there is found first, and
passed over unless it lives.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, takewhile

from msgspec import Struct

from osqueue.core.model import INLINE, Job
from osqueue.core.segment import NeedsObjectsError, Segment
from osqueue.errors import Corrupt

_ENDLESS = 1 << 62
TOGETHER_BYTES = 16 * 1024 * 1024
"""Of segments that must be in memory at one time for a look-up of many jobs that may be done in parts."""
_INDEXED_AT_ONCE = 8
"""Spilled segments that a look-up asks for, to see what is in them: then their jobs may leave memory again."""


class Place(Struct, frozen=True, gc=False):
    """A job that is not finished, and its address."""

    object: int
    slot: int
    job: Job


class _Together:
    """The segments that a look-up needs in memory at one time."""

    def __init__(self, limit_bytes: int) -> None:
        self._left_bytes = limit_bytes
        self._numbers: set[int] = set()

    def take(self, segment: Segment, *, anyhow: bool) -> bool:
        """Whether this one may be among them, in memory already or not; ``anyhow``: however large it is."""
        if segment.number in self._numbers:
            return True
        if segment.line.length > self._left_bytes and not anyhow:
            return False
        self._numbers.add(segment.number)
        self._left_bytes -= segment.line.length
        return True


class Locator:
    """All inline jobs and segments, by id. Not thread-safe; owned by the backlog."""

    def __init__(self, inline: dict[int, Job]) -> None:
        self._inline = inline
        self._segments: dict[int, Segment] = {}
        self._by_first_id: list[tuple[int, int]] = []
        self._spilled: dict[int, Segment] = {}

    def add(self, segment: Segment) -> None:
        self._segments[segment.number] = segment
        if segment.spilled:
            self._spilled[segment.number] = segment
        else:
            insort(self._by_first_id, (segment.line.first_id, segment.number))

    def remove(self, segment: Segment) -> None:
        del self._segments[segment.number]
        if segment.spilled:
            del self._spilled[segment.number]
        else:
            self._by_first_id.remove((segment.line.first_id, segment.number))

    def ready(self) -> Iterator[Segment]:
        """Segments of jobs that were ready when they were pushed, by first id."""
        return (self._segments[number] for _, number in self._by_first_id)

    def newest(self, count: int) -> list[Segment]:
        """The last few of those."""
        return [self._segments[number] for _, number in self._by_first_id[-count:]]

    def spilled(self) -> Iterable[Segment]:
        """Segments of deferred and dead jobs, in the order in which they were made."""
        return self._spilled.values()

    def locate(
        self, ids: Sequence[int], lives: Callable[[int, int], bool], *, in_parts: bool = False
    ) -> list[Place | None]:
        """Where jobs are that have not finished.

        None for a job that has ended, or whose segment is damaged: that blocks no other. While nothing is spilled, it
        may also be a slot that the job has left.

        Args:
            ids: the jobs.
            lives: whether the job that once stood at an address is still there.
            in_parts: of the first ids alone, at least one, whose segments take at most `TOGETHER_BYTES`; which ids
                these are does not depend on what is in memory.

        Raises:
            NeedsObjectsError: with every key that is missing, not only the first.
        """
        together = _Together(TOGETHER_BYTES if in_parts else _ENDLESS)
        places = self._locate_pushed(ids, together)
        if self._spilled:
            self._look_among_spilled(ids, places, lives, together)
        return places

    def _locate_pushed(self, ids: Iterable[int], together: _Together) -> list[Place | None]:
        inline = self._inline
        places: list[Place | None] = []
        missing: set[str] = set()
        segment: Segment | None = None
        for at, job_id in enumerate(ids):
            if (job := inline.get(job_id)) is not None:
                places.append(Place(INLINE, job_id, job))
                continue
            if segment is None or not segment.line.first_id <= job_id <= segment.line.last_id:
                segment = self.around(job_id)
            if segment is None or segment.damaged:
                places.append(None)
            elif not together.take(segment, anyhow=at == 0):
                break
            elif segment.jobs is None:
                missing.add(segment.key)
            else:
                slot = segment.slot_of(job_id)
                places.append(None if slot is None else Place(segment.number, slot, segment.jobs[slot]))
        if missing:
            raise NeedsObjectsError(missing)
        return places

    def _look_among_spilled(
        self,
        ids: Sequence[int],
        places: list[Place | None],
        lives: Callable[[int, int], bool],
        together: _Together,
    ) -> None:
        missing: set[str] = set()
        unindexed: dict[int, Segment] = {}
        for at, place in enumerate(places):
            if place is not None and (place.object == INLINE or lives(place.object, place.slot)):
                continue
            address, unknown = self._find_spilled(ids[at], lives)
            if address is None:
                places[at] = None
                unindexed.update((segment.number, segment) for segment in unknown)
            elif not together.take(address[0], anyhow=at == 0):
                del places[at:]
                break
            elif (jobs := address[0].jobs) is not None:
                places[at] = Place(address[0].number, address[1], jobs[address[1]])
            else:
                missing.add(address[0].key)
        if unindexed:
            raise NeedsObjectsError(_first_few(unindexed.values()), together=False)
        if missing:
            raise NeedsObjectsError(missing)

    def _find_spilled(
        self, job_id: int, lives: Callable[[int, int], bool]
    ) -> tuple[tuple[Segment, int] | None, list[Segment]]:
        """The segment and slot that the job lives in, if it is known; and those that it may be in, for all we know."""
        unknown = []
        for segment in self._spilled.values():
            if segment.damaged or not segment.line.first_id <= job_id <= segment.line.last_id:
                continue
            if not segment.indexed:
                unknown.append(segment)
            elif (slot := segment.slot_of(job_id)) is not None and lives(segment.number, slot):
                return (segment, slot), []
        return None, unknown

    def around(self, job_id: int) -> Segment | None:
        """The only segment that this job may have been pushed into."""
        at = bisect_right(self._by_first_id, (job_id, _ENDLESS)) - 1
        segment = self._segments[self._by_first_id[at][1]] if at >= 0 else None
        return segment if segment is not None and job_id <= segment.line.last_id else None

    def damage(self, ids: Iterable[int]) -> dict[int, Corrupt]:
        """Those of these jobs that may be in a damaged segment, so that it is not known whether they wait or run."""
        damages: dict[int, Corrupt] = {}
        found: dict[int, Corrupt] = {}
        for job_id in ids:
            if job_id not in self._inline and (segment := self._damaged_around(job_id)) is not None:
                found[job_id] = damages.setdefault(segment.number, segment.damage())
        return found

    def _damaged_around(self, job_id: int) -> Segment | None:
        segment = self.around(job_id)
        if segment is not None and segment.damaged:
            return segment
        for spilled in self._spilled.values():
            if spilled.damaged and spilled.line.first_id <= job_id <= spilled.line.last_id:
                return spilled
        return None


def _first_few(segments: Iterable[Segment]) -> list[str]:
    """Keys of the first that are read at once to see what is in them, at least one."""
    together = _Together(TOGETHER_BYTES)
    few = enumerate(islice(segments, _INDEXED_AT_ONCE))
    return [segment.key for _, segment in takewhile(lambda one: together.take(one[1], anyhow=one[0] == 0), few)]

"""Pages of unfinished jobs, gathered from segments of which few need be in memory at once.

    segments around the next id ──read a few at a time──▶ gathered: the lowest ids so far ──none is left──▶ the page

Ids of deferred and of dead segments overlap, so that the next thousand ids may stand in any number of them.

Rules:
* A page is of the segments whose ids lie around the next one that there may be, and of few spilled ones that follow,
  so that no page takes long.
* What stands in a slot never changes: a job that was gathered is not read again. Whether it is still there, and in
  which state, is looked up each time, and as the page is answered.
* Of each segment that was looked into, all jobs up to ``last`` are gathered, and ``last`` only falls. What moves
  meanwhile is found where it went: inline, or in a segment that was not looked into yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import merge
from itertools import islice

from osqueue.core.inline import size_bytes
from osqueue.core.locator import Place
from osqueue.core.messages import ListJobs
from osqueue.core.model import INLINE
from osqueue.core.segment import NeedsObjectsError, Segment
from osqueue.core.state import QueueState

PAGE_BYTES = 1024 * 1024
ENDLESS = 1 << 62
_FOLLOWING = 16
"""Spilled segments that a page may go on into, since they mostly begin where others have not ended."""
_READ_AT_ONCE = 4
"""Segments that a page asks for together; the next ones when it has gathered from these."""


class _Gathered:
    """A page in the making: what is known of its jobs, by id, and up to which id it goes."""

    def __init__(self, query: ListJobs, last: int) -> None:
        self.query = query
        self.last = last
        self.looked_into: set[int] = set()
        self.places: list[Place] = []

    def add(self, places: Iterable[Place]) -> None:
        """Jobs of one more source, by id: the page ends where it is full."""
        page: list[Place] = []
        size = 0
        for place in merge(self.places, places, key=lambda place: place.job.id):
            if page and (len(page) >= self.query.limit or size >= PAGE_BYTES):
                self.last = page[-1].job.id
                break
            page.append(place)
            size += size_bytes([place.job])
        self.places = page


class Listings:
    """Makes pages, one at a time for each session. Memory only; not thread-safe; owned by the queries."""

    def __init__(self, state: QueueState) -> None:
        self._state = state
        self._gathered: dict[str, _Gathered] = {}

    def page(self, session: str, query: ListJobs) -> tuple[list[Place], int]:
        """The next places, by id, and the id up to which they are; `ENDLESS` for the last page.

        Raises:
            NeedsObjectsError: some segments must be in memory first; what was gathered till now is kept.
        """
        page = self._gathered.get(session)
        if page is None or page.query != query:
            page = self._gathered[session] = _Gathered(query, self._end(query))
        page.places = [place for place in page.places if self._is_asked_for(place, query)]
        self._gather(page)
        del self._gathered[session]
        page.add(self._inline(page))
        return page.places, page.last

    def forget(self, session: str) -> None:
        """The session's connection has ended, and its questions with it."""
        self._gathered.pop(session, None)

    def _end(self, query: ListJobs) -> int:
        """Where a page ends at the latest."""
        segments = list(self._segments(query))
        start = max(query.after + 1, min((segment.line.first_id for segment in segments), default=0))
        following = sorted((s.line.first_id, s.spilled) for s in segments if s.line.first_id > start)
        ready = [first_id for first_id, spilled in following if not spilled]
        overlapping = [first_id for first_id, spilled in following if spilled]
        return min([*ready, *overlapping[_FOLLOWING:]], default=ENDLESS + 1) - 1

    def _gather(self, page: _Gathered) -> None:
        for segment in self._left(page):
            if segment.jobs is not None:
                page.add(self._places(segment, page))
                page.looked_into.add(segment.number)
        after, last = page.query.after, page.last
        lacking = (s for s in self._left(page) if not s.indexed or s.slots_between(after, last))
        if keys := [segment.key for segment in islice(lacking, _READ_AT_ONCE)]:
            raise NeedsObjectsError(keys, together=False)

    def _left(self, page: _Gathered) -> list[Segment]:
        """Segments that the page has not looked into, by first id."""
        left = [s for s in self._segments(page.query) if s.line.first_id <= page.last]
        return sorted((s for s in left if s.number not in page.looked_into), key=lambda s: s.line.first_id)

    def _segments(self, query: ListJobs) -> Iterator[Segment]:
        located = self._state.backlog.located
        for segment in (*located.ready(), *located.spilled()):
            if segment.line.last_id > query.after and not segment.damaged and may_hold(segment, query.state):
                yield segment

    def _places(self, segment: Segment, page: _Gathered) -> Iterator[Place]:
        jobs = segment.loaded()
        for slot in segment.slots_between(page.query.after, page.last):
            if self._is_asked_for(Place(segment.number, slot, jobs[slot]), page.query):
                yield Place(segment.number, slot, jobs[slot].apart())

    def _inline(self, page: _Gathered) -> Iterator[Place]:
        inline = self._state.backlog.inline.jobs
        for job_id in sorted(job_id for job_id in inline if page.query.after < job_id <= page.last):
            place = Place(INLINE, job_id, inline[job_id])
            if self._is_asked_for(place, page.query):
                yield place

    def _is_asked_for(self, place: Place, query: ListJobs) -> bool:
        job_state = self._state.state_of(place)
        return job_state is not None and query.state in (None, job_state)


def may_hold(segment: Segment, state: str | None) -> bool:
    """Whether jobs of a state may stand in a segment."""
    match state:
        case None:
            return True
        case "dead":
            return segment.line.kind == "dead"
        case "delayed":
            return segment.line.kind == "deferred"
        case _:
            return segment.line.kind != "dead"

"""Lanes: the waiting jobs of one priority and task, and the order in which they go out.

    returned ─┐  came back uncharged; go out before anything new is taken
    due ──────┤  delayed or failed before, now due; by id
    spans ────┤  slots of segments, by id
    tail ─────┘  inline in the root, by id

Rules:
* A claim takes from the lane with the highest priority, then the one whose head has the lowest id.
* Jobs of spans and of the tail have never failed: one that has is among the deferred or the dead.
* A lane whose next segment is not in memory is passed over until it is; lanes do not wait for each other.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from heapq import heappop, heappush
from itertools import islice
from typing import NamedTuple

from osqueue.core.messages import Handout
from osqueue.core.model import INLINE, Job, Span
from osqueue.core.policy import is_last_attempt
from osqueue.core.runs import Runs, SlotRun, to_runs
from osqueue.core.segment import Segment
from osqueue.core.settings import QueueSettings

LaneKey = tuple[int, str]
"""Minus the priority, and the task: sorted, the first goes out first."""
ENDLESS = 1 << 62
_FIRST_ATTEMPT = 1


class Taken:
    """What one claim takes: jobs on their way out, their addresses, and the keys of objects that it lacked."""

    def __init__(self, jobs: int, payload_bytes: int, settings: QueueSettings) -> None:
        self._settings = settings
        self._max_attempts = settings.max_attempts
        self.room = jobs
        self.room_bytes = payload_bytes
        self.payload_bytes = 0
        self.handouts: list[Handout] = []
        self.runs: list[SlotRun] = []
        self.wanted: set[str] = set()

    @property
    def full(self) -> bool:
        return self.room <= 0 or self.room_bytes <= 0

    def hand_out(self, jobs: Iterable[Job], *, alone: bool = False) -> int:
        """Hand out jobs in this order until there is no room; returns how many."""
        room, room_bytes = self.room, self.room_bytes
        for job in jobs:
            if room <= 0 or room_bytes <= 0:
                break
            payload = job.payload_bytes()
            attempt = job.attempts + 1
            # The common case costs no call: this runs for every job.
            has_more = job.max_attempts is None and attempt < self._max_attempts
            last = not has_more and is_last_attempt(job, self._settings)
            self.handouts.append(Handout(job.id, attempt, job.task, payload, job.pushed_ms, job.timeout_s, alone, last))
            room -= 1
            room_bytes -= len(payload)
        count = self.room - room
        self.payload_bytes += self.room_bytes - room_bytes
        self.room, self.room_bytes = room, room_bytes
        return count


class Head(NamedTuple):
    """A lane's next job: where it comes from, and its id."""

    source: str
    job_id: int


class Lane:
    """One lane. Jobs are looked up through the backlog's inline jobs and segments, which it is given."""

    def __init__(self, key: LaneKey, inline: dict[int, Job], segments: dict[int, Segment], holes: Runs) -> None:
        self.key = key
        self.returned = Runs()
        self.due_ids: set[int] = set()
        self._due: list[int] = []
        self.spans: list[tuple[Segment, Span]] = []
        self.tail: dict[int, None] = {}
        self._inline = inline
        self._segments = segments
        self._holes = holes

    @property
    def empty(self) -> bool:
        return not (self.returned or self.due_ids or self.spans or self.tail)

    def add_due(self, job_id: int) -> None:
        self.due_ids.add(job_id)
        heappush(self._due, job_id)

    def _next_due(self) -> int:
        while self._due and self._due[0] not in self.due_ids:
            heappop(self._due)
        return self._due[0] if self._due else ENDLESS

    def head(self, wanted: set[str]) -> Head | None:
        """The next job to go out; None, with the key in ``wanted``, while its object is not in memory."""
        if (object_ := self._returned_object()) is not None:
            first = self.returned.of(object_)[0][0]
            job = self._job(object_, first, wanted)
            return Head("returned", job.id) if job else None
        heads = []
        if (due := self._next_due()) < ENDLESS:
            heads.append(Head("due", due))
        if (place := self._span()) is not None:
            job = self._job(place[0].number, place[1].first + place[1].taken, wanted)
            if job is not None:
                heads.append(Head("span", job.id))
        elif self.tail:
            heads.append(Head("tail", next(iter(self.tail))))
        return min(heads, key=lambda head: head.job_id, default=None)

    def oldest_ms(self) -> int | None:
        """When its next job was pushed; of a segment that is not in memory, when its oldest job was."""
        if (head := self.head(set())) is not None:
            return self._pushed_ms(head)
        if (object_ := self._returned_object()) is not None:
            return self._segments[object_].line.pushed_ms
        place = self._span()
        return None if place is None else place[0].line.pushed_ms

    def _pushed_ms(self, head: Head) -> int:
        if (job := self._inline.get(head.job_id)) is not None:
            return job.pushed_ms
        if head.source == "returned":
            object_ = self._returned_object()
            assert object_ is not None
            return self._segments[object_].loaded()[self.returned.of(object_)[0][0]].pushed_ms
        place = self._span()
        assert place is not None
        return place[0].loaded()[place[1].first + place[1].taken].pushed_ms

    def take(self, source: str, taken: Taken, below: int = ENDLESS) -> None:
        """Hand out jobs of one source with ids up to ``below``, at least one of them."""
        match source:
            case "returned":
                self._take_returned(taken)
            case "due":
                self._take_due(taken)
            case "span":
                self._take_span(taken, min(below, self._next_due()))
            case _:
                self._take_tail(taken, min(below, self._next_due()))

    # A damaged segment blocks its own jobs only: both look-ups pass it over.

    def _returned_object(self) -> int | None:
        objects = [n for n in self.returned.objects() if n == INLINE or not self._segments[n].damaged]
        return min(objects, default=None)

    def _span(self) -> tuple[Segment, Span] | None:
        for place in self.spans:
            if not place[0].damaged:
                return place
        return None

    def _job(self, object_: int, slot: int, wanted: set[str]) -> Job | None:
        if object_ == INLINE:
            return self._inline[slot]
        segment = self._segments[object_]
        if segment.jobs is None:
            wanted.add(segment.key)
            return None
        return segment.jobs[slot]

    def _take_returned(self, taken: Taken) -> None:
        object_ = self._returned_object()
        assert object_ is not None
        first, last, attempt, alone = self.returned.of(object_)[0]
        jobs = self._inline if object_ == INLINE else self._segments[object_].loaded()
        count = taken.hand_out((jobs[slot] for slot in range(first, last + 1)), alone=alone)
        self.returned.cut(object_, first, first + count - 1)
        taken.runs.append((object_, first, first + count - 1, attempt, alone))
        if object_ != INLINE:
            self._segments[object_].leased += count

    def _take_due(self, taken: Taken) -> None:
        job_id = heappop(self._due)
        self.due_ids.remove(job_id)
        job = self._inline[job_id]
        taken.hand_out([job])
        taken.runs.append((INLINE, job_id, job_id, job.attempts + 1, False))

    def _take_tail(self, taken: Taken, below: int) -> None:
        ids = list(islice(self.tail, taken.room))
        del ids[bisect_right(ids, below) :]
        del ids[taken.hand_out(map(self._inline.__getitem__, ids)) :]
        for job_id in ids:
            del self.tail[job_id]
        # Neighbours are one run, so that a lease of many is quickly written down.
        taken.runs.extend((INLINE, first, last, _FIRST_ATTEMPT, False) for first, last in to_runs(ids))

    def _take_span(self, taken: Taken, below: int) -> None:
        place = self._span()
        assert place is not None
        segment, span = place
        jobs = segment.loaded()
        slot = span.first + span.taken
        end = bisect_right(jobs, below, slot, span.first + span.count, key=lambda job: job.id)
        holes = [run[:2] for run in self._holes.of(segment.number) if slot < run[0] < end]
        for hole, last in [*holes, (end, end - 1)]:
            count = taken.hand_out(jobs[slot : min(hole, slot + taken.room)])
            if count:
                taken.runs.append((segment.number, slot, slot + count - 1, _FIRST_ATTEMPT, False))
            segment.leased += count
            slot += count
            if slot < hole:
                break
            slot = last + 1
        self.swallow(segment, span, slot)

    def swallow(self, segment: Segment, span: Span, slot: int) -> None:
        """Move ``taken`` up to ``slot``, over the holes that follow; a span with nothing left goes."""
        end = span.first + span.count
        while (hole := self._holes.find(segment.number, slot)) is not None and slot < end:
            slot = hole[1] + 1
        slot = min(slot, end)
        cut = self._holes.cut(segment.number, span.first + span.taken, slot - 1)
        segment.holes -= sum(last - first + 1 for first, last, _, _ in cut)
        span.taken = slot - span.first
        if slot == end:
            self.spans = [place for place in self.spans if place[1] is not span]

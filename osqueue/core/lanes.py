"""Lanes: the waiting jobs of one priority and task, and the order in which they go out.

    returned ──┐  came back uncharged; go out before anything new is taken
    due ───────┤  delayed or failed before, now due; inline in the root, by id
    due spans ─┤  the same in segments, in the order in which they are due
    spans ─────┤  slots of segments, by id
    tail ──────┘  inline in the root, by id

Rules:
* A claim takes from the lane with the highest priority, then the one whose head has the lowest id.
* Jobs of spans and of the tail have never failed: one that has is among the deferred or the dead.
* A lane whose next segment is not in memory is passed over until it is; lanes do not wait for each other.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from itertools import groupby, islice, takewhile
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
        self.delayed = 0
        """How many inline jobs wait for their time."""
        self.tail: dict[int, None] = {}
        self._due: list[int] = []
        self._spans: list[tuple[Segment, Span]] = []
        self._due_spans: list[tuple[Segment, Span]] = []
        self._inline = inline
        self._segments = segments
        self._holes = holes

    @property
    def empty(self) -> bool:
        waiting = self.returned or self.due_ids or self.delayed or self.tail
        return not (waiting or self._spans or self._due_spans)

    def offer(self, segment: Segment, span: Span) -> None:
        """Jobs of a segment wait here."""
        if segment.line.kind == "deferred":
            insort(self._due_spans, (segment, span), key=lambda place: place[0].line.due_ms)
        else:
            insort(self._spans, (segment, span), key=lambda place: place[0].line.first_id)

    def withdraw(self, span: Span) -> None:
        """Nothing of a span waits here any more."""
        self._spans = [place for place in self._spans if place[1] is not span]
        self._due_spans = [place for place in self._due_spans if place[1] is not span]

    def add_due(self, job_id: int) -> None:
        self.due_ids.add(job_id)
        heappush(self._due, job_id)

    def _next_due(self) -> int:
        while self._due and self._due[0] not in self.due_ids:
            heappop(self._due)
        return self._due[0] if self._due else ENDLESS

    def heads(self, wanted: set[str]) -> list[Head]:
        """The next job of each source that may go out now; ``wanted`` gets keys of objects that lack for more."""
        if (object_ := self._returned_object()) is not None:
            first = self.returned.of(object_)[0][0]
            job = self._job(object_, first, wanted)
            return [Head("returned", job.id)] if job else []
        heads = []
        if (due := self._next_due()) < ENDLESS:
            heads.append(Head("due", due))
        if (place := self._due_span(wanted)) is not None and (job := self._first_of(place, wanted)) is not None:
            heads.append(Head("due span", job.id))
        if (place := self._span()) is not None:
            if (job := self._first_of(place, wanted)) is not None:
                heads.append(Head("span", job.id))
        elif self.tail:
            heads.append(Head("tail", next(iter(self.tail))))
        return heads

    def _first_of(self, place: tuple[Segment, Span], wanted: set[str]) -> Job | None:
        return self._job(place[0].number, place[1].first + place[1].taken, wanted)

    def oldest_ms(self) -> int | None:
        """When its oldest ready job was pushed; of a segment that is not in memory, when its oldest job was."""
        inline = (self._next_due(), next(iter(self.tail), ENDLESS))
        times = [self._inline[job_id].pushed_ms for job_id in inline if job_id < ENDLESS]
        if (object_ := self._returned_object()) is not None:
            times.append(self._pushed_ms(object_, self.returned.of(object_)[0][0]))
        places = [place for place in (self._due_span(set()), self._span()) if place is not None]
        times += [self._pushed_ms(segment.number, span.first + span.taken) for segment, span in places]
        times += [segment.line.pushed_ms for segment, _ in self._due_spans if _may_have_come_due(segment)]
        return min(times, default=None)

    def _pushed_ms(self, object_: int, slot: int) -> int:
        job = self._job(object_, slot, set())
        return self._segments[object_].line.pushed_ms if job is None else job.pushed_ms

    def take(self, source: str, taken: Taken, below: int = ENDLESS) -> None:
        """Hand out jobs of one source with ids up to ``below``, at least one of them."""
        match source:
            case "returned":
                self._take_returned(taken)
            case "due":
                self._take_due(taken)
            case "due span":
                self._take_due_span(taken, below)
            case "span":
                self._take_span(taken, below)
            case _:
                self._take_tail(taken, below)

    # A damaged segment blocks its own jobs only: both look-ups pass it over.

    def _returned_object(self) -> int | None:
        objects = [n for n in self.returned.objects() if n == INLINE or not self._segments[n].damaged]
        return min(objects, default=None)

    def _span(self) -> tuple[Segment, Span] | None:
        for place in self._spans:
            if not place[0].damaged:
                return place
        return None

    def _due_span(self, wanted: set[str]) -> tuple[Segment, Span] | None:
        """The first that has a job whose time has come; ``wanted`` gets those of which that is not known."""
        for segment, span in self._due_spans:
            if segment.damaged:
                continue
            if segment.dues is None:
                if _may_have_come_due(segment):
                    wanted.add(segment.key)
            elif span.first + span.taken < segment.dues.end_of(span):
                return segment, span
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
        self._swallow(segment, span, slot)

    def _take_due_span(self, taken: Taken, below: int) -> None:
        place = self._due_span(set())
        assert place is not None
        segment, span = place
        assert segment.dues is not None
        jobs = segment.loaded()
        due = self._without_holes(segment, span.first + span.taken, segment.dues.end_of(span))
        slots = list(takewhile(lambda slot: jobs[slot].id <= below, islice(due, taken.room)))
        del slots[taken.hand_out([jobs[slot] for slot in slots]) :]
        for attempt, alike in groupby(slots, key=lambda slot: jobs[slot].attempts + 1):
            taken.runs.extend((segment.number, first, last, attempt, False) for first, last in to_runs(alike))
        segment.leased += len(slots)
        self._swallow(segment, span, slots[-1] + 1)

    def _without_holes(self, segment: Segment, first: int, end: int) -> Iterator[int]:
        for slot in range(first, end):
            if not self._holes.find(segment.number, slot):
                yield slot

    def _swallow(self, segment: Segment, span: Span, slot: int) -> None:
        if swallow(self._holes, segment, span, slot):
            self.withdraw(span)


def _may_have_come_due(segment: Segment) -> bool:
    """Whether only the jobs themselves, which are not in memory, could say if their time has come."""
    return segment.dues is None and not segment.damaged and segment.line.due_ms <= segment.line.woken_ms


def swallow(holes: Runs, segment: Segment, span: Span, slot: int) -> bool:
    """Move ``taken`` up to ``slot``, over the holes that follow; says whether nothing is left of the span."""
    end = span.first + span.count
    while (hole := holes.find(segment.number, slot)) is not None and slot < end:
        slot = hole[1] + 1
    slot = min(slot, end)
    cut = holes.cut(segment.number, span.first + span.taken, slot - 1)
    segment.holes -= sum(last - first + 1 for first, last, _, _ in cut)
    span.taken = slot - span.first
    return slot == end

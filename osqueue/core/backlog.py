"""The jobs that are not finished: where each one is, which go out next, and what leaves early.

    push ──▶ tail ──seal──▶ segments ──┐
    push(delay), failed ──▶ deferred ──┼──take──▶ (a lease) ──▶ remove / give back
                            dead       ┘

Rules:
* A job is in one place: the inline tail, deferred or dead jobs, or a slot of one segment.
* A segment lives while a slot of it waits or is leased; then its key is trash.
* What can be refused or is not in memory is found out before anything changes.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from itertools import groupby

from msgspec import Struct

from osqueue.core.lanes import ENDLESS, Head, Lane, LaneKey, Taken
from osqueue.core.model import INLINE, Job, Root
from osqueue.core.runs import Runs, SlotRun, expand
from osqueue.core.segment import LoadedSegments, NeedsObjectsError, Segment
from osqueue.errors import Corrupt

MAX_LANES = 256
JOB_OVERHEAD = 80
"""Bytes that a job takes in the root beside its payload, roughly."""


class Place(Struct, frozen=True, gc=False):
    """A job that is not finished, and its address."""

    object: int
    slot: int
    job: Job


class Backlog:
    """All unfinished jobs. Not thread-safe; owned by the machine."""

    def __init__(self, root: Root) -> None:
        self.inline: dict[int, Job] = {}
        self.tail: dict[int, None] = {}
        self.deferred: dict[int, None] = {}
        self.dead: dict[int, None] = {}
        self.segments: dict[int, Segment] = {}
        self.holes = Runs()
        self.loaded = LoadedSegments()
        self.trash: list[str] = []
        self.dirty: set[str] = set()
        self.tail_bytes = 0
        self.harmed = False
        """Whether a segment has been found damaged since the queue was opened."""
        self._by_first_id: list[tuple[int, int]] = []
        self._lanes: dict[LaneKey, Lane] = {}
        self._order: list[LaneKey] = []
        self._alarms: list[tuple[int, int]] = []
        self._delayed: set[int] = set()
        self._open(root)

    # ------------------------------------------------------------------------------------------------------- opening

    def _open(self, root: Root) -> None:
        leased = [run for lease in root.leases for run in expand(lease.runs)]
        returned = list(expand(root.returned))
        self._open_segments(root, leased)
        held = Runs(leased + returned)
        for job in root.dead:
            self.inline[job.id] = job
            self.dead[job.id] = None
        self._add_tail(root.tail)
        for job in root.tail:
            if not held.find(INLINE, job.id):
                self.lane_of(job).tail[job.id] = None
        for job in root.deferred:
            self.inline[job.id] = job
            self.deferred[job.id] = None
            if not held.find(INLINE, job.id):
                self._schedule(job, root.now_ms)
        self._return(returned)

    def _open_segments(self, root: Root, leased: list[SlotRun]) -> None:
        for line in root.segments:
            self.add_segment(Segment(line))
        for number, first, last, _, _ in expand(root.holes):
            self.holes.add(number, first, last, 0)
            self.segments[number].holes += last - first + 1
        for object_, first, last, _, _ in leased:
            if object_ != INLINE:
                self.segments[object_].leased += last - first + 1
        for segment in self.segments.values():
            self.offer(segment)

    def add_segment(self, segment: Segment) -> None:
        """Know a segment; `offer` puts its waiting jobs into their lanes."""
        self.dirty.add("segments")
        self.segments[segment.number] = segment
        insort(self._by_first_id, (segment.line.first_id, segment.number))

    def offer(self, segment: Segment) -> None:
        for span in segment.line.spans:
            if span.taken < span.count:
                lane = self.lane((-span.priority, span.task))
                insort(lane.spans, (segment, span), key=lambda place: place[0].line.first_id)

    # --------------------------------------------------------------------------------------------------------- lanes

    def lane(self, key: LaneKey) -> Lane:
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(key, self.inline, self.segments, self.holes)
            insort(self._order, key)
        return lane

    def lane_of(self, job: Job) -> Lane:
        return self.lane((-job.priority, job.task))

    def can_add_lane(self, priority: int, task: str) -> bool:
        """Whether a job of this lane may wait: at most `MAX_LANES` have waiting jobs."""
        if (-priority, task) in self._lanes or len(self._lanes) < MAX_LANES:
            return True
        self._drop_empty_lanes()
        return len(self._lanes) < MAX_LANES

    def _drop_empty_lanes(self) -> None:
        for key in [key for key, lane in self._lanes.items() if lane.empty]:
            del self._lanes[key]
            self._order.remove(key)

    # ---------------------------------------------------------------------------------------------------- coming in

    def push(self, jobs: list[Job]) -> None:
        """New jobs of one lane that are ready: they join the tail."""
        self.lane_of(jobs[0]).tail.update(dict.fromkeys(self._add_tail(jobs)))

    def _add_tail(self, jobs: list[Job]) -> Iterable[int]:
        """Their ids."""
        by_id = {job.id: job for job in jobs}
        self.inline.update(by_id)
        self.tail.update(dict.fromkeys(by_id))
        self.dirty.add("tail")
        self.tail_bytes += JOB_OVERHEAD * len(jobs) + sum(map(Job.payload_size, jobs))
        return by_id

    def defer(self, job: Job, now_ms: int) -> bool:
        """A job that waits until ``job.due_ms``; False if that is not in the future, so that it is ready."""
        self.inline[job.id] = job
        self.deferred[job.id] = None
        self.dirty.add("deferred")
        return self._schedule(job, now_ms)

    def _schedule(self, job: Job, now_ms: int) -> bool:
        if job.due_ms <= now_ms:
            self.lane_of(job).add_due(job.id)
            return False
        heappush(self._alarms, (job.due_ms, job.id))
        self._delayed.add(job.id)
        return True

    def bury(self, job: Job) -> None:
        """A job whose attempts are used up."""
        self.inline[job.id] = job
        self.dead[job.id] = None
        self.dirty.add("dead")

    def next_due_ms(self) -> int | None:
        """When the next delayed job becomes ready."""
        while self._alarms and self._alarms[0][1] not in self._delayed:
            heappop(self._alarms)
        return self._alarms[0][0] if self._alarms else None

    def wake(self, now_ms: int) -> list[Job]:
        """Make ready what has become due."""
        woken = []
        while (due := self.next_due_ms()) is not None and due <= now_ms:
            job = self.inline[heappop(self._alarms)[1]]
            self._delayed.remove(job.id)
            self.lane_of(job).add_due(job.id)
            woken.append(job)
        return woken

    # ---------------------------------------------------------------------------------------------------- going out

    def take(self, tasks: frozenset[str], taken: Taken) -> None:
        """Hand out up to ``taken``'s room of these tasks' jobs, lane by lane."""
        lanes = [self._lanes[key] for key in self._order if key[1] in tasks]
        while not taken.full:
            heads = self._heads(lanes, taken)
            if not heads:
                return
            (head, lane), rest = heads[0], heads[1:]
            if head.source == "span":
                self.dirty.update(("segments", "holes") if self.holes else ("segments",))
            lane.take(head.source, taken, rest[0][0].job_id if rest else ENDLESS)

    def _heads(self, lanes: list[Lane], taken: Taken) -> list[tuple[Head, Lane]]:
        """Heads of the highest priority that has any, lowest id first."""
        for _, group in groupby(lanes, key=lambda lane: lane.key[0]):
            heads = [(head, lane) for lane in group if (head := lane.head(taken.wanted)) is not None]
            if heads:
                return sorted(heads, key=lambda pair: pair[0].job_id)
        return []

    def give_back(self, runs: Iterable[SlotRun]) -> list[tuple[str, int]]:
        """Leased runs come back uncharged; says how many of which task."""
        runs = list(runs)
        for object_, first, last, _, _ in runs:
            if object_ != INLINE:
                self.segments[object_].leased -= last - first + 1
        return self._return(runs)

    def _return(self, runs: Iterable[SlotRun]) -> list[tuple[str, int]]:
        returned = []
        for object_, first, last, attempt, alone in runs:
            for key, a, b in self._by_lane(object_, first, last):
                self.lane(key).returned.add(object_, a, b, attempt, alone=alone)
                returned.append((key[1], b - a + 1))
        return returned

    def _by_lane(self, object_: int, first: int, last: int) -> Iterator[tuple[LaneKey, int, int]]:
        if object_ == INLINE:
            for job_id in range(first, last + 1):
                job = self.inline[job_id]
                yield (-job.priority, job.task), job_id, job_id
            return
        for span in self.segments[object_].line.spans:
            a, b = max(first, span.first), min(last, span.first + span.count - 1)
            if a <= b:
                yield (-span.priority, span.task), a, b

    def returned(self) -> Runs:
        """All slots that came back."""
        return Runs(run for lane in self._lanes.values() for run in lane.returned)

    def by_task(self, runs: Iterable[SlotRun]) -> Iterator[tuple[str, int]]:
        """How many slots of some runs belong to which task; no segment need be in memory for that."""
        for object_, first, last, _, _ in runs:
            for key, a, b in self._by_lane(object_, first, last):
                yield key[1], b - a + 1

    def damaged(self) -> dict[int, Segment]:
        """Segments that nobody can read, as far as is known."""
        return {number: segment for number, segment in self.segments.items() if segment.damaged}

    def untaken(self, segments: Iterable[Segment]) -> Iterator[tuple[str, int]]:
        """How many jobs of which task nobody has ever taken from some segments, read from their lines alone."""
        for segment in segments:
            for span in segment.line.spans:
                yield span.task, span.count - span.taken
            holes = ((segment.number, *run) for run in self.holes.of(segment.number))
            yield from ((task, -count) for task, count in self.by_task(holes))

    def offers(self, tasks: frozenset[str]) -> bool:
        """Whether a job of these tasks could be handed out, at the latest when its object has been read."""
        wanted: set[str] = set()
        lanes = [lane for key, lane in self._lanes.items() if key[1] in tasks]
        return any(lane.head(wanted) is not None for lane in lanes) or bool(wanted)

    def lanes(self) -> Iterable[Lane]:
        return self._lanes.values()

    def in_order(self) -> Iterator[Segment]:
        """Segments by first id."""
        return (self.segments[number] for _, number in self._by_first_id)

    def newest(self, count: int) -> list[Segment]:
        """The last few segments, by first id."""
        return [self.segments[number] for _, number in self._by_first_id[-count:]]

    # --------------------------------------------------------------------------------------------------- looking up

    def locate(self, ids: Iterable[int]) -> list[Place | None]:
        """Where jobs are that have not finished; it may also be slots that they left long ago.

        None for a job that has ended, or whose segment is damaged: that blocks no other.

        Raises:
            NeedsObjectsError: with every key that is missing, not only the first.
        """
        inline = self.inline
        places: list[Place | None] = []
        missing: set[str] = set()
        segment: Segment | None = None
        for job_id in ids:
            if (job := inline.get(job_id)) is not None:
                places.append(Place(INLINE, job_id, job))
                continue
            if segment is None or not segment.line.first_id <= job_id <= segment.line.last_id:
                segment = self.segment_around(job_id)
            if segment is None or segment.damaged:
                places.append(None)
            elif segment.jobs is None:
                missing.add(segment.key)
            else:
                slot = segment.slot_of(job_id)
                places.append(None if slot is None else Place(segment.number, slot, segment.jobs[slot]))
        if missing:
            raise NeedsObjectsError(missing)
        return places

    def segment_around(self, job_id: int) -> Segment | None:
        """The only segment that may have this job."""
        at = bisect_right(self._by_first_id, (job_id, 1 << 62)) - 1
        segment = self.segments[self._by_first_id[at][1]] if at >= 0 else None
        return segment if segment is not None and job_id <= segment.line.last_id else None

    def damage(self, ids: Iterable[int]) -> dict[int, Corrupt]:
        """Those of these jobs that may be in a damaged segment, so that it is not known whether they wait or run."""
        around = {job_id: self.segment_around(job_id) for job_id in ids if job_id not in self.inline}
        damages = {s.number: s.damage() for s in around.values() if s is not None and s.damaged}
        return {job_id: damages[s.number] for job_id, s in around.items() if s is not None and s.number in damages}

    def is_waiting(self, place: Place) -> bool:
        """Whether the job is there and nobody holds it."""
        lane = self.lane_of(place.job)
        if lane.returned.find(place.object, place.slot):
            return True
        if place.object == INLINE:
            return place.slot in lane.tail or place.slot in lane.due_ids or place.slot in self._delayed
        segment = self.segments.get(place.object)
        if segment is None:
            return False  # its last live job has just left, in the same operation
        span = segment.span_of(place.slot)
        return place.slot >= span.first + span.taken and not self.holes.find(place.object, place.slot)

    def is_delayed(self, job_id: int) -> bool:
        """Whether a deferred job's time has not come."""
        return job_id in self._delayed

    # ------------------------------------------------------------------------------------------------------ leaving

    def remove_leased(self, places: list[Place]) -> None:
        """Leased jobs are finished, or copied elsewhere."""
        for number, count in Counter([place.object for place in places]).items():
            if number != INLINE:
                segment = self.segments[number]
                segment.leased -= count
                self.drop_if_spent(segment)
                continue
            for place in places:
                if place.object == INLINE:
                    self.forget_inline(place.job)

    def take_tail(self) -> tuple[list[Job], set[int]]:
        """The whole tail leaves the root: its jobs by id, and the ids of those that nobody has taken."""
        jobs = [self.inline.pop(job_id) for job_id in self.tail]
        waiting: set[int] = set()
        for lane in self._lanes.values():
            waiting.update(lane.tail)
            lane.tail.clear()
        self.tail.clear()
        self.tail_bytes = 0
        self.dirty.add("tail")
        return jobs, waiting

    def came_back(self, place: Place) -> bool:
        """Whether the job was given back and waits to go out again."""
        return self.lane_of(place.job).returned.find(place.object, place.slot) is not None

    def remove_waiting(self, place: Place) -> None:
        """A job that nobody holds leaves early."""
        lane = self.lane_of(place.job)
        if lane.returned.cut(place.object, place.slot, place.slot):
            if place.object == INLINE:
                self.forget_inline(place.job)
            else:
                self.drop_if_spent(self.segments[place.object])
            return
        if place.object == INLINE:
            lane.tail.pop(place.slot, None)
            lane.due_ids.discard(place.slot)
            self.forget_inline(place.job)
            return
        self._punch(lane, self.segments[place.object], place.slot)

    def _punch(self, lane: Lane, segment: Segment, slot: int) -> None:
        span = segment.span_of(slot)
        self.dirty.update(("segments", "holes"))
        self.holes.add(segment.number, slot, slot, 0)
        segment.holes += 1
        if slot == span.first + span.taken:
            lane.swallow(segment, span, slot)
        self.drop_if_spent(segment)

    def forget_inline(self, job: Job) -> None:
        """The job's inline copy goes."""
        del self.inline[job.id]
        self._delayed.discard(job.id)
        if job.id in self.tail:
            del self.tail[job.id]
            self.tail_bytes -= JOB_OVERHEAD + job.payload_size()
            self.dirty.add("tail")
            return
        name = "deferred" if job.id in self.deferred else "dead"
        del (self.deferred if name == "deferred" else self.dead)[job.id]
        self.dirty.add(name)

    def drop_if_spent(self, segment: Segment) -> None:
        """Let a segment go in which nothing waits, is leased, or came back."""
        if segment.leased or segment.waiting or self._has_returned(segment):
            return
        self.let_go(segment)

    def _has_returned(self, segment: Segment) -> bool:
        return any(
            self._lanes[key].returned.of(segment.number)
            for span in segment.line.spans
            if (key := (-span.priority, span.task)) in self._lanes
        )

    def let_go(self, segment: Segment) -> None:
        """The segment's jobs are all elsewhere, or finished."""
        self.dirty.update(("segments", "holes"))
        del self.segments[segment.number]
        self._by_first_id.remove((segment.line.first_id, segment.number))
        for span in segment.line.spans:
            lane = self._lanes.get((-span.priority, span.task))
            if lane is not None:
                lane.spans = [place for place in lane.spans if place[0] is not segment]
        self.holes.pop_object(segment.number)
        self.loaded.forget(segment)
        self.trash.append(segment.key)

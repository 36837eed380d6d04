"""The jobs that are not finished: where each one is, which go out next, and what leaves early.

    push ──▶ tail ──seal──▶ segments ──┐
    push(delay), failed ──▶ deferred ──┼──take──▶ (a lease) ──▶ remove / give back
                            dead       ┘   deferred and dead are inline until they are too many, then in segments too

Rules:
* A job is in one place: the inline tail, deferred or dead jobs, or a slot of one segment.
* A segment lives while a slot of it waits, is leased or dead; then its key is trash.
* What can be refused or is not in memory is found out before anything changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from osqueue.core.deferred import Deferred
from osqueue.core.inline import InlineJobs
from osqueue.core.lane_order import LaneOrder
from osqueue.core.lanes import LaneKey, swallow
from osqueue.core.locator import Locator, Place
from osqueue.core.model import INLINE, Job, Root
from osqueue.core.runs import Runs, SlotRun, expand
from osqueue.core.segment import LoadedSegments, Segment


class Backlog:
    """All unfinished jobs. Not thread-safe; owned by the machine."""

    def __init__(self, root: Root) -> None:
        self.dirty: set[str] = set()
        """Sections of the root that have changed since they were encoded."""
        self.inline = InlineJobs(self.dirty)
        self.deferred = Deferred()
        self.segments: dict[int, Segment] = {}
        self.located = Locator(self.inline.jobs)
        self.holes = Runs()
        self.lanes = LaneOrder(self.inline.jobs, self.segments, self.holes, self.dirty)
        self.loaded = LoadedSegments()
        self.trash: list[str] = []
        self.harmed = False
        """Whether a segment has been found damaged since the queue was opened."""
        self._open(root)

    # ------------------------------------------------------------------------------------------------------- opening

    def _open(self, root: Root) -> None:
        leased = [run for lease in root.leases for run in expand(lease.runs)]
        returned = list(expand(root.returned))
        self._open_segments(root, leased)
        held = Runs(leased + returned)
        self.inline.add("dead", root.dead)
        self.inline.add("tail", root.tail)
        for job in root.tail:
            if not held.find(INLINE, job.id):
                self.lanes.of(job).tail[job.id] = None
        for job in root.deferred:
            if held.find(INLINE, job.id):
                self.inline.add("deferred", [job])
            else:
                self.defer([job], root.now_ms)
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
            self.lanes.offer(segment)

    def add_segment(self, segment: Segment) -> None:
        """Know a segment; `LaneOrder.offer` puts its waiting jobs into their lanes."""
        self.dirty.add("segments")
        self.segments[segment.number] = segment
        self.located.add(segment)
        if segment.line.kind == "deferred":
            self.deferred.add_segment(segment)

    # ---------------------------------------------------------------------------------------------------- coming in

    def push(self, jobs: list[Job]) -> None:
        """New jobs of one lane that are ready: they join the tail."""
        self.lanes.of(jobs[0]).tail.update(dict.fromkeys(self.inline.add("tail", jobs)))

    def defer(self, jobs: Sequence[Job], now_ms: int) -> bool:
        """Jobs of one lane that wait for one time, their ``due_ms``; False if it has come, so that they are ready."""
        ids = self.inline.add("deferred", jobs)
        lane, due_ms = self.lanes.of(jobs[0]), jobs[0].due_ms
        if due_ms <= now_ms:
            for job_id in ids:
                lane.add_due(job_id)
            return False
        self.deferred.add(ids, due_ms)
        lane.delayed += len(jobs)
        return True

    def wake(self, now_ms: int) -> list[tuple[str, int]]:
        """Make ready what has become due; how many jobs of which task that is."""
        woken = []
        for job_id in self.deferred.wake_inline(now_ms):
            lane = self.lanes.of(self.inline.jobs[job_id])
            lane.delayed -= 1
            lane.add_due(job_id)
            woken.append((lane.key[1], 1))
        if spilled := self.deferred.wake_spilled(now_ms, self.holes):
            self.dirty.add("segments")
        return woken + spilled

    # ---------------------------------------------------------------------------------------------------- going out

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
                self.lanes.at(key).returned.add(object_, a, b, attempt, alone=alone)
                returned.append((key[1], b - a + 1))
        return returned

    def _by_lane(self, object_: int, first: int, last: int) -> Iterator[tuple[LaneKey, int, int]]:
        if object_ == INLINE:
            for job_id in range(first, last + 1):
                job = self.inline.jobs[job_id]
                yield (-job.priority, job.task), job_id, job_id
            return
        for span in self.segments[object_].line.spans:
            a, b = max(first, span.first), min(last, span.first + span.count - 1)
            if a <= b:
                yield (-span.priority, span.task), a, b

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

    # --------------------------------------------------------------------------------------------------- looking up

    def locate(
        self, ids: Sequence[int], holds: Callable[[int, int], object], *, in_parts: bool = False
    ) -> list[Place | None]:
        """Where jobs are that have not finished; see `Locator.locate`.

        Args:
            ids: the jobs.
            holds: whether a lease that the caller asks for holds an address.
            in_parts: only the first ids, as many as may be looked up together.

        Raises:
            NeedsObjectsError: with every key that is missing, not only the first.
        """

        def lives(object_: int, slot: int) -> bool:
            return bool(holds(object_, slot)) or self.lives(object_, slot)

        return self.located.locate(ids, lives, in_parts=in_parts)

    def lives(self, object_: int, slot: int) -> bool:
        """Whether the job of a slot waits in it, was given back to it, or is dead in it."""
        segment = self.segments[object_]
        if segment.is_untaken(slot):
            return not self.holes.find(object_, slot)
        return self.lanes.returned_to(object_, slot) is not None

    def is_dead(self, place: Place) -> bool:
        """Whether the job is there, and dead."""
        if place.object == INLINE:
            return place.slot in self.inline.dead
        segment = self.segments.get(place.object)
        return segment is not None and segment.line.kind == "dead" and self.lives(place.object, place.slot)

    def is_waiting(self, place: Place) -> bool:
        """Whether the job is there, not dead, and nobody holds it."""
        if place.object != INLINE:
            segment = self.segments.get(place.object)
            # None: its last live job has just left, in the same operation
            return segment is not None and segment.line.kind != "dead" and self.lives(place.object, place.slot)
        lane = self.lanes.of(place.job)
        if lane.returned.find(place.object, place.slot):
            return True
        return place.slot in lane.tail or place.slot in lane.due_ids or self.deferred.is_delayed(place.slot)

    def is_delayed(self, place: Place) -> bool:
        """Whether a waiting job's time has not come."""
        if place.object == INLINE:
            return self.deferred.is_delayed(place.slot)
        segment = self.segments[place.object]
        return segment.is_untaken(place.slot) and segment.is_delayed(place.slot)

    # ------------------------------------------------------------------------------------------------------ leaving

    def remove_leased(self, places: list[Place]) -> None:
        """Leased jobs are finished, or copied elsewhere."""
        for number, count in Counter([place.object for place in places]).items():
            if number == INLINE:
                self.inline.forget([place.job for place in places if place.object == INLINE])
                continue
            segment = self.segments[number]
            segment.leased -= count
            self.drop_if_spent(segment)

    def take_deferred(self) -> tuple[list[Job], set[int]]:
        """All inline deferred jobs leave the root: they, and the ids of those that nobody has taken."""
        jobs = self.inline.take("deferred")
        return jobs, {job.id for job in jobs if self._stop_waiting(job)}

    def _stop_waiting(self, job: Job) -> bool:
        """An inline deferred job waits no longer, due or not; says whether it did."""
        lane = self.lanes.of(job)
        if self.deferred.forget(job.id):
            lane.delayed -= 1
            return True
        waits = job.id in lane.due_ids
        lane.due_ids.discard(job.id)
        return waits

    def remove_waiting(self, place: Place) -> None:
        """A job that nobody holds leaves early, waiting or dead."""
        if place.object != INLINE:
            self._leave_segment(self.segments[place.object], place.slot)
            return
        lane = self.lanes.of(place.job)
        lane.returned.cut(place.object, place.slot, place.slot)
        lane.tail.pop(place.slot, None)
        self._stop_waiting(place.job)
        self.inline.forget([place.job])

    def _leave_segment(self, segment: Segment, slot: int) -> None:
        if (lane := self.lanes.returned_to(segment.number, slot)) is not None:
            lane.returned.cut(segment.number, slot, slot)
        else:
            self._punch(segment, slot)
        self.drop_if_spent(segment)

    def _punch(self, segment: Segment, slot: int) -> None:
        span = segment.span_of(slot)
        self.dirty.update(("segments", "holes"))
        self.holes.add(segment.number, slot, slot, 0)
        segment.holes += 1
        if slot <= span.first + span.taken and swallow(self.holes, segment, span, slot):
            self.lanes.withdraw(span)

    def drop_if_spent(self, segment: Segment) -> None:
        """Let a segment go in which nothing waits, is leased, or came back."""
        if segment.leased or segment.waiting or self.lanes.has_returned(segment):
            return
        self.let_go(segment)

    def delayed(self) -> Counter[str]:
        """How many jobs of which task wait for a time; damaged segments, which are to be dropped, left out."""
        delayed = Counter[str]()
        for lane in self.lanes:
            delayed[lane.key[1]] += lane.delayed
        for segment in self.deferred.segments():
            if segment.damaged:
                continue
            holes = self.holes.of(segment.number)
            known = self.untaken([segment]) if segment.dues is None else segment.dues.delayed(holes)
            for task, count in known:
                delayed[task] += count
        return delayed

    def drop(self, segment: Segment) -> None:
        """Let a segment go whatever it holds; nothing of it is leased."""
        self.lanes.forget_returned(segment)
        self.let_go(segment)

    def let_go(self, segment: Segment) -> None:
        """The segment's jobs are all elsewhere, or finished."""
        self.dirty.update(("segments", "holes"))
        del self.segments[segment.number]
        self.located.remove(segment)
        self.deferred.remove_segment(segment)
        for span in segment.line.spans:
            self.lanes.withdraw(span)
        self.holes.pop_object(segment.number)
        self.loaded.forget(segment)
        self.trash.append(segment.key)

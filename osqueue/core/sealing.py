"""Writing segments: the tail sealed, small neighbours merged, holes left behind.

One function writes jobs into segments; whoever calls it says where they stood before. Slots are addresses in leases,
so every lease follows (`Moves`).

Rules:
* A segment holds jobs with ids between those of its neighbours, at most `MAX_JOBS` and `MAX_BYTES` (one larger alone).
* Inside, jobs stand by lane; in a lane first those that were handed out, then the waiting, each by id.
* Merging takes neighbours of similar size, so that a job is written again a few times in its life, not each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby

from osqueue.core import codec
from osqueue.core.backlog import Backlog, Place
from osqueue.core.model import INLINE, Job, SegmentLine, Span
from osqueue.core.objects import segment_key
from osqueue.core.runs import Runs
from osqueue.core.segment import MAX_BYTES, MAX_JOBS, Segment

HOLES_BYTES = 8 * 1024
_MERGED_AT_ONCE = 8
Allocate = Callable[[], tuple[int, int]]
"""Gives the next object number and the epoch."""
Moves = dict[int, dict[int, tuple[int, int]]]
"""Old object → old slot → new address, of jobs that somebody holds or gave back."""


class Sealing:
    """New segments of one commit.

    Attributes:
        objects: key → bytes, to be created.
        moves: where held jobs went; leases must follow.
    """

    def __init__(self, backlog: Backlog, allocate: Allocate) -> None:
        self.objects: dict[str, bytes] = {}
        self.moves: Moves = {}
        self._backlog = backlog
        self._allocate = allocate

    def seal_tail(self) -> None:
        """Write the whole tail out."""
        backlog = self._backlog
        places = [Place(INLINE, job_id, backlog.inline[job_id]) for job_id in backlog.tail]
        held = {place.slot for place in places if place.slot not in backlog.lane_of(place.job).tail}
        for place in places:
            lane = backlog.lane_of(place.job)
            lane.tail.pop(place.slot, None)
            backlog.forget_inline(place.job)
        self._write(places, lambda place: place.slot in held)

    def rewrite(self, segments: list[Segment], leased: Runs) -> None:
        """Write neighbours anew, without what has left them.

        Args:
            segments: neighbours by first id, in memory all of them.
            leased: every slot that a lease holds.
        """
        backlog = self._backlog
        places = [Place(s.number, slot, job) for s in segments for slot, job in enumerate(s.loaded())]
        waiting = {(p.object, p.slot) for p in places if backlog.is_waiting(p)}
        held = {(p.object, p.slot) for p in places if leased.find(p.object, p.slot)}
        held.update((p.object, p.slot) for p in places if backlog.lane_of(p.job).returned.find(p.object, p.slot))
        live = [p for p in places if (p.object, p.slot) in waiting or (p.object, p.slot) in held]
        for segment in segments:
            backlog.let_go(segment)
        self._write(live, lambda place: (place.object, place.slot) in held)

    def _write(self, places: list[Place], is_held: Callable[[Place], bool]) -> None:
        for part in _parts(sorted(places, key=lambda place: place.job.id)):
            number, epoch = self._allocate()
            part.sort(key=lambda p: (-p.job.priority, p.job.task, not is_held(p), p.job.id))
            spans = list(_spans(part, is_held))
            for slot, place in enumerate(part):
                if is_held(place):
                    self.moves.setdefault(place.object, {})[place.slot] = (number, slot)
            self._add(number, epoch, [place.job for place in part], spans)
        self._move_returned()

    def _add(self, number: int, epoch: int, jobs: list[Job], spans: list[Span]) -> None:
        data = codec.encode_segment(number, epoch, jobs)
        ids = [job.id for job in jobs]
        line = SegmentLine(number, epoch, codec.digest(data), len(data), min(ids), max(ids), spans)
        segment = Segment(line, jobs)
        self.objects[segment_key(number, epoch)] = data
        self._backlog.add_segment(segment)
        self._backlog.offer(segment)
        self._backlog.loaded.touch(segment)

    def _move_returned(self) -> None:
        for lane in self._backlog.lanes():
            lane.returned.move(self.moves)

    def count_leased(self, leased: Runs) -> None:
        """After the leases have followed: tell the new segments how many of their slots are held."""
        for number in {target[0] for slots in self.moves.values() for target in slots.values()}:
            self._backlog.segments[number].leased = sum(last - first + 1 for first, last, _, _ in leased.of(number))


def _spans(part: list[Place], is_held: Callable[[Place], bool]) -> Iterator[Span]:
    first = 0
    for (priority, task), group in groupby(part, key=lambda place: (place.job.priority, place.job.task)):
        members = list(group)
        taken = sum(map(is_held, members))
        yield Span(priority, task, first, len(members), taken)
        first += len(members)


def _parts(places: list[Place]) -> Iterator[list[Place]]:
    part: list[Place] = []
    size = 0
    for place in places:
        job_bytes = len(place.job.payload_bytes())
        if part and (len(part) == MAX_JOBS or size + job_bytes > MAX_BYTES):
            yield part
            part, size = [], 0
        part.append(place)
        size += job_bytes
    if part:
        yield part


# ------------------------------------------------------------------------------------------------- what to write anew


def worth_rewriting(backlog: Backlog) -> list[Segment]:
    """The segments to write anew next: those with too many holes, else a run of small neighbours; mostly none.

    Small ones come from sealing the tail, so only the newest are looked at.
    """
    if backlog.holes.potential_bytes() > HOLES_BYTES:
        worst = max(backlog.holes.objects(), key=lambda number: len(backlog.holes.of(number)))
        return [] if backlog.segments[worst].damaged else [backlog.segments[worst]]
    return _small_neighbours(backlog.newest(2 * _MERGED_AT_ONCE))


def _small_neighbours(segments: list[Segment]) -> list[Segment]:
    for at in range(len(segments) - _MERGED_AT_ONCE + 1):
        window = segments[at : at + _MERGED_AT_ONCE]
        jobs = [segment.waiting + segment.leased for segment in window]
        sizes = [segment.line.length for segment in window]
        fits = sum(jobs) <= MAX_JOBS and sum(sizes) <= MAX_BYTES
        if fits and max(sizes) * 2 <= sum(sizes) and not any(segment.damaged for segment in window):
            return window
    return []

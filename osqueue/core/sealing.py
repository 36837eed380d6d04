"""Writing segments: the tail sealed, small neighbours merged, holes left behind.

One function writes jobs into segments; whoever calls it says where they stood before. Slots are addresses in leases,
so every lease follows (`Moves`).

Rules:
* A segment holds jobs with ids between those of its neighbours, at most `MAX_JOBS` and `MAX_BYTES` (one larger alone).
* Inside, jobs stand by lane; in a lane first those that were handed out, then the waiting, each by id.
* Merging takes neighbours of similar size, so that a job is written again a few times in its life, not each time.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import accumulate, chain, groupby
from operator import attrgetter

from osqueue.core import codec
from osqueue.core.backlog import Backlog, Place
from osqueue.core.lanes import LaneKey
from osqueue.core.model import INLINE, Job, SegmentLine, Span
from osqueue.core.objects import segment_key
from osqueue.core.runs import Runs
from osqueue.core.segment import MAX_BYTES, MAX_JOBS, Segment

HOLES_BYTES = 8 * 1024
_MERGED_AT_ONCE = 8
Address = tuple[int, int]
Allocate = Callable[[], tuple[int, int]]
"""Gives the next object number and the epoch."""
Moves = dict[int, dict[int, Address]]
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
        jobs, waiting = backlog.take_tail()
        held = {job.id: (INLINE, job.id) for job in jobs if job.id not in waiting} if len(waiting) < len(jobs) else {}
        self._write(jobs, held)

    def rewrite(self, segments: list[Segment], leased: Runs) -> None:
        """Write neighbours anew, without what has left them.

        Args:
            segments: neighbours by first id, in memory all of them.
            leased: every slot that a lease holds.
        """
        backlog = self._backlog
        places = [Place(s.number, slot, job) for s in segments for slot, job in enumerate(s.loaded())]
        held = {p.job.id: (p.object, p.slot) for p in places if leased.find(p.object, p.slot) or backlog.came_back(p)}
        jobs = [p.job for p in places if p.job.id in held or backlog.is_waiting(p)]
        for segment in segments:
            backlog.let_go(segment)
        self._write(sorted(jobs, key=lambda job: job.id), held)

    def _write(self, jobs: list[Job], held: dict[int, Address]) -> None:
        for part in _parts(jobs):
            number, epoch = self._allocate()
            lanes = _by_lane(part, held)
            ordered = list(chain.from_iterable(lanes.values()))
            if held:
                self._note_moves(ordered, held, number)
            self._add(number, epoch, ordered, _spans(lanes, held))
        self._move_returned()

    def _note_moves(self, jobs: list[Job], held: dict[int, Address], number: int) -> None:
        for slot, job in enumerate(jobs):
            if (old := held.get(job.id)) is not None:
                self.moves.setdefault(old[0], {})[old[1]] = (number, slot)

    def _add(self, number: int, epoch: int, jobs: list[Job], spans: list[Span]) -> None:
        data = codec.encode_segment(number, epoch, jobs)
        ids = [job.id for job in jobs]
        oldest_ms = min(job.pushed_ms for job in jobs)
        line = SegmentLine(number, epoch, codec.digest(data), len(data), min(ids), max(ids), oldest_ms, spans)
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


def _by_lane(jobs: list[Job], held: dict[int, Address]) -> dict[LaneKey, list[Job]]:
    """Jobs by lane, highest priority first; in each those that somebody holds, then the waiting, both by id."""
    lanes: dict[LaneKey, list[Job]] = {}
    for (priority, task), neighbours in groupby(jobs, key=attrgetter("priority", "task")):
        lanes.setdefault((-priority, task), []).extend(neighbours)
    if held:
        for members in lanes.values():
            members.sort(key=lambda job: job.id not in held)
    return dict(sorted(lanes.items()))


def _spans(lanes: dict[LaneKey, list[Job]], held: dict[int, Address]) -> list[Span]:
    spans = []
    first = 0
    for (minus_priority, task), members in lanes.items():
        taken = sum(job.id in held for job in members) if held else 0
        spans.append(Span(-minus_priority, task, first, len(members), taken))
        first += len(members)
    return spans


def _parts(jobs: list[Job]) -> Iterator[list[Job]]:
    sizes = list(accumulate(map(Job.payload_size, jobs)))
    start = 0
    while start < len(jobs):
        most = sizes[start - 1] + MAX_BYTES if start else MAX_BYTES
        end = max(start + 1, bisect_right(sizes, most, start, min(start + MAX_JOBS, len(jobs))))
        yield jobs[start:end]
        start = end


# ------------------------------------------------------------------------------------------------- what to write anew


def worth_rewriting(backlog: Backlog) -> list[Segment]:
    """The segments to write anew next: those with too many holes, else a run of small neighbours; mostly none.

    Small ones come from sealing the tail, so only the newest are looked at.
    """
    if backlog.holes.potential_bytes() > HOLES_BYTES:
        legible = [number for number in backlog.holes.objects() if not backlog.segments[number].damaged]
        return [backlog.segments[max(legible, key=lambda number: len(backlog.holes.of(number)))]] if legible else []
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

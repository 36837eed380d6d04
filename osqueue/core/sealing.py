"""Writing segments: the tail sealed, deferred and dead jobs spilled, small neighbours merged, holes left behind.

One function writes jobs into segments; whoever calls it says where they stood before. Slots are addresses in leases,
so every lease follows (`Moves`).

Rules:
* A segment holds at most `MAX_JOBS` and `MAX_BYTES` (one larger job alone), of one kind.
* Ready ones hold jobs with ids between those of their neighbours. Inside, jobs stand by lane; in a lane first those
  that were handed out, then the waiting, each by id.
* Deferred ones hold jobs of one window of due time; in a lane the waiting stand in the order in which they are due.
* Dead ones hold jobs by task, in the order of their death.
* Merging takes neighbours of similar size, so that a job is written again a few times in its life, not each time.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, chain, groupby
from operator import attrgetter

from osqueue.core import codec, windows
from osqueue.core.backlog import Backlog
from osqueue.core.lanes import LaneKey
from osqueue.core.locator import Place
from osqueue.core.model import INLINE, Job, SegmentKind, SegmentLine, Span
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

    def __init__(self, backlog: Backlog, allocate: Allocate, now_ms: int) -> None:
        self.objects: dict[str, bytes] = {}
        self.moves: Moves = {}
        self._backlog = backlog
        self._allocate = allocate
        self._now_ms = now_ms

    def seal_tail(self) -> None:
        """Write the whole tail out."""
        jobs, waiting = self._backlog.inline.take("tail"), self._backlog.lanes.take_tail()
        self._write("ready", jobs, _held_inline(jobs, waiting))

    def spill_deferred(self) -> None:
        """Write all inline deferred jobs out."""
        jobs, waiting = self._backlog.take_deferred()
        self._write("deferred", jobs, _held_inline(jobs, waiting))

    def spill_dead(self) -> None:
        """Write all inline dead jobs out."""
        self._write("dead", self._backlog.inline.take("dead"), {})

    def rewrite(self, segments: list[Segment], leased: Runs) -> None:
        """Write segments of one kind anew, without what has left them.

        Args:
            segments: neighbours by first id or, if they are deferred or dead, by age; in memory all of them.
            leased: every slot that a lease holds.
        """
        backlog = self._backlog
        kind = segments[0].line.kind
        places = [Place(s.number, slot, job) for s in segments for slot, job in enumerate(s.loaded())]
        # By place: one that has failed and was deferred again may stand in two of them, and lives in one.
        came_back = backlog.lanes.returned_to
        taken = [p for p in places if leased.find(p.object, p.slot) or came_back(p.object, p.slot)]
        held = {p.job.id: (p.object, p.slot) for p in taken}
        lives = [p for p in places if held.get(p.job.id) == (p.object, p.slot) or backlog.lives(p.object, p.slot)]
        jobs = [place.job.apart() for place in lives]
        for segment in segments:
            backlog.let_go(segment)
        self._write(kind, jobs if kind == "dead" else sorted(jobs, key=attrgetter("id")), held)

    def _write(self, kind: SegmentKind, jobs: list[Job], held: dict[int, Address]) -> None:
        for level, members in self._by_level(jobs) if kind == "deferred" else ((0, jobs),):
            for part in _parts(members):
                self._write_part(kind, level, part, held)
        self._move_returned()

    def _by_level(self, jobs: list[Job]) -> Iterator[tuple[int, list[Job]]]:
        """Jobs by their window of due time, as it is now."""
        by_window: dict[windows.Window, list[Job]] = {}
        for job in jobs:
            by_window.setdefault(windows.window_of(job.due_ms, self._now_ms), []).append(job)
        for window, members in sorted(by_window.items()):
            yield window.level, sorted(members, key=attrgetter("due_ms", "id"))

    def _write_part(self, kind: SegmentKind, level: int, part: list[Job], held: dict[int, Address]) -> None:
        number, epoch = self._allocate()
        lanes = _by_task(part) if kind == "dead" else _by_lane(part, held)
        ordered, spans = list(chain.from_iterable(lanes.values())), _spans(lanes, held)
        if held:
            self._note_moves(ordered, held, number)
        data = codec.encode_segment(number, epoch, ordered)
        ids = [job.id for job in ordered]
        oldest_ms = min(job.pushed_ms for job in ordered)
        line = SegmentLine(number, epoch, codec.digest(data), len(data), min(ids), max(ids), oldest_ms, spans, kind)
        if kind == "deferred":
            line.level, line.due_ms, line.woken_ms = level, min(job.due_ms for job in part), self._now_ms
        self._add(Segment(line, ordered), data)

    def _note_moves(self, jobs: list[Job], held: dict[int, Address], number: int) -> None:
        for slot, job in enumerate(jobs):
            if (old := held.get(job.id)) is not None:
                self.moves.setdefault(old[0], {})[old[1]] = (number, slot)

    def _add(self, segment: Segment, data: bytes) -> None:
        self.objects[segment.key] = data
        self._backlog.add_segment(segment)
        self._backlog.lanes.offer(segment)
        self._backlog.loaded.touch(segment)

    def _move_returned(self) -> None:
        for lane in self._backlog.lanes:
            lane.returned.move(self.moves)

    def count_leased(self, leased: Runs) -> None:
        """After the leases have followed: tell the new segments how many of their slots are held."""
        for number in {target[0] for slots in self.moves.values() for target in slots.values()}:
            self._backlog.segments[number].leased = sum(last - first + 1 for first, last, _, _ in leased.of(number))


def _held_inline(jobs: list[Job], waiting: set[int]) -> dict[int, Address]:
    """Addresses of those that somebody holds or gave back; mostly none."""
    return {job.id: (INLINE, job.id) for job in jobs if job.id not in waiting} if len(waiting) < len(jobs) else {}


def _by_lane(jobs: list[Job], held: dict[int, Address]) -> dict[LaneKey, list[Job]]:
    """Jobs by lane, highest priority first; in each those that somebody holds, then the waiting, both as they came."""
    lanes: dict[LaneKey, list[Job]] = {}
    for (priority, task), neighbours in groupby(jobs, key=attrgetter("priority", "task")):
        lanes.setdefault((-priority, task), []).extend(neighbours)
    if held:
        for members in lanes.values():
            members.sort(key=lambda job: job.id not in held)
    return dict(sorted(lanes.items()))


def _by_task(jobs: list[Job]) -> dict[LaneKey, list[Job]]:
    """Dead jobs by task, as they came: nobody claims them, so that their priorities do not matter."""
    lanes: dict[LaneKey, list[Job]] = {}
    for job in jobs:
        lanes.setdefault((0, job.task), []).append(job)
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


def worth_rewriting(backlog: Backlog, now_ms: int) -> list[Segment]:
    """The segments to write anew next: those with too many holes, else a run of small neighbours; mostly none.

    Small ready ones come from sealing the tail, so only the newest are looked at.
    """
    if backlog.holes.potential_bytes() > HOLES_BYTES:
        legible = [number for number in backlog.holes.objects() if not backlog.segments[number].damaged]
        return [backlog.segments[max(legible, key=lambda number: len(backlog.holes.of(number)))]] if legible else []
    for neighbours in (backlog.located.newest(2 * _MERGED_AT_ONCE), *_alike(backlog.located.spilled(), now_ms)):
        if found := _small_neighbours(neighbours):
            return found
    return []


def _alike(spilled: Iterable[Segment], now_ms: int) -> Iterable[list[Segment]]:
    """Spilled segments that may be merged: dead ones, and deferred ones of one window."""
    groups: dict[windows.Window | None, list[Segment]] = {}
    for segment in spilled:
        line = segment.line
        group = None if line.kind == "dead" else windows.group_of(line.level, line.due_ms, now_ms)
        groups.setdefault(group, []).append(segment)
    return groups.values()


def _small_neighbours(segments: list[Segment]) -> list[Segment]:
    for at in range(len(segments) - _MERGED_AT_ONCE + 1):
        window = segments[at : at + _MERGED_AT_ONCE]
        jobs = [segment.waiting + segment.leased for segment in window]
        sizes = [segment.line.length for segment in window]
        fits = sum(jobs) <= MAX_JOBS and sum(sizes) <= MAX_BYTES
        if fits and max(sizes) * 2 <= sum(sizes) and not any(segment.damaged for segment in window):
            return window
    return []

"""Jobs that wait for a time, inline or spilled into segments, and which of them have become due.

inline   ──due──▶ ready
spilled  ──its window opens──▶ split among finer windows … ──the finest──▶ ready, slot by slot, where it stands
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from heapq import heapify, heappop, heappush
from itertools import chain, islice

from osqueue.core import windows
from osqueue.core.runs import Runs
from osqueue.core.segment import Segment

_READ_AT_ONCE = 4
"""Segments that are read to see when their jobs are due; the next ones when these have been looked at."""
_SPLIT_AT_ONCE = 2
"""Segments whose windows have opened that one commit splits: a plan must not take long."""


class Deferred:
    """The clock of deferred jobs. Not thread-safe; owned by the backlog."""

    def __init__(self) -> None:
        self._alarms: list[tuple[int, int]] = []
        self._delayed: set[int] = set()
        self._segments: dict[int, Segment] = {}
        self._looked_ms = 0
        """Nothing that is spilled is due, or opens, between then and ``_next_ms``."""
        self._next_ms: int | None = None
        self._needed: set[str] = set()
        self._splits = False

    # ---------------------------------------------------------------------------------------------------------- inline

    def add(self, ids: Iterable[int], due_ms: int) -> None:
        """Inline jobs that wait for their time."""
        for job_id in ids:
            heappush(self._alarms, (due_ms, job_id))
        self._delayed.update(ids)
        if len(self._alarms) > 2 * len(self._delayed):
            # Behind one that lives, those of jobs that wait here no longer would stay as long as it does.
            self._alarms = [alarm for alarm in self._alarms if alarm[1] in self._delayed]
            heapify(self._alarms)

    def forget(self, job_id: int) -> bool:
        """An inline job waits for its time no longer; says whether it did."""
        delayed = job_id in self._delayed
        self._delayed.discard(job_id)
        return delayed

    def is_delayed(self, job_id: int) -> bool:
        """Whether an inline job's time has not come."""
        return job_id in self._delayed

    def wake_inline(self, now_ms: int) -> Iterator[int]:
        """Ids of inline jobs that have become due."""
        while (due := self._next_inline_ms()) is not None and due <= now_ms:
            _, job_id = heappop(self._alarms)
            self._delayed.remove(job_id)
            yield job_id

    def _next_inline_ms(self) -> int | None:
        while self._alarms and self._alarms[0][1] not in self._delayed:
            heappop(self._alarms)
        return self._alarms[0][0] if self._alarms else None

    # --------------------------------------------------------------------------------------------------------- spilled

    def add_segment(self, segment: Segment) -> None:
        """Deferred jobs stand in this segment too."""
        self._segments[segment.number] = segment
        self.look_again()

    def remove_segment(self, segment: Segment) -> None:
        """The segment has gone."""
        self._segments.pop(segment.number, None)

    def segments(self) -> Iterable[Segment]:
        """Those that hold deferred jobs, in the order in which they were made."""
        return self._segments.values()

    def look_again(self) -> None:
        """A segment has come into memory, or nobody can read it: what follows is found out at the next look."""
        self._next_ms = self._looked_ms

    def wake_spilled(self, now_ms: int, holes: Runs) -> list[tuple[str, int]]:
        """Make ready what has become due; how many jobs of which task that is."""
        if self._next_ms is None or self._next_ms > now_ms:
            return []
        self._looked_ms = now_ms
        woken: list[tuple[str, int]] = []
        for segment in self._segments.values():
            if segment.dues is not None and (due := segment.dues.next_ms()) is not None and due <= now_ms:
                woken += segment.dues.wake(now_ms, holes.of(segment.number))
                segment.line.woken_ms = now_ms
        opened = [segment for segment in self._segments.values() if self._has_opened(segment)]
        unknown = [segment for segment in opened if segment.dues is None and not segment.line.level]
        to_split = self.to_split()
        self._needed |= {segment.key for segment in (*unknown[:_READ_AT_ONCE], *to_split) if segment.jobs is None}
        self._splits = self._splits or any(segment.jobs is not None for segment in to_split)
        self._next_ms = min((at for at in map(self._next_of, self._segments.values()) if at is not None), default=None)
        return woken

    def take_needed(self) -> set[str]:
        """Keys of segments that have opened and are to be read."""
        needed, self._needed = self._needed, set()
        return needed

    def take_splits(self) -> bool:
        """Whether a segment has opened that the next commit is to split."""
        splits, self._splits = self._splits, False
        return splits

    def to_split(self) -> list[Segment]:
        """Segments whose jobs the next commit splits among finer windows, once they are in memory: few at a time."""
        opened = (segment for segment in self._segments.values() if segment.line.level and self._has_opened(segment))
        return list(islice(opened, _SPLIT_AT_ONCE))

    def awaits(self, tasks: Container[str]) -> bool:
        """Whether jobs of these tasks may be ready once a segment that has opened has been read, or split."""
        opened = (segment for segment in self._segments.values() if self._has_opened(segment))
        spans = (segment.line.spans for segment in opened if segment.line.level or segment.dues is None)
        return any(span.task in tasks and span.taken < span.count for span in chain.from_iterable(spans))

    def unknown(self, but: Segment) -> list[str]:
        """Keys of segments of which only their jobs' times could say how many are ready; without damaged ones."""
        others = [segment for segment in self._segments.values() if segment is not but and not segment.damaged]
        return [segment.key for segment in others if segment.dues is None and _may_be_ready(segment)]

    def next_ms(self) -> int | None:
        """When `Backlog.wake` will have something to do."""
        inline_ms = self._next_inline_ms()
        if self._next_ms is None or inline_ms is None:
            return self._next_ms if inline_ms is None else inline_ms
        return min(inline_ms, self._next_ms)

    # ---------------------------------------------------------------------------------------------------------- private

    def _has_opened(self, segment: Segment) -> bool:
        return not segment.damaged and _opens_ms(segment) <= self._looked_ms

    def _next_of(self, segment: Segment) -> int | None:
        """When to look at a segment next; None while it has to be read or split first, or nobody can read it."""
        if segment.damaged:
            return None
        due_ms = None if segment.dues is None else segment.dues.next_ms()
        opens_ms = None if self._has_opened(segment) else _opens_ms(segment)
        if segment.line.level == 0 and segment.dues is not None:
            return due_ms
        return min((at for at in (due_ms, opens_ms) if at is not None), default=None)


def _opens_ms(segment: Segment) -> int:
    return windows.opens_ms(segment.line.level, segment.line.due_ms)


def _may_be_ready(segment: Segment) -> bool:
    return segment.line.due_ms <= segment.line.woken_ms

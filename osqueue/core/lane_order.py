"""All lanes, in the order in which they go out: the highest priority first, in it the lowest id of all tasks.

Rules:
* Jobs of a segment are offered to their lanes when it is known, and withdrawn as nothing waits there any more.
* A lane in which nothing waits is dropped only when there are too many.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from itertools import groupby

from osqueue.core.lanes import ENDLESS, Head, Lane, LaneKey, Taken
from osqueue.core.model import Job, Span
from osqueue.core.runs import Runs
from osqueue.core.segment import Segment

MAX_LANES = 256
TOO_MANY = f"too many lanes (pairs of priority and task) have waiting jobs limit={MAX_LANES}"


class LaneOrder:
    """The lanes of a backlog. Not thread-safe; owned by it.

    Args:
        inline: the jobs in the root, by id.
        segments: by number.
        holes: slots of segments that left early.
        dirty: names of sections of the root that have changed; what goes out changes those of the segments.
    """

    def __init__(self, inline: dict[int, Job], segments: dict[int, Segment], holes: Runs, dirty: set[str]) -> None:
        self._inline = inline
        self._segments = segments
        self._holes = holes
        self._dirty = dirty
        self._lanes: dict[LaneKey, Lane] = {}
        self._order: list[LaneKey] = []

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes.values())

    def at(self, key: LaneKey) -> Lane:
        """The lane of a key, perhaps a new one."""
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(key, self._inline, self._segments, self._holes)
            insort(self._order, key)
        return lane

    def of(self, jobs: Job | Span) -> Lane:
        """The lane of a job, or of a segment's span."""
        return self.at((-jobs.priority, jobs.task))

    def can_add(self, keys: set[LaneKey]) -> bool:
        """Whether jobs of these lanes may wait: at most `MAX_LANES` have waiting jobs, but for what is tried again."""
        if self._count_with(keys) > MAX_LANES:
            self._drop_empty()
        return keys <= self._lanes.keys() or self._count_with(keys) <= MAX_LANES

    def _count_with(self, keys: set[LaneKey]) -> int:
        return len(self._lanes) + len(keys - self._lanes.keys())

    def _drop_empty(self) -> None:
        for key in [key for key, lane in self._lanes.items() if lane.empty]:
            del self._lanes[key]
            self._order.remove(key)

    # ---------------------------------------------------------------------------------------------------- going out

    def take(self, tasks: frozenset[str], taken: Taken) -> None:
        """Hand out up to ``taken``'s room of these tasks' jobs, lane by lane."""
        lanes = [self._lanes[key] for key in self._order if key[1] in tasks]
        while not taken.full:
            heads = self._heads(lanes, taken)
            if not heads:
                return
            (head, lane), rest = heads[0], heads[1:]
            if head.source in ("span", "due span"):
                self._dirty.update(("segments", "holes") if self._holes else ("segments",))
            lane.take(head.source, taken, rest[0][0].job_id if rest else ENDLESS)

    def _heads(self, lanes: list[Lane], taken: Taken) -> list[tuple[Head, Lane]]:
        """Heads of the highest priority that has any, lowest id first."""
        for _, group in groupby(lanes, key=lambda lane: lane.key[0]):
            heads = [(head, lane) for lane in group for head in lane.heads(taken.wanted)]
            if heads:
                return sorted(heads, key=lambda pair: pair[0].job_id)
        return []

    def have(self, tasks: frozenset[str]) -> bool:
        """Whether a job of these tasks could be handed out, at the latest when its object has been read."""
        wanted: set[str] = set()
        lanes = [lane for key, lane in self._lanes.items() if key[1] in tasks]
        return any(lane.heads(wanted) for lane in lanes) or bool(wanted)

    def take_tail(self) -> set[int]:
        """Ids of the tail's jobs that nobody has taken; none of them waits there any more."""
        waiting: set[int] = set()
        for lane in self:
            waiting.update(lane.tail)
            lane.tail.clear()
        return waiting

    # ---------------------------------------------------------------------------------------------------- segments

    def offer(self, segment: Segment) -> None:
        """What nobody has taken from a segment waits in its lanes; dead jobs wait for nobody."""
        if segment.line.kind == "dead":
            return
        for span in segment.line.spans:
            if span.taken < span.count:
                self.of(span).offer(segment, span)

    def withdraw(self, span: Span) -> None:
        """Nothing of a span waits any more."""
        if (lane := self._known(span)) is not None:
            lane.withdraw(span)

    def _known(self, span: Span) -> Lane | None:
        return self._lanes.get((-span.priority, span.task))

    # ---------------------------------------------------------------------------------------------------- came back

    def returned(self) -> Runs:
        """All slots that came back."""
        return Runs(run for lane in self for run in lane.returned)

    def returned_to(self, object_: int, slot: int) -> Lane | None:
        """The lane in which the job of a segment's slot waits, if it came back to it."""
        lane = self._known(self._segments[object_].span_of(slot))
        return lane if lane is not None and lane.returned.find(object_, slot) else None

    def has_returned(self, segment: Segment) -> bool:
        """Whether a job that came back to a segment waits there."""
        lanes = (self._known(span) for span in segment.line.spans)
        return any(lane.returned.of(segment.number) for lane in lanes if lane is not None)

    def forget_returned(self, segment: Segment) -> None:
        """What came back to a segment is lost."""
        for lane in self:
            lane.returned.pop_object(segment.number)

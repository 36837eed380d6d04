"""What can be asked of the queue; nothing here changes it.

Finished jobs that are in archive objects are not the machine's to know: `Elsewhere` says what the broker must look up.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from osqueue.core import codec
from osqueue.core.counts import FOLDED
from osqueue.core.locator import Place
from osqueue.core.messages import (
    GetJob,
    GetStats,
    History,
    JobRecord,
    ListJobs,
    Page,
    Prune,
    Query,
    Refused,
    Stats,
    TaskStats,
    refused_as_corrupt,
)
from osqueue.core.model import INLINE
from osqueue.core.segment import NeedsObjectsError, Segment
from osqueue.core.state import QueueState

PAGE_BYTES = 1024 * 1024
_ENDLESS = 1 << 62


class Elsewhere(Exception):
    """The answer is in archive objects."""

    def __init__(self, query: GetJob | History | Prune) -> None:
        super().__init__()
        self.query = query


class Queries:
    """Answers queries from the queue's state."""

    def __init__(self, state: QueueState) -> None:
        self._state = state

    def answer(self, query: GetJob | GetStats | ListJobs | History | Prune, now_ms: int) -> Stats | Page | Refused:
        """Answer one query.

        Raises:
            NeedsObjectsError: segments must be in memory first.
            Elsewhere: the archive must be read.
        """
        match query:
            case GetJob():
                return self._get(query)
            case GetStats():
                return self.stats(now_ms)
            case ListJobs():
                return self._list(query)
            case History() | Prune():
                raise Elsewhere(query)

    # -------------------------------------------------------------------------------------------------------- stats

    def stats(self, now_ms: int) -> Stats:
        """Counts by state and task."""
        begun = self._state.begun()
        tasks = {}
        for name, counts in self._state.counts.items():
            running = min(begun[name], counts.leased)
            tasks[name] = TaskStats(
                ready=counts.ready + counts.leased - running,
                delayed=counts.delayed,
                running=running,
                succeeded=counts.succeeded,
                dead=counts.dead,
                cancelled=counts.cancelled,
                discarded=counts.discarded,
                pushed=counts.pushed,
            )
        total = {name: sum(getattr(task, name) for task in tasks.values()) for name in TaskStats.__struct_fields__}
        tasks.pop(FOLDED, None)
        return Stats(**total, oldest_ready_s=self._oldest_ready_s(now_ms), tasks=tasks)

    def _oldest_ready_s(self, now_ms: int) -> float | None:
        pushed = [pushed_ms for lane in self._state.backlog.lanes if (pushed_ms := lane.oldest_ms()) is not None]
        return max(0.0, (now_ms - min(pushed)) / 1000) if pushed else None

    # ---------------------------------------------------------------------------------------------------- single jobs

    def _get(self, query: GetJob) -> Page | Refused:
        state = self._state
        if not 0 < query.id < state.frame.next_id:
            return Refused("job_not_found", f"no job has this id id={query.id}")
        if (record := state.finished.get(query.id)) is not None:
            return Page([record])
        place = state.find(query.id)
        job_state = state.state_of(place) if place is not None else None
        if place is None or job_state is None:
            raise Elsewhere(query)
        return Page([self._record(place, job_state)])

    def _record(self, place: Place, job_state: str) -> JobRecord:
        job = place.job
        told = self._state.progress_of(place) if job_state == "running" else None
        return JobRecord(
            id=job.id,
            task=job.task,
            state=job_state,  # type: ignore[arg-type]
            priority=job.priority,
            payload=job.payload_bytes(),
            attempts=job.attempts,
            errors=job.errors,
            pushed_at=codec.iso(job.pushed_ms),
            due_at=codec.iso(job.due_ms) if job_state == "delayed" else None,
            key=job.key or None,
            progress=None if told is None else told.fraction,
            progress_message="" if told is None else told.message,
        )

    # --------------------------------------------------------------------------------------------------------- lists

    def _list(self, query: ListJobs) -> Page:
        """A page of unfinished jobs: what is inline, and of few segments, so that no page takes long."""
        jobs: list[JobRecord] = []
        size = 0
        places, end = self._unfinished(query)
        for place in places:
            job_state = self._state.state_of(place)
            if job_state is None or query.state not in (None, job_state):
                continue
            if jobs and (len(jobs) >= query.limit or size >= PAGE_BYTES):
                return Page(jobs, str(jobs[-1].id))
            jobs.append(self._record(place, job_state))
            size += len(jobs[-1].payload)
        return Page(jobs, "" if end is None else str(end), self._passed_over(query) if end is None else None)

    def _passed_over(self, query: ListJobs) -> Refused | None:
        """What the last page says of jobs that no page could list, since their segments are damaged."""
        damaged = [segment for segment in self._state.backlog.damaged().values() if _may_hold(segment, query.state)]
        return next((refused_as_corrupt(segment.damage()) for segment in damaged), None)

    def _unfinished(self, query: ListJobs) -> tuple[Iterator[Place], int | None]:
        """Places with ids above ``query.after``, by id, and the id up to which they are; None for the last.

        A page is of the segments whose ids lie around the next one that there may be; mostly that is one.
        """
        backlog = self._state.backlog
        segments = [
            segment
            for segment in (*backlog.located.ready(), *backlog.located.spilled())
            if segment.line.last_id > query.after and not segment.damaged and _may_hold(segment, query.state)
        ]
        start = max(query.after + 1, min((segment.line.first_id for segment in segments), default=0))
        around = [segment for segment in segments if segment.line.first_id <= start]
        end = min((segment.line.first_id - 1 for segment in segments if segment.line.first_id > start), default=None)
        last = _ENDLESS if end is None else end
        if missing := {segment.key for segment in around if segment.jobs is None}:
            raise NeedsObjectsError(missing)
        inline = (
            Place(INLINE, job_id, backlog.inline.jobs[job_id])
            for job_id in sorted(backlog.inline.jobs)
            if query.after < job_id <= last
        )
        spread = [_places(segment, query.after, last) for segment in around]
        return heapq.merge(inline, *spread, key=lambda place: place.job.id), end


def _may_hold(segment: Segment, state: str | None) -> bool:
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


def _places(segment: Segment, after: int, last: int) -> list[Place]:
    jobs = enumerate(segment.loaded())
    places = [Place(segment.number, slot, job) for slot, job in jobs if after < job.id <= last]
    return sorted(places, key=lambda place: place.job.id)


__all__ = ["Elsewhere", "Queries", "Query"]

"""What can be asked of the queue; nothing here changes it.

Finished jobs that are in archive objects are not the machine's to know: `Elsewhere` says what the broker must look up.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator

from osqueue.core import codec
from osqueue.core.backlog import Place
from osqueue.core.counts import FOLDED
from osqueue.core.leases import Lease
from osqueue.core.messages import GetJob, GetStats, History, JobRecord, ListJobs, Page, Query, Refused, Stats, TaskStats
from osqueue.core.model import INLINE, Job
from osqueue.core.segment import NeedsObjectsError
from osqueue.core.state import QueueState

PAGE_BYTES = 1024 * 1024


class Elsewhere(Exception):
    """The answer is in archive objects."""

    def __init__(self, query: GetJob | History) -> None:
        super().__init__()
        self.query = query


class Queries:
    """Answers queries from the queue's state."""

    def __init__(self, state: QueueState) -> None:
        self._state = state

    def answer(self, query: GetJob | GetStats | ListJobs | History, now_ms: int) -> Stats | Page | Refused:
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
            case History():
                raise Elsewhere(query)

    # -------------------------------------------------------------------------------------------------------- stats

    def stats(self, now_ms: int) -> Stats:
        """Counts by state and task."""
        begun = self._begun()
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
                pushed=counts.pushed,
            )
        total = {name: sum(getattr(task, name) for task in tasks.values()) for name in TaskStats.__struct_fields__}
        tasks.pop(FOLDED, None)
        return Stats(**total, oldest_ready_s=self._oldest_ready_s(now_ms), tasks=tasks)

    def _begun(self) -> Counter[str]:
        begun: Counter[str] = Counter()
        for lease in self._state.leases.all():
            begun.update(place.job.task for place in self._begun_of(lease))
        return begun

    def _begun_of(self, lease: Lease) -> Iterator[Place]:
        """The jobs of a lease that have begun: those its holder named; of a bare claim all."""
        ids: Iterable[int] = lease.begun
        if not lease.standing:
            ids = [place.job.id for place in self._leased_places(lease)]
        for job_id in ids:
            place = self._state.backlog.locate(job_id)
            if place is not None and lease.runs.find(place.object, place.slot):
                yield place

    def _leased_places(self, lease: Lease) -> Iterator[Place]:
        backlog = self._state.backlog
        for object_, first, last, _, _ in lease.runs:
            if object_ != INLINE and backlog.segments[object_].damaged:
                continue
            for slot in range(first, last + 1):
                job = backlog.inline[slot] if object_ == INLINE else backlog.segments[object_].loaded()[slot]
                yield Place(object_, slot, job)

    def _oldest_ready_s(self, now_ms: int) -> float | None:
        wanted: set[str] = set()
        heads = [head for lane in self._state.backlog.lanes() if (head := lane.head(wanted)) is not None]
        if wanted:
            raise NeedsObjectsError(wanted)
        pushed = [place.job.pushed_ms for head in heads if (place := self._state.backlog.locate(head.job_id))]
        return max(0.0, (now_ms - min(pushed)) / 1000) if pushed else None

    # ---------------------------------------------------------------------------------------------------- single jobs

    def _get(self, query: GetJob) -> Page | Refused:
        state = self._state
        if not 0 < query.id < state.frame.next_id:
            return Refused("job_not_found", f"no job has this id id={query.id}")
        if (record := state.finished.get(query.id)) is not None:
            return Page([record])
        place = state.backlog.locate(query.id)
        job_state = state.state_of(place) if place is not None else None
        if place is None or job_state is None:
            raise Elsewhere(query)
        return Page([_record(place.job, job_state)])

    # --------------------------------------------------------------------------------------------------------- lists

    def _list(self, query: ListJobs) -> Page:
        jobs: list[JobRecord] = []
        size = 0
        for place in self._unfinished(query.after):
            job_state = self._state.state_of(place)
            if job_state is None or query.state not in (None, job_state):
                continue
            if jobs and (len(jobs) >= query.limit or size >= PAGE_BYTES):
                return Page(jobs, str(jobs[-1].id))
            jobs.append(_record(place.job, job_state))
            size += len(jobs[-1].payload)
        return Page(jobs)

    def _unfinished(self, after: int) -> Iterator[Place]:
        """Every place with an id above ``after``, by id; slots that were left long ago among them."""
        backlog = self._state.backlog
        inline = (Place(INLINE, job_id, backlog.inline[job_id]) for job_id in sorted(backlog.inline) if job_id > after)
        return heapq.merge(inline, self._in_segments(after), key=lambda place: place.job.id)

    def _in_segments(self, after: int) -> Iterator[Place]:
        for segment in self._state.backlog.in_order():
            if segment.line.last_id <= after or segment.damaged:
                continue
            places = [Place(segment.number, slot, job) for slot, job in enumerate(segment.loaded()) if job.id > after]
            yield from sorted(places, key=lambda place: place.job.id)


def _record(job: Job, job_state: str) -> JobRecord:
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
    )


__all__ = ["Elsewhere", "Queries", "Query"]

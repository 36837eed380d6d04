"""What can be asked of the queue; nothing here changes it.

Finished jobs that are in archive objects are not the machine's to know: `Elsewhere` says what the broker must look up.
"""

from __future__ import annotations

from osqueue.core import codec
from osqueue.core.counts import FOLDED
from osqueue.core.listing import ENDLESS, Listings, may_hold
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
from osqueue.core.state import QueueState


class Elsewhere(Exception):
    """The answer is in archive objects."""

    def __init__(self, query: GetJob | History | Prune) -> None:
        super().__init__()
        self.query = query


class Queries:
    """Answers queries from the queue's state."""

    def __init__(self, state: QueueState) -> None:
        self._state = state
        self._listings = Listings(state)

    def answer(
        self, session: str, query: GetJob | GetStats | ListJobs | History | Prune, now_ms: int
    ) -> Stats | Page | Refused:
        """Answer one query of a session.

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
                return self._list(session, query)
            case History() | Prune():
                raise Elsewhere(query)

    def forget(self, session: str) -> None:
        """A session's connection has ended: what was being made for it is not asked for any more."""
        self._listings.forget(session)

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

    def _list(self, session: str, query: ListJobs) -> Page:
        places, last = self._listings.page(session, query)
        jobs = [self._record(place, job_state) for place in places if (job_state := self._state.state_of(place))]
        if last < ENDLESS:
            return Page(jobs, str(last))
        return Page(jobs, damage=self._passed_over(query))

    def _passed_over(self, query: ListJobs) -> Refused | None:
        """What the last page says of jobs that no page could list, since their segments are damaged."""
        damaged = [segment for segment in self._state.backlog.damaged().values() if may_hold(segment, query.state)]
        return next((refused_as_corrupt(segment.damage()) for segment in damaged), None)


__all__ = ["Elsewhere", "Queries", "Query"]

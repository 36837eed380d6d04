"""Which sessions wait for which jobs to end, and what they are to be told when the present batch has landed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from osqueue.core.messages import Finished, FromBroker, JobRecord, Missing, Refused
from osqueue.core.model import Job

NOTICE_BYTES = 1024 * 1024


class Watchers:
    """Memory only: clients name what they wait for in every hello. Not thread-safe; owned by the machine."""

    def __init__(self) -> None:
        self._sessions: dict[int, tuple[str, ...]] = {}
        """Mostly one for a job; those who push a key that is held wait for its holder's job too."""
        self._notices: dict[str, list[JobRecord]] = {}
        self._missing: list[tuple[str, Missing]] = []

    def __bool__(self) -> bool:
        return bool(self._sessions)

    def watch(self, ids: Iterable[int], session: str) -> None:
        """A session waits for these jobs."""
        alone = (session,)
        for job_id in ids:
            known = self._sessions.setdefault(job_id, alone)
            if session not in known:
                self._sessions[job_id] = (*known, session)

    def disconnected(self, session: str) -> None:
        """A session waits for nothing any more, until its next hello."""
        for job_id, known in [item for item in self._sessions.items() if session in item[1]]:
            if len(known) == 1:
                del self._sessions[job_id]
            else:
                self._sessions[job_id] = tuple(other for other in known if other != session)

    def ended(self, job: Job, state: str, attempts: int, result: bytes | None = None) -> None:
        """A job has ended; whoever waits for it is told."""
        sessions = self._sessions.pop(job.id, None)
        if sessions is not None:
            record = JobRecord(
                id=job.id,
                task=job.task,
                state=state,  # type: ignore[arg-type]
                attempts=attempts,
                errors=job.errors,
                result=result,
            )
            for session in sessions:
                self._notices.setdefault(session, []).append(record)

    def blocked(self, first_id: int, last_id: int, is_unharmed: Callable[[int], bool], why: Refused) -> None:
        """The segment of these jobs is damaged: whoever waits for one that may be in there is told not to."""
        within = [job_id for job_id in self._sessions if first_id <= job_id <= last_id]
        missing: dict[str, list[int]] = {}
        for job_id in sorted(job_id for job_id in within if not is_unharmed(job_id)):
            for session in self._sessions.pop(job_id):
                missing.setdefault(session, []).append(job_id)
        self._missing += [(session, Missing(ids, why)) for session, ids in missing.items()]

    def take_notices(self) -> Iterator[tuple[str, FromBroker]]:
        """What is to be said, a message each, and by whom it is awaited."""
        notices, self._notices = self._notices, {}
        missing, self._missing = self._missing, []
        for session, jobs in notices.items():
            for part in in_messages(jobs):
                yield session, Finished(part)
        yield from missing


def in_messages(jobs: list[JobRecord]) -> Iterator[list[JobRecord]]:
    """Parts of a notice that are small enough for a message, one larger job alone."""
    part: list[JobRecord] = []
    size = 0
    for job in jobs:
        part.append(job)
        size += len(job.result or b"") + sum(len(error.message) + len(error.traceback) for error in job.errors)
        if size > NOTICE_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def without_payload(record: JobRecord) -> JobRecord:
    """A record as a watcher is told of it."""
    return JobRecord(
        id=record.id,
        task=record.task,
        state=record.state,
        attempts=record.attempts,
        errors=record.errors,
        result=record.result,
    )

"""Which jobs' ends a client waits for. Sans-I/O, called from one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from osqueue.client.refusal import to_error
from osqueue.client.runs import to_runs
from osqueue.core.messages import IdRun, JobRecord, Refused

OnEnd = Callable[[JobRecord | Exception], None]


class Watch:
    """Job ids, each with who is told of its end. An end told twice is told once. Not thread-safe."""

    def __init__(self) -> None:
        self._watched: dict[int, OnEnd] = {}

    def __len__(self) -> int:
        return len(self._watched)

    def __contains__(self, job_id: int) -> bool:
        return job_id in self._watched

    def add(self, job_id: int, on_end: OnEnd) -> None:
        """Tell ``on_end`` once the job has ended, or its end can no longer be known, and whoever was added before."""
        before = self._watched.get(job_id)
        self._watched[job_id] = on_end if before is None else _both(before, on_end)

    def finished(self, records: Iterable[JobRecord]) -> None:
        """Take notices in."""
        for record in records:
            self._tell(record.id, record)

    def missing(self, ids: Iterable[int], why: Refused) -> None:
        """These jobs are nowhere to be found."""
        for job_id in ids:
            self._tell(job_id, to_error(Refused(why.code, f"{why.message} id={job_id}", why.key)))

    def runs(self) -> list[IdRun]:
        """The watched ids."""
        return to_runs(sorted(self._watched))

    def ids(self) -> list[int]:
        """The watched ids, one by one."""
        return list(self._watched)

    def _tell(self, job_id: int, end: JobRecord | Exception) -> None:
        on_end = self._watched.pop(job_id, None)
        if on_end is not None:
            on_end(end)


def _both(first: OnEnd, second: OnEnd) -> OnEnd:
    """Two who wait for one job, since they pushed the same key."""

    def tell(end: JobRecord | Exception) -> None:
        first(end)
        second(end)

    return tell

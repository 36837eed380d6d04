"""Which jobs' ends a client waits for. Sans-I/O, called from one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from osqueue.client.runs import to_runs
from osqueue.core.messages import IdRun, JobRecord

OnFinished = Callable[[JobRecord], None]


class Watch:
    """Job ids, each with who is told of its end. An end told twice is told once. Not thread-safe."""

    def __init__(self) -> None:
        self._watched: dict[int, OnFinished] = {}

    def __len__(self) -> int:
        return len(self._watched)

    def __contains__(self, job_id: int) -> bool:
        return job_id in self._watched

    def add(self, job_id: int, on_finished: OnFinished) -> None:
        """Tell ``on_finished`` once the job has ended."""
        self._watched[job_id] = on_finished

    def finished(self, records: Iterable[JobRecord]) -> None:
        """Take notices in."""
        for record in records:
            on_finished = self._watched.pop(record.id, None)
            if on_finished is not None:
                on_finished(record)

    def runs(self) -> list[IdRun]:
        """The watched ids."""
        return to_runs(sorted(self._watched))

    def ids(self) -> list[int]:
        """The watched ids, one by one."""
        return list(self._watched)

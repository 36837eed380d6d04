"""Jobs that stand whole in the root, in three lists, until a list is too long: then it is written into segments.

tail       ready when they were pushed, and never failed; by id
deferred   delayed, or have failed; also those that are due or leased by now
dead       attempts used up; in the order of their death
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Literal

from osqueue.core.model import Job

InlineList = Literal["tail", "deferred", "dead"]
"""Named as the sections of the root."""
_JOB_OVERHEAD = 80
_ERROR_OVERHEAD = 120


class InlineJobs:
    """All jobs in the root. Not thread-safe; owned by the backlog.

    Args:
        dirty: names of sections of the root that have changed.

    Attributes:
        jobs: by id.
        dead: ids of the dead ones.
        size_bytes: how much each list takes in the root, roughly.
    """

    def __init__(self, dirty: set[str]) -> None:
        self.jobs: dict[int, Job] = {}
        self.dead: dict[int, None] = {}
        self.size_bytes: dict[InlineList, int] = {"tail": 0, "deferred": 0, "dead": 0}
        self._lists: dict[InlineList, dict[int, None]] = {"tail": {}, "deferred": {}, "dead": self.dead}
        self._dirty = dirty

    def listed(self, name: InlineList) -> Iterator[Job]:
        """The jobs of a list, in its order."""
        return map(self.jobs.__getitem__, self._lists[name])

    def add(self, name: InlineList, jobs: Sequence[Job]) -> Iterable[int]:
        """Jobs join the end of a list; returns their ids."""
        by_id = {job.id: job for job in jobs}
        self.jobs.update(by_id)
        self._lists[name].update(dict.fromkeys(by_id))
        self._grow(name, size_bytes(jobs))
        return by_id

    def forget(self, jobs: Collection[Job]) -> None:
        """Jobs leave the root, whatever lists they are in."""
        for job in jobs:
            del self.jobs[job.id]
        for name, ids in self._lists.items():
            if ids and (gone := [job for job in jobs if job.id in ids]):
                for job in gone:
                    del ids[job.id]
                self._grow(name, -size_bytes(gone))

    def take(self, name: InlineList) -> list[Job]:
        """All jobs of a list leave the root; in its order."""
        ids = self._lists[name]
        jobs = [self.jobs.pop(job_id) for job_id in ids]
        ids.clear()
        self._grow(name, -self.size_bytes[name])
        return jobs

    def _grow(self, name: InlineList, size_bytes: int) -> None:
        self.size_bytes[name] += size_bytes
        self._dirty.add(name)


def size_bytes(jobs: Collection[Job]) -> int:
    """How much jobs take in the root, roughly."""
    total = _JOB_OVERHEAD * len(jobs)
    for job in jobs:
        total += job.payload_size()
        for error in job.errors:
            total += _ERROR_OVERHEAD + len(error.message) + len(error.traceback)
    return total

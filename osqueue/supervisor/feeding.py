"""Which worker gets which jobs: the queue inside the supervisor, and chunks that adapt.

Rules:
* First in, first out; what comes back from a worker goes to the front again.
* A worker has up to 10 ms of work, topped up when half of it is done. Longer jobs go alone, with one more waiting
  while runs take under 100 ms. What has never run goes to an idle worker, and the first chunks grow by doubling.
* While there are few jobs, every worker gets its share.
* A job marked ``alone`` goes to an idle worker, and nothing is queued behind it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable

from osqueue.core.messages import Handout
from osqueue.supervisor.crew import UNKNOWN_NS, Member
from osqueue.supervisor.pace import Pace

_NS_PER_MS = 1_000_000
WORK_NS = 10 * _NS_PER_MS
ONE_WAITING_BELOW_NS = 100 * _NS_PER_MS
MAX_JOBS = 1_000
MAX_BYTES = 1 << 20


class Feeding:
    """The jobs that no worker has yet."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self.jobs: deque[Handout] = deque()

    def __len__(self) -> int:
        return len(self.jobs)

    def put(self, jobs: Iterable[Handout]) -> None:
        """Jobs have been granted."""
        self.jobs.extend(jobs)

    def put_back(self, jobs: list[Handout]) -> None:
        """Jobs have come back unbegun: they are next, in this order."""
        self.jobs.extendleft(reversed(jobs))

    def remove(self, ids: Collection[int]) -> list[Handout]:
        """Take these jobs out, as far as they are here."""
        removed = [job for job in self.jobs if job.id in ids]
        if removed:
            self.jobs = deque(job for job in self.jobs if job.id not in ids)
        return removed

    def clear(self) -> list[Handout]:
        """Take all jobs out."""
        jobs, self.jobs = list(self.jobs), deque()
        return jobs

    def chunk_for(self, member: Member, *, share: int) -> list[Handout]:
        """Take out what this worker gets now, at most ``share`` jobs; perhaps nothing."""
        work_ns = member.work_ns(self._pace)
        if len(member.sent) > 1 and work_ns > WORK_NS / 2:
            return []
        chunk: list[Handout] = []
        has, size, alone = len(member.sent), member.payload_bytes, member.alone
        jobs, usual_ns, limit, task = self.jobs, None, 0, None
        while jobs and len(chunk) < share:
            job = jobs[0]
            if job.task != task:
                task = job.task
                usual_ns = self._pace.usual_ns(task)
                limit = min(MAX_JOBS, 2 * self._pace.seen(task))
            size += len(job.payload)
            barred = alone or job.alone or has >= limit or size > MAX_BYTES
            if has and (barred or not _is_short(has, work_ns, usual_ns)):
                break
            chunk.append(jobs.popleft())
            has += 1
            alone = job.alone
            work_ns += UNKNOWN_NS if usual_ns is None else usual_ns
        return chunk


def _is_short(has: int, work_ns: float, usual_ns: float | None) -> bool:
    """Whether one more job may wait behind those that the worker has."""
    if usual_ns is None:
        return False
    if work_ns + usual_ns <= WORK_NS:
        return True
    return has == 1 and max(work_ns, usual_ns) < ONE_WAITING_BELOW_NS

"""What a handler can learn of the job that it runs: `current_job`.

One worker process runs one job at a time, so the job is the process's: every thread that the handler starts sees it.
"""

from __future__ import annotations

from typing import Any

from osqueue import clock
from osqueue.core.messages import Handout

_NS_PER_S = 1_000_000_000


class CurrentJob:
    """The job that this worker process is on. Any thread of the worker may use it.

    Attributes:
        id: the job's id.
        attempt: which charged run this is, from 1.
        task: the task's name.
        worker_state: what the pool's ``initializer`` has returned in this worker; None without one.
    """

    __slots__ = ("_cancelled_ids", "_deadline_ns", "attempt", "id", "task", "worker_state")

    def __init__(self, job: Handout, *, deadline_ns: int | None, cancelled_ids: set[int], worker_state: Any) -> None:
        self.id = job.id
        self.attempt = job.attempt
        self.task = job.task
        self.worker_state = worker_state
        self._deadline_ns = deadline_ns
        self._cancelled_ids = cancelled_ids

    @property
    def cancelled(self) -> bool:
        """Whether the job was cancelled: return soon, the worker is killed after ``grace`` seconds."""
        return self.id in self._cancelled_ids

    @property
    def time_remaining(self) -> float | None:
        """Seconds until the hard timeout, not below 0; None without one."""
        if self._deadline_ns is None:
            return None
        return max(0.0, (self._deadline_ns - clock.boot_ns()) / _NS_PER_S)


class Stage:
    """Where the worker's loop puts the job that it is on. Its main thread writes, any thread reads."""

    __slots__ = ("cancelled_ids", "job", "started_ns", "timeout_s", "worker_state")

    def __init__(self, timeout_s: float | None) -> None:
        self.timeout_s = timeout_s
        """The pool's own timeout, for jobs that have none."""
        self.cancelled_ids: set[int] = set()
        """Jobs in this worker that were cancelled; the reader thread adds, the end of the job removes."""
        self.job: Handout | None = None
        self.started_ns = 0
        self.worker_state: Any = None
        """What the initializer has returned."""

    def current(self) -> CurrentJob | None:
        """The job on the stage."""
        job = self.job
        if job is None:
            return None
        timeout_s = self.timeout_s if job.timeout_s is None else job.timeout_s
        deadline_ns = None if timeout_s is None else self.started_ns + round(timeout_s * _NS_PER_S)
        return CurrentJob(
            job, deadline_ns=deadline_ns, cancelled_ids=self.cancelled_ids, worker_state=self.worker_state
        )


class _Here:
    """The process's one stage; it has none outside a worker."""

    stage: Stage | None = None


def enter_worker(stage: Stage) -> None:
    """Make this process a worker: `current_job` reads this stage from now on."""
    _Here.stage = stage


def current_job() -> CurrentJob:
    """The job that the calling handler runs.

    Raises:
        RuntimeError: no job runs here; it can be called only in a handler, in a worker process.
    """
    job = None if _Here.stage is None else _Here.stage.current()
    if job is None:
        raise RuntimeError("no job runs here: current_job() can be called only inside a handler, in a worker process")
    return job

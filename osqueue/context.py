"""What a handler can learn of the job that it runs: `current_job`.

One worker process runs one job at a time, so the job is the process's: every thread that the handler starts sees it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from numbers import Real
from typing import Any

from osqueue import clock
from osqueue.core.messages import Handout, Push
from osqueue.follow_ups import Encoders, FollowUps
from osqueue.settings import push_options

_NS_PER_S = 1_000_000_000
_MESSAGE_CHARS = 200


class CurrentJob:
    """The job that this worker process is on. Any thread of the worker may use it.

    Attributes:
        id: the job's id.
        attempt: which charged run this is, from 1.
        task: the task's name.
        worker_state: what the pool's ``initializer`` has returned in this worker; None without one.
    """

    __slots__ = ("_deadline_ns", "_job", "_stage", "attempt", "id", "task", "worker_state")

    def __init__(self, job: Handout, stage: Stage, *, deadline_ns: int | None) -> None:
        self.id = job.id
        self.attempt = job.attempt
        self.task = job.task
        self.worker_state = stage.worker_state
        self._job = job
        self._stage = stage
        self._deadline_ns = deadline_ns

    @property
    def cancelled(self) -> bool:
        """Whether the job was cancelled: return soon, the worker is killed after ``grace`` seconds."""
        return self.id in self._stage.cancelled_ids

    @property
    def time_remaining(self) -> float | None:
        """Seconds until the hard timeout, not below 0; None without one."""
        if self._deadline_ns is None:
            return None
        return max(0.0, (self._deadline_ns - clock.boot_ns()) / _NS_PER_S)

    def push(
        self,
        payload: Any,
        *,
        task: str = "default",
        delay: float = 0,
        priority: int = 0,
        key: str | None = None,
        timeout: float | None = None,
        max_attempts: int | None = None,
    ) -> None:
        """Push a follow-up job, in the same commit as this job's success; if this attempt fails, nothing is pushed.

        Args:
            payload: what its handler gets.
            task, delay, priority, key, timeout, max_attempts: as `LocalPool.push`. No job is pushed if another
                has the key by then; this job's own is free, for its next run. ``delay`` counts from the commit.

        Raises:
            UnknownTask: this pool has no handler for the task; under ``osqueue work`` any task will do.
            InvalidPayload, PayloadTooLarge: the job cannot be pushed.
            QueueFull: one job leaves at most 10,000 jobs and 16 MiB behind.
            RuntimeError: this job has ended.
        """
        options = push_options(
            task=task, delay=delay, priority=priority, key=key, timeout=timeout, max_attempts=max_attempts
        )
        with self._stage.lock:
            if self._stage.job is not self._job:
                raise RuntimeError(f"the job has ended, so that nothing can follow it any more id={self.id}")
            self._stage.follow_ups().add(payload, options)

    def progress(self, fraction: float, message: str = "") -> None:
        """Say how far the job is: `LocalPool.get` and ``osqueue show`` tell it while the job runs.

        It costs next to nothing and is not kept. Of many calls some ten a second are told, and always the last. After
        the job's end it does nothing.

        Args:
            fraction: from 0 to 1.
            message: a few words; 200 characters of it are told.

        Raises:
            TypeError, ValueError: that is no such number, or no text.
        """
        told, words = _fraction(fraction), _clipped(message)
        stage = self._stage
        if stage.job is self._job and stage.tell is not None:
            stage.tell(self._job, told, words)


class Stage:
    """Where the worker's loop puts the job that it is on. Its main thread writes, any thread reads."""

    __slots__ = (
        "_follow_ups", "cancelled_ids", "encode_other", "encoders", "job", "lock", "max_payload_bytes", "started_ns",
        "tell", "timeout_s", "worker_state",
    )  # fmt: skip

    def __init__(self, timeout_s: float | None) -> None:
        self.timeout_s = timeout_s
        """The pool's own timeout, for jobs that have none."""
        self.cancelled_ids: set[int] = set()
        """Jobs in this worker that were cancelled; the reader thread adds, the end of the job removes."""
        self.job: Handout | None = None
        self.started_ns = 0
        self.worker_state: Any = None
        """What the initializer has returned."""
        self.encoders: Encoders = {}
        """What encodes the payloads of follow-up jobs, by task."""
        self.encode_other: Callable[[Any], bytes] | None = None
        """The same for tasks that have no handler here; None if their jobs may not follow."""
        self.max_payload_bytes = 0
        self.lock = threading.Lock()
        """Held while a follow-up job is added, and while the job leaves the stage."""
        self._follow_ups: FollowUps | None = None
        self.tell: Callable[[Handout, float, str], None] | None = None
        """How far a job is, for the supervisor."""

    def current(self) -> CurrentJob | None:
        """The job on the stage."""
        job = self.job
        if job is None:
            return None
        timeout_s = self.timeout_s if job.timeout_s is None else job.timeout_s
        deadline_ns = None if timeout_s is None else self.started_ns + round(timeout_s * _NS_PER_S)
        return CurrentJob(job, self, deadline_ns=deadline_ns)

    def follow_ups(self) -> FollowUps:
        """What the job on the stage leaves behind if it succeeds; under the lock."""
        if self._follow_ups is None:
            self._follow_ups = FollowUps(self.encoders, self.encode_other, self.max_payload_bytes)
        return self._follow_ups

    def leave(self) -> list[Push] | None:
        """The job has ended; returns what it pushed, if anything."""
        with self.lock:
            self.job = None
            follow_ups, self._follow_ups = self._follow_ups, None
        return None if follow_ups is None else follow_ups.pushes


def _fraction(fraction: object) -> float:
    if isinstance(fraction, bool) or not isinstance(fraction, Real):
        raise TypeError(f"fraction is a number from 0 to 1, not {type(fraction).__name__}")
    number: Any = fraction  # of any kind: Python compares them all
    if not 0 <= number <= 1:  # nor is NaN
        raise ValueError(f"fraction is a number from 0 to 1 fraction={fraction}")
    return float(number)


def _clipped(message: object) -> str:
    """The first characters of a text, as text that can be sent."""
    if not isinstance(message, str):
        raise TypeError(f"message is a text, not {type(message).__name__}")
    return message[:_MESSAGE_CHARS].encode(errors="backslashreplace").decode()[:_MESSAGE_CHARS]


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

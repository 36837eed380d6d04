"""A typed face over a `Broker` or a `Client`: values in, values out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from osqueue.client import Job
from osqueue.errors import InvalidPayload
from osqueue.jobs import checked_type
from osqueue.settings import iterable, task_name
from osqueue.values import JsonValues

T = TypeVar("T")


@runtime_checkable
class Verbs(Protocol):
    """What a `Queue` needs of a `Broker` or `Client`, which document it."""

    def push(
        self,
        payload: bytes,
        *,
        task: str = ...,
        delay: float = ...,
        priority: int = ...,
        key: str | None = ...,
        timeout: float | None = ...,
        max_attempts: int | None = ...,
    ) -> int: ...

    def push_many(
        self,
        payloads: Iterable[bytes],
        *,
        task: str = ...,
        delay: float = ...,
        priority: int = ...,
        timeout: float | None = ...,
        max_attempts: int | None = ...,
    ) -> Sequence[int]: ...

    def claim(
        self, worker: str | None = ..., *, wait: float = ..., tasks: Sequence[str] = ...
    ) -> Job[bytes] | None: ...

    def heartbeat(self, job: Job[Any]) -> None: ...

    def complete(self, job: Job[Any], result: bytes = ...) -> None: ...

    def fail(
        self, job: Job[Any], error: str | BaseException = ..., *, retry: bool = ..., delay: float | None = ...
    ) -> None: ...


class Queue(Generic[T]):
    """Jobs of one type. Any thread may use it.

    Args:
        queue: an open `Broker` or `Client`.
        payload_type: what its jobs are; anything that msgspec supports: a Struct, dataclass, TypedDict, attrs class.
        task: the name of the task that they are pushed and claimed as.

    Raises:
        TypeError, ValueError: an argument; the message names it.
    """

    def __init__(self, queue: Verbs, payload_type: type[T], *, task: str = "default") -> None:
        if not isinstance(queue, Verbs):
            raise TypeError(f"queue is an open Broker or Client, not {type(queue).__name__}")
        self._queue = queue
        self._task = task_name(task)
        self._payloads: JsonValues[T] = JsonValues(checked_type(payload_type, "payload_type"), "payload")
        self._results: JsonValues[Any] = JsonValues(Any, "result")

    def push(
        self,
        payload: T,
        *,
        delay: float = 0,
        priority: int = 0,
        key: str | None = None,
        timeout: float | None = None,
        max_attempts: int | None = None,
    ) -> int:
        """Add one job; durable on return. See `Client.push`.

        Raises:
            InvalidPayload: the value cannot be encoded, or is not of the queue's type.
        """
        return self._queue.push(
            self._payloads.encode_checked(payload),
            task=self._task,
            delay=delay,
            priority=priority,
            key=key,
            timeout=timeout,
            max_attempts=max_attempts,
        )

    def push_many(
        self,
        payloads: Iterable[T],
        *,
        delay: float = 0,
        priority: int = 0,
        timeout: float | None = None,
        max_attempts: int | None = None,
    ) -> Sequence[int]:
        """Add a job for each value of an iterable, read as it is needed. See `Client.push_many`."""
        return self._queue.push_many(
            map(self._payloads.encode_checked, iterable("payloads", payloads)),
            task=self._task,
            delay=delay,
            priority=priority,
            timeout=timeout,
            max_attempts=max_attempts,
        )

    def claim(self, worker: str | None = None, *, wait: float = 0) -> Job[T] | None:
        """Take a job; None when there was none. What is not of the queue's type is dead at once, and passed over.

        Raises:
            QueueFull: there was one, but some 50 single claims are open, which is all that the queue can remember.
        """
        while True:
            job = self._queue.claim(worker, wait=wait, tasks=(self._task,))
            if job is None:
                return None
            try:
                payload = self._payloads.decode(job.payload)
            except InvalidPayload as error:
                self._queue.fail(job, error, retry=False)
                continue
            return Job(
                id=job.id,
                task=job.task,
                payload=payload,
                attempt=job.attempt,
                pushed_at=job.pushed_at,
                _lease=job._lease,
                _claimed_ms=job._claimed_ms,
            )

    def heartbeat(self, job: Job[T]) -> None:
        """Say that the job is still worked on. Raises `LeaseLost`."""
        self._queue.heartbeat(job)

    def complete(self, job: Job[T], result: object = None) -> None:
        """Finish a job, with its result: any value that JSON can say, or a msgspec-supported one.

        Raises:
            LeaseLost: it is no longer held; nothing changed.
            InvalidPayload: the result cannot be encoded; nothing changed.
        """
        self._queue.complete(job, self._results.encode(result))

    def fail(
        self, job: Job[T], error: str | BaseException = "", *, retry: bool = True, delay: float | None = None
    ) -> None:
        """End an attempt without success. See `Client.fail`."""
        self._queue.fail(job, error, retry=retry, delay=delay)

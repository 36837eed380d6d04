"""Results of many jobs as an iterator, lazy at both ends."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, Protocol, TypeVar

from osqueue import clock
from osqueue.pool.future import JobFuture

R = TypeVar("R")

BUFFER_JOBS = 1_000
"""How many jobs are on their way at once, unless the caller says otherwise.

Enough for workers never to wait, and few enough to wait for when the caller leaves early.
"""
FIRST_READ_S = 0.05
REFILL_S = 0.005

Submit = Callable[[Any], JobFuture[R]]


class Waiting(Protocol[R]):
    """The futures that a map waits for, and which of them comes next."""

    @property
    def ready(self) -> bool: ...

    def add(self, future: JobFuture[R]) -> None: ...

    def next(self) -> JobFuture[R]: ...

    def __len__(self) -> int: ...


class InOrder(Generic[R]):
    """Results in the order of the payloads."""

    def __init__(self) -> None:
        self._futures: deque[JobFuture[R]] = deque()

    @property
    def ready(self) -> bool:
        """Whether the next one has ended."""
        return bool(self._futures) and self._futures[0].done()

    def add(self, future: JobFuture[R]) -> None:
        """Wait for this one too."""
        self._futures.append(future)

    def next(self) -> JobFuture[R]:
        """The oldest one."""
        return self._futures.popleft()

    def __len__(self) -> int:
        return len(self._futures)


class AsTheyEnd(Generic[R]):
    """Results in the order in which they come."""

    def __init__(self) -> None:
        self._ended: queue.SimpleQueue[JobFuture[R]] = queue.SimpleQueue()
        self._count = 0

    @property
    def ready(self) -> bool:
        """Whether one has ended."""
        return not self._ended.empty()

    def add(self, future: JobFuture[R]) -> None:
        """Wait for this one too."""
        self._count += 1
        future.add_done_callback(self._ended.put)  # type: ignore[arg-type]

    def next(self) -> JobFuture[R]:
        """The next one that ends; waits for it."""
        future = self._ended.get()
        self._count -= 1
        return future

    def __len__(self) -> int:
        return self._count


class MapResults(Generic[R]):
    """The iterator of `LocalPool.map`. For one thread at a time.

    Args:
        submit: pushes one payload.
        payloads: where they come from; an error of it is raised after the results of what came before.
        waiting: which result comes next.
        buffersize: how many jobs may be on their way.
        return_exceptions: give a failed job's error in its turn instead of raising it.
        refuse_wait: raises where waiting would never end.
    """

    def __init__(
        self,
        submit: Submit[R],
        payloads: Iterable[Any],
        *,
        waiting: Waiting[R],
        buffersize: int,
        return_exceptions: bool,
        refuse_wait: Callable[[], None],
    ) -> None:
        self._submit = submit
        self._payloads = iter(payloads)
        self._waiting = waiting
        self._buffersize = buffersize
        self._refill = max(1, buffersize // 4)
        self._return_exceptions = return_exceptions
        self._refuse_wait = refuse_wait
        self._exhausted = False
        self._source_error: Exception | None = None
        self._read_ahead(FIRST_READ_S)

    def __iter__(self) -> Iterator[R]:
        return self

    def __next__(self) -> R:
        # While there is no result to give, there is time to read on, however slow the iterable is.
        while not self._waiting.ready and self._may_read():
            self._read()
        if not len(self._waiting):
            self._exhausted = True
            error, self._source_error = self._source_error, None
            raise error or StopIteration
        if not self._waiting.ready:
            self._refuse_wait()
        future = self._waiting.next()
        try:
            result = future.result()
        except Exception as error:
            if not self._return_exceptions:
                self._end()
                raise
            result = error  # type: ignore[assignment]
        if self._buffersize - len(self._waiting) >= self._refill:
            self._read_ahead(REFILL_S)
        return result

    def _may_read(self) -> bool:
        return not self._exhausted and len(self._waiting) < self._buffersize

    def _read_ahead(self, limit_s: float) -> None:
        """Fill the buffer, many at once: they leave in few pushes. A slow iterable does not hold results up for it."""
        until_ns = clock.boot_ns() + int(limit_s * 1e9)
        while self._may_read():
            self._read()
            if clock.boot_ns() >= until_ns:
                return

    def _read(self) -> None:
        try:
            future = self._submit(next(self._payloads))
        except StopIteration:
            self._exhausted = True
        except Exception as error:  # noqa: BLE001  raised in its turn
            self._exhausted = True
            self._source_error = error
        else:
            self._waiting.add(future)

    def _end(self) -> None:
        """A failed job ends the iterator; what is pushed goes on."""
        self._exhausted = True
        self._source_error = None
        self._waiting = InOrder()

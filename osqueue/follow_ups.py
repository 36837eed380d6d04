"""Follow-up jobs: what a handler pushes for when, and only if, its own job succeeds.

They travel with the job's outcome and are pushed in the commit that makes its success durable; a failed attempt's are
dropped with it. So they are pushed once, however often the job was tried.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from osqueue.core.messages import Push
from osqueue.core.settings import MIB
from osqueue.errors import PayloadTooLarge, QueueFull, UnknownTask
from osqueue.settings import PushOptions

MAX_JOBS = 10_000
MAX_BYTES = 16 * MIB

Encoders = Mapping[str, Callable[[Any], bytes]]
"""By task: what checks and encodes its payloads."""


class FollowUps:
    """The follow-up jobs of one attempt. Not thread-safe.

    Args:
        encoders: of the tasks that the worker has handlers for; they raise InvalidPayload.
        other: of the tasks of other supervisors; None if there are to be none.
        max_payload_bytes: of one payload.
    """

    def __init__(self, encoders: Encoders, other: Callable[[Any], bytes] | None, max_payload_bytes: int) -> None:
        self._encoders = encoders
        self._other = other
        self._max_payload_bytes = max_payload_bytes
        self._options: PushOptions | None = None
        self._jobs = self._bytes = 0
        self.pushes: list[Push] = []
        """In order; neighbours with the same options are one push."""

    def add(self, payload: Any, options: PushOptions) -> None:
        """One more job.

        Raises:
            UnknownTask, InvalidPayload, PayloadTooLarge: the job cannot be pushed.
            QueueFull: one job cannot leave so many behind.
        """
        encode = self._encoders.get(options.task, self._other)
        if encode is None:
            raise UnknownTask(f"the pool has no handler for this task task={options.task!r}")
        data = encode(payload)
        if len(data) > self._max_payload_bytes:
            why = "payload is above max_payload: store it elsewhere and push a reference"
            raise PayloadTooLarge(f"{why} bytes={len(data)} limit={self._max_payload_bytes}")
        if self._jobs >= MAX_JOBS or self._bytes + len(data) > MAX_BYTES:
            why = "one job leaves too many follow-up jobs behind: push a job that pushes the rest"
            raise QueueFull(f"{why} jobs={self._jobs} bytes={self._bytes} limits={MAX_JOBS},{MAX_BYTES}")
        # An exception that a signal raises may come between any two of these lines: what is pushed is right in all.
        self._jobs += 1
        self._bytes += len(data)
        if options == self._options and not options.key:
            self.pushes[-1].payloads.append(data)
            return
        self._options = None
        self.pushes.append(
            Push(
                [data],
                options.task,
                options.priority,
                options.delay_s,
                options.timeout_s,
                options.max_attempts,
                options.key,
            )
        )
        self._options = options

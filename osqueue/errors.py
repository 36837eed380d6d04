"""Every error that osqueue raises, sorted by what the caller does next.

    OsqueueError
    ├── Rejected       nothing changed: mend the call, or leave it
    ├── Unavailable    outcome unknown: ``error.again()`` repeats that very operation
    ├── Fenced         another broker owns the queue: join it
    ├── QueueLocked    somebody has the queue open: join them
    ├── Corrupt        what is on disk is damaged: ``osqueue verify``
    ├── JobFailed      the job's own failure
    └── PoolBroken     workers cannot start: mend the program

All of them pickle, with their attributes.
"""

from __future__ import annotations

import concurrent.futures
import re
from collections.abc import Callable, Sequence
from typing import Any


class OsqueueError(Exception):
    """Whatever osqueue raises for a reason of its own; wrong arguments are ``ValueError`` or ``TypeError``.

    ``changed`` are the jobs that a requeue, discard or cancel of many had changed before the error.
    """

    changed: Sequence[int] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.args, dict(self.__dict__)))


def _rebuild(kind: type[OsqueueError], args: tuple[Any, ...], state: dict[str, Any]) -> OsqueueError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


def code_of(kind: type[Exception]) -> str:
    """What stands for an error's class where it crosses as text: its name in snake case."""
    return re.sub(r"(?<=.)(?=[A-Z])", "_", kind.__name__).lower()


class Rejected(OsqueueError):
    """Refused for good: nothing changed, and nothing of it will happen later.

    ``pushed`` is how many jobs of a batch call were pushed before the refusal.
    """

    pushed: int = 0


class LeaseLost(Rejected):
    """The job is no longer held under this lease; whoever holds it now will finish it."""


class JobNotFound(Rejected):
    """No job has this id."""


class UnknownTask(Rejected):
    """The pool has no handler for this task."""


class QueueFull(Rejected):
    """A limit of the queue is reached; the message names it. Push again when jobs have finished."""


class PayloadTooLarge(Rejected):
    """The encoded payload is above ``max_payload``; store it elsewhere and push a reference."""


class InvalidPayload(Rejected):
    """The value cannot be encoded, or is not of the declared type."""


class AccessDenied(Rejected):
    """The queue belongs to another user, or the credentials were refused."""


class Unavailable(OsqueueError):
    """Unknown whether the operation happened: the broker could not be reached for long enough.

    Call `again` to repeat that very operation, under the same number: it happens once in all.
    """

    _again: Callable[[], Any] | None = None

    def again(self) -> Any:
        """Repeat this very operation and return its answer.

        Raises:
            Unavailable: it still cannot be reached; call `again` of the new error.
            RuntimeError: the error has crossed into another process, which has no connection to repeat it on.
        """
        if self._again is None:
            raise RuntimeError("this operation can only be repeated in the process that began it")
        return self._again()

    def __reduce__(self) -> tuple[Any, ...]:
        state = {name: value for name, value in self.__dict__.items() if name != "_again"}
        return (_rebuild, (type(self), self.args, state))


class SessionLost(Unavailable):
    """Unknown for good: this client was silent while others took its place in the queue's memory."""


class Fenced(OsqueueError):
    """Another broker has taken the queue over; this one answers nobody any more."""


class QueueLocked(OsqueueError):
    """Another process has the queue open.

    Attributes:
        pid: the holder's process id, or None when it could not be read.
        host: the holder's host name, or None.
    """

    pid: int | None = None
    host: str | None = None


class Corrupt(OsqueueError):
    """A stored object is damaged or missing.

    Attributes:
        key: the object's key, or its path.
    """

    key: str | None = None


class JobFailed(OsqueueError):
    """A job ended without success.

    Attributes:
        job_id: its id.
        error_type: the name of the class that its handler raised, or of what befell it.
        traceback: the remote traceback, as text; may be empty.
        attempts: how many attempts were charged.
    """

    job_id: int = 0
    error_type: str = ""
    traceback: str = ""
    attempts: int = 0

    def __str__(self) -> str:
        text = super().__str__()
        if not self.traceback:
            return text
        return f"{text}\n\nremote traceback:\n{self.traceback.rstrip()}"


class WorkerCrashed(JobFailed):
    """The job's last worker died under it: a signal, an exit, out of memory."""


class JobTimeout(JobFailed, TimeoutError):
    """The job ran longer than its timeout."""


class JobCancelled(JobFailed, concurrent.futures.CancelledError):
    """The job was cancelled."""


class PoolBroken(OsqueueError, concurrent.futures.BrokenExecutor):
    """Workers cannot start; the message holds the last reason."""


class Retry(OsqueueError):
    """Raised by a handler: this attempt failed, run the job again after ``delay`` seconds.

    Args:
        delay: seconds until the next attempt; None for the queue's own back-off.
        reason: kept with the job's errors.
    """

    def __init__(self, reason: str = "", *, delay: float | None = None) -> None:
        super().__init__(reason)
        self.delay = delay


class Discard(OsqueueError):
    """Raised by a handler: the job is dead at once, whatever attempts are left.

    Args:
        reason: kept with the job's errors.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)


class SoftTimeout(OsqueueError):
    """Raised inside a handler that has run for ``soft_timeout`` seconds, once for each attempt.

    Catch it to clean up, and return a result: the job then succeeds. Uncaught it fails the attempt, as any exception
    does. A job that dies of it has a `JobTimeout` for its error.
    """
